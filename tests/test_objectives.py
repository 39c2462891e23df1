"""Every objective against closed forms on Gaussian data, against its definition, and through the real network.

Sums over a few points with the right first and second moments replace expectations wherever a loss is quadratic, so
most of these tests have no Monte Carlo error at all.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import objectives, random, times, weightings
from ncsn_tf.networks.mlp import MLP
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.score import EnergyModel, ScoreModel, nearest_level
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian

SDE = VE(sigma_max=1.0, sigma_min=0.01)
DATA = Gaussian(0.4, 0.3)
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))  # mean 0 and E[v v'] = I in the plane, exactly


def sigma_of(t):
    return SDE.marginal(t)[1]


def draws(count, shape, seed=0):
    rows = random.per_example(random.seed(seed), tf.range(count))
    return random.normal(random.fold_each(rows, 1), shape), random.normal(random.fold_each(rows, 2), shape)


def wavy(x, t):
    """A score function whose Jacobian is full and known: s_i = sin(x_i) t + (sum of x^2) / 2."""
    flat = tf.reshape(x, [tf.shape(x)[0], -1])
    score = tf.sin(flat) * t[:, None] + 0.5 * tf.reduce_sum(flat**2, axis=1, keepdims=True)
    return tf.reshape(score, tf.shape(x))


def wavy_jacobian(x, t):
    x, t = np.asarray(x, np.float64).reshape(len(x), -1), np.asarray(t, np.float64)
    return np.cos(x)[:, :, None] * np.eye(x.shape[1]) * t[:, None, None] + x[:, None, :]


# Against the definitions


@pytest.mark.parametrize("at_once", [None, 1, 4, 100])
@pytest.mark.parametrize("shape", [(2,), (7,), (3, 2, 2)])
def test_exact_is_the_trace_and_half_the_squared_norm(shape, at_once):
    x, _ = draws(5, shape)
    t = tf.linspace(0.1, 0.9, 5)
    score = np.asarray(wavy(x, t), np.float64).reshape(5, -1)
    expected = np.trace(wavy_jacobian(x, t), axis1=1, axis2=2) + 0.5 * (score**2).sum(1)
    np.testing.assert_allclose(objectives.exact(wavy, x, t, directions_at_once=at_once), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (3, 2, 1), (70,)])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("variance_reduced", [False, True])
def test_sliced_is_the_mean_over_its_slices(shape, count, variance_reduced):
    x, _ = draws(4, shape)
    v, _ = draws(4, (count, *shape), seed=9)
    t = tf.linspace(0.1, 0.9, 4)
    score = np.asarray(wavy(x, t), np.float64).reshape(4, -1)
    u = np.asarray(v, np.float64).reshape(4, count, -1)
    curvature = np.einsum("bmi,bij,bmj->bm", u, wavy_jacobian(x, t), u)
    squares = (score**2).sum(1)[:, None] if variance_reduced else np.einsum("bmi,bi->bm", u, score) ** 2
    loss = objectives.sliced(wavy, x, t, v, variance_reduced=variance_reduced)
    np.testing.assert_allclose(loss, (curvature + 0.5 * squares).mean(1), rtol=2e-5)


@pytest.mark.parametrize("variance_reduced", [False, True])
def test_all_signs_as_slices_give_the_exact_loss(variance_reduced):
    """E[v v'] = I is all that the two losses need to agree, and the four signs of the plane have it exactly."""
    x, _ = draws(6, (2,))
    t = tf.linspace(0.1, 0.9, 6)
    v = tf.repeat(tf.constant(SIGNS, tf.float32)[None], 6, axis=0)
    loss = objectives.sliced(wavy, x, t, v, variance_reduced=variance_reduced)
    np.testing.assert_allclose(loss, objectives.exact(wavy, x, t), rtol=1e-5)


@pytest.mark.parametrize(
    "draw",
    [random.normal, random.rademacher, lambda rows, shape: random.spherical(rows, shape, event_rank=1)],
    ids=["normal", "rademacher", "spherical"],
)
@pytest.mark.parametrize("variance_reduced", [False, True])
def test_random_slices_give_the_exact_loss_on_average(draw, variance_reduced):
    count = 20_000
    x = tf.repeat(draws(1, (5,))[0], count, axis=0)
    t = tf.fill([count], 0.5)
    v = draw(random.per_example(random.seed(4), tf.range(count)), (2, 5))
    losses = objectives.sliced(wavy, x, t, v, variance_reduced=variance_reduced).numpy()
    error = losses.std() / np.sqrt(count)
    assert abs(losses.mean() - float(objectives.exact(wavy, x[:1], t[:1])[0])) < 4 * error


def test_denoising_keeps_the_digits_of_a_number_in_float64():
    x, z, t = tf.zeros([1, 1], tf.float64), tf.ones([1, 1], tf.float64), tf.zeros([1])
    loss = objectives.denoising(lambda x, t: tf.zeros_like(x), x, t, z, 0.1)
    np.testing.assert_allclose(loss, 0.5 / 0.1**2, rtol=1e-14)


def test_denoising_is_the_distance_to_the_kernels_score():
    """Against 1/2 || s + (x~ - x)/sigma^2 ||^2 in float64, with one sigma for all and with one for each."""
    x, z = draws(8, (3, 2))
    t = tf.linspace(0.1, 0.9, 8)
    for sigma in (0.3, np.linspace(0.2, 2.0, 8, dtype=np.float32)):
        width = np.broadcast_to(np.asarray(sigma, np.float64), [8])[:, None, None]
        noisy = x + tf.constant(width, tf.float32) * z
        residual = np.asarray(wavy(noisy, t)) + (noisy.numpy() - x.numpy()) / width**2
        expected = 0.5 * (residual**2).sum((1, 2))
        np.testing.assert_allclose(objectives.denoising(wavy, x, t, z, sigma), expected, rtol=2e-4)


class Shrinking:
    """An SDE with alpha = 1 - t / 2 and sigma = t, to see that the objectives ask their SDE."""

    def marginal(self, t):
        return 1.0 - 0.5 * t, t


ANNEALED = {
    "exact": lambda *arguments, v, **options: objectives.annealed_exact(*arguments, **options),
    "sliced": lambda *arguments, v, **options: objectives.annealed_sliced(*arguments, v, **options),
    "denoising": lambda *arguments, v, **options: objectives.annealed_denoising(*arguments, **options),
}


@pytest.mark.parametrize("sde", [SDE, Shrinking()], ids=["VE", "shrinking"])
def test_annealed_forms_perturb_and_weight(sde):
    x, z = draws(6, (4,))
    v, _ = draws(6, (2, 4), seed=5)
    t = tf.linspace(0.1, 0.9, 6)
    alpha, sigma = sde.marginal(t)
    mean = alpha[:, None] * x
    noisy = mean + sigma[:, None] * z
    plain = {
        "exact": objectives.exact(wavy, noisy, t),
        "sliced": objectives.sliced(wavy, noisy, t, v),
        "denoising": objectives.denoising(wavy, mean, t, z, sigma),
    }
    by_power = {
        2.0: {},
        1.0: {"weighting": weightings.sigma_power(1.0)},
        0.0: {"weighting": lambda sde, t: tf.ones_like(t)},
    }
    for (name, annealed), (power, options) in itertools.product(ANNEALED.items(), by_power.items()):
        loss = annealed(wavy, sde, x, t, z, v=v, **options)
        np.testing.assert_allclose(loss, sigma**power * plain[name], rtol=1e-5, err_msg=name)


# Against closed forms on Gaussian data


@pytest.mark.parametrize("t", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("name", ANNEALED)
def test_the_loss_at_the_true_score_is_its_closed_form(name, t):
    """At the optimum: -D/2 sigma^2/(s^2 + sigma^2) for exact and sliced, D/2 s^2/(s^2 + sigma^2) for denoising."""
    count, shape = 40_000, (2, 1, 3)
    u, z = draws(count, shape)
    v, _ = draws(count, (1, *shape), seed=8)
    x = DATA.mean + DATA.deviation * u
    losses = ANNEALED[name](DATA.score_fn(sigma_of), SDE, x, tf.fill([count], t), z, v=v).numpy()
    sigma = float(sigma_of(tf.constant([t]))[0])
    expected = DATA.denoising_loss(sigma) if name == "denoising" else -0.5 * sigma**2 / DATA.variance(sigma)
    assert abs(losses.mean() - 6 * expected) < 4 * losses.std() / np.sqrt(count)


def moment_grid(covariance, mean, sigma):
    """All (x, z, v) of a product of sign grids: data of this mean and covariance, unit noise, unit slices, exactly."""
    root = np.linalg.cholesky(covariance)
    x, z, v = (np.array(part) for part in zip(*itertools.product(SIGNS, SIGNS, SIGNS), strict=True))
    grid = (mean + x @ root.T, z, v[:, None])
    return [tf.constant(part, tf.float64) for part in grid], tf.fill([len(x)], tf.constant(sigma, tf.float64))


@pytest.mark.parametrize("name", ["exact", "sliced", "sliced_vr", "denoising"])
def test_all_minimisers_of_a_linear_score_agree(name):
    """The loss of s(x) = -P x + b over data N(m, C) and noise sigma is least at P = (C + sigma^2 I)^-1, b = P m.

    The losses are quadratic in (P, b): one Newton step from anywhere is the minimiser, here to float64's precision.
    """
    covariance, mean, sigma = np.array([[1.3, 0.4], [0.4, 0.6]]), np.array([0.5, -1.0]), 0.7
    (x, z, v), sigmas = moment_grid(covariance, mean, sigma)
    t = tf.ones_like(sigmas)

    def loss(parameters):
        precision, shift = tf.reshape(parameters[:4], [2, 2]), parameters[4:]

        def score_fn(x, t):
            return shift - x @ precision

        noisy = x + sigmas[:, None] * z
        losses = {
            "exact": lambda: objectives.exact(score_fn, noisy, t),
            "sliced": lambda: objectives.sliced(score_fn, noisy, t, v),
            "sliced_vr": lambda: objectives.sliced(score_fn, noisy, t, v, variance_reduced=True),
            "denoising": lambda: objectives.denoising(score_fn, x, t, z, sigmas),
        }
        return tf.reduce_mean(losses[name]())

    start = tf.constant(np.random.default_rng(0).normal(size=6))
    with tf.GradientTape() as outer:
        outer.watch(start)
        with tf.GradientTape() as inner:
            inner.watch(start)
            value = loss(start)
        gradient = inner.gradient(value, start)
    newton = start.numpy() - np.linalg.solve(outer.jacobian(gradient, start), gradient)
    precision = np.linalg.inv(covariance + sigma**2 * np.eye(2))
    np.testing.assert_allclose(newton, [*precision.ravel(), *precision @ mean], atol=1e-12)


# Through the real networks


@pytest.fixture(scope="module")
def ncsn():
    """A narrow NCSN in float64, whose finite differences have digits to spare."""
    keras.utils.set_random_seed(2)
    network = NCSN(channels=1, num_levels=3, filters=2, dtype="float64")
    network.build((None, 3, 2, 1), (None,))
    return network


@pytest.fixture(scope="module")
def energy():
    keras.utils.set_random_seed(3)
    network = MLP(3, num_levels=3, outputs=1, width=5, depth=2, dtype="float64")
    network.build((None, 3), (None,))
    return network


CASES = {
    "denoising": lambda f, x, t, z, v: objectives.annealed_denoising(f, SDE, x, t, z),
    "exact": lambda f, x, t, z, v: objectives.annealed_exact(f, SDE, x, t, z),
    "exact_swept": lambda f, x, t, z, v: objectives.annealed_exact(f, SDE, x, t, z, directions_at_once=2),
    "sliced": lambda f, x, t, z, v: objectives.annealed_sliced(f, SDE, x, t, z, v),
    "sliced_vr": lambda f, x, t, z, v: objectives.annealed_sliced(f, SDE, x, t, z, v, variance_reduced=True),
}


CONDITION = nearest_level(times.uniform(3))

# Through NCSN one direction at a time: several take a minute to trace, and other networks show that they agree.
ONE_BY_ONE = lambda f, x, t, z, v: objectives.annealed_exact(f, SDE, x, t, z, directions_at_once=1)  # noqa: E731


@pytest.mark.parametrize(
    ("kind", "name"), [("energy", name) for name in CASES] + [("ncsn", name) for name in CASES if name != "exact"]
)
def test_parameter_gradients_agree_with_finite_differences(kind, name, request):
    """Along a random direction in all the weights at once: a second-order gradient that is None would show here."""
    network = request.getfixturevalue(kind)
    objective = ONE_BY_ONE if (kind, name) == ("ncsn", "exact_swept") else CASES[name]
    shape = ((2, 1, 1) if name == "exact_swept" else (3, 2, 1)) if kind == "ncsn" else (3,)
    adapter = ScoreModel if kind == "ncsn" else EnergyModel
    score_fn = adapter(network, SDE, condition=CONDITION).score
    x, z = (tf.cast(part, tf.float64) for part in draws(2, shape))
    v = tf.cast(draws(2, (1, *shape), seed=6)[0], tf.float64)
    t = tf.constant([1.0, 0.5])

    def loss():
        return tf.reduce_mean(objective(score_fn, x, t, z, v))

    with tf.GradientTape() as tape:
        value = loss()
    weights = [weight.value for weight in network.trainable_variables]
    gradients = tape.gradient(value, weights, unconnected_gradients="zero")  # an energy's last bias has none
    rng = np.random.default_rng(1)
    directions = [rng.normal(size=weight.shape) / np.sqrt(network.count_params()) for weight in weights]
    slope = sum(np.sum(g * d) for g, d in zip(gradients, directions, strict=True))
    # The instance norms of so small an image have steep third derivatives: the step is small.
    start, step, ends = [weight.numpy() for weight in weights], 1e-7, []
    for sign in (1, -1):
        for weight, at, direction in zip(weights, start, directions, strict=True):
            weight.assign(at + sign * step * direction)
        ends.append(float(loss()))
    for weight, at in zip(weights, start, strict=True):
        weight.assign(at)
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


def test_several_slices_one_by_one_have_their_gradient_through_ncsn(ncsn, monkeypatch):
    """The loop over slices, which larger images take, is the mean of its slices in gradient too."""
    monkeypatch.setattr(objectives, "_FEW_DIMENSIONS", 0)
    score_fn = ScoreModel(ncsn, SDE, condition=CONDITION).score
    x = tf.cast(draws(2, (3, 2, 1))[0], tf.float64)
    v = tf.cast(draws(2, (2, 3, 2, 1), seed=6)[0], tf.float64)
    t = tf.constant([1.0, 0.5])
    results = []
    for parts in ([v], [v[:, :1], v[:, 1:]]):
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(objectives.sliced(score_fn, x, t, part)) / len(parts) for part in parts)
        results.append(tape.gradient(loss, ncsn.trainable_variables))
    for whole, apart in zip(*results, strict=True):
        np.testing.assert_allclose(whole, apart, rtol=1e-8, atol=1e-8 * np.abs(apart).max() + 1e-12)


# Properties


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("name", CASES)
def test_compiled_losses_and_gradients_are_the_eager_ones(name, jit_compile):
    keras.utils.set_random_seed(4)
    network = MLP(6, num_levels=3, width=8)
    network.build((None, 6), (None,))
    score_fn = ScoreModel(network, SDE, condition=CONDITION).score
    x, z = draws(3, (6,))
    v, _ = draws(3, (2, 6), seed=6)
    t = tf.constant([1.0, 0.5, 0.0])

    def step(x):
        with tf.GradientTape() as tape:
            losses = CASES[name](score_fn, x, t, z, v)
        return losses, tape.gradient(losses, network.trainable_variables)

    losses, gradients = step(x)
    compiled, compiled_gradients = tf.function(step, jit_compile=jit_compile, autograph=False)(x)
    np.testing.assert_allclose(compiled, losses, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, compiled_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * (1.0 + np.abs(one).max()))


@pytest.mark.parametrize("name", CASES)
def test_examples_do_not_mix(name):
    x, z = draws(5, (4,))
    v, _ = draws(5, (2, 4), seed=6)
    t = tf.linspace(0.1, 0.9, 5)
    whole = CASES[name](wavy, x, t, z, v)
    parts = [CASES[name](wavy, *(part[i : i + 1] for part in (x, t, z, v)))[0] for i in range(5)]
    np.testing.assert_allclose(whole, parts, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 3])
