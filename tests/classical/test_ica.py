"""Independent components: the logistic density, both objectives, and the precision with which W is recovered."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from ncsn_tf.classical import components, ica, optimisation
from ncsn_tf.classical.components import LOGISTIC, TANH, LogCosh
from ncsn_tf.classical.ica import ScoreMatchingICA

METHODS = ["score_matching", "maximum_likelihood"]
UNIT_VARIANCE = stats.logistic(scale=np.sqrt(3) / np.pi)


def rotation(dimensions, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))[0]


def sources(count, dimensions=3, seed=0):
    return UNIT_VARIANCE.rvs((count, dimensions), random_state=seed)


def matched(product):
    """W A with its rows in the order and with the signs that are nearest to the identity."""
    order = np.argmax(np.abs(product), axis=0)
    assert sorted(order) == list(range(len(product)))
    return product[order] * np.sign(np.diag(product[order]))[:, None]


# The density


@pytest.mark.parametrize("density", [LOGISTIC, TANH, LogCosh(power=3.5, rate=0.3)])
def test_slope_and_curvature_are_the_derivatives_of_the_log_density(density):
    s, step = np.linspace(-4, 4, 41), 1e-4
    up, middle, down = (density.log_density(s + shift).numpy() for shift in (step, 0.0, -step))
    np.testing.assert_allclose(density.slope(s), (up - down) / (2 * step), atol=1e-7)
    np.testing.assert_allclose(density.curvature(s), (up - 2 * middle + down) / step**2, atol=1e-6)


@pytest.mark.parametrize("density", [LOGISTIC, TANH, LogCosh(power=3.5, rate=0.3)])
def test_density_integrates_to_one(density):
    total, _ = integrate.quad(lambda s: float(tf.exp(density.log_density(np.float64(s)))), -np.inf, np.inf)
    assert np.log(total) == pytest.approx(density.log_normaliser, abs=1e-9)


def test_logistic_density_has_unit_variance():
    s = np.linspace(-6, 6, 25)
    np.testing.assert_allclose(LOGISTIC.log_density(s) - LOGISTIC.log_normaliser, UNIT_VARIANCE.logpdf(s), rtol=1e-12)
    assert UNIT_VARIANCE.var() == pytest.approx(1.0)
    assert LOGISTIC.log_normaliser == pytest.approx(np.log(4 * np.sqrt(3) / np.pi))
    assert LOGISTIC.log_normaliser - np.log(4) == pytest.approx(np.log(np.sqrt(3) / np.pi))  # with the paper's log 4


def test_log_density_neither_overflows_nor_loses_its_tail():
    far = np.array([-1e6, 1e6])
    np.testing.assert_allclose(TANH.log_density(far), -np.abs(far) + np.log(2.0), rtol=1e-12)
    np.testing.assert_array_equal(TANH.slope(far), [1.0, -1.0])


# The objectives


@pytest.mark.parametrize("count", [2, 5])
def test_objective_is_the_trace_of_the_jacobian_plus_half_the_squared_score(count):
    """Theorem 1's form for any filters and weights, with both derivatives of the log-density taken by TensorFlow."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((40, 3)))
    filters, alphas = rng.standard_normal((count, 3)), rng.uniform(0.5, 2.0, count)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            log_p = tf.reduce_sum(alphas * LOGISTIC.log_density(tf.matmul(x, filters, transpose_b=True)), axis=1)
        score = inner.gradient(log_p, x)
    jacobian = outer.batch_jacobian(score, x)
    expected = tf.reduce_mean(tf.linalg.trace(jacobian) + 0.5 * tf.reduce_sum(tf.square(score), axis=1))
    np.testing.assert_allclose(components.score(LOGISTIC, x, filters, alphas), score, rtol=1e-10)
    assert float(components.objective(LOGISTIC, x, filters, alphas)) == pytest.approx(float(expected), rel=1e-12)


