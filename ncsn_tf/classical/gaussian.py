"""Score matching of the multivariate Gaussian, where it equals maximum likelihood.

Reference: Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6, 2005, section 3.1.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator

from ncsn_tf.classical import checks


def objective(X: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> float:
    """The score-matching objective of q(x) = exp(-1/2 (x - mu)' M (x - mu)) on a sample (equation 6).

        J = mean_t[ -tr M + 1/2 (x - mu)' M M (x - mu) ]

    Args:
      X: the sample, [n, d].
      mean: mu, [d].
      precision: M, [d, d], symmetric.

    Returns:
      J, in units of 1 / x^2.

    Raises:
      ValueError: if the shapes disagree or M is not symmetric.
    """
    X, mean, precision = _checked(X, mean, precision)
    psi = -(X - mean) @ precision
    return float(-np.trace(precision) + 0.5 * np.mean(np.sum(psi**2, axis=1)))


def gradient(X: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of `objective` (section 3.1.1), S being the second moment of x about mu.

        dJ/dmu = M M (mu - mean_t x),    dJ/dM = -I + 1/2 (M S + S M)

    Args:
      X: the sample, [n, d].
      mean: mu, [d].
      precision: M, [d, d], symmetric.

    Returns:
      dJ/dmu, [d], and dJ/dM, [d, d], which treats the entries of M as independent.

    Raises:
      ValueError: if the shapes disagree or M is not symmetric.
    """
    X, mean, precision = _checked(X, mean, precision)
    centred = X - mean
    moment = centred.T @ centred / len(X)
    to_mean = -precision @ precision @ np.mean(centred, axis=0)
    to_precision = -np.eye(len(mean)) + 0.5 * (precision @ moment + moment @ precision)
    return to_mean, to_precision


def _checked(X: Any, mean: Any, precision: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, mean, precision = (np.asarray(value, np.float64) for value in (X, mean, precision))
    dimensions = mean.shape[0] if mean.ndim == 1 else -1
    if X.ndim != 2 or X.shape[1] != dimensions or precision.shape != (dimensions, dimensions) or not len(X):
        raise ValueError(
            "Expected a sample [n, d] with n at least 1, a mean [d] and a precision [d, d]. "
            f"Received: shapes {X.shape}, {mean.shape}, {precision.shape}."
        )
    largest = np.max(np.abs(precision - precision.T))
    if not largest <= 1e-8 * np.max(np.abs(precision)):
        raise ValueError(
            "Expected a symmetric precision; take (M + M') / 2, which gives the same density. "
            f"Received: M and M' differ by up to {largest:.3g}."
        )
    return X, mean, precision


class GaussianScoreMatching(BaseEstimator):
    """The Gaussian density q(x) proportional to exp(-1/2 (x - mu)' M (x - mu)), estimated by score matching.

    Equation 6 has its minimum at the sample mean and the inverse of the sample covariance with divisor n: exactly the
    maximum-likelihood estimate, on every sample (section 3.1.1).

    Attributes:
      mean_: mu, float64 [d].
      precision_: M, float64 [d, d], symmetric.
      covariance_: the inverse of M, float64 [d, d].
      n_features_in_: d.
    """

    def fit(self, X: np.ndarray, y: Any = None) -> "GaussianScoreMatching":
        """Estimates mean and precision.

        Args:
          X: the sample, [n, d] with n > d.
          y: unused, for scikit-learn's pipelines.

        Returns:
          The estimator itself.

        Raises:
          ValueError: if X is not a finite matrix, has too few rows, or has a covariance that cannot be inverted.
        """
        del y
        X = checks.training_samples(self, X)
        self.mean_ = X.mean(axis=0)
        centred = X - self.mean_
        whitening = checks.whitener(X)
        self.precision_ = whitening.T @ whitening
        self.covariance_ = centred.T @ centred / len(X)
        return self

    def loss(self, X: np.ndarray) -> float:
        """The score-matching objective of the estimate on a sample [n, d]; see `objective`."""
        X = checks.samples(self, X)
        return objective(X, self.mean_, self.precision_)

    def score(self, X: np.ndarray, y: Any = None) -> float:
        """The mean log-likelihood of a sample [n, d], in nats."""
        del y
        centred = checks.samples(self, X) - self.mean_
        distances = np.sum(centred @ self.precision_ * centred, axis=1)
        log_determinant = np.linalg.slogdet(self.precision_)[1]
        return float(0.5 * (log_determinant - self.n_features_in_ * np.log(2.0 * np.pi) - np.mean(distances)))

    def score_function(self, x: np.ndarray | tf.Tensor, t: Any = None) -> tf.Tensor:
        """The gradient of the log-density, -M (x - mu), in the form that this library's samplers take.

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
        return -tf.matmul(x - tf.constant(self.mean_, x.dtype), tf.constant(self.precision_, x.dtype))
