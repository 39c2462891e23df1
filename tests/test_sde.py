"""SDEs, checked against the equations that define them."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.sde import VE, VP, SubVP, transition
from tests.support.oracles import Cosine

SDE = VE(sigma_max=50.0, sigma_min=0.01)
SDES = [SDE, VP(), SubVP(), VP(beta_min=0.5, beta_max=0.5), Cosine()]
T = np.linspace(0.05, 0.95, 7)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_moments_obey_the_differential_equation(sde):
    """d alpha/dt = f alpha and d sigma^2/dt = 2 f sigma^2 + g^2, by automatic differentiation in float64."""
    with tf.GradientTape(persistent=True) as tape:
        t = tf.constant(T, tf.float64)
        tape.watch(t)
        alpha, sigma = sde.marginal(t)
        variance = sigma**2
    f, g = sde.drift(t), sde.diffusion(t)
    d_alpha = tape.gradient(alpha, t, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    np.testing.assert_allclose(d_alpha, f * alpha, atol=1e-12)
    np.testing.assert_allclose(tape.gradient(variance, t), 2 * f * variance + g**2, rtol=1e-10)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_a_transition_composes_two_marginals(sde):
    """alpha_t = a alpha_s and sigma_t^2 = a^2 sigma_s^2 + b^2, also where the times are near each other."""
    s = tf.constant(T, tf.float64)
    for step in (0.04, 1e-4):
        t = s + step
        (alpha_s, sigma_s), (alpha_t, sigma_t) = sde.marginal(s), sde.marginal(t)
        a, b = transition(sde, s, t)
        np.testing.assert_allclose(alpha_t, a * alpha_s, rtol=1e-12)
        np.testing.assert_allclose(sigma_t**2, a**2 * sigma_s**2 + b**2, rtol=1e-12)
        # The variance that is added, to first order g^2 dt: float32 keeps its digits.
        in_float32 = transition(sde, tf.cast(s, tf.float32), tf.cast(s, tf.float32) + step)[1]
        np.testing.assert_allclose(in_float32, b, rtol=2e-3)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_coefficients_have_the_dtype_of_the_times(dtype):
    t = tf.constant(T, dtype)
    found = [*SDE.marginal(t), SDE.drift(t), SDE.diffusion(t), SDE.time(t + 1.0), *transition(SDE, t, t + 0.01)]
    assert {value.dtype for value in found} == {dtype}
    with pytest.raises(ValueError, match="Times must be floats"):
        SDE.marginal(tf.constant([0, 1]))


def test_marginal_is_geometric_between_its_ends():
    _, sigma = SDE.marginal(tf.constant([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(sigma, [0.01, np.sqrt(0.01 * 50.0), 50.0], rtol=1e-5)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_time_inverts_the_noise_ratio(sde):
    """In float64 at all times, and in float32 down to the first one, whose digits must not be lost."""
    alpha, sigma = sde.marginal(tf.constant(T))
    np.testing.assert_allclose(sde.time(sigma / alpha), T, atol=1e-12)
    t = tf.constant([1e-5, 1e-3, 0.1], tf.float32)
    alpha, sigma = sde.marginal(t)
    np.testing.assert_allclose(sde.time(sigma / alpha), t, rtol=5e-5 if sde is SDE else 2e-6, atol=5e-7)


@pytest.mark.parametrize(("t", "ratio"), [(1.0, 152.17), (1e-3, 0.010486), (1e-5, 0.0010005)])
def test_the_noise_of_vp_is_the_published_one(t, ratio):
    for dtype in (tf.float32, tf.float64):
        alpha, sigma = VP().marginal(tf.constant([t], dtype))
        assert float(sigma[0] / alpha[0]) == pytest.approx(ratio, rel=5e-5)


def test_sub_vp_has_less_noise_than_vp_and_the_same_signal():
    """sigma of sub-VP is the square of VP's (Song et al. 2021, equation 29)."""
    t = tf.constant(T)
    (alpha, sigma), (alpha_vp, sigma_vp) = SubVP().marginal(t), VP().marginal(t)
    np.testing.assert_array_equal(alpha, alpha_vp)
    np.testing.assert_allclose(sigma, sigma_vp**2, rtol=1e-12)


@pytest.mark.parametrize("sde", [VP(), SubVP()], ids=lambda sde: type(sde).__name__)
def test_the_prior_of_vp_is_standard_normal(sde):
    x = sde.prior_sample(random.per_example(random.seed(0), tf.range(20_000)), (3,))
    values = x.numpy().astype(np.float64)
    assert abs(values.std() - 1) < 4 / np.sqrt(2 * values.size)
    np.testing.assert_allclose(sde.prior_log_prob(x), -0.5 * (values**2 + np.log(2 * np.pi)).sum(1), rtol=1e-5)
    assert sde.data_range == (-1.0, 1.0)


@pytest.mark.parametrize(("beta_min", "beta_max"), [(0.0, 1.0), (2.0, 1.0), (1.0, np.inf), (np.nan, 1.0)])
def test_impossible_rates_are_refused(beta_min, beta_max):
    for kind in (VP, SubVP):
        with pytest.raises(ValueError, match=f"{kind.__name__} needs 0 < beta_min <= beta_max.*beta_min={beta_min}"):
            kind(beta_min=beta_min, beta_max=beta_max)


def test_prior_has_its_density():
    x = SDE.prior_sample(random.per_example(random.seed(0), tf.range(20_000)), (3,))
    values = x.numpy().astype(np.float64)
    assert abs(values.std() / 50.0 - 1) < 4 / np.sqrt(2 * values.size)
    expected = -0.5 * (values**2).sum(1) / 2500.0 - 1.5 * np.log(2 * np.pi * 2500.0)
    np.testing.assert_allclose(SDE.prior_log_prob(x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("sigma_max", "sigma_min"), [(1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (0.1, 1.0), (np.inf, 1.0), (1.0, np.nan)]
)
def test_impossible_levels_are_refused(sigma_max, sigma_min):
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        VE(sigma_max=sigma_max, sigma_min=sigma_min)
