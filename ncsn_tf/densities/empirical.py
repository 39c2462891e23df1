"""The noised empirical density of a data set, which score matching would learn if it memorised the data."""

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.densities.density import LOG_ROOT_TWO_PI, Coefficient, Density


@dataclasses.dataclass(frozen=True, eq=False)
class Empirical(Density):
    """The data themselves, each with probability 1/N: images or vectors.

    When perturbed, it is the mixture (1/N) sum_i N(alpha x_i, sigma^2 I), sigma positive. Its score, the best that
    denoising score matching on these points can reach, is (alpha E[x_0 | x] - x) / sigma^2, where E[x_0 | x] is the
    mean of the points under the softmax of -|x - alpha x_i|^2 / (2 sigma^2).

    Squared distances are expanded into products, in float64: at 3,072 dimensions they are 1e3, off by 1e-13 (by 1e-4 in
    float32, which is sigma^2 itself at sigma = 0.01). The softmax runs over chunks of at most 4,096 points and 32 MiB,
    so only the points themselves make memory grow with N. Measured on two CPU cores, 50,000 points of 32x32x3 take
    614 MB, the same again in TensorFlow (twice that while they are copied), and the scores of 64 examples 150 MB more,
    in 1.4 s. Autodiff through `log_prob` would keep every chunk; `score` does not need it.

    Attributes:
      points: x_i, float [N, ...], N at least 1, in data units.

    Raises:
      ValueError: if there is no point, or they are not finite floats.
    """

    points: np.ndarray
    _density_needs_noise: ClassVar[bool] = True
    _score_needs_noise: ClassVar[bool] = True

    def __post_init__(self):
        points = np.asarray(self.points)
        got = f"Received: dtype {points.dtype}, shape {points.shape}"
        if points.ndim < 2 or not points.size or not np.issubdtype(points.dtype, np.floating):
            raise ValueError(f"Points must be floats [N, ...], no dimension 0; divide bytes by 255. {got}.")
        if not np.all(np.isfinite(points)):
            raise ValueError(f"Points must be finite. {got}, with a NaN or an infinity.")
        object.__setattr__(self, "points", points)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.points.shape[1:]

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        """The points as one eager tensor [N, D], which graphs refer to and do not copy."""
        with tf.init_scope():
            return tf.constant(self.points.reshape(len(self.points), -1))

    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        rows = tf.gather(self._tensor, random.integers(seeds, len(self.points)))
        return tf.reshape(tf.cast(rows, tf.float32), [-1, *self.shape])

    def posterior_mean(self, x: tf.Tensor, alpha: Coefficient = 1.0, *, sigma: Coefficient) -> tf.Tensor:
        """E[x_0 | x], the denoiser of least mean squared error, [B, *shape]; arguments and errors of `log_prob`."""
        x = tf.convert_to_tensor(x)
        _, mean = self._posterior(*self._inputs(x, alpha, sigma, True))
        return tf.cast(tf.reshape(mean, tf.shape(x)), x.dtype)

    def _log_prob(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        log_normaliser = math.prod(self.shape) * (LOG_ROOT_TWO_PI + tf.math.log(sigma)) + math.log(len(self.points))
        return tf.squeeze(self._posterior(x, alpha, sigma)[0] - log_normaliser, axis=1)

    def _score(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        return (alpha * self._posterior(x, alpha, sigma)[1] - x) / sigma**2

    def _posterior(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """log sum_i exp(-|x - alpha x_i|^2 / (2 sigma^2)), [B, 1], and the mean of the points so weighted, [B, D]."""
        count, width = len(self.points), math.prod(self.shape)
        size = min(count, 4096, max(1, 2**22 // width))  # 2^22 numbers in float64 are 32 MiB
        chunks = math.ceil(count / size)

        def add_chunk(k: tf.Tensor, peak: tf.Tensor, total: tf.Tensor, weighted: tf.Tensor):
            start = tf.minimum(k * size, count - size)  # the last chunk is as long as the others, which XLA requires
            points = tf.cast(tf.slice(self._tensor, [start, 0], [size, width]), tf.float64)
            # |x|^2, the same for all points, is added at the end: far out it would swamp their differences.
            products = tf.matmul(x, points, transpose_b=True)
            logits = alpha * (products - 0.5 * alpha * tf.reduce_sum(points**2, axis=1)) / sigma**2
            fresh = start + tf.range(size) >= k * size
            logits = tf.where(fresh, logits, tf.constant(-math.inf, x.dtype))
            # Sums are relative to the largest logit so far. Any reference gives the same result, so it has no gradient.
            new_peak = tf.stop_gradient(tf.maximum(peak, tf.reduce_max(logits, axis=1, keepdims=True)))
            shrink, weights = tf.exp(peak - new_peak), tf.exp(logits - new_peak)
            total = shrink * total + tf.reduce_sum(weights, axis=1, keepdims=True)
            return k + 1, new_peak, total, shrink * weighted + tf.matmul(weights, points)

        nothing = tf.zeros_like(x[:, :1])
        start = (tf.constant(0), nothing - math.inf, nothing, tf.zeros_like(x))
        _, peak, total, weighted = tf.while_loop(
            lambda k, *_: k < chunks, add_chunk, start, parallel_iterations=1, maximum_iterations=chunks
        )
        squares = tf.reduce_sum(x**2, axis=1, keepdims=True)
        return peak + tf.math.log(total) - 0.5 * squares / sigma**2, weighted / total
