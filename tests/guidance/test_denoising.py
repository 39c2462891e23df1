"""Denoising, checked against the Gaussian posterior in closed form."""

import numpy as np
import tensorflow as tf

from ncsn_tf import times
from ncsn_tf.guidance import denoising
from ncsn_tf.samplers import blocks, driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian

SDE = VE(sigma_max=1.0, sigma_min=0.01)
DATA = Gaussian(0.5, 0.1)
TIMES = times.uniform(4)


def score_fn(x, t):
    return DATA.score_fn(lambda t: SDE.marginal(t)[1])(x, t)


ANNEALED = driver.FixedSteps(
    SDE, langevin.Langevin(langevin.annealed(SDE, 4e-5)), times.repeat_times(TIMES, 20), segments=4
)
ONE_STEP = driver.FixedSteps(SDE, denoising.OneStep(SDE), times.repeat_times(TIMES, 1), segments=4)


def denoised(images, level, run_seed=0):
    """(noisy, one step, annealed) at a level."""
    time = tf.constant(TIMES[level])

    def start(numbers, time):
        return denoising.start(numbers, time, images, SDE, run_seed=run_seed)

    once, annealed = (
        blocks.BlockSampler(made, score_fn, start, block=len(images), strategy=tf.distribute.get_strategy())
        for made in (ONE_STEP, ANNEALED)
    )
    one_step = once.draw_rows(len(images), time, span=(level, level + 1))
    np.testing.assert_array_equal(one_step["evaluations"], [1] * len(images))
    walk = annealed.draw_rows(len(images), time, span=(level, 4))["x"]
    return once.starts(len(images), time), one_step["x"], walk


def test_one_step_is_the_posterior_mean_and_the_noise_has_its_levels_deviation():
    images = np.clip(np.random.default_rng(0).normal(0.5, 0.1, [200, 4, 4, 1]), 0, 1).astype(np.float32)
    for level in (0, 2):
        noisy, one_step, annealed = denoised(images, level)
        sigma = float(SDE.marginal(tf.constant(TIMES[[level]]))[1][0])
        np.testing.assert_allclose(one_step, DATA.denoised(noisy, sigma), atol=1e-5)
        z = (noisy - images) / sigma
        assert abs(z.mean()) < 4.0 / np.sqrt(z.size) and abs(z.var() - 1.0) < 4.0 * np.sqrt(2.0 / z.size)
        least = DATA.deviation**2 * sigma**2 / DATA.variance(sigma)
        error = np.mean((one_step - images) ** 2)
        assert abs(error / least - 1.0) < 4.0 * np.sqrt(2.0 / z.size) + 0.02  # clipping takes a little
        ratios = [
            denoising.mean_and_error(denoising.signal_to_noise(x, images))[0] for x in (noisy, one_step, annealed)
        ]
        assert ratios[1] > max(ratios[0], ratios[2])
    other = denoised(images[:5], 2)[0]
    np.testing.assert_allclose(other, noisy[:5], atol=1e-6)
    assert not np.allclose(denoised(images[:5], 2, run_seed=1)[0], other)


def test_annealing_starts_at_the_level_of_the_noise():
    images = np.full([3, 2, 2, 1], 0.5, np.float32)
    noisy, _, annealed = denoised(images, 3)
    assert np.abs(annealed - noisy).max() < 0.2, "at the last level a walk of 20 steps does not go far"
    assert not np.array_equal(annealed, noisy)


def test_one_trace_serves_all_levels():
    traces = []

    def counting(x, t):
        traces.append(1)
        return score_fn(x, t)

    images = np.full([3, 2, 2, 1], 0.5, np.float32)
    drawn_by = blocks.BlockSampler(
        ANNEALED,
        counting,
        lambda numbers, time: denoising.start(numbers, time, images, SDE, run_seed=0),
        block=3,
        strategy=tf.distribute.get_strategy(),
    )
    for level in range(4):
        drawn_by.draw_rows(3, tf.constant(TIMES[level]), span=(level, 4))
    assert len(traces) == 1


def test_the_signal_to_noise_ratio_is_that_of_the_clipped_image():
    original = np.full([2, 1, 1, 2], 0.5)
    images = np.array([[0.6, 0.4], [1.5, 0.5]]).reshape(2, 1, 1, 2)
    np.testing.assert_allclose(denoising.signal_to_noise(images, original), [20.0, -10.0 * np.log10(0.125)])
    assert np.isinf(denoising.signal_to_noise(original, original)).all()
