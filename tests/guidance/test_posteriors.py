"""What guided walks sample of Gaussian data with the exact score, against posteriors in closed form: no Monte Carlo."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import times
from ncsn_tf.guidance import dps, pigdm, replacement, restoring
from ncsn_tf.samplers import langevin, methods
from ncsn_tf.sde import VE, VP, noise_ratio
from tests.support import affine

SDE = VP()
CASES = {
    "mask:left": (2, 2, 1),
    "grey": (1, 2, 3),
    "downsample:2": (2, 4, 1),
    "blur:0.7": (2, 3, 1),
    "fourier:0.4": (3, 3, 1),
}


def isotropic(shape, deviation=0.3):
    data = affine.example(shape)
    return affine.GaussianData(shape, data.mean, deviation**2 * np.eye(len(data.mean)))


def measured(data, measurement, noise):
    """The matrix of a measurement, and what it gave of one draw of the data."""
    matrix, draw = affine.dense(measurement), np.random.default_rng(1)
    image = draw.multivariate_normal(data.mean, data.covariance)
    return matrix, matrix @ image + noise * draw.normal(size=len(matrix))


def pairs(grid):
    return np.stack([grid[:-1], grid[1:]], axis=1)


def law(data, sde, measurement, y, make_guidance, name, grid, noises, **options):
    """The law at the end of a walk along a grid."""
    given = (affine.laid_out(measurement, y),)
    make_step = lambda noise: methods.step(name, sde, len(grid) - 1, noise)  # noqa: E731
    return affine.Law(data, sde, make_step, make_guidance, given, noises).walk(pairs(grid), **options)


def assert_near(found, expected, prior, mean, covariance):
    """Errors of means in units of the data's deviation, and of covariances relative to their norm."""
    deviation = np.sqrt(np.trace(prior) / len(prior))
    assert np.sqrt(np.mean((found[0] - expected[0]) ** 2)) / deviation < mean
    assert np.linalg.norm(found[1] - expected[1]) / np.linalg.norm(expected[1]) < covariance


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("name", CASES)
def test_pigdm_samples_the_posterior_of_data_with_one_deviation(name, noise):
    """By the probability flow, whose error is of second order: 0.7 % of the covariance with 60 steps."""
    data, measurement = isotropic(CASES[name]), restoring.measurement(name, CASES[name])
    matrix, y = measured(data, measurement, noise)
    make = lambda _: pigdm.PiGDM(SDE, measurement, noise, data_deviation=0.3)  # noqa: E731
    grid = times.log_snr(SDE, 61, 1e-3)
    expected = affine.perturbed(SDE, 1e-3, *data.posterior(matrix, y, noise))
    assert_near(law(data, SDE, measurement, y, make, "heun", grid, 0), expected, data.covariance, 2e-3, 0.01)


def grid_through(ratio, count):
    """Times with `count` steps from 1 to a noise ratio, and as many from there to 1e-3, float64."""
    first, last = noise_ratio(SDE, tf.constant([1.0, 1e-3], tf.float64)).numpy()
    upper, lower = np.geomspace(first, ratio, count + 1), np.geomspace(ratio, last, count + 1)
    return SDE.time(tf.constant(np.concatenate([upper, lower[1:]]))).numpy()


@pytest.mark.parametrize("name", ["mask:left", "downsample:2"])
def test_replacement_samples_the_posterior_of_noisy_measurements_of_uncorrelated_data(name):
    """By the reverse SDE: coefficients that are let go lose the measurement's noise as the posterior does.

    The grids have the time at which they are let go: between two times, that is too early by part of a step. The error
    of ancestral steps is of the first order, and is taken out by comparing two numbers of steps.
    """
    data, measurement, noise = isotropic(CASES[name]), restoring.measurement(name, CASES[name]), 0.1
    matrix, y = measured(data, measurement, noise)
    make = lambda draw: replacement.Replacement(SDE, measurement, noise, reference="step", draw=draw)  # noqa: E731
    freed = noise / measurement.singular_values.max() * (1.0 + 1e-7)
    coarse, fine = (
        law(data, SDE, measurement, y, make, "ancestral", grid_through(freed, count), 1) for count in (30, 60)
    )
    found = tuple(2.0 * b - a for a, b in zip(coarse, fine, strict=True))
    expected = affine.perturbed(SDE, 1e-3, *data.posterior(matrix, y, noise))
    assert_near(found, expected, data.covariance, 0.005, 0.02)


