"""Grids of times, rows of a sampler, draws of training."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, times
from ncsn_tf.sde import VE


def test_uniform_times_on_the_ve_sde_are_geometric_noise_levels():
    sigmas = VE(sigma_max=1.0, sigma_min=0.01).marginal(times.uniform(10))[1]
    np.testing.assert_allclose(sigmas, np.geomspace(1.0, 0.01, 10), rtol=1e-6)


@pytest.mark.parametrize("grid", [[], [[1.0, 0.0]], [0.0, 1.0], [1.0, 1.0], [1.5, 0.0], [1.0, np.nan], [0.5, -0.1]])
def test_an_invalid_grid_is_refused(grid):
    with pytest.raises(ValueError, match="Received"):
        times.check(np.array(grid))


def test_one_level_is_refused_and_two_are_enough():
    with pytest.raises(ValueError, match="num_levels=1"):
        times.uniform(1)
    np.testing.assert_array_equal(times.uniform(2), [1.0, 0.0])


def test_a_subsampled_grid_keeps_its_ends_and_is_evenly_spread():
    grid = times.uniform(10)
    np.testing.assert_array_equal(times.subsample(grid, 4), grid[[0, 3, 6, 9]])
    np.testing.assert_array_equal(times.subsample(grid, 2), grid[[0, -1]])
    np.testing.assert_array_equal(times.subsample(grid, 10), grid)
    assert times.subsample(grid, 7).dtype == np.float32
    for number in (1, 11):
        with pytest.raises(ValueError, match=f"a grid of 10 levels.* num_levels={number}"):
            times.subsample(grid, number)


def test_rows_walk_along_a_grid_or_stay_at_its_times():
    grid = np.array([1.0, 0.4, 0.0], np.float32)
    np.testing.assert_array_equal(times.pairs(grid), np.float32([[1.0, 0.4], [0.4, 0.0]]))
    rows = times.repeat_times(grid, 2)
    np.testing.assert_array_equal(rows, np.float32([[1, 1], [1, 1], [0.4, 0.4], [0.4, 0.4], [0, 0], [0, 0]]))
    np.testing.assert_array_equal(times.repeat_times(grid, tf.constant(2)), rows)
    np.testing.assert_array_equal(times.repeat_times(np.zeros(3), 1), np.zeros([3, 2]))
    with pytest.raises(ValueError, match="2 or more times"):
        times.pairs(grid[:1])
    with pytest.raises(ValueError, match="must not increase"):
        times.repeat_times(grid[::-1], 2)


@pytest.mark.parametrize("steps", [0, -1])
def test_empty_schedules_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps_per_level={steps}"):
        times.repeat_times(times.uniform(4), steps)


def test_levels_are_equally_likely_and_are_their_own_bins():
    grid = times.uniform(4)
    draw = times.Levels(grid, ("a", "b", "c", "d"))
    seeds = random.per_example(random.seed(1), tf.range(8_000))
    t, bins = draw(seeds)
    np.testing.assert_array_equal(t, grid[bins.numpy()])
    counts = np.bincount(bins, minlength=4)
    assert np.abs(counts - 2_000).max() < 4 * np.sqrt(8_000 * 0.25 * 0.75)
    np.testing.assert_array_equal(draw(seeds[5:7])[0], t[5:7])  # a draw depends on its seed alone
    with pytest.raises(ValueError, match="levels need . names"):
        times.Levels(grid, ("a",))


def test_uniform_times_fill_their_bins():
    draw = times.Uniform(first_time=0.2, num_bins=4)
    t, bins = (value.numpy() for value in draw(random.per_example(random.seed(1), tf.range(8_000))))
    assert t.min() >= 0.2 and t.max() < 1.0
    np.testing.assert_array_equal(bins, np.floor((t - 0.2) / 0.2 + 1e-6))
    assert abs(t.mean() - 0.6) < 4 * 0.8 / np.sqrt(12 * 8_000)
    assert len(draw.bins) == 4 and draw.bins[0] == "bin_00_t_0.3"
    for wrong in ({"first_time": 1.0}, {"first_time": -0.1}, {"first_time": 0.0, "num_bins": 0}):
        with pytest.raises(ValueError, match="Uniform times need"):
            times.Uniform(**wrong)
