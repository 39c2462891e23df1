"""Metropolis-adjusted Langevin: decisions checked against NumPy, stationary moments by closed forms and quadrature."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import tensorflow as tf

from ncsn_tf import random, times
from ncsn_tf.densities import toy
from ncsn_tf.samplers import driver, langevin, metropolis
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian, standard_error_of_variance

DATA = Gaussian(0.4, 0.3)
SDE = VE(sigma_max=1.0, sigma_min=0.01)
COUNT = 10_000


def rows(count, run_seed=0):
    return random.per_example(random.seed(run_seed), tf.range(count))


def sigma_of(t):
    return SDE.marginal(t)[1]


def gaussian_log_prob(x, t):
    return -0.5 * tf.reduce_sum((x - DATA.mean) ** 2, axis=1) / (DATA.deviation**2 + sigma_of(t) ** 2)


def quartic_log_prob(x, t):
    """exp(-x^4 / 4) in each direction; t plays no part."""
    return -0.25 * tf.reduce_sum(x**4, axis=list(range(1, len(x.shape))))


def quartic_score(x, t):
    return -(x**3)


def zero_score(x, t):
    return tf.zeros_like(x)


def noise_of(step_seeds, shape):
    """The noise z that a step draws: on a flat density every proposal is accepted, and y = x + z at step size 1."""
    x, t = tf.zeros([len(step_seeds), *shape]), tf.zeros(len(step_seeds))
    step = metropolis.MetropolisLangevin(lambda x, t: tf.zeros_like(t), langevin.constant(1.0))
    return step(zero_score, x, t, t, step_seeds, ())[0].numpy().astype(np.float64)


def thresholds_of(step_seeds):
    """The uniform number that decides a step, by bisection: a symmetric proposal whose log-density is t above x's is
    accepted just when log u < t."""
    count = len(step_seeds)
    step = metropolis.MetropolisLangevin(
        lambda x, t: tf.where(tf.reduce_all(x == 0.0, axis=1), 0.0, t), langevin.constant(1.0)
    )
    low, high = np.zeros(count), np.ones(count)
    for _ in range(20):
        middle = (low + high) / 2
        t = tf.constant(np.log(middle), tf.float32)
        accepted = np.any(step(zero_score, tf.zeros([count, 2]), t, t, step_seeds, ())[0] != 0.0, axis=1)
        low, high = np.where(accepted, low, middle), np.where(accepted, middle, high)
    return (low + high) / 2


def log_ratio(log_prob, score, x, y, a):
    """log of p(y) q(x | y) / (p(x) q(y | x)) with q(y | x) = N(y; x + a/2 score(x), a I); float64."""
    forward = ((y - x - 0.5 * a * score(x)) ** 2).sum(1) / (2 * a[:, 0])
    backward = ((x - y - 0.5 * a * score(y)) ** 2).sum(1) / (2 * a[:, 0])
    return log_prob(y) - log_prob(x) + forward - backward


@pytest.mark.parametrize("shape, least, most", [((2,), 0.2, 1.7), ((2, 3, 2), 0.05, 0.5)])
def test_every_acceptance_agrees_with_numpy(shape, least, most):
    """The same noise and the same uniform number, drawn by the step and read off it, in NumPy's hands.

    The step sizes differ by example.
    """
    step_seeds, size = rows(COUNT), math.prod(shape)
    z, u = noise_of(step_seeds, shape).reshape(COUNT, size), thresholds_of(step_seeds)
    assert abs(z.std() - 1) < 4 / math.sqrt(2 * size * COUNT) and abs(z.mean()) < 4 / math.sqrt(size * COUNT)
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * COUNT) and u.min() < 0.01 and u.max() > 0.99
    assert abs(np.corrcoef(u, z[:, 0])[0, 1]) < 4 / math.sqrt(COUNT)
    t = tf.linspace(0.0, 1.0, COUNT)
    step = metropolis.MetropolisLangevin(quartic_log_prob, lambda t: least + (most - least) * t)
    x = np.random.default_rng(0).normal(size=(COUNT, size)).astype(np.float32)
    images = step(quartic_score, tf.reshape(x, [COUNT, *shape]), t, t, step_seeds, ())
    assert images[0].shape == images[1].shape == (COUNT, *shape)
    new, mean = (value.numpy().reshape(COUNT, size) for value in images[:2])

    x64, a = x.astype(np.float64), least + (most - least) * t.numpy().astype(np.float64)[:, None]
    expected_mean = x64 - 0.5 * a * x64**3
    y = expected_mean + np.sqrt(a) * z
    ratio = log_ratio(lambda x: -0.25 * (x**4).sum(1), lambda x: -(x**3), x64, y, a)
    accepted = np.log(u) < ratio
    clear = np.abs(np.log(u) - ratio) > 1e-4 * (1 + np.abs(ratio))  # float32, and u known to 1e-6
    assert 0.3 < accepted.mean() < 0.9 and clear.mean() > 0.98
    np.testing.assert_array_equal(np.any(new != x, axis=1)[clear], accepted[clear])
    moved, stayed = clear & accepted, clear & ~accepted
    np.testing.assert_allclose(new[moved], y[moved], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mean[moved], expected_mean[moved], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(new[stayed], x[stayed])
    np.testing.assert_array_equal(mean[stayed], x[stayed])


def test_acceptance_rate_agrees_with_quadrature():
    """In one dimension, started from the stationary N(0, 1) itself."""
    a = 1.8

    def accepted_density(z, x):
        pair = np.array([[x]]), np.array([[(1 - a / 2) * x + math.sqrt(a) * z]])
        ratio = log_ratio(lambda x: -0.5 * (x**2).sum(1), lambda x: -x, *pair, np.array([[a]]))
        return min(1.0, math.exp(ratio[0])) * math.exp(-0.5 * (x**2 + z**2)) / (2 * math.pi)

    grid = np.linspace(-6, 6, 121)  # the kink of min(1, .) leaves an error of about step^2 / 12 = 1e-3
    expected = 0.01 * sum(accepted_density(z, x) for z in grid for x in grid)
    step = metropolis.MetropolisLangevin(lambda x, t: -0.5 * tf.reduce_sum(x**2, 1), langevin.constant(a))
    x, t = random.normal(rows(COUNT), (1,)), tf.zeros(COUNT)
    new, _, _ = step(lambda x, t: -x, x, t, t, rows(COUNT, 1), ())
    rate = float(np.mean(new.numpy() != x.numpy()))
    assert 0.5 < expected < 0.9
    assert abs(rate - expected) < 4 * math.sqrt(expected * (1 - expected) / COUNT) + 1e-3


def run(step, score_fn, x, steps, time=0.0):
    sampler = driver.FixedSteps(SDE, step, times.repeat_times(np.array([time]), steps))
    return sampler(score_fn, x, rows(COUNT, 7)).x.numpy().astype(np.float64)


def test_the_correction_removes_the_bias_of_plain_langevin():
    """On N(m, v) plain Langevin's stationary variance is v / (1 - a / (4 v)); here, at a = 1.5 v, 1.6 v."""
    time, sigma = 0.5, 0.1
    v = float(DATA.variance(sigma))
    score_fn, start = DATA.score_fn(sigma_of), tf.fill([COUNT, 2], 0.4)
    size = langevin.constant(1.5 * v)
    plain = run(langevin.Langevin(size), score_fn, start, 60, time)
    adjusted = run(metropolis.MetropolisLangevin(gaussian_log_prob, size), score_fn, start, 60, time)
    error = standard_error_of_variance(1.0, 2 * COUNT)
    biased = DATA.langevin_variance(sigma, 1.5 * v)
    assert abs(plain.var() / biased - 1) < 4 * error
    assert abs(adjusted.var() / v - 1) < 4 * error
    assert biased / v - 1 > 50 * error, "the bias is too small to be seen"
    for x in (plain, adjusted):
        assert abs(x.mean() - DATA.mean) < 4 * math.sqrt(x.var() / (2 * COUNT))
    assert abs(np.corrcoef(adjusted[:, 0], adjusted[:, 1])[0, 1]) < 4 / math.sqrt(COUNT)