def test_the_sweep_has_the_gradient_of_the_jacobian(at_once):
    """In the weights and in the examples; seven dimensions do not divide by three."""
    keras.utils.set_random_seed(5)
    network = MLP(7, num_levels=1, width=6)
    network.build((None, 7), (None,))
    x, t = draws(3, (7,))[0], tf.zeros([3])
    results = []
    for directions in (7, at_once):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = objectives.exact(
                lambda x, t: network(x, tf.zeros([3], tf.int32)), x, t, directions_at_once=directions
            )
            weighted = tf.reduce_sum(losses * [1.0, -2.0, 3.0])
        results.append(tape.gradient(weighted, [x, *network.trainable_variables]))
    for whole, swept in zip(*results, strict=True):
        np.testing.assert_allclose(swept, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_sweep_has_the_gradient_in_whatever_the_score_reads(compiled):
    """Tensors, variables and t alike: s = -r x with r = slope + t w has the loss -D r + r^2 |x|^2 / 2."""
    x, t, slope, weight = draws(3, (5,))[0], tf.constant([0.1, 0.5, 0.9]), tf.constant(2.0), tf.Variable(0.5)

    def gradients(x, t, slope):
        def score_fn(x, t):
            return -(slope + t[:, None] * weight) * x

        with tf.GradientTape() as tape:
            tape.watch([x, t, slope])
            loss = tf.reduce_sum(objectives.exact(score_fn, x, t, directions_at_once=2))
        return tape.gradient(loss, [x, t, slope, weight])

    found = (tf.function(gradients) if compiled else gradients)(x, t, slope)
    rate = 2.0 + 0.5 * t.numpy()
    by_rate = -5.0 + rate * np.sum(x.numpy() ** 2, axis=1)
    expected = rate[:, None] ** 2 * x, 0.5 * by_rate, by_rate.sum(), (t.numpy() * by_rate).sum()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_score_that_ignores_x_has_no_curvature():
    x, t = draws(3, (2,))[0], tf.zeros([3])
    constant = objectives.exact(lambda x, t: tf.constant([[3.0, 4.0]] * 3), x, t)
    np.testing.assert_allclose(constant, [12.5] * 3)
    v = tf.ones([3, 1, 2])
    np.testing.assert_allclose(objectives.sliced(lambda x, t: tf.constant([[3.0, 4.0]] * 3), x, t, v), [24.5] * 3)


# Bad input


def test_bad_shapes_and_numbers_are_refused():
    x, z = draws(3, (4,))
    t = tf.fill([3], 0.5)
    for slices in (tf.zeros([3, 4]), tf.zeros([3, 0, 4]), tf.zeros([3, 1, 5]), tf.zeros([3, 1, 2, 2])):
        with pytest.raises(ValueError, match="Slices.*Received"):
            objectives.sliced(wavy, x, t, slices)
    for sigma in (0.0, -1.0, float("nan"), float("inf"), np.array([0.1, 0.0, 0.1], np.float32)):
        with pytest.raises(ValueError, match="positive finite sigma"):
            objectives.denoising(wavy, x, t, z, sigma)
    for objective in (
        lambda x, t, z: objectives.exact(wavy, x, t),
        lambda x, t, z: objectives.sliced(wavy, x, t, x[:, None]),
        lambda x, t, z: objectives.denoising(wavy, x, t, z, 0.1),
        lambda x, t, z: objectives.annealed_exact(wavy, SDE, x, t, z),
    ):
        with pytest.raises(ValueError, match="one time per example"):
            objective(x, tf.zeros([5]), z)
        with pytest.raises(ValueError, match="Examples must be floats"):
            objective(tf.ones([3, 4], tf.int32), t, z)
    for slices in (tf.zeros([5, 1, 4]), tf.zeros([1, 2, 4])):
        with pytest.raises(ValueError, match="Slices.*Received"):
            objectives.sliced(wavy, x, t, slices)
    with pytest.raises(ValueError, match="Noise must have the shape"):
        objectives.annealed_exact(wavy, SDE, x, t, z[:1])
    with pytest.raises(ValueError, match="Noise must have the shape"):
        objectives.denoising(wavy, x, t, z[:, :2], 0.1)
    with pytest.raises(ValueError, match="directions_at_once"):
        objectives.exact(wavy, x, t, directions_at_once=0)
    narrow = lambda x, t: x[:, :2]  # noqa: E731
    for objective in (objectives.exact, lambda f, x, t: objectives.sliced(f, x, t, x[:, None])):
        with pytest.raises(ValueError, match="A score must have the shape of its examples"):
            objective(narrow, x, t)
    with pytest.raises(ValueError, match="number of values"):
        tf.function(lambda x: objectives.exact(wavy, x, t)).get_concrete_function(tf.TensorSpec([3, None]))
