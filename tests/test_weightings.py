"""Weights of the loss against the papers' formulae."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import score, weightings
from ncsn_tf.sde import VE, VP, SubVP

T = tf.constant([1.0, 0.6, 0.2, 0.01], tf.float64)
SDES = [VE(sigma_max=20.0, sigma_min=0.005), VP(), SubVP()]


@pytest.mark.parametrize("sde", SDES)
def test_the_weight_of_an_output_makes_the_loss_its_squared_error(sde):
    alpha, sigma = (part.numpy() for part in sde.marginal(T))
    np.testing.assert_allclose(weightings.of_output(score.noise)(sde, T), sigma**2)
    np.testing.assert_allclose(weightings.of_output(score.score_over_sigma)(sde, T), sigma**2)
    np.testing.assert_allclose(weightings.of_output(score.score)(sde, T), 1.0)
    np.testing.assert_allclose(weightings.of_output(score.clean_image)(sde, T), (sigma**2 / alpha) ** 2)


def test_the_weight_of_edms_output_is_the_papers():
    """(sigma^2 + s^2) / (sigma s)^2 for the error of the denoiser, which is sigma^2 times the score's (alpha = 1)."""
    sde, s = SDES[0], 0.5
    sigma = sde.marginal(T)[1].numpy()
    expected = sigma**4 * (sigma**2 + s**2) / (sigma * s) ** 2
    np.testing.assert_allclose(weightings.of_output(score.edm(s))(sde, T), expected)


@pytest.mark.parametrize("sde", SDES)
def test_the_likelihoods_weight_is_the_squared_diffusion(sde):
    """g^2 = sigma^2 d log(sigma / alpha)^2 / dt, by finite differences."""
    step = 1e-6
    logs = [np.log(sigma / alpha) for alpha, sigma in (sde.marginal(t) for t in (T - step, T + step))]
    slope = (logs[1] - logs[0]) / step
    np.testing.assert_allclose(weightings.likelihood(sde, T), sde.marginal(T)[1].numpy() ** 2 * slope, rtol=1e-6)
