"""Fitted grids: against a scan of all grids of two steps, and never worse than those with names."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, samplers, times
from ncsn_tf.samplers import fitting
from ncsn_tf.sde import VE, VP
from tests.support import laws
from tests.support.oracles import Cosine


def starts(sde, count, shape=(3,)):
    return sde.prior_sample(random.per_example(random.seed(0), tf.range(count)), shape)


def test_two_steps_are_fitted_as_well_as_a_scan_of_their_middle_finds():
    """The end of Gaussian data's flow is known: x sqrt(V_0 / V_1), but for the noise that Tweedie's formula removes."""
    sde, last = VP(), 1e-3
    x, score_fn = starts(sde, 16), laws.exact_score(sde, 0.5)
    found = fitting.fit_grid("ddim", score_fn, sde, x, 2, last_time=last)
    alpha = float(sde.marginal(tf.constant([last]))[0][0])
    before, after = laws.variance(sde, 0.5, 1.0)[0], laws.variance(sde, 0.5, last)[0]
    ends = x * np.sqrt(after / before) * alpha * 0.25 / after  # E[x_0 | x_t] = alpha s^2 / V x_t

    def error(middle, part):
        grid = np.array([1.0, middle, last], np.float32)
        drawn = samplers.make("ddim", sde, 2, grid=grid)(score_fn, x[part], tf.zeros([8, 2], tf.int32)).x
        return float(np.sqrt(np.mean((drawn - ends[part]) ** 2, axis=1)).mean())

    scanned = min(error(middle, slice(0, 8)) for middle in np.linspace(0.02, 0.98, 49))
    assert found.errors["fitted"] < 1.05 * scanned + 1e-4
    assert found.checked["fitted"] == pytest.approx(error(found.grid[1], slice(8, 16)), abs=1e-4)
    assert found.errors["fitted"] < 0.8 * min(found.errors[name] for name in times.GRIDS)


@pytest.mark.parametrize("name", ["heun", "unipc"])
def test_a_fitted_grid_is_a_grid_and_no_worse_than_those_with_names(name):
    sde = VE(sigma_max=20.0, sigma_min=0.01)
    calls = []
    found = fitting.fit_grid(
        name, laws.exact_score(sde, 0.5), sde, starts(sde, 8), 4, last_time=1e-3, on_walk=lambda: calls.append(1)
    )
    np.testing.assert_array_equal(times.check(found.grid), found.grid)
    assert len(found.grid) == 5 and found.grid[0] == 1.0 and found.grid[-1] == np.float32(1e-3)
    assert found.errors["fitted"] <= min(found.errors.values()) and set(found.checked) == {*times.GRIDS, "fitted"}
    assert 0.0 < found.checked["fitted"] < min(found.checked[name] for name in times.GRIDS)
    assert len(calls) <= fitting.walks(4)


def test_an_sde_without_a_signal_at_the_start_has_the_uniform_grid_alone():
    sde = Cosine(angle=0.499999 * np.pi)
    found = fitting.fit_grid("ddim", laws.exact_score(sde, 0.5), sde, starts(sde, 4), 1, last_time=0.01)
    assert "uniform" in found.errors and list(found.grid) == [1.0, np.float32(0.01)]


@pytest.mark.parametrize(
    ("name", "count", "steps", "message"),
    [
        ("ancestral", 8, 4, "follow the probability flow: ddim, .*Received: ancestral"),
        ("heun", 1, 4, "two or more samples"),
        ("heun", 8, 0, "num_steps=0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(name, count, steps, message):
    with pytest.raises(ValueError, match=message):
        fitting.fit_grid(name, lambda x, t: -x, VP(), starts(VP(), count), steps, last_time=1e-3)


def test_churn_has_no_flow_to_be_fitted_to():
    with pytest.raises(ValueError, match="which has no noise. Received: churn=1.0"):
        options = {"churn": 1.0}
        fitting.fit_grid("heun", lambda x, t: -x, VP(), starts(VP(), 4), 2, last_time=1e-3, options=options)


def test_scores_that_are_not_finite_are_reported():
    with pytest.raises(ArithmeticError, match="fine solution does not converge"):
        fitting.fit_grid("ddim", lambda x, t: x * np.nan, VP(), starts(VP(), 4), 2, last_time=1e-3)
