"""An overcomplete set of filters by score matching of a density whose normaliser is unknown.

Reference: Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6, 2005, section 3.3.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator

from ncsn_tf.classical import checks, components, optimisation
from ncsn_tf.classical.components import TANH


def objective(x: components.Array, filters: components.Array, alphas: components.Array) -> tf.Tensor:
    """The score-matching objective of the overcomplete model on a sample (equation 12).

        J = mean_t[ sum_k alpha_k g'(w_k' x) + 1/2 sum_jk alpha_j alpha_k w_j' w_k g(w_j' x) g(w_k' x) ]

    with G(s) = -log cosh(s), so g = -tanh.

    Args:
      x: the sample, [n, d].
      filters: the rows w_k, of unit norm, [m, d].
      alphas: the weights alpha_k, [m].

    Returns:
      A scalar, in units of 1 / x^2.

    Raises:
      ValueError: if the shapes disagree.
    """
    return components.objective(TANH, x, filters, alphas)


@tf.function(autograph=False, reduce_retracing=True)
def _value_and_gradient(x: tf.Tensor, directions: tf.Tensor, log_alphas: tf.Tensor) -> tuple[Any, ...]:
    """The objective and its gradient, where w_k is the direction of a free vector and alpha_k > 0."""
    with tf.GradientTape() as tape:
        tape.watch([directions, log_alphas])
        value = objective(x, tf.linalg.l2_normalize(directions, axis=1), tf.exp(log_alphas))
    return value, *tape.gradient(value, [directions, log_alphas])


class OvercompleteICA(BaseEstimator):
    """The model log p(x) = sum_k alpha_k G(w_k' x) + const with more unit filters w_k than dimensions.

    G(s) = -log cosh(s), and the constant is unknown, so there is no `score`: likelihoods of two such models cannot be
    compared, but their score-matching objectives on the same data can. Whiten the data beforehand, as the paper does;
    the filters are then vectors of the whitened space.

    The weights are positive because log alpha_k is learnt: if the filters span the space, this makes the density
    integrable. Equation 12 alone does not require it.

    Attributes:
      mean_: the sample's mean, float64 [d].
      filters_: the rows w_k, of unit norm, float64 [m, d].
      alphas_: alpha_k, float64 [m].
      loss_: the objective at the end.
      loss_history_: the objective at the start and after each iteration, float64 [n_iter_ + 1].
      n_iter_: iterations.
      converged_: whether the gradient fell to the tolerance.
      n_features_in_: d.
    """

    def __init__(
        self,
        n_filters: int,
        *,
        initial_alpha: float = 1.5,
        tol: float = 1e-3,
        max_iter: int = 1000,
        random_state: int = 0,
    ):
        """Stores the options.

        Args:
          n_filters: m, at least the dimension of the data.
          initial_alpha: every alpha_k at the start, positive; the paper uses 1.5.
          tol: the largest component of the gradient at which the search ends.
          max_iter: the maximum number of iterations. Each uses the whole sample: 0.2 s for 50,000 patches of 63
            dimensions and 200 filters on 2 CPU cores.
          random_state: the seed of the filters at the start, which are random unit vectors.
        """
        self.n_filters = n_filters
        self.initial_alpha = initial_alpha
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: Any = None) -> "OvercompleteICA":
        """Learns filters and weights by full-batch L-BFGS.

        Args:
          X: the sample, whitened, [n, d] with n > d.
          y: unused, for scikit-learn's pipelines.

        Returns:
          The estimator itself.

        Raises:
          ValueError: for fewer filters than dimensions, an initial alpha that is not positive, and if X is not a finite
            matrix, has too few rows, or has a covariance that cannot be inverted.
        """
        del y
        X = checks.training_samples(self, X)
        count, dimensions = self.n_filters, self.n_features_in_
        if count < dimensions:
            raise ValueError(
                f"Expected at least as many filters as dimensions, {dimensions}; fewer leave directions in which the "
                f"density does not fall. Raise n_filters or whiten to fewer dimensions. Received: n_filters={count}."
            )
        if not 0.0 < self.initial_alpha < np.inf:
            raise ValueError(f"initial_alpha must be positive and finite. Received: {self.initial_alpha}.")
        self.mean_ = X.mean(axis=0)
        checks.whitener(X)  # raises for a singular covariance
        x = tf.constant(X - self.mean_)

        def value_and_gradient(position: np.ndarray) -> tuple[float, np.ndarray]:
            value, *gradient = _value_and_gradient(x, tf.constant(position[:, :-1]), tf.constant(position[:, -1]))
            return float(value), np.column_stack([part.numpy() for part in gradient])

        start = _unit_rows(np.random.default_rng(self.random_state).standard_normal((count, dimensions)))
        log_alphas = np.full(count, np.log(self.initial_alpha))
        end = optimisation.minimise(
            value_and_gradient, np.column_stack([start, log_alphas]), tolerance=self.tol, max_iter=self.max_iter
        )
        optimisation.warn_unless_converged(end, type(self).__name__)
        self.filters_, self.alphas_ = _unit_rows(end.position[:, :-1]), np.exp(end.position[:, -1])
        self.loss_, self.loss_history_ = end.value, end.history
        self.n_iter_, self.converged_ = end.iterations, end.converged
        return self

    def loss(self, X: np.ndarray) -> float:
        """The score-matching objective of the estimate on a sample [n, d]; see `objective`."""
        return float(objective(checks.samples(self, X) - self.mean_, self.filters_, self.alphas_))

    def score_function(self, x: np.ndarray | tf.Tensor, t: Any = None) -> tf.Tensor:
        """The gradient of the log-density, sum_k alpha_k w_k g(w_k' (x - mean)), as samplers take it (section 3.3).

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
        filters, alphas = tf.constant(self.filters_, x.dtype), tf.constant(self.alphas_, x.dtype)
        return components.score(TANH, x - tf.constant(self.mean_, x.dtype), filters, alphas)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
