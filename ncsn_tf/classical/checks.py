"""Checks that every estimator of this package makes of its sample."""

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data


def training_samples(estimator: BaseEstimator, X: np.ndarray) -> np.ndarray:
    """Checks the sample given to `fit` and stores its width in `estimator.n_features_in_`.

    Args:
      estimator: the estimator that is being fitted.
      X: numbers [n, d].

    Returns:
      float64 [n, d].

    Raises:
      ValueError: if X is not a matrix of finite real numbers, or has no more rows than columns.
    """
    X = validate_data(estimator, X, dtype=np.float64, ensure_min_samples=2)
    count, dimensions = X.shape
    if count <= dimensions:
        raise ValueError(
            f"Expected more samples than features, so that their covariance can be inverted; give at least "
            f"{dimensions + 1} rows or reduce the dimension. Received: n_samples = {count} of {dimensions} feature(s)."
        )
    return X


def samples(estimator: BaseEstimator, X: np.ndarray) -> np.ndarray:
    """Checks a sample given to a fitted estimator and returns it as float64 [n, d].

    Raises:
      ValueError: if X is not a matrix of finite real numbers as wide as the fitted one, or the estimator is not fitted
        (`sklearn.exceptions.NotFittedError`, which is a ValueError).
    """
    check_is_fitted(estimator)
    return validate_data(estimator, X, dtype=np.float64, reset=False)


def points(estimator: BaseEstimator, x: np.ndarray | tf.Tensor) -> tf.Tensor:
    """Checks the points at which a fitted estimator's score is evaluated; a float tensor [B, d], float64 for integers.

    Raises:
      ValueError: as for `samples`, except that the values are not checked.
    """
    check_is_fitted(estimator)
    x = tf.convert_to_tensor(x)
    if x.shape.rank != 2 or x.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"Expected x [B, {estimator.n_features_in_}], as wide as the sample that was fitted; reshape it. "
            f"Received: shape {x.shape}."
        )
    return x if x.dtype.is_floating else tf.cast(x, tf.float64)


def whitener(X: np.ndarray) -> np.ndarray:
    """A matrix V with V S V' = I, S being the sample covariance with divisor n; then V' V is the inverse of S.

    It is computed from the singular values of the standardised sample, so neither the features' units nor the squaring
    of their spread in S costs precision.

    Args:
      X: the sample, float64 [n, d].

    Returns:
      [d, d].

    Raises:
      ValueError: if S is singular: a feature is constant, or a linear combination of others.
    """
    count, dimensions = X.shape
    rounding = max(count, dimensions) * np.finfo(np.float64).eps
    centred = X - X.mean(axis=0)
    deviations = np.sqrt(np.mean(centred**2, axis=0))
    varies = deviations > rounding * np.max(np.abs(X), axis=0)
    standardised = np.where(varies, centred, 0.0) / np.where(varies, deviations, 1.0)
    _, values, directions = np.linalg.svd(standardised, full_matrices=False)
    rank = int(np.sum(values > rounding * values[0]))
    if rank < dimensions:
        raise ValueError(
            f"Expected a sample whose covariance can be inverted; remove features that are constant or linear "
            f"combinations of others, or whiten to fewer dimensions. Received: rank {rank} of {dimensions} features."
        )
    return np.sqrt(count) / values[:, None] * directions / deviations
