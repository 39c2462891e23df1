"""Interpolation: its ends are samples, its points are distributed like samples, and neighbours are near."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, times
from ncsn_tf.guidance import interpolation
from ncsn_tf.samplers import blocks, driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian, standard_error_of_variance

SDE = VE(sigma_max=1.0, sigma_min=0.01)
DATA = Gaussian(0.4, 0.3)
TIMES = times.uniform(4)
SHAPE = (5, 4, 1)
POINTS = 6


def score_fn(x, t):
    return DATA.score_fn(lambda t: SDE.marginal(t)[1])(x, t)


def draw(noise, start, count, block):
    step = langevin.Langevin(langevin.annealed(SDE, 4e-5), noise)
    sampler = driver.FixedSteps(SDE, step, times.repeat_times(TIMES, 5))
    drawn_by = blocks.BlockSampler(sampler, score_fn, start, block=block, strategy=tf.distribute.get_strategy())
    return drawn_by.draw_rows(count)["x"]


@pytest.mark.parametrize("plain", [driver.uniform_prior, SDE.prior_sample], ids=["uniform", "normal"])
def test_the_ends_of_a_path_are_samples_and_paths_do_not_depend_on_their_batch(plain):
    samples = draw(random.normal, lambda n: blocks.start_samples(n, plain, SHAPE, run_seed=3), 4, 4)
    prior, noise = interpolation.mixed_prior(plain, POINTS), interpolation.noise(POINTS)

    def start(numbers):
        return interpolation.start(numbers, prior, SHAPE, run_seed=3, points=POINTS)

    paths = draw(noise, start, 2 * POINTS, 2 * POINTS).reshape(2, POINTS, *SHAPE)
    np.testing.assert_allclose(draw(noise, start, 2 * POINTS, POINTS).reshape(paths.shape), paths, atol=2e-6)
    np.testing.assert_allclose(paths[:, [0, -1]].reshape(samples.shape), samples, atol=2e-6)
    for x in paths:
        ends = np.linalg.norm(x[0] - x[-1])
        assert all(np.linalg.norm(a - b) < 0.6 * ends for a, b in zip(x[:-1], x[1:], strict=True))


def test_mixed_noise_is_standard_normal_and_correlated_as_the_cosine_of_the_angle():
    count = 4000
    rows = random.per_example(random.seed(0), tf.range(POINTS * count))
    z = interpolation.noise(POINTS)(rows, (2,)).numpy().reshape(count, POINTS, 2).transpose(1, 0, 2).reshape(POINTS, -1)
    size = 2 * count
    assert np.abs(z.mean(axis=1)).max() < 4.0 / np.sqrt(size)
    assert np.abs(z.var(axis=1) - 1.0).max() < 4.0 * standard_error_of_variance(1.0, size)
    angles = np.linspace(0.0, np.pi / 2.0, POINTS)
    expected = np.cos(angles[:, None] - angles[None])
    error = np.sqrt((1.0 + expected**2) / size)
    assert np.all(np.abs(z @ z.T / size - expected) < 4.0 * error)


def test_a_mixed_uniform_start_is_uniform():
    rows = random.per_example(random.seed(1), tf.range(3 * 5000))
    u = interpolation.mixed_prior(driver.uniform_prior, 3)(rows, (1,)).numpy().reshape(-1, 3)
    assert u.min() >= 0.0 and u.max() < 1.0
    counts = np.stack([np.histogram(column, 20, (0.0, 1.0))[0] for column in u.T])
    assert np.abs(counts - 250.0).max() < 4.5 * np.sqrt(250.0 * 0.95)
    plain = driver.uniform_prior(rows, (1,)).numpy().reshape(-1, 3)
    np.testing.assert_array_equal(u[:, [0, 2]], plain[:, [0, 2]])


@pytest.mark.parametrize("make", [interpolation.noise, lambda points: interpolation.mixed_prior(None, points)])
def test_a_path_of_one_point_is_refused(make):
    with pytest.raises(ValueError, match="points=1"):
        make(1)


def test_a_spherical_path_turns_evenly_and_keeps_its_length():
    first, last = np.array([[3.0, 0.0], [1.0, 2.0]], np.float32), np.array([[0.0, 3.0], [2.0, 4.0]], np.float32)
    paths = interpolation.spherical(first, last, 4)
    assert paths.shape == (2, 4, 2) and paths.dtype == np.float32
    angles = np.linspace(0.0, np.pi / 2.0, 4)
    np.testing.assert_allclose(paths[0], 3.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1), atol=1e-6)
    np.testing.assert_allclose(paths[1], np.linspace(first[1], last[1], 4), rtol=1e-6)  # parallel: a straight line
    codes = np.random.default_rng(0).normal(size=(2, 5, *SHAPE)).astype(np.float32)
    paths = interpolation.spherical(codes[0], codes[1], 3)
    np.testing.assert_array_equal(paths[:, 0], codes[0])
    np.testing.assert_array_equal(paths[:, -1], codes[1])
    with pytest.raises(ValueError, match="points=1"):
        interpolation.spherical(codes[0], codes[1], 1)
