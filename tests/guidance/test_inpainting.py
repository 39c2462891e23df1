"""Inpainting, checked against the conditional Gaussian in closed form; known pixels stay; rows are independent."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import score, times
from ncsn_tf.guidance import inpainting
from ncsn_tf.samplers import blocks, driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import standard_error_of_variance

SDE = VE(sigma_max=1.0, sigma_min=0.15)
TIMES = times.uniform(6)
EPSILON = 0.02
STEP = langevin.Langevin(langevin.annealed(SDE, EPSILON))
MEAN, COVARIANCE = 0.4, np.array([[0.09, 0.072], [0.072, 0.09]])
KNOWN = np.array([True, False]).reshape(1, 1, 2, 1)


def pair_score(x, t):
    """The exact score of two correlated pixels, N(m, S + sigma^2 I)."""
    sigma = SDE.marginal(t)[1][:, None, None]
    precision = tf.linalg.inv(tf.constant(COVARIANCE, tf.float32) + sigma**2 * tf.eye(2))
    return tf.reshape(-tf.linalg.matvec(precision, tf.reshape(x, [-1, 2]) - MEAN), tf.shape(x))


def sampler(steps=40, **options):
    options = {"segments": len(TIMES), **options}
    return driver.FixedSteps(SDE, STEP, times.repeat_times(TIMES, steps), **options)


def complete(
    made,
    images,
    known,
    *,
    reference="level",
    score_fn=pair_score,
    completions=1,
    batch_size=None,
    run_seed=0,
    **options,
):
    count = len(images) * completions

    def start(numbers):
        return inpainting.start(
            numbers, images, known, driver.uniform_prior, run_seed=run_seed, completions=completions
        )

    drawn_by = blocks.BlockSampler(
        made,
        score_fn,
        start,
        block=batch_size or count,
        strategy=tf.distribute.get_strategy(),
        guidance=inpainting.Inpainting(SDE, reference),
        end=inpainting.put_back,
    )
    return drawn_by.draw_rows(count, **options)["x"]


@pytest.mark.parametrize("reference", ["level", "step"])
def test_unknown_pixels_follow_their_conditional_distribution(reference):
    """Mean and variance of x_2 | x_1 under Langevin steps of this size, for one y per level and for one per step."""
    given, count, sigma = 0.9, 6000, 0.15
    images = np.full([1, 1, 2, 1], given, np.float32)
    x = complete(sampler(jit_compile=True), images, KNOWN, reference=reference, completions=count)
    (c11, c12), (_, c22) = COVARIANCE + sigma**2 * np.eye(2)
    slope, conditional = c12 / c11, c22 - c12**2 / c11
    shrink = 1.0 - EPSILON / (2.0 * conditional)
    own = EPSILON / (1.0 - shrink**2)
    followed = (1.0 - shrink) ** 2 / (1.0 - shrink**2) if reference == "step" else 1.0
    variance = own + followed * (slope * sigma) ** 2
    unknown = x[:, 0, 1, 0].astype(np.float64)
    assert abs(unknown.mean() - (MEAN + slope * (given - MEAN))) < 4.0 * np.sqrt(variance / count)
    assert abs(unknown.var(ddof=1) - variance) < 4.0 * standard_error_of_variance(variance, count)


@pytest.mark.parametrize("reference", ["level", "step"])
def test_known_pixels_have_the_noise_of_the_level_and_are_returned_exactly(reference):
    images = np.random.default_rng(0).random([400, 4, 4, 3], np.float32)
    known = np.zeros([400, 4, 4, 1], bool)
    known[:, :, :2] = True
    frames = []
    zero = lambda x, t: tf.zeros_like(x)  # noqa: E731
    options = {"reference": reference, "score_fn": zero, "on_frame": lambda first, level, x: frames.append(x)}
    x = complete(sampler(steps=1), images, known, **options)
    np.testing.assert_array_equal(x[:, :, :2], images[:, :, :2])
    assert np.all(x[:, :, 2:] != images[:, :, 2:])
    for frame, sigma in zip(frames, SDE.marginal(TIMES)[1].numpy(), strict=True):
        noise_of_known = (frame - images)[:, :, :2].ravel()
        assert abs(noise_of_known.mean()) < 4.0 * sigma / np.sqrt(noise_of_known.size)
        assert abs(noise_of_known.var() / sigma**2 - 1.0) < 4.0 * np.sqrt(2.0 / noise_of_known.size)
    parts = [(frame - images)[:, :, :2].ravel() for frame in frames]
    together = np.corrcoef(parts) - np.eye(len(parts))
    assert np.abs(together).max() < 5.0 / np.sqrt(parts[0].size), "levels must draw noises of their own"


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize(("reference", "alike"), [("level", True), ("step", False)])
def test_a_noisy_reference_is_drawn_once_per_level_or_per_step(reference, alike, moving):
    """Also on a schedule whose time moves within a level: there z stays and sigma changes."""
    grid = times.uniform(5)
    rows = times.pairs(grid) if moving else times.repeat_times(TIMES[-2:], 2)
    images = np.full([2, 1, 2, 1], 0.5, np.float32)
    noises = []

    class Watched(inpainting.Inpainting):
        def project(self, x, mean, t, seeds, given):
            x, mean = super().project(x, mean, t, seeds, given)
            z = (x - given[0])[:, 0, 0, 0] / self.sde.marginal(t)[1]
            tf.py_function(lambda z: noises.append(z.numpy()), [z], [])
            return x, mean

    seeds, x, given = inpainting.start(
        tf.range(2), images, np.repeat(KNOWN, 2, 0), driver.uniform_prior, run_seed=0, completions=1
    )
    driver.FixedSteps(SDE, STEP, rows, segments=2)(
        lambda x, t: tf.zeros_like(x), x, seeds, Watched(SDE, reference), given
    )
    noises = noises[-4:]  # without that of the start, which a moving walk has
    same = lambda a, b: np.allclose(a, b, rtol=1e-3)  # noqa: E731
    assert same(noises[0], noises[1]) == alike and same(noises[2], noises[3]) == alike
    assert not same(noises[1], noises[2]) and not np.isclose(noises[0][0], noises[0][1])


def test_a_completion_depends_only_on_seed_image_and_its_number():
    images = np.random.default_rng(1).random([3, 1, 2, 1], np.float32)
    known = np.repeat(KNOWN, 3, 0)
    made = sampler(steps=3)
    whole = complete(made, images, known, completions=2)
    assert len(np.unique(whole[:, 0, 1, 0])) == 6
    for batch_size in (4, 1):
        np.testing.assert_allclose(
            complete(made, images, known, completions=2, batch_size=batch_size), whole, atol=2e-6
        )
    np.testing.assert_allclose(complete(made, images[:2], known[:2], completions=2), whole[:4], atol=2e-6)
    np.testing.assert_allclose(complete(made, images, known, completions=5)[::5], whole[::2], atol=2e-6)
    compiled = sampler(steps=3, jit_compile=True)
    np.testing.assert_allclose(complete(compiled, images, known, completions=2), whole, atol=5e-6)
    assert not np.allclose(complete(made, images, known, completions=2, run_seed=1)[:, 0, 1], whole[:, 0, 1])
    hidden = images.copy()
    hidden[:, :, 1] = np.nan
    np.testing.assert_array_equal(complete(made, hidden, known, completions=2), whole)


def test_inpainting_ends_with_a_denoising_step_if_the_sampler_does():
    images = np.full([1, 1, 2, 1], 0.5, np.float32)
    seeds, x, given = inpainting.start(tf.range(1), images, KNOWN, driver.uniform_prior, run_seed=0, completions=1)
    samples = sampler(steps=2, finish=score.denoise)(pair_score, x, seeds, inpainting.Inpainting(SDE), given)
    np.testing.assert_array_equal(samples.evaluations, [2 * len(TIMES) + 1])
    assert inpainting.put_back(samples.x, given)[0, 0, 0, 0] == 0.5


IMAGES = np.full([2, 4, 4, 1], 0.5, np.float32)
HALF = np.zeros([2, 4, 4, 1], bool)
HALF[:, :2] = True


@pytest.mark.parametrize(
    ("images", "known", "message"),
    [
        (IMAGES[:0], HALF[:0], "Images must be floats"),
        (IMAGES[0], HALF[0], "Images must be floats"),
        ((IMAGES * 255).astype(np.uint8), HALF, "uint8"),
        (IMAGES * 255, HALF, "127.5"),
        (IMAGES - 1.0, HALF, "-0.5"),
        (np.full_like(IMAGES, np.nan), HALF, "NaN"),
        (IMAGES, HALF[:1], r"\(1, 4, 4, 1\)"),
        (IMAGES, HALF.astype(np.float32), "float32"),
        (IMAGES, HALF[:, :3], r"\(2, 3, 4, 1\)"),
        (IMAGES, np.zeros_like(HALF), "image 0 has no known pixel"),
        (IMAGES, np.ones_like(HALF), "image 0 has no unknown pixel"),
    ],
)
def test_invalid_images_and_masks_are_refused(images, known, message):
    with pytest.raises(ValueError, match=message):
        inpainting.check(images, known)


def test_an_unknown_reference_is_refused():
    with pytest.raises(ValueError, match="once per walk, level, step. Received: 'always'"):
        inpainting.Inpainting(SDE, "always")
