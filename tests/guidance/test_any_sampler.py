"""Inpainting with every sampler that takes fixed steps: the start, what is read of hidden pixels, orders, batches."""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, samplers, times
from ncsn_tf.guidance import inpainting
from ncsn_tf.samplers import driver, langevin, methods
from ncsn_tf.sde import VE, VP
from tests.support import affine

SDE = VP()
DATA = affine.example((1, 3, 1))
KNOWN = np.array([True, False, False]).reshape(1, 1, 3, 1)


def start(images, known, sde=SDE, completions=2):
    prior = sde.prior_sample
    count = tf.range(len(images) * completions)
    return inpainting.start(count, images, known, prior, run_seed=3, completions=completions)


def some_images(hidden):
    """Two images with the same known pixels, and other pixels as given."""
    images = np.full([2, 1, 3, 1], hidden, np.float32)
    images[:, :, 0] = np.array([0.7, -0.4]).reshape(2, 1, 1)
    return images, np.repeat(KNOWN, 2, axis=0)


@pytest.fixture
def annealed(unoptimized_graphs):
    """Annealed Langevin dynamics on four levels, in graphs whose operations are those that were written."""
    grid, sde = times.uniform(4), VE(sigma_max=1.0, sigma_min=0.1)
    size = langevin.annealed(sde, 4e-3)
    sampler = driver.FixedSteps(sde, langevin.Langevin(size), times.repeat_times(grid, 3), segments=4)
    return sde, grid, size, sampler


@pytest.mark.parametrize("reference", ["level", "step"])
def test_annealed_langevin_dynamics_is_algorithm_2_bit_for_bit(annealed, reference):
    """Against the algorithm written down again, which begins with the prior alone and draws the noise by hand."""
    sde, grid, size, sampler = annealed
    images, known = some_images(0.2)
    score_fn = DATA.score_fn(sde)
    seeds, x, given = start(images, known, sde)
    found = sampler(score_fn, x, seeds, inpainting.Inpainting(sde, reference), given).x

    @tf.function
    def one_step(x, t, k):
        times_of_rows = tf.fill([4], t)
        step_seeds = random.fold_each(seeds, random.Stream.SAMPLER_STEP, k)
        a = tf.reshape(size(times_of_rows), [-1, 1, 1, 1])
        x = x + 0.5 * a * score_fn(x, times_of_rows) + tf.sqrt(a) * random.normal(step_seeds, (1, 3, 1))
        if reference == "level":
            own = random.fold_each(seeds, random.Stream.REFERENCE, tf.bitcast(t, tf.int32))
        else:
            own = random.fold_each(step_seeds, random.Stream.REFERENCE)
        sigma = tf.reshape(sde.marginal(times_of_rows)[1], [-1, 1, 1, 1])
        return tf.where(given[1], given[0] + sigma * random.normal(own, (1, 3, 1)), x)

    for k, t in enumerate(np.repeat(grid, 3)):
        x = one_step(x, tf.constant(t), tf.constant(k))
    np.testing.assert_array_equal(found, x)


OPTIONS = {"predictor_corrector": {"corrector": "annealed"}, "heun": {"churn": 1.0}}


@functools.cache
def made(name):
    return samplers.make(name, SDE, 6, grid="log_snr", **OPTIONS.get(name, {}))


def complete(name, hidden, rows=slice(None), score_fn=DATA.score_fn(SDE), guidance=inpainting.Inpainting(SDE)):  # noqa: B008
    seeds, x, given = start(*some_images(hidden))
    found = made(name)(score_fn, x[rows], seeds[rows], guidance, tuple(part[rows] for part in given))
    return inpainting.put_back(found.x, tuple(part[rows] for part in given)).numpy()


