"""The interface of densities whose perturbed law is known: log-density, score and samples.

All computation is in float64 and in logarithms, and results have x's type: the score is as exact far out as near the
modes. Everything runs in a tf.function and under XLA.
"""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

Coefficient = float | tf.Tensor
"""alpha or sigma: a scalar, or [B] with one value per example."""

LOG_ROOT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Perturbation(Protocol):
    """The required part of an SDE: (alpha, sigma), each [B] for t of shape [B], of x_t = alpha(t) x_0 + sigma(t) z."""

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]: ...


class Density(abc.ABC):
    """The density of alpha x_0 + sigma z, the law that an SDE gives its data x_0. This class checks all inputs."""

    _density_needs_noise: ClassVar[bool] = False
    _score_needs_noise: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""

    @abc.abstractmethod
    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        """Draws clean examples, float32 [B, *shape], for seeds int32 [B, 2]; row b depends on `seeds[b]` alone."""

    # The two methods below receive x [B, D] and coefficients [B, 1] or [1, 1], all float64.

    @abc.abstractmethod
    def _log_prob(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor: ...

    @abc.abstractmethod
    def _score(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor: ...

    def log_prob(self, x: tf.Tensor, alpha: Coefficient = 1.0, sigma: Coefficient = 0.0) -> tf.Tensor:
        """The log-density of alpha x_0 + sigma z at x, in nats.

        Args:
          x: float [B, *shape].
          alpha: the factor of the data, positive.
          sigma: the noise standard deviation in data units, zero or more; positive where a density needs it.

        Returns:
          [B], of x's type.

        Raises:
          ValueError: for an x of another shape, and for invalid coefficients that are known before the graph runs.
        """
        x = tf.convert_to_tensor(x)
        return tf.cast(self._log_prob(*self._inputs(x, alpha, sigma, self._density_needs_noise)), x.dtype)

    def score(self, x: tf.Tensor, alpha: Coefficient = 1.0, sigma: Coefficient = 0.0) -> tf.Tensor:
        """The gradient of `log_prob` at x, [B, *shape] of x's type; same arguments and errors as `log_prob`."""
        x = tf.convert_to_tensor(x)
        score = self._score(*self._inputs(x, alpha, sigma, self._score_needs_noise))
        return tf.cast(tf.reshape(score, tf.shape(x)), x.dtype)

    def score_fn(self, sde: Perturbation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """The score function of the data perturbed by an SDE, (x [B, *shape], t [B]) -> [B, *shape]."""
        return lambda x, t: self.score(x, *sde.marginal(t))

    def log_prob_fn(self, sde: Perturbation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """The log-density of the data perturbed by an SDE, (x [B, *shape], t [B]) -> [B]."""
        return lambda x, t: self.log_prob(x, *sde.marginal(t))

    def _inputs(self, x: tf.Tensor, alpha: Coefficient, sigma: Coefficient, needs_noise: bool):
        if x.shape.rank != 1 + len(self.shape) or not x.shape[1:].is_compatible_with(self.shape):
            raise ValueError(f"{type(self).__name__} needs x of shape [B, *{self.shape}]. Received: {x.shape}.")
        if not x.dtype.is_floating:
            raise ValueError(f"{type(self).__name__} needs x of floats; cast it. Received: {x.dtype.name}.")
        flat = tf.cast(tf.reshape(x, [-1, math.prod(self.shape)]), tf.float64)
        return flat, _coefficient("alpha", alpha, x, True), _coefficient("sigma", sigma, x, needs_noise)


def _coefficient(name: str, value: Coefficient, x: tf.Tensor, positive: bool) -> tf.Tensor:
    """alpha or sigma as float64, [B, 1] or [1, 1]."""
    # A Python number is converted to float64 directly: through TensorFlow's float32 it would lose half its digits.
    value = tf.cast(value if tf.is_tensor(value) else np.asarray(value, np.float64), tf.float64)
    if value.shape.rank not in (0, 1) or (value.shape.rank and not value.shape.is_compatible_with(x.shape[:1])):
        raise ValueError(f"{name} must be a scalar or [B], one per example. Received: {value.shape}, x {x.shape}.")
    known: Any = tf.get_static_value(value)
    if known is not None and not np.all((known > 0.0 if positive else known >= 0.0) & (known < math.inf)):
        least = "positive" if positive else "zero or more"
        raise ValueError(f"{name} must be {least} and finite here. Received: {known}.")
    return tf.reshape(value, [-1, 1])
