"""Independent component analysis by score matching and by maximum likelihood.

Reference: Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6, 2005, section 3.2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator

from ncsn_tf.classical import checks, components, optimisation
from ncsn_tf.classical.components import LOGISTIC

SCORE_MATCHING = "score_matching"
MAXIMUM_LIKELIHOOD = "maximum_likelihood"


def objective(x: components.Array, unmixing: components.Array) -> tf.Tensor:
    """The score-matching objective of logistic components on a sample (equation 10).

        J = mean_t[ sum_i g'(w_i' x) ||w_i||^2 + 1/2 sum_jk w_j' w_k g(w_j' x) g(w_k' x) ]

    Args:
      x: the sample, [n, d].
      unmixing: W, whose rows are w_i, [d, d].

    Returns:
      A scalar, in units of 1 / x^2.

    Raises:
      ValueError: if the shapes disagree.
    """
    return components.objective(LOGISTIC, x, unmixing, tf.ones_like(unmixing[:, 0]))


def log_likelihood(x: components.Array, unmixing: components.Array) -> tf.Tensor:
    """The mean log-likelihood of logistic components on a sample, in nats (equation 7).

        log p(x) = sum_i G(w_i' x) + log |det W|

    G is normalised here with log(4 sqrt(3) / pi), see `components.LOGISTIC`. The sign of log |det W| is that of the
    change of variables, s = W x.

    Args:
      x: the sample, [n, d].
      unmixing: W, [d, d].

    Returns:
      A scalar.
    """
    log_densities = LOGISTIC.log_density(tf.matmul(x, unmixing, transpose_b=True)) - LOGISTIC.log_normaliser
    return tf.reduce_mean(tf.reduce_sum(log_densities, axis=1)) + tf.linalg.slogdet(unmixing)[1]


@tf.function(autograph=False, reduce_retracing=True)
def _score_matching(x: tf.Tensor, whitening: tf.Tensor, rotation: tf.Tensor) -> tuple[Any, Any]:
    return _value_and_gradient(objective, x, whitening, rotation)


@tf.function(autograph=False, reduce_retracing=True)
def _negative_log_likelihood(x: tf.Tensor, whitening: tf.Tensor, rotation: tf.Tensor) -> tuple[Any, Any]:
    return _value_and_gradient(lambda x, w: -log_likelihood(x, w), x, whitening, rotation)


def _value_and_gradient(
    loss: Callable[..., tf.Tensor], x: tf.Tensor, whitening: tf.Tensor, rotation: tf.Tensor
) -> tuple[Any, Any]:
    with tf.GradientTape() as tape:
        tape.watch(rotation)
        value = loss(x, tf.matmul(rotation, whitening))
    return value, tape.gradient(value, rotation)


class ScoreMatchingICA(BaseEstimator):
    """Independent components x = A s with logistic s of unit variance: W = A^-1 by score matching.

    Score matching is not invariant to linear maps of the data, because the norm of the score depends on the space. As
    in the paper's experiment, it is the space of X itself, with only the mean removed; to use the whitened space, fit
    whitened data. (The search runs over W V^-1 with V whitening, which changes its path but not the objective.) W is
    determined up to the order and the signs of its rows; the unit variance of the model fixes their norms.

    Attributes:
      mean_: the sample's mean, float64 [d].
      components_: W, the unmixing rows, float64 [d, d].
      mixing_: A, the inverse of W, float64 [d, d].
      loss_: the minimum of the score-matching objective, or of minus the mean log-likelihood.
      n_iter_: iterations of the search that was kept.
      converged_: whether its gradient fell to the tolerance.
      n_features_in_: d.
    """

    def __init__(
        self,
        method: str = SCORE_MATCHING,
        *,
        n_init: int = 1,
        tol: float = 1e-6,
        max_iter: int = 1000,
        random_state: int = 0,
    ):
        """Stores the options.

        Args:
          method: "score_matching", or "maximum_likelihood" for comparison.
          n_init: the number of searches, each from another random start; the one with the lowest value is kept.
          tol: the largest component of the gradient at which a search ends, for data of unit variance.
          max_iter: the maximum number of iterations per search.
          random_state: the seed of the starts, which are random rotations of the whitened data.
        """
        self.method = method
        self.n_init = n_init
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: Any = None) -> "ScoreMatchingICA":
        """Estimates W.

        Args:
          X: the sample, [n, d] with n > d.
          y: unused, for scikit-learn's pipelines.

        Returns:
          The estimator itself.

        Raises:
          ValueError: for an unknown method, n_init below 1, and if X is not a finite matrix, has too few rows, or has a
            covariance that cannot be inverted.
        """
        del y
        criteria = {SCORE_MATCHING: _score_matching, MAXIMUM_LIKELIHOOD: _negative_log_likelihood}
        if self.method not in criteria:
            raise ValueError(f"method must be one of {', '.join(criteria)}. Received: {self.method!r}.")
        if self.n_init < 1:
            raise ValueError(f"n_init must be at least 1. Received: {self.n_init}.")
        X = checks.training_samples(self, X)
        self.mean_ = X.mean(axis=0)
        centred = X - self.mean_
        whitening = checks.whitener(X)
        # In these units the objective and its gradient are of order 1, whatever the units of X.
        unit = float(np.mean(whitening**2)) * len(whitening) if self.method == SCORE_MATCHING else 1.0
        x, v = tf.constant(centred), tf.constant(whitening)

        def value_and_gradient(rotation: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = criteria[self.method](x, v, tf.constant(rotation))
            return float(value) / unit, gradient.numpy() / unit

        generator = np.random.default_rng(self.random_state)
        # About half as large as the solution, so that the first step grows W, away from the singular W = 0.
        starts = [0.5 * _random_rotation(generator, len(whitening)) for _ in range(self.n_init)]
        searches = [
            optimisation.minimise(value_and_gradient, start, tolerance=self.tol, max_iter=self.max_iter)
            for start in starts
        ]
        best = min(searches, key=lambda minimum: minimum.value)
        optimisation.warn_unless_converged(best, type(self).__name__)
        self.components_ = best.position @ whitening
        self.mixing_ = np.linalg.inv(self.components_)
        self.loss_, self.n_iter_, self.converged_ = best.value * unit, best.iterations, best.converged
        return self

    def loss(self, X: np.ndarray) -> float:
        """The score-matching objective of the estimate on a sample [n, d], for either method; see `objective`."""
        return float(objective(checks.samples(self, X) - self.mean_, self.components_))

    def score(self, X: np.ndarray, y: Any = None) -> float:
        """The mean log-likelihood of a sample [n, d], in nats."""
        del y
        return float(log_likelihood(checks.samples(self, X) - self.mean_, self.components_))

    def score_function(self, x: np.ndarray | tf.Tensor, t: Any = None) -> tf.Tensor:
        """The gradient of the log-density, sum_i w_i g(w_i' (x - mean)) (equation 9), in the form that samplers take.

        Args:
          x: [B, d], an array or a tensor; the result has its dtype.
          t: unused; the density is that of the data themselves, without noise.

        Returns:
          A tensor [B, d]; differentiable, and usable in a `tf.function`.

        Raises:
          ValueError: if x is not [B, d].
        """
        del t
        x = checks.points(self, x)
        unmixing = tf.constant(self.components_, x.dtype)
        ones = tf.ones(self.n_features_in_, x.dtype)
        return components.score(LOGISTIC, x - tf.constant(self.mean_, x.dtype), unmixing, ones)


def _random_rotation(generator: np.random.Generator, dimensions: int) -> np.ndarray:
    """A random orthogonal matrix, [d, d]."""
    return np.linalg.qr(generator.standard_normal((dimensions, dimensions)))[0]