@pytest.mark.parametrize("reference", ["walk", "level"])
@pytest.mark.parametrize("name", CASES)
def test_replacement_is_exact_where_langevin_dynamics_equilibrates(name, reference):
    """Correlated data: coefficients left free have their conditional law given the noisy copies, for steps of any size.

    With P their precision given the others, steps of size a leave the covariance (P - a P^2 / 4)^-1.
    """
    sde, data = VE(sigma_max=0.2, sigma_min=0.1), affine.example(CASES[name])
    measurement = restoring.measurement(name, CASES[name])
    _, y = measured(data, measurement, 0.0)
    size, sigma, a = len(data.mean), 0.1, 0.004
    make = lambda draw: replacement.Replacement(sde, measurement, reference=reference, draw=draw)  # noqa: E731
    make_step = lambda z: langevin.Langevin(lambda t: tf.fill(tf.shape(t), tf.constant(a, t.dtype)), z)  # noqa: E731
    made = affine.Law(data, sde, make_step, make, (affine.laid_out(measurement, y),))
    mean, covariance = made.walk(times.repeat_times(np.zeros(1), 4_000), reference=reference, prior=1.0)

    basis = measurement.image(tf.constant(np.eye(size).reshape(size, *data.shape))).numpy().reshape(size, size).T
    known = measurement.singular_values.ravel() > 0.0
    perturbed = basis.T @ (data.covariance + sigma**2 * np.eye(size)) @ basis
    centre, wanted = basis.T @ data.mean, np.ravel(measurement.coefficients(affine.laid_out(measurement, y)))
    slope = perturbed[~known][:, known] @ np.linalg.inv(perturbed[known][:, known])
    precision = np.linalg.inv(perturbed)[~known][:, ~known]
    expected_mean, expected = np.where(known, wanted, 0.0), np.zeros((size, size))
    expected_mean[~known] = centre[~known] + slope @ (wanted - centre)[known]
    own = np.linalg.inv(precision - 0.25 * a * precision @ precision) if (~known).any() else 0.0
    expected[np.ix_(known, known)] = sigma**2 * np.eye(known.sum())
    expected[np.ix_(~known, ~known)] = own + sigma**2 * slope @ slope.T
    expected[np.ix_(~known, known)] = sigma**2 * slope
    expected[np.ix_(known, ~known)] = sigma**2 * slope.T
    np.testing.assert_allclose(basis.T @ mean, expected_mean, atol=1e-6)
    np.testing.assert_allclose(basis.T @ covariance @ basis, expected, atol=1e-6)


def test_dps_makes_the_moves_of_the_papers_algorithm():
    """Algorithm 1 written down again on DDPM's chain of 1,000 levels, with the closed form of its gradient.

    g^2 / 1,000 at level i differs from beta_i by a part of about 1 / i: where moves of 0.4 end, 0.01 of that is left.
    """
    shape, zeta, count = (2, 2, 1), 5e-3, 1_000
    data, measurement = affine.example(shape), restoring.measurement("mask:left", shape)
    matrix = affine.dense(measurement)
    y = matrix @ data.mean + 0.6
    betas = np.linspace(0.1, 20.0, count) / count
    products = np.cumprod(1.0 - betas)
    x = ours = np.random.default_rng(0).normal(size=4)
    given, score_fn = (affine.laid_out(measurement, y),), data.score_fn(SDE)
    guided = dps.DPS(SDE, measurement, zeta=zeta).score(score_fn, SDE, given)
    grid = times.ddpm(count, beta_min=0.1, beta_max=20.0).astype(np.float64)
    first = count - len(grid)

    @tf.function
    def walked(x, table, z):
        step = methods.step("ancestral", SDE, count, lambda seeds, shape: z_now[0])
        z_now = [None]

        def body(k, x):
            z_now[0] = tf.reshape(z[k], [1, *shape])
            moved = step(guided, x, table[k, :1], table[k, 1:], tf.zeros([1, 2], tf.int32), ())[0]
            return k + 1, tf.ensure_shape(moved, [1, *shape])

        return tf.while_loop(lambda k, _: k < len(table), body, (0, x))[1]

    z = np.random.default_rng(1).normal(size=(len(grid) - 1, 4))
    ours = walked(tf.constant(ours.reshape(1, *shape)), tf.constant(pairs(grid)), tf.constant(z))
    for k, level in enumerate(range(count - 1 - first, 0, -1)):
        product, before, beta = products[level], products[level - 1], 1.0 - products[level] / products[level - 1]
        seen = np.linalg.inv(product * data.covariance + (1.0 - product) * np.eye(4))
        gain = np.sqrt(product) * data.covariance @ seen
        clean = data.mean + gain @ (x - np.sqrt(product) * data.mean)
        missed = y - matrix @ clean
        moved = np.sqrt(1.0 - beta) * (1.0 - before) * x + np.sqrt(before) * beta * clean
        x = moved / (1.0 - product) + np.sqrt(beta * (1.0 - before) / (1.0 - product)) * z[k]
        x = x + 2.0 * zeta * gain.T @ matrix.T @ missed / np.linalg.norm(missed)
    assert np.linalg.norm(matrix @ x - y) < 0.5 * np.linalg.norm(matrix @ data.mean - y)
    np.testing.assert_allclose(np.ravel(ours), x, atol=0.02)