def test_objective_is_equation_10():
    rng = np.random.default_rng(1)
    x, w, rate = rng.standard_normal((50, 3)), rng.standard_normal((3, 3)), np.pi / (2 * np.sqrt(3))
    t = np.tanh(rate * x @ w.T)
    g, curvature = -np.pi / np.sqrt(3) * t, -(np.pi**2) / 6 * (1 - t**2)
    first = sum((w[k] @ w[k]) * curvature[:, k].mean() for k in range(3))
    second = sum((w[j] @ w[k]) * (g[:, j] * g[:, k]).mean() for j in range(3) for k in range(3))
    assert float(ica.objective(x, w)) == pytest.approx(first + 0.5 * second, rel=1e-12)


def test_log_likelihood_is_that_of_a_linear_map_of_logistic_sources():
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((50, 3)), rng.standard_normal((3, 3))
    expected = UNIT_VARIANCE.logpdf(x @ w.T).sum(1).mean() + np.log(np.abs(np.linalg.det(w)))
    assert float(ica.log_likelihood(x, w)) == pytest.approx(expected, rel=1e-12)


def gradient_in(objective, x, w, step=1e-5):
    """The gradient of a scalar objective(x, W) with respect to W, by central differences."""
    found = np.zeros_like(w)
    for index in np.ndindex(*w.shape):
        shift = np.zeros_like(w)
        shift[index] = step
        found[index] = (float(objective(x, w + shift)) - float(objective(x, w - shift))) / (2 * step)
    return found


def test_gradients_used_by_the_search_are_those_of_the_objectives():
    """With respect to B, where W = B V."""
    rng = np.random.default_rng(3)
    x, v, b = rng.standard_normal((60, 3)), rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    cases = ((ica._score_matching, ica.objective, 1), (ica._negative_log_likelihood, ica.log_likelihood, -1))
    for function, objective, sign in cases:
        value, gradient = function(*map(tf.constant, (x, v, b)))
        assert float(value) == pytest.approx(sign * float(objective(x, b @ v)), rel=1e-12)
        np.testing.assert_allclose(gradient, sign * gradient_in(objective, x, b @ v) @ v.T, rtol=1e-6, atol=1e-7)


def test_gradient_of_the_likelihood_matches_its_closed_form():
    """W^-T + mean g(W x) x'."""
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((60, 3)), rng.standard_normal((3, 3))
    g = -np.pi / np.sqrt(3) * np.tanh(np.pi / (2 * np.sqrt(3)) * x @ w.T)
    expected = np.linalg.inv(w).T + g.T @ x / len(x)
    np.testing.assert_allclose(gradient_in(ica.log_likelihood, x, w), expected, rtol=1e-6, atol=1e-8)


# The estimates


def asymptotic_variances(method):
    """n times the variance of an off-diagonal entry of W A, and of a diagonal one, where A is a rotation.

    The estimating function of W_ij at W = I is h_ij; the variance is the sandwich H^-1 cov(h) H^-1, which decomposes
    into blocks of (ij, ji) and into single ii. For score matching H is E[dpsi/dW_ij . dpsi/dW_kl]: the model is true.
    """

    def mean(function):
        return integrate.quad(lambda s: function(s) * UNIT_VARIANCE.pdf(s), -40, 40)[0]

    c = np.pi / (2 * np.sqrt(3))

    def g(s):
        return -2 * c * np.tanh(c * s)

    def k(s):
        return -2 * c**2 / np.cosh(c * s) ** 2

    gg = mean(lambda s: g(s) ** 2)
    if method == "maximum_likelihood":  # h_ij = g_i s_j, and 1 + g_i s_i; H = cov(h)
        pair = np.linalg.inv(np.array([[gg, 1.0], [1.0, gg]]))
        return pair[0, 0], 1.0 / (mean(lambda s: (g(s) * s) ** 2) - 1.0)
    # h_ij = g_i g_j + 2 g_i g'_i s_j with g'' = g g', and E[s g] = -1, E[g'] = -E[g^2]
    ggk, square = mean(lambda s: g(s) ** 2 * k(s)), mean(lambda s: (g(s) * k(s)) ** 2)
    variance = gg**2 - 4 * ggk + 4 * square
    covariance = gg**2 - 4 * ggk + 4 * mean(lambda s: g(s) * k(s) * s) ** 2
    hessian = np.array([[gg + mean(lambda s: k(s) ** 2), 2 * gg], [2 * gg, gg + mean(lambda s: k(s) ** 2)]])
    inverse = np.linalg.inv(hessian)
    pair = inverse @ np.array([[variance, covariance], [covariance, variance]]) @ inverse
    single = mean(lambda s: (2 * k(s) + g(s) * k(s) * s + g(s) * (g(s) + k(s) * s)) ** 2)
    return pair[0, 0], single / mean(lambda s: (g(s) + k(s) * s) ** 2) ** 2


