"""Replacement, PiGDM and DPS: what each does by definition, options by name, evaluations, rows of their own."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, samplers, score
from ncsn_tf.guidance import dps, inpainting, measurements, pigdm, replacement, restoring, starts, tweedie
from ncsn_tf.samplers import driver
from ncsn_tf.sde import VE, VP
from tests.support import affine

SDE = VP()
SHAPE = (2, 2, 3)
DATA = affine.example(SHAPE)
NAMES = ("mask:left", "grey", "downsample:2", "blur:0.7", "fourier:0.4")
T = tf.constant([0.3, 0.7], tf.float64)


def points(count=2, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=(count, *SHAPE)))


# Replacement


@pytest.mark.parametrize("reference", ["walk", "level", "step"])
def test_replacement_by_a_mask_is_inpainting_bit_for_bit(reference):
    known = np.array([[True, False], [True, True]])[..., None]
    images = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    given = images, np.broadcast_to(known, (3, 2, 2, 1))
    seeds, x, tensors = starts.completions_of(tf.range(3), given, SHAPE, SDE.prior_sample, run_seed=0, completions=1)
    measurement = measurements.mask(known, 3)
    sampler, score_fn = samplers.make("ancestral", SDE, 4), DATA.score_fn(SDE)
    expected = sampler(score_fn, x, seeds, inpainting.Inpainting(SDE, reference), tensors).x
    guidance = replacement.Replacement(SDE, measurement, reference=reference)
    found = sampler(score_fn, x, seeds, guidance, (measurement.forward(tf.constant(images)),)).x
    np.testing.assert_array_equal(found, expected)


def projected(guidance, x, y, t, z):
    """x and its mean after a projection whose noise is z."""
    guidance = dataclasses.replace(guidance, draw=lambda seeds, shape: z)
    nowhere = tf.zeros([len(x), 2], tf.int32)
    return guidance.project(x, x, t, driver.StepSeeds(nowhere, nowhere, tf.constant(0)), (y,))


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_replaced_coefficients_have_the_noise_of_the_time_and_no_more(name, noise):
    """The measurement's own noise and what is added are sigma together, as long as there is room for it."""
    measurement, x, y0, z = restoring.measurement(name, SHAPE), points(), points(seed=1), points(seed=2)
    y = measurement.forward(y0)
    found, mean = projected(replacement.Replacement(SDE, measurement, noise), x, y, T, z)
    alpha, sigma = (score.expand(part, x).numpy() for part in SDE.marginal(T))
    values, before = measurement.singular_values, measurement.spectrum(x).numpy()
    after, centre, clean = (measurement.spectrum(each).numpy() for each in (found, mean, y0))
    own = alpha * noise / np.where(values > 0.0, values, np.inf)
    known = (values > 0.0) & (own <= sigma)
    added = np.where(known, after - alpha * clean, 0.0) / np.where(known, z, 1.0)
    np.testing.assert_allclose(np.where(known, added**2 + own**2, 0.0), np.where(known, sigma**2, 0.0), atol=1e-9)
    np.testing.assert_allclose(np.where(known, before, after), before, atol=1e-12)
    np.testing.assert_allclose(centre, np.where(known, alpha * clean, before), atol=1e-9)


def test_a_coefficient_is_let_go_once_the_samples_have_less_noise_than_it():
    measurement = restoring.measurement("mask:left", SHAPE)
    guidance = replacement.Replacement(SDE, measurement, 0.3)
    x, z = points(), points(seed=2)
    t = SDE.time(tf.constant([0.31, 0.29], tf.float64))
    moved = np.abs(projected(guidance, x, measurement.forward(points(seed=1)), t, z)[0] - x)[:, :, 0]
    assert (moved[0] > 1e-3).all() and (moved[1] == 0.0).all()


def test_a_weight_moves_coefficients_part_of_the_way():
    measurement, x, z = restoring.measurement("grey", SHAPE), points(), points(seed=2)
    y = measurement.forward(points(seed=1))
    whole, _ = projected(replacement.Replacement(SDE, measurement), x, y, T, z)
    part, _ = projected(replacement.Replacement(SDE, measurement, weight=0.25), x, y, T, z)
    np.testing.assert_allclose(part, 0.75 * x + 0.25 * whole, atol=1e-12)


# Posterior sampling