def test_moments_of_a_quartic_density_agree_with_quadrature():
    """An unnormalised density that is not Gaussian; E x^4 = 1 by parts, E x^2 = 2 Gamma(3/4) / Gamma(1/4)."""
    step = metropolis.MetropolisLangevin(quartic_log_prob, langevin.constant(0.8))
    x = run(step, quartic_score, tf.zeros([COUNT, 2]), 80)[:, 1]

    def moment(power):
        weight = scipy.integrate.quad(lambda x: math.exp(-(x**4) / 4), -8, 8)[0]
        return scipy.integrate.quad(lambda x: x**power * math.exp(-(x**4) / 4), -8, 8)[0] / weight

    assert moment(2) == pytest.approx(2 * scipy.special.gamma(0.75) / scipy.special.gamma(0.25))
    assert moment(4) == pytest.approx(1.0)
    for power in (1, 2, 3, 4, 6):
        error = math.sqrt((moment(2 * power) - moment(power) ** 2) / COUNT)
        assert abs((x**power).mean() - moment(power)) < 4 * error, power
    # Plain Langevin at this step is far from it, or nowhere: |x - 0.4 x^3| grows without end from |x| = 2.24 on.
    plain = run(langevin.Langevin(langevin.constant(0.8)), quartic_score, tf.zeros([COUNT, 2]), 80)
    assert not np.all(np.isfinite(plain))


