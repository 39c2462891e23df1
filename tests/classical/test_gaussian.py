"""Score matching of the Gaussian: the paper's formulae, and equality with maximum likelihood on every sample."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from ncsn_tf import times
from ncsn_tf.classical import gaussian
from ncsn_tf.classical.gaussian import GaussianScoreMatching
from ncsn_tf.samplers import blocks, driver, langevin
from ncsn_tf.sde import VE


def sample(count=200, dimensions=3, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((dimensions, dimensions)) + 2.0 * np.eye(dimensions)
    return rng.standard_normal((count, dimensions)) @ mixing.T + rng.standard_normal(dimensions)


def some_parameters(dimensions=3, seed=1):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((dimensions, dimensions))
    return rng.standard_normal(dimensions), factor @ factor.T + 0.1 * np.eye(dimensions)


# The objective


def test_objective_is_the_trace_of_the_jacobian_plus_half_the_squared_score():
    """Theorem 1's form, with both derivatives of log q taken by TensorFlow."""
    x, (mean, precision) = tf.constant(sample()), some_parameters()
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            log_q = -0.5 * tf.reduce_sum((x - mean) * tf.matmul(x - mean, precision), axis=1)
        score = inner.gradient(log_q, x)
    jacobian = outer.batch_jacobian(score, x)
    expected = tf.reduce_mean(tf.linalg.trace(jacobian) + 0.5 * tf.reduce_sum(tf.square(score), axis=1))
    assert gaussian.objective(x.numpy(), mean, precision) == pytest.approx(float(expected), rel=1e-12)


def test_gradient_is_that_of_the_objective():
    x, (mean, precision) = sample(), some_parameters()
    to_mean, to_precision = gaussian.gradient(x, mean, precision)
    np.testing.assert_allclose(to_precision, to_precision.T, rtol=1e-12)  # the steps below cannot detect this
    step = 1e-5
    for i in range(3):
        shift = step * np.eye(3)[i]
        up, down = (gaussian.objective(x, mean + sign * shift, precision) for sign in (1, -1))
        assert to_mean[i] == pytest.approx((up - down) / (2 * step), rel=1e-7)
        for j in range(3):  # symmetric steps: M stays symmetric, and entry (j, i) moves along with (i, j)
            shift = np.zeros((3, 3))
            shift[i, j] = shift[j, i] = step
            up, down = (gaussian.objective(x, mean, precision + sign * shift) for sign in (1, -1))
            expected = to_precision[i, j] + to_precision[j, i] * (i != j)
            assert expected == pytest.approx((up - down) / (2 * step), rel=1e-7, abs=1e-7)


# The estimate


