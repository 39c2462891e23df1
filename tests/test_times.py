"""Grids of noise levels."""

import numpy as np
import pytest

from ncsn_tf import times
from ncsn_tf.sde import VE


def test_uniform_times_on_the_ve_sde_are_geometric_noise_levels():
    sigmas = VE(1.0, 0.01).marginal(times.uniform(10))[1]
    np.testing.assert_allclose(sigmas, np.geomspace(1.0, 0.01, 10), rtol=1e-6)


@pytest.mark.parametrize("grid", [[], [[1.0, 0.0]], [0.0, 1.0], [1.0, 1.0], [1.5, 0.0], [1.0, np.nan], [0.5, -0.1]])
def test_what_is_no_grid_is_refused(grid):
    with pytest.raises(ValueError, match="Received"):
        times.check(np.array(grid))


def test_one_level_is_refused_and_two_are_enough():
    with pytest.raises(ValueError, match="num_levels=1"):
        times.uniform(1)
    np.testing.assert_array_equal(times.uniform(2), [1.0, 0.0])


def test_a_thinned_grid_keeps_its_ends_and_is_evenly_spread():
    grid = times.uniform(10)
    np.testing.assert_array_equal(times.subsample(grid, 4), grid[[0, 3, 6, 9]])
    np.testing.assert_array_equal(times.subsample(grid, 2), grid[[0, -1]])
    np.testing.assert_array_equal(times.subsample(grid, 10), grid)
    assert times.subsample(grid, 7).dtype == np.float32
    for number in (1, 11):
        with pytest.raises(ValueError, match=f"Of 10 levels .* num_levels={number}"):
            times.subsample(grid, number)
