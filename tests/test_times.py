"""Grids of times, rows of a sampler, draws of training."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from ncsn_tf import random, time_draws, times
from ncsn_tf.sde import VE, VP, SubVP, noise_ratio


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
    draw = time_draws.Levels(grid, ("a", "b", "c", "d"))
    seeds = random.per_example(random.seed(1), tf.range(8_000))
    t, bins = draw(seeds)
    np.testing.assert_array_equal(t, grid[bins.numpy()])
    counts = np.bincount(bins, minlength=4)
    assert np.abs(counts - 2_000).max() < 4 * np.sqrt(8_000 * 0.25 * 0.75)
    np.testing.assert_array_equal(draw(seeds[5:7])[0], t[5:7])  # a draw depends on its seed alone
    for wrong in ((), ("a",) * 5):
        with pytest.raises(ValueError, match="4 levels need 1 to 4 bins"):
            time_draws.Levels(grid, wrong)


def test_levels_may_share_bins():
    draw = time_draws.Levels(times.uniform(5), ("a", "b"))
    t, bins = draw(random.per_example(random.seed(1), tf.range(500)))
    level = np.round((1.0 - t.numpy()) * 4).astype(int)
    np.testing.assert_array_equal(bins, np.array([0, 0, 0, 1, 1])[level])


def test_a_grid_may_end_before_the_data():
    np.testing.assert_allclose(times.uniform(5, 0.2), [1.0, 0.8, 0.6, 0.4, 0.2])
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="last time of a grid"):
            times.uniform(5, wrong)


@pytest.mark.parametrize("count", [30, 1000])
def test_the_levels_of_ddpm_are_times_of_the_vp_sde(count):
    """alpha^2 is the product of 1 - beta_j, in float64; what exceeds the SDE's last level is left out."""
    signal = np.cumprod(1.0 - np.linspace(0.1, 20.0, count) / count)
    grid = times.ddpm(count, beta_min=0.1, beta_max=20.0)
    alpha, sigma = (part.numpy() for part in VP().marginal(tf.constant(grid, tf.float64)))
    np.testing.assert_allclose(alpha[::-1] ** 2, signal[: len(grid)], rtol=2e-6)
    np.testing.assert_allclose(sigma[::-1], np.sqrt(1.0 - signal[: len(grid)]), rtol=1e-6)
    assert len(grid) < count and signal[len(grid)] < float(VP().marginal(tf.constant([1.0]))[0][0]) ** 2


@pytest.mark.parametrize(
    ("count", "beta_min", "beta_max"), [(20, 0.1, 20.0), (30, 0.0, 20.0), (30, 2.0, 1.0), (30, 0.1, float("nan"))]
)
def test_impossible_levels_of_ddpm_are_refused(count, beta_min, beta_max):
    with pytest.raises(ValueError, match="0 < beta_min <= beta_max < num_levels"):
        times.ddpm(count, beta_min=beta_min, beta_max=beta_max)


def test_uniform_times_fill_their_bins():
    draw = time_draws.Uniform(first_time=0.2, num_bins=4)
    t, bins = (value.numpy() for value in draw(random.per_example(random.seed(1), tf.range(8_000))))
    assert t.min() >= 0.2 and t.max() < 1.0
    np.testing.assert_array_equal(bins, np.floor((t - 0.2) / 0.2 + 1e-6))
    assert abs(t.mean() - 0.6) < 4 * 0.8 / np.sqrt(12 * 8_000)
    assert len(draw.bins) == 4 and draw.bins[0] == "bin_00_t_0.3"
    for wrong in ({"first_time": 1.0}, {"first_time": -0.1}, {"first_time": 0.0, "num_bins": 0}):
        with pytest.raises(ValueError, match="Times need"):
            time_draws.Uniform(**wrong)


# Log-normal noise, and times that are uniform in log-SNR


SEEDS = tf.stack([tf.range(20_000), tf.ones(20_000, tf.int32)], axis=1)


@pytest.mark.parametrize("sde", [VE(sigma_max=80.0, sigma_min=0.002), VP(), SubVP()])
def test_log_normal_times_have_log_normal_noise_ratios(sde):
    draw = time_draws.LogNormal(1e-5, sde=sde, mean=-0.4, deviation=1.0)
    t, bins = draw(SEEDS)
    logs = np.log(noise_ratio(sde, t))
    assert logs.mean() == pytest.approx(-0.4, abs=4.0 / np.sqrt(20_000))
    assert logs.std() == pytest.approx(1.0, rel=4.0 / np.sqrt(40_000))
    np.testing.assert_array_equal(bins, np.minimum((t.numpy() - 1e-5) / (1.0 - 1e-5) * 10, 9).astype(int))


def test_noise_beyond_the_ends_counts_as_the_ends():
    sde = VE(sigma_max=1.0, sigma_min=0.5)
    t, bins = time_draws.LogNormal(0.0, 4, sde=sde, mean=0.0, deviation=30.0)(SEEDS)
    assert t.numpy().min() == 0.0 and t.numpy().max() == 1.0 and set(bins.numpy()) == {0, 1, 2, 3}