@pytest.mark.parametrize("method", METHODS)
def test_the_unmixing_matrix_is_recovered_with_its_asymptotic_precision(method):
    count, runs, mixing = 4_000, 16, rotation(3)
    deviations = []
    for run in range(runs):
        model = ScoreMatchingICA(method, random_state=run).fit(sources(count, seed=run) @ mixing.T)
        assert model.converged_
        deviations.append(matched(model.components_ @ mixing) - np.eye(3))
    off_diagonal, diagonal = (variance / count for variance in asymptotic_variances(method))
    pairs = np.array(deviations)[:, ~np.eye(3, dtype=bool)]
    singles = np.array(deviations)[:, np.eye(3, dtype=bool)]
    # Entries ij and ji are dependent, so only runs x 3 pairs count as independent draws.
    assert np.mean(pairs**2) == pytest.approx(off_diagonal, rel=4 * np.sqrt(2 / (3 * runs)))
    assert np.mean(singles**2) == pytest.approx(diagonal, rel=4 * np.sqrt(2 / (3 * runs)))
    assert np.abs(pairs).max() < 5 * np.sqrt(off_diagonal)


def test_gradient_vanishes_at_the_score_matching_estimate():
    x = sources(2_000) @ np.random.default_rng(0).standard_normal((3, 3))
    model = ScoreMatchingICA().fit(x)
    gradient = gradient_in(ica.objective, x - x.mean(0), model.components_)
    np.testing.assert_allclose(gradient @ model.components_.T, 0.0, atol=1e-5 * np.abs(model.loss_))
    assert model.loss_ == pytest.approx(model.loss(x), rel=1e-12)
    for run in range(3):
        step = 1e-2 * np.random.default_rng(run).standard_normal((3, 3))
        assert float(ica.objective(x - x.mean(0), model.components_ @ (np.eye(3) + step))) > model.loss_


def test_likelihood_equations_hold_at_the_maximum():
    """mean g(y_i) y_j = -[i = j]."""
    x = sources(2_000) @ np.random.default_rng(0).standard_normal((3, 3)) + 5.0
    model = ScoreMatchingICA("maximum_likelihood").fit(x)
    y = (x - x.mean(0)) @ model.components_.T
    np.testing.assert_allclose(LOGISTIC.slope(y).numpy().T @ y / len(y), -np.eye(3), atol=1e-5)
    assert model.loss_ == pytest.approx(-model.score(x), rel=1e-12)
    np.testing.assert_allclose(model.mixing_ @ model.components_, np.eye(3), atol=1e-12)


def test_maximum_likelihood_is_equivariant_to_linear_maps_and_score_matching_only_to_similarities():
    x, turn = sources(2_000), rotation(3, seed=1)
    shear = np.eye(3) + 0.8 * np.eye(3, k=1)
    for method, maps in (("score_matching", [turn, 1e3 * turn]), ("maximum_likelihood", [turn, 1e-3 * shear])):
        plain = ScoreMatchingICA(method).fit(x)
        for linear in maps:
            mapped = ScoreMatchingICA(method).fit(x @ linear.T)
            np.testing.assert_allclose(
                matched(mapped.components_ @ linear @ plain.mixing_), np.eye(3), atol=1e-4, err_msg=method
            )
    sheared = ScoreMatchingICA().fit(x @ shear.T)
    plain = ScoreMatchingICA().fit(x)
    assert np.abs(matched(sheared.components_ @ shear @ plain.mixing_) - np.eye(3)).max() > 0.01


