"""The normal density with any covariance, such as that of a data set's mean and covariance."""

import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.densities.density import LOG_ROOT_TWO_PI, Density


@dataclasses.dataclass(frozen=True, eq=False)
class Normal(Density):
    """N(m, C), where C = sum_k v_k u_k u_k' has at most the rank K.

    When perturbed, it is N(alpha m, alpha^2 C + sigma^2 I), sigma positive. With d = x - alpha m, its score is

        -(d - sum_k w_k u_k u_k' d) / sigma^2,   w_k = alpha^2 v_k / (alpha^2 v_k + sigma^2).

    Among the densities of this mean and covariance it has the only score that is affine, and its denoiser is the best
    affine one for all of them.

    Attributes:
      mean: m, float [...], the shape of one example.
      variances: v, float [K], zero or more.
      axes: u, float [D, K], D the size of m; orthonormal columns.

    Raises:
      ValueError: if the shapes do not fit, or a variance is negative.
    """

    mean: np.ndarray
    variances: np.ndarray
    axes: np.ndarray
    _density_needs_noise: ClassVar[bool] = True
    _score_needs_noise: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("mean", "variances", "axes"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.axes.shape != (self.mean.size, *self.variances.shape) or self.variances.ndim != 1:
            raise ValueError(
                "Variances [K] need axes [D, K], D the size of the mean. Received: "
                f"variances {self.variances.shape}, axes {self.axes.shape}, mean {self.mean.shape}."
            )
        if not np.all((self.variances >= 0.0) & (self.variances < math.inf)):
            raise ValueError(f"Variances must be zero or more, and finite. Received: {self.variances}.")

    @classmethod
    def fit(cls, points: np.ndarray) -> "Normal":
        """The normal density with the mean and the covariance, divided by N, of points [N, ...].

        It takes the eigenvectors of a D x D matrix, or the singular vectors of the points if there are fewer than D.
        """
        rows = np.asarray(points, np.float64).reshape(len(points), -1)
        mean = rows.mean(axis=0)
        rows = (rows - mean) / math.sqrt(len(rows))
        if len(rows) < rows.shape[1]:
            _, roots, axes = np.linalg.svd(rows, full_matrices=False)
            return cls(mean.reshape(points.shape[1:]), roots**2, axes.T)
        variances, axes = np.linalg.eigh(rows.T @ rows)
        return cls(mean.reshape(points.shape[1:]), np.maximum(variances, 0.0), axes)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        z = tf.cast(random.normal(seeds, self.variances.shape), tf.float64)
        x = self.mean.reshape(1, -1) + tf.matmul(z * np.sqrt(self.variances), self.axes, transpose_b=True)
        return tf.cast(tf.reshape(x, [-1, *self.shape]), tf.float32)

    def _log_prob(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        d, along, kept = self._along_axes(x, alpha, sigma)
        squares = tf.reduce_sum(d**2, axis=1, keepdims=True) - tf.reduce_sum(kept * along**2, axis=1, keepdims=True)
        # log det(alpha^2 C + sigma^2 I) / 2, where 1 - w_k = sigma^2 / (alpha^2 v_k + sigma^2).
        half_log = self.mean.size * tf.math.log(sigma) - 0.5 * tf.reduce_sum(
            tf.math.log1p(-kept), axis=1, keepdims=True
        )
        constant = self.mean.size * LOG_ROOT_TWO_PI
        return tf.squeeze(-0.5 * squares / sigma**2 - half_log - constant, axis=1)

    def _score(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        d, along, kept = self._along_axes(x, alpha, sigma)
        return (tf.matmul(kept * along, self.axes, transpose_b=True) - d) / sigma**2

    def _along_axes(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """d = x - alpha m, [B, D], its components u_k' d, [B, K], and the weights w_k, [B, K] or [1, K]."""
        d = x - alpha * self.mean.reshape(1, -1)
        signal = alpha**2 * self.variances
        return d, tf.matmul(d, tf.constant(self.axes)), signal / (signal + sigma**2)
