"""Ancestral sampling: its steps against the papers' formulae, and its law on Gaussian data without Monte Carlo."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import score, times
from ncsn_tf.samplers import ancestral
from ncsn_tf.sde import VE, VP, SubVP
from tests.support.oracles import Cosine

VARIANCE_EXPLODING = VE(sigma_max=50.0, sigma_min=0.01)
SDES = {"ve": VARIANCE_EXPLODING, "vp": VP(), "subvp": SubVP(), "a user's": Cosine()}


def exact_score(sde, deviation):
    """The score of N(0, deviation^2) data, perturbed."""

    def score_fn(x, t):
        alpha, sigma = sde.marginal(t)
        return -x / score.expand((alpha * deviation) ** 2 + sigma**2, x)

    return score_fn


def coefficients(variance, sde, deviation, t, t_next):
    """A and the noise gain of steps from t to t_next, [N], under the Gaussian score: x' = A x + gain z, in float64."""
    step = ancestral.Ancestral(sde, variance, noise=lambda seeds, shape: tf.ones([len(seeds), *shape], tf.float64))
    t, t_next = (tf.constant(np.atleast_1d(value), tf.float64) for value in (t, t_next))
    seeds = tf.zeros([len(t), 2], tf.int32)
    new, at_zero, _ = step(exact_score(sde, deviation), tf.zeros([len(t), 1], tf.float64), t, t_next, seeds, ())
    _, at_one, _ = step(exact_score(sde, deviation), tf.ones([len(t), 1], tf.float64), t, t_next, seeds, ())
    assert not at_zero.numpy().any()
    return at_one.numpy()[:, 0], new.numpy()[:, 0]


def variance_made(step, sde, grid, deviation):
    """The variance of samples, as a multiple of the data's: ancestral steps along a grid, then Tweedie's formula."""
    grid = np.asarray(grid, np.float64)
    variance = sde.sigma_max**2 if isinstance(sde, VE) else 1.0  # the prior's
    for a, gain in zip(*coefficients(step, sde, deviation, grid[:-1], grid[1:]), strict=True):
        variance = a**2 * variance + gain**2
    last = tf.constant([grid[-1]], tf.float64)
    denoised = score.denoise(exact_score(sde, deviation), sde, tf.ones([1, 1], tf.float64), last)
    return variance * float(denoised[0, 0]) ** 2 / deviation**2


@pytest.mark.parametrize(("t", "t_next"), [(1.0, 0.98), (0.5, 0.3)])
def test_a_step_on_ve_is_the_papers(t, t_next):
    """x + (sigma_i^2 - sigma_{i-1}^2) s, and std^2 = sigma_{i-1}^2 (sigma_i^2 - sigma_{i-1}^2) / sigma_i^2."""
    sigma, earlier = (0.01 * 5000.0**time for time in (t, t_next))
    [a], [gain] = coefficients("posterior", VARIANCE_EXPLODING, 0.25, t, t_next)
    assert a == pytest.approx(1.0 - (sigma**2 - earlier**2) / (0.25**2 + sigma**2), rel=1e-9)
    assert gain**2 == pytest.approx(earlier**2 * (sigma**2 - earlier**2) / sigma**2, rel=1e-9)
    _, [gain] = coefficients("transition", VARIANCE_EXPLODING, 0.25, t, t_next)
    assert gain == pytest.approx(np.sqrt(sigma**2 - earlier**2), rel=1e-9)


@pytest.mark.parametrize("level", [1, 40, 900])
def test_a_step_on_ddpms_levels_is_the_papers(level):
    """(x + beta_i s) / sqrt(1 - beta_i), with std^2 = beta_i or (1 - abar_{i-1}) / (1 - abar_i) beta_i."""
    betas = np.linspace(0.1, 20.0, 1000) / 1000
    signal = np.cumprod(1.0 - betas)
    from_noise = times.ddpm(1000, beta_min=0.1, beta_max=20.0).astype(np.float64)[::-1]
    t, t_next, variance = from_noise[level], from_noise[level - 1], signal[level] * 0.25 + 1.0 - signal[level]
    [a], [gain] = coefficients("transition", VP(), 0.5, t, t_next)
    assert a == pytest.approx((1.0 - betas[level] / variance) / np.sqrt(1.0 - betas[level]), rel=1e-5)
    assert gain**2 == pytest.approx(betas[level], rel=1e-3)  # the times are float32
    _, [gain] = coefficients("posterior", VP(), 0.5, t, t_next)
    assert gain**2 == pytest.approx(betas[level] * (1.0 - signal[level - 1]) / (1.0 - signal[level]), rel=1e-3)


@pytest.mark.parametrize(("count", "expected"), [(50, 0.844), (100, 0.917), (1000, 0.990)])
def test_the_variance_on_ve_is_the_known_one(count, expected):
    assert variance_made("posterior", VARIANCE_EXPLODING, times.uniform(count), 0.25) == pytest.approx(
        expected, abs=6e-4
    )


@pytest.mark.parametrize("variance", ancestral.VARIANCES)
@pytest.mark.parametrize("name", SDES)
def test_the_law_tends_to_the_datas_at_the_first_order(name, variance):
    """Twice the steps, half the error, for any SDE of the protocol."""
    errors = [
        variance_made(variance, SDES[name], times.uniform(count + 1, 1e-3), 0.5) - 1.0 for count in (200, 400, 800)
    ]
    limit = 2.0 * errors[2] - errors[1]  # what is left of the prior, and of the last noise
    ratios = np.array([errors[0] - limit, errors[1] - limit]) / (errors[2] - limit)
    np.testing.assert_allclose(ratios, [4.0, 2.0], rtol=0.1)
    assert abs(limit) < 5e-3


def test_an_unknown_variance_is_refused():
    with pytest.raises(ValueError, match="posterior or transition. Received: 'beta'"):
        ancestral.Ancestral(VP(), "beta")
