"""Denoising against the Gaussian posterior in closed form."""

import numpy as np

from ncsn_tf import times
from ncsn_tf.guidance import denoising
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian

SDE = VE(sigma_max=1.0, sigma_min=0.01)
DATA = Gaussian(0.5, 0.1)
TIMES = times.uniform(4)


def score_fn(x, t):
    return DATA.score_fn(lambda t: SDE.marginal(t)[1])(x, t)


def sampler(level):
    step = langevin.Langevin(langevin.annealed(SDE, 4e-5))
    return driver.Sampler(step, score_fn, driver.dwell(TIMES[level:], 20))


def denoised(images, level, run_seed=0):
    return denoising.at_level(score_fn, SDE, float(TIMES[level]), lambda: sampler(level), images, run_seed=run_seed)


def test_one_step_is_the_posterior_mean_and_the_noise_has_its_levels_deviation():
    images = np.clip(np.random.default_rng(0).normal(0.5, 0.1, [200, 4, 4, 1]), 0, 1).astype(np.float32)
    for level in (0, 2):
        found = denoised(images, level)
        sigma = float(SDE.marginal(TIMES[[level]])[1][0])
        np.testing.assert_allclose(found.sigma, sigma, rtol=1e-6)
        np.testing.assert_allclose(found.one_step, DATA.denoised(found.noisy, sigma), atol=1e-5)
        z = (found.noisy - images) / sigma
        assert abs(z.mean()) < 4.0 / np.sqrt(z.size) and abs(z.var() - 1.0) < 4.0 * np.sqrt(2.0 / z.size)
        least = DATA.deviation**2 * sigma**2 / DATA.variance(sigma)
        error = np.mean((found.one_step - images) ** 2)
        assert abs(error / least - 1.0) < 4.0 * np.sqrt(2.0 / z.size) + 0.02  # clipping takes a little
        assert (
            found.psnr["one_step"][0] > found.psnr["noisy"][0] and found.psnr["one_step"][0] > found.psnr["annealed"][0]
        )
    other = denoised(images[:5], 2)
    np.testing.assert_allclose(other.noisy, found.noisy[:5], atol=1e-6)
    assert not np.allclose(denoised(images[:5], 2, run_seed=1).noisy, other.noisy)


def test_annealing_starts_at_the_level_of_the_noise():
    images = np.full([3, 2, 2, 1], 0.5, np.float32)
    found = denoised(images, 3)
    assert np.abs(found.annealed - found.noisy).max() < 0.2, "at the last level a walk of 20 steps goes nowhere far"
    assert not np.array_equal(found.annealed, found.noisy)


def test_the_signal_to_noise_ratio_is_that_of_the_clipped_image():
    original = np.full([2, 1, 1, 2], 0.5)
    images = np.array([[0.6, 0.4], [1.5, 0.5]]).reshape(2, 1, 1, 2)
    np.testing.assert_allclose(denoising.signal_to_noise(images, original), [20.0, -10.0 * np.log10(0.125)])
    assert np.isinf(denoising.signal_to_noise(original, original)).all()