def test_score_function_is_the_gradient_of_the_log_density():
    x = sources(500) @ rotation(3).T + 1.0
    model = ScoreMatchingICA().fit(x)
    points = tf.constant(x[:9])
    with tf.GradientTape() as tape:
        tape.watch(points)
        log_p = tf.reduce_sum(LOGISTIC.log_density((points - x.mean(0)) @ model.components_.T))
    expected = tape.gradient(log_p, points)
    np.testing.assert_allclose(model.score_function(x[:9]), expected, rtol=1e-9)
    single = tf.function(model.score_function)(x[:9].astype(np.float32), tf.zeros(9))
    assert single.dtype == tf.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-5)


# The estimator interface


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_passes_scikit_learns_checks():
    check_estimator(ScoreMatchingICA())


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension_recovers_the_scale(method):
    """In one dimension only the norm is free: it is the inverse deviation if the sources are logistic."""
    x = 7.0 * sources(4_000, 1)
    model = ScoreMatchingICA(method).fit(x)
    deviation = np.sqrt(asymptotic_variances(method)[1] / 4_000)
    assert abs(7.0 * abs(model.components_[0, 0]) - 1.0) < 4 * deviation


def test_fitting_twice_gives_the_same_estimate():
    x = sources(300)
    model = clone(ScoreMatchingICA(n_init=2, random_state=3)).fit(x)
    first = model.components_
    np.testing.assert_array_equal(model.fit(x).components_, first)
    assert model.get_params()["n_init"] == 2 and model.n_iter_ > 1


def test_the_lowest_of_several_searches_is_kept(monkeypatch):
    values = iter([3.0, 1.0, 2.0])

    def minimise(value_and_gradient, start, **options):
        value = next(values)
        return optimisation.Minimum(value * start, value, np.array([9.0, value]), True)

    monkeypatch.setattr(optimisation, "minimise", minimise)
    model = ScoreMatchingICA("maximum_likelihood", n_init=3).fit(sources(300))
    assert model.loss_ == 1.0 and next(values, None) is None


def test_a_search_that_stops_early_warns():
    with pytest.warns(ConvergenceWarning, match="stopped after 2 iterations.*raise max_iter or tol"):
        model = ScoreMatchingICA(max_iter=2).fit(sources(300))
    assert not model.converged_


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"method": "fastica"}, sources(9), "one of score_matching, maximum_likelihood. Received: 'fastica'"),
        ({"n_init": 0}, sources(9), "n_init must be at least 1. Received: 0"),
        ({}, sources(3), "more samples than features"),
        ({}, np.column_stack([sources(9), np.ones(9)]), "Received: rank 3 of 4"),
        ({}, np.full((9, 2), np.nan), "contains NaN"),
    ],
)
def test_fit_refuses(options, x, message):
    with pytest.raises(ValueError, match=message):
        ScoreMatchingICA(**options).fit(x)


def test_widths_that_disagree_are_refused():
    model = ScoreMatchingICA().fit(sources(100))
    for call in (model.loss, model.score):
        with pytest.raises(ValueError, match="2 features, but .* is expecting 3 features"):
            call(sources(9, 2))
    with pytest.raises(ValueError, match=r"Expected x \[B, 3\]"):
        model.score_function(sources(9, 2))
    with pytest.raises(ValueError, match=r"Received: x \(9, 2\), filters \(4, 3\), alphas \(4,\)"):
        components.objective(TANH, sources(9, 2), np.ones((4, 3)), np.ones(4))
    with pytest.raises(ValueError, match=r"one alpha per filter. Received.*alphas \(3,\)"):
        components.score(TANH, sources(9, 3), np.ones((4, 3)), np.ones(3))
