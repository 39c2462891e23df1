"""The overcomplete model: equation 12, and the recovery of filters from data drawn from the model itself."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from ncsn_tf.classical import components, ica, overcomplete
from ncsn_tf.classical.components import LOGISTIC, TANH
from ncsn_tf.classical.overcomplete import OvercompleteICA


def unit_rows(count, dimensions, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def normal(count, dimensions=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimensions))


# The objective


def test_objective_is_equation_12():
    x, w, alphas = normal(50), unit_rows(7, 3), np.random.default_rng(1).uniform(0.5, 2, 7)
    g = -np.tanh(x @ w.T)
    first = sum(alphas[k] * np.mean(g[:, k] ** 2 - 1) for k in range(7))
    second = sum(alphas[j] * alphas[k] * (w[j] @ w[k]) * np.mean(g[:, j] * g[:, k]) for j in range(7) for k in range(7))
    assert float(overcomplete.objective(x, w, alphas)) == pytest.approx(first + 0.5 * second, rel=1e-12)


def test_as_many_filters_as_dimensions_give_independent_components():
    """The logistic G(s) is 2 G_tanh(c s): equation 10 at unit-norm W is c^2 times equation 12 at alpha = 2 and c x."""
    x, w = normal(50), unit_rows(3, 3)
    expected = LOGISTIC.rate**2 * float(overcomplete.objective(LOGISTIC.rate * x, w, np.full(3, 2.0)))
    assert float(ica.objective(x, w)) == pytest.approx(expected, rel=1e-12)


def test_gradient_used_by_the_search_is_that_of_the_objective():
    """With respect to vectors of any length, of which only the directions matter, and to log alpha."""
    x, v, a = normal(60), normal(5, seed=1), np.random.default_rng(2).standard_normal(5)

    def value(v, a):
        return float(overcomplete.objective(x, v / np.linalg.norm(v, axis=1, keepdims=True), np.exp(a)))

    found, to_v, to_a = overcomplete._value_and_gradient(*map(tf.constant, (x, v, a)))
    assert float(found) == pytest.approx(value(v, a), rel=1e-12)
    step = 1e-5
    for i, j in np.ndindex(5, 3):
        shift = np.zeros((5, 3))
        shift[i, j] = step
        assert float(to_v[i, j]) == pytest.approx(
            (value(v + shift, a) - value(v - shift, a)) / (2 * step), rel=1e-5, abs=1e-7
        )
    for i in range(5):
        shift = step * np.eye(5)[i]
        assert float(to_a[i]) == pytest.approx(
            (value(v, a + shift) - value(v, a - shift)) / (2 * step), rel=1e-5, abs=1e-7
        )


# The estimate


def filters_of(angles):
    return np.column_stack([np.cos(angles), np.sin(angles)])


def draw_from_the_model(angles, alphas, count, seed=0):
    """Draws from exp(sum_k alpha_k G(w_k' x)) in the plane: cells of a fine grid by their mass, uniform within one."""
    rng, edge, side = np.random.default_rng(seed), 0.04, np.arange(-20, 20, 0.04)
    points = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = np.logaddexp(points @ filters_of(angles).T, -points @ filters_of(angles).T) @ -alphas
    mass = np.exp(log_p - log_p.max())
    cells = rng.choice(len(points), count, p=mass / mass.sum())
    return points[cells] + rng.uniform(-edge / 2, edge / 2, (count, 2))


def standard_errors(x, angles, alphas):
    """Standard errors of the three angles and three log alphas: the sandwich, by differences of each example's loss."""
    truth, step = np.concatenate([angles, np.log(alphas)]), 1e-3

    def each(parameters):
        w, alphas = filters_of(parameters[:3]), np.exp(parameters[3:])
        t = np.tanh(x @ w.T)
        return (t**2 - 1) @ alphas + 0.5 * np.sum(((alphas * t) @ w) ** 2, axis=1)

    shifts = step * np.eye(6)
    gradients = np.column_stack([(each(truth + s) - each(truth - s)) / (2 * step) for s in shifts])
    signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    hessian = [
        [sum(a * b * each(truth + a * s + b * r).mean() for a, b in signs) / (4 * step**2) for s in shifts]
        for r in shifts
    ]
    inverse = np.linalg.inv(np.array(hessian))
    return np.sqrt(np.diag(inverse @ np.cov(gradients, rowvar=False) @ inverse) / len(x))


def test_more_filters_than_dimensions_are_recovered_with_their_weights():
    """Three filters in the plane: a density that independent components cannot have."""
    angles, alphas = np.array([0.2, 1.1, 2.3]), np.array([0.5, 0.8, 0.6])
    x = draw_from_the_model(angles, alphas, 40_000)
    model = OvercompleteICA(3, tol=1e-6).fit(x)
    assert model.converged_
    found = np.arctan2(model.filters_[:, 1], model.filters_[:, 0]) % np.pi
    order = np.argsort(found)
    deviations = np.concatenate([found[order] - angles, np.log(model.alphas_[order]) - np.log(alphas)])
    errors = standard_errors(x, angles, alphas)
    assert errors.max() < 0.1, "the sample is too small for this test"
    assert (np.abs(deviations) < 4 * errors).all(), (deviations, errors)


@pytest.fixture(scope="module")
def fitted():
    x = np.random.default_rng(0).laplace(size=(2_000, 4))
    return x, OvercompleteICA(9, random_state=1).fit(x)


def test_weights_minimise_the_objective_which_is_quadratic_in_them(fitted):
    """dJ/dalpha = b + Q alpha = 0 with b_k = mean g'_k and Q_jk = w_j' w_k mean g_j g_k."""
    x, model = fitted
    g = -np.tanh((x - x.mean(0)) @ model.filters_.T)
    quadratic = model.filters_ @ model.filters_.T * (g.T @ g) / len(x)
    linear = np.mean(g**2 - 1, axis=0)
    assert model.converged_
    np.testing.assert_allclose(model.alphas_ * (quadratic @ model.alphas_ + linear), 0.0, atol=model.tol)
    assert model.loss_ == pytest.approx(0.5 * linear @ model.alphas_, abs=9 * model.tol)


def test_learnt_attributes(fitted):
    x, model = fitted
    assert model.filters_.shape == (9, 4) and model.alphas_.shape == (9,) and model.n_features_in_ == 4
    np.testing.assert_allclose(np.linalg.norm(model.filters_, axis=1), 1.0, rtol=1e-12)
    assert (model.alphas_ > 0).all()
    assert len(model.loss_history_) == model.n_iter_ + 1
    assert (np.diff(model.loss_history_) <= 0).all() and model.loss_history_[-1] == model.loss_
    assert model.loss(x) == pytest.approx(model.loss_, rel=1e-12)
    start = clone(model).set_params(max_iter=1)
    with pytest.warns(ConvergenceWarning, match="stopped after 1 iterations"):
        start.fit(x)
    assert start.loss_history_[0] == model.loss_history_[0] > start.loss_ > model.loss_
    assert not hasattr(model, "score")


def test_fitting_twice_gives_the_same_estimate_and_another_seed_another_start(fitted):
    x, model = fitted
    again = clone(model).fit(x)
    np.testing.assert_array_equal(again.filters_, model.filters_)
    np.testing.assert_array_equal(again.alphas_, model.alphas_)
    other = clone(model).set_params(random_state=2).fit(x)
    assert other.loss_history_[0] != model.loss_history_[0]


def test_score_function_is_the_gradient_of_the_log_density(fitted):
    x, model = fitted
    points = tf.constant(x[:9])
    with tf.GradientTape() as tape:
        tape.watch(points)
        outputs = tf.matmul(points - x.mean(0), model.filters_, transpose_b=True)
        log_p = tf.reduce_sum(model.alphas_ * TANH.log_density(outputs))
    expected = tape.gradient(log_p, points)
    np.testing.assert_allclose(model.score_function(x[:9]), expected, rtol=1e-9)
    assert tf.function(model.score_function)(x[:9].astype(np.float32), tf.zeros(9)).dtype == tf.float32
    np.testing.assert_allclose(
        components.score(TANH, x[:9] - x.mean(0), model.filters_, model.alphas_), expected, rtol=1e-9
    )


# The estimator interface


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimator_passes_scikit_learns_checks():
    check_estimator(OvercompleteICA(12, max_iter=20))


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"n_filters": 2}, normal(9), "at least as many filters as dimensions, 3.*Received: n_filters=2"),
        ({"n_filters": 4, "initial_alpha": 0.0}, normal(9), "initial_alpha must be positive"),
        ({"n_filters": 4, "initial_alpha": np.inf}, normal(9), "initial_alpha must be positive and finite"),
        ({"n_filters": 4}, normal(3), "more samples than features"),
        ({"n_filters": 4}, np.column_stack([normal(9), np.ones(9)]), "whiten to fewer.*Received: rank 3 of 4"),
        ({"n_filters": 4}, np.repeat(normal(3), 5, axis=0), "Received: rank 2 of 3"),
        ({"n_filters": 4}, np.full((9, 2), np.inf), "contains infinity"),
    ],
)
def test_fit_refuses(options, x, message):
    with pytest.raises(ValueError, match=message):
        OvercompleteICA(**options).fit(x)


def test_widths_that_disagree_are_refused(fitted):
    _, model = fitted
    with pytest.raises(ValueError, match="3 features, but .* is expecting 4 features"):
        model.loss(normal(9))
    with pytest.raises(ValueError, match=r"Expected x \[B, 4\]"):
        model.score_function(normal(9))
    with pytest.raises(ValueError, match=r"Received: x \(9, 3\), filters \(5, 4\)"):
        overcomplete.objective(normal(9), unit_rows(5, 4), np.ones(5))