@pytest.mark.parametrize("sde", [VE(sigma_max=80.0, sigma_min=0.002), VP(), SubVP()])
def test_uniform_log_snr_is_the_importance_sampling_of_the_likelihoods_weight(sde):
    """E over these times of sigma^2 F(t) is E over uniform times of g^2 F(t), up to a factor that is known."""
    first = 1e-3
    t, _ = time_draws.LogSNR(first, sde=sde)(SEEDS)
    logs = np.log(noise_ratio(sde, t))
    low, high = np.log(noise_ratio(sde, tf.constant([first, 1.0])))
    assert low - 1e-4 <= logs.min() and logs.max() <= high + 1e-4
    assert logs.mean() == pytest.approx(0.5 * (low + high), abs=float(4.0 * (high - low) / np.sqrt(12 * 20_000)))
    grid = tf.constant(np.linspace(first, 1.0, 200_001))
    f = np.exp(-3.0 * grid.numpy())
    weighted = np.trapezoid(sde.diffusion(grid) ** 2 / sde.marginal(grid)[1] ** 2 * f, grid)
    drawn = np.exp(-3.0 * t.numpy())
    assert 2.0 * (high - low) * drawn.mean() == pytest.approx(
        weighted, abs=float(8.0 * (high - low) * drawn.std() / 141.0)
    )


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: time_draws.LogNormal(1e-5, sde=VP(), deviation=0.0), "positive deviation.*deviation=0.0"),
        (lambda: time_draws.LogNormal(1e-5, sde=VP(), mean=np.nan), "finite mean.*mean=nan"),
        (lambda: time_draws.LogNormal(1.0, sde=VP()), "first_time=1.0"),
        (lambda: time_draws.LogSNR(0.0, sde=VP()), "finite at first_time.*first_time=0.0, with -inf"),
        (lambda: time_draws.LogSNR(0.0, 0, sde=VP()), "1 or more bins"),
    ],
)
def test_impossible_draws_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


# Low discrepancy

POSITIONS = tf.range(977, 977 + 64)
LOW = {
    "uniform": (lambda offset: time_draws.Uniform(0.2, offset=offset), lambda t: (t - 0.2) / 0.8),
    "log_snr": (
        lambda offset: time_draws.LogSNR(1e-2, offset=offset, sde=VE(sigma_max=50.0, sigma_min=0.01)),
        lambda t: (t - 1e-2) / (1.0 - 1e-2),
    ),
    "log_normal": (
        lambda offset: time_draws.LogNormal(0.0, offset=offset, sde=VE(sigma_max=1e3, sigma_min=1e-3)),
        lambda t: scipy.stats.norm.cdf((np.log(1e-3 * 1e6**t) + 1.2) / 1.2),
    ),
}


@pytest.mark.parametrize("name", LOW)
def test_times_of_low_discrepancy_leave_no_wide_gap(name):
    """64 consecutive points of this sequence have gaps of at most 1.618^2 / 64; independent ones have wider ones."""
    make, uniform = LOW[name]
    for seed in (0, 1):
        seeds = random.per_example(random.seed(seed), POSITIONS)
        u = np.sort(uniform(make(0.3)(seeds, POSITIONS)[0].numpy().astype("d")))
        assert np.diff(u, prepend=0.0, append=1.0).max() < 1.618**2 / 64 + 1e-4
        independent = np.sort(uniform(make(None)(seeds, POSITIONS)[0].numpy().astype("d")))
        assert np.diff(independent, prepend=0.0, append=1.0).max() > 1.618**2 / 64 + 1e-4


def test_levels_of_low_discrepancy_are_spread_over_each_batch():
    draw = time_draws.Levels(times.uniform(8), tuple("abcdefgh"), offset=0.9)
    seeds = random.per_example(random.seed(0), POSITIONS)
    assert set(np.bincount(draw(seeds, POSITIONS)[1], minlength=8)) <= {7, 8, 9}


def test_a_time_of_low_discrepancy_depends_on_its_position_alone():
    draw, seeds = time_draws.Uniform(0.0, offset=0.3), random.per_example(random.seed(0), POSITIONS)
    t, bins = draw(seeds, POSITIONS)
    some = draw(tf.zeros_like(seeds)[:5], POSITIONS[20:25])
    np.testing.assert_array_equal(some[0], t[20:25])
    np.testing.assert_array_equal(some[1], bins[20:25])
    far = draw(seeds, tf.constant([2**31 - 1] * 64))[0]
    assert float(far[0]) == pytest.approx((0.3 + (2**31 - 1) * (0x9E3779B9 / 2**32)) % 1.0, abs=1e-6)


def test_wrong_offsets_and_missing_positions_are_refused():
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"offset of a low-discrepancy sequence .*Received: {wrong}"):
            time_draws.Uniform(0.0, offset=wrong)
        with pytest.raises(ValueError, match="offset of a low-discrepancy sequence"):
            time_draws.Levels(times.uniform(3), ("a",), wrong)
    with pytest.raises(ValueError, match="places in the stream. Received: no positions"):
        time_draws.Uniform(0.0, offset=0.5)(SEEDS)
