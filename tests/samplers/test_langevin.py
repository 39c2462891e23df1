"""Langevin dynamics: each step and the stationary distribution exactly, and the paper's mixture."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, times
from ncsn_tf.samplers import blocks, driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian, Mixture, standard_error_of_variance

SDE = VE(sigma_max=1.0, sigma_min=0.01)
DATA = Gaussian(0.4, 0.3)


def sigma_of(t):
    return SDE.marginal(t)[1]


def affine(step, t):
    """A, b and the noise gain of a step under the Gaussian score: x' = A x + b + gain z, read off three states."""
    t = tf.fill([2], t)
    rows = random.per_example(random.seed(0), tf.range(2))
    x = tf.constant([[0.0], [1.0]])
    new, mean, _ = step(DATA.score_fn(sigma_of), x, t, t, rows, step.start(x))
    z = random.normal(rows, (1,))
    b, a_plus_b = mean.numpy()[:, 0].astype(np.float64)
    gains = ((new - mean) / z).numpy()[:, 0]
    assert gains[0] == pytest.approx(gains[1], rel=1e-3)
    return a_plus_b - b, b, float(gains[0])


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_a_step_is_the_papers_step(t):
    """x + a_i/2 score + sqrt(a_i) z with a_i = epsilon sigma_i^2 / sigma_L^2 (Algorithm 1)."""
    epsilon = 2e-5
    a, b, gain = affine(langevin.Langevin(langevin.annealed(SDE, epsilon)), t)
    sigma = 0.01 ** (1 - t)
    size = epsilon * sigma**2 / 0.01**2
    v = DATA.variance(sigma)
    assert a == pytest.approx(1 - size / (2 * v), rel=1e-5)
    assert b == pytest.approx(size / (2 * v) * DATA.mean, rel=2e-3)
    assert gain == pytest.approx(np.sqrt(size), rel=1e-3)


def test_the_stationary_variance_is_biased_just_as_the_closed_form_says():
    size = 0.15
    a, b, gain = affine(langevin.Langevin(langevin.constant(size)), 0.0)
    stationary = gain**2 / (1 - a**2)
    expected = DATA.langevin_variance(0.01, size)
    assert stationary == pytest.approx(expected, rel=1e-3)
    assert abs(expected / DATA.variance(0.01) - 1) > 0.3, (
        "the step is too small to tell the biased law from the true one"
    )
    assert b / (1 - a) == pytest.approx(DATA.mean, rel=1e-4)


def test_annealed_samples_have_the_exactly_propagated_moments():
    grid, steps, epsilon, count = times.uniform(5), 40, 4e-5, 20_000
    step = langevin.Langevin(langevin.annealed(SDE, epsilon))
    mean, variance = 0.5, 1 / 12
    for t in grid:
        a, b, gain = affine(step, float(t))
        for _ in range(steps):
            mean, variance = a * mean + b, a**2 * variance + gain**2
    sampler = driver.FixedSteps(SDE, step, times.repeat_times(grid, steps), jit_compile=True)
    seeds, x, _ = blocks.start_samples(tf.range(count), driver.uniform_prior, (1,), run_seed=0)
    x = sampler(DATA.score_fn(sigma_of), x, seeds).x.numpy().astype(np.float64)
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / count)
    assert abs(x.var() - variance) < 4 * standard_error_of_variance(variance, count)


def test_annealing_finds_the_mixtures_weights_and_plain_langevin_does_not():
    """Song & Ermon 2019, section 3.2.2 and Figure 3; the steps are the paper's, in Algorithm 1's form."""
    sde, mixture, count = VE(sigma_max=20.0, sigma_min=1.0), Mixture(), 2_000
    score_fn = mixture.score_fn(lambda t: sde.marginal(t)[1])

    def uniform_square(rows, shape):
        return 16.0 * random.uniform(rows, shape) - 8.0

    def upper_weight(step, rows):
        seeds, x, _ = blocks.start_samples(tf.range(count), uniform_square, (2,), run_seed=1)
        x = driver.FixedSteps(sde, step, rows, jit_compile=True)(score_fn, x, seeds).x
        return float(np.mean(x.numpy().sum(1) > 0))

    error = np.sqrt(0.2 * 0.8 / count)
    annealed = langevin.Langevin(langevin.annealed(sde, 0.1))
    assert abs(upper_weight(annealed, times.repeat_times(times.uniform(10), 100)) - 0.8) < 3 * error
    plain = langevin.Langevin(langevin.constant(0.1))
    assert abs(upper_weight(plain, times.repeat_times(np.zeros(1), 1000)) - 0.8) > 10 * error


@pytest.mark.parametrize("ratio", [0.2, 1.0, 2.0, 3.0, 3.99, 4.01, 20.0])
@pytest.mark.parametrize("annealed", [True, False])
def test_largest_epsilon_is_the_stability_limit_on_a_point_mass(annealed, ratio):
    """Each step multiplies the deviation by 1 - epsilon / (2 sigma_L^2), at every level; here without noise."""
    sigma, steps, mean = 0.01, 4, 0.4
    epsilon, factor = ratio * sigma**2, 1.0 - ratio / 2.0
    grid = times.uniform(3) if annealed else np.zeros(1)
    size = langevin.annealed(SDE, epsilon) if annealed else langevin.constant(epsilon)
    still = langevin.Langevin(size, noise=lambda seeds, shape: tf.zeros([tf.shape(seeds)[0], *shape]))
    sampler = driver.FixedSteps(SDE, still, times.repeat_times(grid, steps))
    x = sampler(Gaussian(mean, 0.0).score_fn(sigma_of), tf.constant([[mean + 1.0]]), random.seed(0)[None]).x
    deviation = float(x[0, 0]) - mean
    assert deviation == pytest.approx(factor ** (steps * len(grid)), rel=1e-4, abs=1e-6)
    unstable = abs(factor) >= 1.0
    assert (epsilon >= langevin.largest_epsilon(sigma)) == unstable
    if unstable:
        with pytest.raises(langevin.UnstableStepError, match=r"below 4 sigma\^2 = 0\.0004; .* = 2e-05\. Received"):
            langevin.check_stability(epsilon, sigma)
    else:
        assert len(langevin.check_stability(epsilon, sigma)) == (factor <= 0.0)


def test_a_step_that_overshoots_is_described_with_its_stationary_variance():
    """From x' = f x + sqrt(epsilon) z, variance epsilon / (1 - f^2), at f = -1/2: four times sigma^2."""
    (line,) = langevin.check_stability(3.0 * 0.1**2, 0.1)
    assert "multiplies deviations by -0.5, " in line and "4 times the level's variance" in line


def test_steps_that_hardly_move_the_start_are_described():
    epsilon = 0.02 * 0.1**2  # f = 0.99
    (line,) = langevin.check_stability(epsilon, 0.1, steps=4)
    assert f"too small for 4 steps: {0.99**4:.2%} of" in line
    assert langevin.check_stability(epsilon, 0.1, steps=10) == langevin.check_stability(epsilon, 0.1) == []


@pytest.mark.parametrize("value", [0.0, -1e-5, 1e-40, 1e39, float("inf"), float("nan")])
def test_impossible_steps_are_refused(value):
    with pytest.raises(ValueError, match="positive and finite"):
        langevin.constant(value)
    with pytest.raises(ValueError, match="positive and finite"):
        langevin.annealed(SDE, value)