def jacobian(x, t):
    """The matrices of x -> E[x_0 | x], [B, D, D], by the closed form."""
    alpha, sigma = (float(part[0]) for part in SDE.marginal(t[None]))
    size = len(DATA.mean)
    gain = alpha * DATA.covariance @ np.linalg.inv(alpha**2 * DATA.covariance + sigma**2 * np.eye(size))
    return DATA.mean + gain @ (x - alpha * DATA.mean), gain, alpha, sigma


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("name", NAMES)
def test_pigdm_adds_the_gradient_of_its_likelihood(name, noise):
    measurement, x, s = restoring.measurement(name, SHAPE), points(), 0.4
    matrix = affine.dense(measurement)
    y = np.random.default_rng(3).normal(size=len(matrix))
    given = (tf.repeat(affine.laid_out(measurement, y), 2, axis=0),)
    guidance = pigdm.PiGDM(SDE, measurement, noise, scale=1.7, data_deviation=s, most_pull=1e9)
    added = guidance.score(DATA.score_fn(SDE), SDE, given)(x, T) - DATA.score_fn(SDE)(x, T)
    for row in range(2):
        clean, gain, alpha, sigma = jacobian(x[row].numpy().ravel(), T[row])
        variance = 1.0 / (alpha**2 / sigma**2 + 1.0 / s**2)
        seen = np.linalg.inv(variance * matrix @ matrix.T + noise**2 * np.eye(len(matrix)))
        expected = 1.7 * gain.T @ matrix.T @ seen @ (y - matrix @ clean)
        np.testing.assert_allclose(np.ravel(added[row]), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("most_pull", "sound"), [(4.0, True), (1e9, False)])
def test_pigdm_does_not_diverge_along_a_network_that_knows_nothing(most_pull, sound):
    """With a score of 0, D = x / alpha and J = 1 / alpha, 152 at t=1: without a bound few steps go ever farther."""
    sde, measurement = VP(), restoring.measurement("downsample:2", (4, 4, 1))
    seeds = random.per_example(random.seed(0), tf.range(4))
    x = sde.prior_sample(random.fold_each(seeds, random.Stream.PRIOR), (4, 4, 1))
    y = tf.zeros([4, *measurement.measured_shape])
    guidance = pigdm.PiGDM(sde, measurement, 0.1, most_pull=most_pull)
    drawn = samplers.make("ancestral", sde, 30)(lambda x, t: tf.zeros_like(x), x, seeds, guidance, (y,))
    residual = np.sqrt(np.mean(measurement.forward(drawn.x) ** 2))
    assert (residual < 1.0) == sound, residual


@pytest.mark.parametrize("name", NAMES)
def test_dps_goes_down_the_norm_of_the_residual(name):
    """By 1,000 zeta / (g^2 norm) times the gradient of the square, which is twice that of the norm."""
    measurement, x = restoring.measurement(name, SHAPE), points()
    matrix = affine.dense(measurement)
    y = np.random.default_rng(3).normal(size=len(matrix))
    given = (tf.repeat(affine.laid_out(measurement, y), 2, axis=0),)
    guided = dps.DPS(SDE, measurement, zeta=0.3).score(DATA.score_fn(SDE), SDE, given)(x, T)
    added = guided - DATA.score_fn(SDE)(x, T)
    for row in range(2):
        clean, gain, _, _ = jacobian(x[row].numpy().ravel(), T[row])
        missed = y - matrix @ clean
        g = SDE.diffusion(T[row : row + 1]).numpy()[0]
        expected = 1_000 * 0.3 / g**2 * 2.0 * gain.T @ matrix.T @ missed / np.linalg.norm(missed)
        np.testing.assert_allclose(np.ravel(added[row]), expected, rtol=1e-7, atol=1e-9)


def test_a_prediction_is_pulled_back_by_its_jacobian():
    x = points()
    predicted, v = tweedie.predict(DATA.score_fn(SDE), SDE, x, T), points(seed=1)
    pulled = predicted.pull(v)
    for row in range(2):
        clean, gain, _, _ = jacobian(x[row].numpy().ravel(), T[row])
        np.testing.assert_allclose(np.ravel(predicted.clean[row]), clean, rtol=1e-9)
        np.testing.assert_allclose(np.ravel(pulled[row]), gain.T @ np.ravel(v[row]), rtol=1e-9)


# All methods


