"""Linear diffusions dx = f(t) x dt + g(t) dw on t in [0, 1], t=0 the data and t=1 the noise.

Each is a frozen value that answers with coefficients of shape [B], never with images: x_t = alpha(t) x_0 + sigma(t) z.
"""

import dataclasses
import math

import tensorflow as tf

from ncsn_tf import random


@dataclasses.dataclass(frozen=True)
class VE:
    """The variance-exploding SDE: noise is added, the signal is kept (Song et al. 2021, equation 9 and appendix C).

        alpha(t) = 1,  sigma(t) = sigma_min (sigma_max / sigma_min)^t,
        f(t) = 0,      g(t) = sigma(t) sqrt(2 log(sigma_max / sigma_min)).

    Read at L equally spaced times it gives the geometric noise levels of NCSN.

    Attributes:
      sigma_max: noise standard deviation at t=1, in data units (images span [0, 1]).
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
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Coefficients (alpha, sigma) of x_t given x_0, each [B] for t of shape [B]."""
        t = tf.convert_to_tensor(t, tf.float32)
        return tf.ones_like(t), self.sigma_min * tf.exp(t * self._log_ratio)

    def drift(self, t: tf.Tensor) -> tf.Tensor:
        """f(t), [B]: zero, the signal is not shrunk."""
        return tf.zeros_like(tf.convert_to_tensor(t, tf.float32))

    def diffusion(self, t: tf.Tensor) -> tf.Tensor:
        """g(t), [B], with g^2 = d sigma^2 / dt."""
        return self.marginal(t)[1] * math.sqrt(2.0 * self._log_ratio)

    def time(self, sigma: tf.Tensor) -> tf.Tensor:
        """The t at which the noise has standard deviation sigma; the inverse of `marginal` in its second part."""
        return tf.math.log(tf.convert_to_tensor(sigma, tf.float32) / self.sigma_min) / self._log_ratio

    def prior_sample(self, seeds: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Draws x at t=1 from N(0, sigma_max^2 I).

        Args:
          seeds: int32 [B, 2], a seed an example.
          shape: the shape of one example.

        Returns:
          float32 [B, *shape].
        """
        return self.sigma_max * random.normal(seeds, shape)

    def prior_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """log N(x; 0, sigma_max^2 I) in nats, [B] for x of shape [B, ...]."""
        flat = tf.reshape(x, [tf.shape(x)[0], -1])
        dimensions = tf.cast(tf.shape(flat)[1], flat.dtype)
        log_normaliser = 0.5 * dimensions * math.log(2.0 * math.pi * self.sigma_max**2)
        return -0.5 * tf.reduce_sum(flat**2, axis=1) / self.sigma_max**2 - log_normaliser