@pytest.mark.parametrize(("count", "dimensions"), [(2, 1), (4, 3), (200, 3), (1000, 20)])
def test_estimate_equals_that_of_maximum_likelihood(count, dimensions):
    x = sample(count, dimensions)
    model = GaussianScoreMatching().fit(x)
    covariance = np.atleast_2d(np.cov(x, rowvar=False, bias=True))
    rounding = 1e-14 * np.linalg.cond(covariance)
    np.testing.assert_allclose(model.mean_, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(model.covariance_, covariance, rtol=1e-12, atol=1e-14)
    inverse = np.linalg.inv(covariance)
    np.testing.assert_allclose(model.precision_, inverse, atol=rounding * np.abs(inverse).max())


def test_gradient_vanishes_and_objective_is_least_at_the_estimate():
    x = sample()
    model = GaussianScoreMatching().fit(x)
    to_mean, to_precision = gaussian.gradient(x, model.mean_, model.precision_)
    np.testing.assert_allclose(to_mean, 0.0, atol=1e-12)
    np.testing.assert_allclose(to_precision, 0.0, atol=1e-12)
    least = model.loss(x)
    assert least == pytest.approx(-0.5 * np.trace(model.precision_), rel=1e-12)  # equation 6 where M S = I
    rng = np.random.default_rng(2)
    for size in (1e-3, 1e-1):
        step = rng.standard_normal((3, 3))
        assert gaussian.objective(x, model.mean_ + size * step[0], model.precision_) > least
        assert gaussian.objective(x, model.mean_, model.precision_ + size * (step + step.T)) > least


def test_estimate_keeps_its_precision_when_units_differ():
    """In these units the covariance has a condition number above 1e20, yet no information is lost."""
    x, units = sample(), np.array([1e-6, 1.0, 1e6])
    model, scaled = GaussianScoreMatching().fit(x), GaussianScoreMatching().fit(x * units)
    np.testing.assert_allclose(scaled.precision_ * np.outer(units, units), model.precision_, rtol=1e-9)


def test_score_is_the_mean_log_likelihood():
    from scipy.stats import multivariate_normal

    x, other = sample(), sample(seed=5)
    model = GaussianScoreMatching().fit(x)
    expected = multivariate_normal(x.mean(0), np.cov(x, rowvar=False, bias=True)).logpdf(other).mean()
    assert model.score(other) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_score_function_is_the_gradient_of_the_log_density(dtype):
    model = GaussianScoreMatching().fit(sample())
    x = sample(7, seed=3).astype(dtype)
    score = model.score_function(x)
    assert score.dtype == dtype
    expected = np.linalg.solve(model.covariance_, (model.mean_ - x).T).T
    np.testing.assert_allclose(score, expected, rtol=1e-4 if dtype == np.float32 else 1e-11)


def test_samplers_accept_the_score_function():
    """Langevin dynamics under the learnt score, started from one point, has the learnt mean and covariance."""
    model = GaussianScoreMatching().fit(sample(dimensions=2))
    smallest = np.linalg.eigvalsh(model.covariance_)[0]
    step, count = langevin.Langevin(langevin.constant(0.1 * smallest)), 4_000
    sde = VE(sigma_max=1.0, sigma_min=0.01)  # neither the step nor the score uses it
    sampler = driver.FixedSteps(sde, step, times.repeat_times(np.zeros(1), 2000), jit_compile=True)
    seeds, start, _ = blocks.start_samples(tf.range(count), driver.uniform_prior, (2,), run_seed=0)
    x = sampler(model.score_function, start, seeds).x.numpy().astype(np.float64)
    again = GaussianScoreMatching().fit(x)
    variances = np.diag(model.covariance_)
    assert (np.abs(again.mean_ - model.mean_) < 4 * np.sqrt(variances / count)).all()
    error = 4 * np.sqrt(2 / count) * np.sqrt(np.outer(variances, variances))
    bias = 0.1 / 4 * smallest  # v / (1 - a / (4 v)) - v is a / 4 at most to first order, in every direction
    assert (np.abs(again.covariance_ - model.covariance_) < error + 1.1 * bias).all()


# The estimator interface


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_passes_scikit_learns_checks():
    check_estimator(GaussianScoreMatching())


def test_fitting_twice_gives_the_same_estimate():
    x = sample()
    model = clone(GaussianScoreMatching()).fit(x)
    first = model.precision_
    np.testing.assert_array_equal(model.fit(x).precision_, first)
    assert model.n_features_in_ == 3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), "Expected 2D array, got 1D array"),
        (sample(3), r"more samples than features.*at least 4 rows.*Received: n_samples = 3 of 3 feature"),
        (np.ones((9, 2)), "remove features that are constant.*Received: rank 0 of 2"),
        (np.column_stack([sample(), sample().sum(1)]), "linear combinations.*Received: rank 3 of 4"),
        (np.column_stack([sample(), np.full(200, 0.1)]), "constant.*Received: rank 3 of 4"),
        (np.array([[0.0, 1.0], [np.nan, 2.0], [3.0, 4.0]]), "contains NaN"),
        (np.array([[0.0, 1.0], [np.inf, 2.0], [3.0, 4.0]]), "contains infinity"),
    ],
)
def test_fit_refuses(x, message):
    with pytest.raises(ValueError, match=message):
        GaussianScoreMatching().fit(x)


def test_a_fitted_estimator_refuses_other_widths():
    model = GaussianScoreMatching().fit(sample())
    for method in (model.loss, model.score):
        with pytest.raises(ValueError, match="2 features, but .* is expecting 3 features"):
            method(sample(dimensions=2))
    with pytest.raises(ValueError, match=r"Expected x \[B, 3\].*Received: shape \(200, 2\)"):
        model.score_function(sample(dimensions=2))
    with pytest.raises(NotFittedError):
        GaussianScoreMatching().score_function(sample())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5, 3), (2,), (3, 3)), r"Received: shapes \(5, 3\), \(2,\), \(3, 3\)"),
        (((5, 3), (3,), (3, 2)), "a precision"),
        (((3,), (3,), (3, 3)), "Expected a sample"),
        (((0, 3), (3,), (3, 3)), "n at least 1"),
    ],
)
def test_objective_refuses_shapes_that_disagree(shapes, message):
    for function in (gaussian.objective, gaussian.gradient):
        with pytest.raises(ValueError, match=message):
            function(*(np.zeros(shape) for shape in shapes))


def test_objective_refuses_an_asymmetric_precision():
    with pytest.raises(ValueError, match=r"symmetric.*Received: M and M' differ by up to 1\b"):
        gaussian.objective(sample(), np.zeros(3), np.eye(3) + np.eye(3, k=1))