@pytest.mark.parametrize("name", restoring.METHODS)
def test_a_row_is_alone_and_its_evaluations_are_counted(name):
    """With few steps of Heun's method on VE; a pass back counts as one evaluation. DPS does not guide the end."""
    sde = VE(sigma_max=5.0, sigma_min=0.01)
    measurement = restoring.measurement("downsample:2", SHAPE)
    y = np.random.default_rng(0).normal(size=(5, *measurement.measured_shape)).astype(np.float32)
    guidance = restoring.make(name, sde, measurement, 0.1)
    sampler = samplers.make("heun", sde, 3)
    begun = starts.completions_of(tf.range(5), (y,), SHAPE, sde.prior_sample, run_seed=0, completions=1)

    def drawn(rows):
        seeds, x, given = begun
        return sampler(DATA.score_fn(sde), x[rows], seeds[rows], guidance, (given[0][rows],))

    whole = drawn(slice(None))
    assert np.isfinite(whole.x).all()
    np.testing.assert_array_equal(whole.evaluations, [{"replacement": 7, "pigdm": 14, "dps": 13}[name]] * 5)
    np.testing.assert_allclose(drawn(slice(2, 3)).x, whole.x[2:3], rtol=1e-4, atol=1e-4)


def test_samplers_with_error_control_take_posterior_sampling_and_refuse_projections():
    measurement = restoring.measurement("grey", SHAPE)
    sampler = samplers.make("probability_flow", SDE, rtol=1e-2, atol=1e-2)
    seeds = random.per_example(random.seed(0), tf.range(2))
    x, y = SDE.prior_sample(seeds, SHAPE), tf.zeros([2, *measurement.measured_shape])
    plain = sampler(DATA.score_fn(SDE), x, seeds)
    guided = sampler(DATA.score_fn(SDE), x, seeds, restoring.make("pigdm", SDE, measurement, 0.1), (y,))
    before, after = (np.abs(measurement.forward(drawn.x)).mean() for drawn in (plain, guided))
    assert after < 0.9 * before and (guided.evaluations.numpy() % 2 == 0).all()
    with pytest.raises(ValueError, match="needs fixed steps"):
        sampler(DATA.score_fn(SDE), x, seeds, restoring.make("replacement", SDE, measurement), (y,))


def test_a_text_gives_a_method_and_its_options():
    assert restoring.options("pigdm") == ("pigdm", {})
    assert restoring.options("pigdm, scale=2,data_deviation=0.5") == ("pigdm", {"scale": 2.0, "data_deviation": 0.5})
    assert restoring.options("replacement,reference=step") == ("replacement", {"reference": "step"})


MEASUREMENT = restoring.measurement("grey", SHAPE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: restoring.options("pigmd"), "`method` to be one of replacement, pigdm, dps. Received: 'pigmd'"),
        (
            lambda: restoring.options("pigdm,zeta=1"),
            "of the method pigdm are: scale, data_deviation, most_pull. Received: zeta",
        ),
        (lambda: restoring.options("dps,zeta=much"), "dps's zeta must be a number. Received: 'much'"),
        (lambda: restoring.options("dps,zeta=nan"), "dps's zeta must be"),
        (lambda: restoring.make("dps", SDE, MEASUREMENT, draw=None), "are: zeta. Received: draw"),
        (lambda: restoring.make("dps", SDE, MEASUREMENT, zeta=-1.0), "zeta must be at least 0 and finite"),
        (lambda: restoring.make("dps", SDE, MEASUREMENT, zeta=np.inf), "zeta must be at least 0 and finite"),
        (lambda: restoring.make("pigdm", SDE, MEASUREMENT, scale=-0.5), "at least 0 and finite. Received: scale=-0.5"),
        (lambda: restoring.make("pigdm", SDE, MEASUREMENT, data_deviation=0.0), "positive and finite"),
        (lambda: restoring.make("pigdm", SDE, MEASUREMENT, most_pull=0.0), "finite. Received: most_pull=0"),
        (lambda: restoring.check_sampler("dps", "langevin"), "langevin has steps at one time"),
        (lambda: restoring.measurement("blur:1e7", SHAPE), "at most as wide as the images"),
        (lambda: restoring.measurement("box:101", SHAPE), "at most twice that of the images"),
        (lambda: restoring.make("pigdm", SDE, MEASUREMENT, float("nan")), "at least 0 and finite. Received: noise=nan"),
        (lambda: restoring.make("pigdm", SDE, MEASUREMENT, -0.1), "at least 0 and finite. Received: noise=-0.1"),
        (lambda: restoring.make("replacement", SDE, MEASUREMENT, weight=0.0), r"in \(0, 1\]. Received: weight=0"),
        (lambda: restoring.make("replacement", SDE, MEASUREMENT, reference="once"), "once per walk, level, step"),
    ],
)
def test_impossible_methods_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