@pytest.mark.parametrize("name", methods.STEPS)
def test_no_hidden_pixel_and_no_other_row_has_a_part_in_a_completion(name):
    whole = complete(name, 0.2)
    assert np.isfinite(whole).all() and len(np.unique(whole[:, 0, 1, 0])) == 4
    np.testing.assert_array_equal(whole[:, 0, 0, 0], np.float32([0.7, 0.7, -0.4, -0.4]))
    for hidden in (-0.9, np.nan):
        np.testing.assert_array_equal(complete(name, hidden), whole)
    np.testing.assert_allclose(complete(name, 0.2, slice(2, 3)), whole[2:3], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", methods.STEPS)
def test_unknown_pixels_follow_what_is_known(name):
    """Pixel 1 is correlated with pixel 0: where the known value is raised, it is higher than without guidance."""
    whole = complete(name, 0.0)
    difference = (whole[0] - whole[2])[0, :, 0], (whole[1] - whole[3])[0, :, 0]
    plain = made(name)(DATA.score_fn(SDE), *reversed(start(*some_images(0.0))[:2])).x.numpy()
    moved = [d[1] - (plain[i] - plain[j])[0, 1, 0] for d, (i, j) in zip(difference, ((0, 2), (1, 3)), strict=True)]
    slope = DATA.covariance[1, 0] / DATA.covariance[0, 0]
    known = 1.1 - np.array([(plain[i] - plain[j])[0, 0, 0] for i, j in ((0, 2), (1, 3))])
    assert np.all(np.sign(moved) == np.sign(slope * known))


class Watched(inpainting.Inpainting):
    """Inpainting that records the points at which the score is evaluated."""

    def score(self, score_fn, sde, given):
        recorder: Any = self.noise

        def watching(x, t):
            tf.py_function(lambda x: recorder.seen.append(x.numpy()), [x], [])
            return score_fn(x, t)

        return watching


class Recorder:
    def __init__(self):
        self.seen = []

    def __call__(self, seeds, shape):
        return random.normal(seeds, shape)

    def __hash__(self):
        return id(self)


@pytest.mark.parametrize("reference", ["walk", "level", "step"])
def test_a_walk_begins_with_the_noisy_known_pixels(reference):
    """On VE with little noise at t=1, where pure noise would lack what is given; hidden pixels keep their start."""
    sde, count = VE(sigma_max=0.5, sigma_min=0.01), 400
    images, known = np.full([1, 1, 3, 1], 0.8, np.float32), KNOWN
    seeds, x, given = start(images, known, sde, completions=count)
    noise = Recorder()
    sampler = samplers.make("ddim", sde, 3)
    sampler(DATA.score_fn(sde), x, seeds, Watched(sde, reference, noise), given)
    first = noise.seen[0]
    np.testing.assert_array_equal(first[:, :, 1:], x[:, :, 1:])
    z = (first[:, 0, 0, 0] - 0.8) / 0.5
    assert abs(z.mean()) < 4.0 / np.sqrt(count) and abs(z.var() - 1.0) < 4.0 * np.sqrt(2.0 / count)
    assert abs(np.corrcoef(z, x[:, 0, 0, 0])[0, 1]) < 4.0 / np.sqrt(count)
    again = (noise.seen[1][:, 0, 0, 0] - 0.8) / sde.marginal(tf.constant([0.667]))[1].numpy()
    assert np.allclose(z, again, atol=0.05) == (reference == "walk")


def test_langevin_dynamics_keeps_its_start(annealed):
    sde, _, _, sampler = annealed
    seeds, x, given = start(*some_images(0.2), sde)
    noise = Recorder()
    sampler(DATA.score_fn(sde), x, seeds, Watched(sde, "level", noise), given)
    np.testing.assert_array_equal(noise.seen[0], x)


# Orders


def flow(name, num_steps, **options):
    """The unknown pixels at the end of a walk along one noisy path of the known pixel, in float64."""
    first, last = 10.0, 0.05
    grid = SDE.time(tf.constant(np.geomspace(first, last, num_steps + 1))).numpy()
    images, known = some_images(0.0)
    given = tf.constant(images, tf.float64), tf.constant(known)
    fixed = lambda seeds, shape: tf.constant(0.6, tf.float64) * tf.ones([2, *shape], tf.float64)  # noqa: E731
    guidance, step = inpainting.Inpainting(SDE, "walk", fixed), methods.step(name, SDE, num_steps, **options)
    score_fn, nowhere = DATA.score_fn(SDE), tf.zeros([2, 2], tf.int32)
    seeds = driver.StepSeeds(nowhere, nowhere, tf.constant(0))

    @tf.function
    def walk():
        project = lambda x, t: guidance.project(x, x, tf.fill([2], t), seeds, given)[0]  # noqa: E731
        x = project(tf.constant(np.linspace(-1.0, 1.0, 6).reshape(2, 1, 3, 1)), tf.constant(grid[0]))
        state, table = step.start(x), tf.constant(times_of(grid))

        def body(k, x, state):
            x, _, state = step(score_fn, x, tf.fill([2], table[k, 0]), tf.fill([2], table[k, 1]), nowhere, state)
            return k + 1, project(x, table[k, 1]), state

        return tf.while_loop(lambda k, *_: k < num_steps, body, (0, x, state))[1]

    return walk().numpy()[:, 0, 1:, 0]


def times_of(grid):
    return np.stack([grid[:-1], grid[1:]], axis=1)


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("ddim", {}, 1),
        ("dpm_solver", {}, 2),
        ("adams_bashforth", {"order": 3}, 3),
        ("unipc", {"order": 1}, 2),
        ("unipc", {"order": 2}, 3),
        ("heun", {}, 1),
        ("reverse_diffusion", {"flow": True}, 1),
    ],
)
def test_multistep_methods_keep_their_order_where_the_known_pixels_move_smoothly(name, options, order):
    """Their history is that of points on the path. Heun's second point is not on it, which costs its second order."""
    ends = [flow(name, count, **options) for count in (40, 80, 160)]
    coarse, fine = (np.abs(ends[k] - ends[k + 1]).max() for k in (0, 1))
    assert order - 0.4 < np.log2(coarse / fine) < order + 0.5