@pytest.mark.parametrize("right_score", [True, False])
def test_the_density_is_stationary_and_pairs_are_exchangeable_for_any_score(right_score):
    """From exact draws of an uneven mixture: the law of (x, y) is that of (y, x), which is detailed balance."""
    sde = VE(sigma_max=2.0, sigma_min=0.2)
    mixture = toy.Mixture(np.array([0.3, 0.7]), np.array([[-1.0, 0.0], [1.0, 0.5]]), np.array([0.4, 0.9]))
    t = tf.fill([COUNT], 0.3)
    sigma = sde.marginal(t)[1]
    x = mixture.sample(rows(COUNT)) + sigma[:, None] * random.normal(rows(COUNT, 1), (2,))
    score_fn = mixture.score_fn(sde) if right_score else lambda x, t: tf.sin(3.0 * x) - 0.5
    step = metropolis.MetropolisLangevin(mixture.log_prob_fn(sde), langevin.constant(0.7))
    y = step(score_fn, x, t, t, rows(COUNT, 2), ())[0].numpy().astype(np.float64)
    x = x.numpy().astype(np.float64)
    moved = float(np.mean(np.any(x != y, axis=1)))
    assert 0.3 < moved < 0.98
    functions = (
        (lambda x: x[:, 0], lambda x: x[:, 0] ** 3),
        (lambda x: x[:, 1], lambda x: x[:, 0] ** 2),
        (lambda x: np.sin(2 * x[:, 0]), lambda x: np.ones(COUNT)),
        (lambda x: x[:, 0] * x[:, 1], lambda x: np.ones(COUNT)),
    )
    for f, g in functions:
        difference = f(x) * g(y) - g(x) * f(y)
        assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(COUNT)


def test_a_draw_depends_only_on_its_own_seed_however_it_is_run():
    step = metropolis.MetropolisLangevin(gaussian_log_prob, langevin.constant(0.2))
    score_fn, t = DATA.score_fn(sigma_of), tf.linspace(0.0, 0.5, 6)
    x, step_seeds = random.normal(rows(6, 3), (2,)), rows(6, 4)
    new, mean, _ = step(score_fn, x, t, t, step_seeds, ())
    assert len(np.unique(new.numpy() - mean.numpy(), axis=0)) > 3, "the chains share their noise"
    for i in range(6):
        one = slice(i, i + 1)
        alone = step(score_fn, x[one], t[one], t[one], step_seeds[one], ())
        # XLA may contract a product and a sum for one batch size and not for another: the last place of a float32.
        np.testing.assert_allclose(alone[0][0], new[i], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(alone[1][0], mean[i], rtol=1e-6, atol=1e-6)
    for jit_compile in (False, True):
        compiled = tf.function(lambda x: step(score_fn, x, t, t, step_seeds, ()), jit_compile=jit_compile)(x)
        np.testing.assert_allclose(compiled[0], new, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(compiled[1], mean, rtol=1e-6, atol=1e-6)


def test_evaluations_are_counted_with_both_ends_of_a_step():
    calls = []

    def score_fn(x, t):
        tf.py_function(lambda: calls.append(1), [], [])
        return -x

    step = metropolis.MetropolisLangevin(quartic_log_prob, langevin.constant(0.1))
    sampler = driver.FixedSteps(SDE, step, times.repeat_times(np.array([0.0]), 5))
    for count in (3, 50):  # the second batch size is traced anew
        calls.clear()
        found = sampler(score_fn, tf.zeros([count, 2]), rows(count)).evaluations
        np.testing.assert_array_equal(found, [len(calls)] * count)
        assert len(calls) == 10


def test_points_of_zero_density_are_never_entered():
    """A proposal of density zero, or of no density at all, is rejected, whatever its score."""
    t, x = tf.zeros(50), tf.zeros([50, 2])
    for nowhere in (-math.inf, math.nan):
        step = metropolis.MetropolisLangevin(
            lambda x, t, nowhere=nowhere: tf.where(tf.reduce_all(x == 0.0, 1), 0.0, nowhere), langevin.constant(1.0)
        )
        new, _, _ = step(lambda x, t: tf.where(x == 0.0, 0.0, math.nan), x, t, t, rows(50), ())
        np.testing.assert_array_equal(new, x)


@pytest.mark.parametrize(
    "log_prob",
    [
        lambda x, t: -(x**2),
        lambda x, t: -tf.reduce_sum(x**2),
        lambda x, t: -tf.reduce_sum(x**2, axis=1, keepdims=True),
        lambda x, t: -tf.reduce_sum(x**2, axis=0),
    ],
)
def test_log_prob_of_another_shape_is_refused(log_prob):
    step, t = metropolis.MetropolisLangevin(log_prob, langevin.constant(0.1)), tf.zeros(3)
    with pytest.raises(ValueError, match="one value per example.*Received"):
        step(zero_score, tf.zeros([3, 2]), t, t, rows(3), ())
