"""The SDE against the equations that define it."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.sde import VE

SDE = VE(sigma_max=50.0, sigma_min=0.01)
T = np.linspace(0.05, 0.95, 7)


def test_moments_obey_the_differential_equation():
    """d alpha/dt = f alpha and d sigma^2/dt = 2 f sigma^2 + g^2, by automatic differentiation."""
    with tf.GradientTape(persistent=True) as tape:
        t = tf.constant(T, tf.float32)
        tape.watch(t)
        alpha, sigma = SDE.marginal(t)
        variance = sigma**2
    f, g = SDE.drift(t), SDE.diffusion(t)
    d_alpha = tape.gradient(alpha, t, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    np.testing.assert_allclose(d_alpha, f * alpha, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(variance, t), 2 * f * variance + g**2, rtol=1e-5)


def test_marginal_is_geometric_between_its_ends():
    _, sigma = SDE.marginal(tf.constant([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(sigma, [0.01, np.sqrt(0.01 * 50.0), 50.0], rtol=1e-5)


def test_time_inverts_marginal():
    np.testing.assert_allclose(SDE.time(SDE.marginal(tf.constant(T, tf.float32))[1]), T, atol=1e-6)


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
