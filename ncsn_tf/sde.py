"""Linear diffusions dx = f(t) x dt + g(t) dw on t in [0, 1]: t=0 is the data, t=1 the noise.

An SDE is immutable, and its methods return coefficients of shape [B], not images: x_t = alpha(t) x_0 + sigma(t) z.
Coefficients have the dtype of the given times.
"""

import dataclasses
import math
from typing import Any, Protocol

import tensorflow as tf

from ncsn_tf import random


class SDE(Protocol):
    """The contract of a linear SDE. Samplers, objectives and likelihoods use only these members and `transition`."""

    @property
    def data_range(self) -> tuple[float, float]:
        """(low, high), the range of the SDE's data."""
        ...

    @property
    def first_time(self) -> float:
        """The smallest time that training and sampling in continuous time visit."""
        ...

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The coefficients (alpha, sigma) of x_t given x_0, each [B] for t of shape [B]."""
        ...

    def drift(self, t: tf.Tensor) -> tf.Tensor:
        """f(t), [B]; d alpha / dt = f alpha."""
        ...

    def diffusion(self, t: tf.Tensor) -> tf.Tensor:
        """g(t), [B]; d sigma^2 / dt = 2 f sigma^2 + g^2."""
        ...

    def time(self, noise_ratio: tf.Tensor) -> tf.Tensor:
        """The t at which sigma / alpha equals `noise_ratio`, [B]."""
        ...

    def prior_sample(self, seeds: tf.Tensor, shape: random.Shape) -> tf.Tensor:
        """Draws x at t=1, float32 [B, *shape], from seeds int32 [B, 2]."""
        ...

    def prior_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """The log-density of the prior at x, [B] in nats for x of shape [B, ...]."""
        ...


def transition(sde: SDE, s: tf.Tensor, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The coefficients of x_t given x_s: x_t = alpha x_s + sigma z.

        alpha = alpha_t / alpha_s,   sigma^2 = sigma_t^2 (1 - (r_s / r_t)^2),   r = sigma / alpha

    Args:
      sde: the SDE.
      s: [B], the earlier times.
      t: [B], the later times, s <= t.

    Returns:
      (alpha, sigma), each [B]. The form above is accurate even where s is near t.
    """
    alpha_s, sigma_s = sde.marginal(s)
    alpha_t, sigma_t = sde.marginal(t)
    log_ratio = tf.math.log(sigma_s / alpha_s) - tf.math.log(sigma_t / alpha_t)
    return alpha_t / alpha_s, sigma_t * tf.sqrt(-tf.math.expm1(2.0 * log_ratio))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VE:
    """The variance-exploding SDE: it adds noise and keeps the signal (Song et al. 2021, equation 9 and appendix C).

        alpha(t) = 1,  sigma(t) = sigma_min (sigma_max / sigma_min)^t,
        f(t) = 0,      g(t) = sigma(t) sqrt(2 log(sigma_max / sigma_min)).

    At L equally spaced times its sigmas are the geometric noise levels of NCSN. Its data are in [0, 1].

    Attributes:
      sigma_max: noise standard deviation at t=1, in data units.
      sigma_min: noise standard deviation at t=0, in data units.

    Raises:
      ValueError: unless 0 < sigma_min < sigma_max < infinity.
    """

    sigma_max: float
    sigma_min: float

    def __post_init__(self):
        if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                "The VE SDE needs 0 < sigma_min < sigma_max, both finite. "
                f"Received: sigma_max={self.sigma_max}, sigma_min={self.sigma_min}."
            )

    @property
    def data_range(self) -> tuple[float, float]:
        """(0, 1), the range of images."""
        return 0.0, 1.0

    @property
    def first_time(self) -> float:
        """1e-5, as in the authors' program for continuous time; NCSN's grid of levels ends at 0."""
        return 1e-5

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The coefficients (alpha, sigma) of x_t given x_0, each [B] for t of shape [B]."""
        t = as_times(t)
        return tf.ones_like(t), self.sigma_min * tf.exp(t * self._log_ratio)

    def drift(self, t: tf.Tensor) -> tf.Tensor:
        """f(t) = 0, [B]."""
        return tf.zeros_like(as_times(t))

    def diffusion(self, t: tf.Tensor) -> tf.Tensor:
        """g(t), [B], with g^2 = d sigma^2 / dt."""
        return self.marginal(t)[1] * math.sqrt(2.0 * self._log_ratio)

    def time(self, noise_ratio: tf.Tensor) -> tf.Tensor:
        """The t at which sigma / alpha = sigma equals `noise_ratio`, [B]."""
        return tf.math.log(as_times(noise_ratio) / self.sigma_min) / self._log_ratio

    def prior_sample(self, seeds: tf.Tensor, shape: random.Shape) -> tf.Tensor:
        """Draws x at t=1 from N(0, sigma_max^2 I), float32 [B, *shape], from seeds int32 [B, 2]."""
        return self.sigma_max * random.normal(seeds, shape)

    def prior_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """log N(x; 0, sigma_max^2 I) in nats, [B] for x of shape [B, ...]."""
        flat = tf.reshape(x, [tf.shape(x)[0], -1])
        dimensions = tf.cast(tf.shape(flat)[1], flat.dtype)
        log_normaliser = 0.5 * dimensions * math.log(2.0 * math.pi * self.sigma_max**2)
        return -0.5 * tf.reduce_sum(flat**2, axis=1) / self.sigma_max**2 - log_normaliser


def as_times(t: Any) -> tf.Tensor:
    """Converts times, or noise ratios, to a tensor of their own floating dtype; Python numbers become float32.

    Raises:
      ValueError: for integers.
    """
    t = tf.convert_to_tensor(t)
    if not t.dtype.is_floating:
        raise ValueError(f"Times must be floats; cast them. Received: {t.dtype.name}.")
    return t
