"""Pseudo-inverse guidance: posterior sampling with the clean image taken as normal around its predicted mean."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf.guidance import tweedie
from ncsn_tf.guidance.measurements import Measurement
from ncsn_tf.samplers.driver import Given, Guidance
from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE


@dataclasses.dataclass(frozen=True, eq=False)
class PiGDM(Guidance):
    """Adds to the score the gradient of log p(y | x_t), for y = A x_0 + noise n and x_0 given x_t as N(D, r^2 I).

        log p(y | x_t) = log N(y; A D, r^2 A A' + noise^2 I),   D = E[x_0 | x_t] by Tweedie's formula,
        its gradient   = J' A' (r^2 A A' + noise^2 I)^-1 (y - A D),   J = dD / dx_t,
        r^2            = sigma^2 s^2 / (alpha^2 s^2 + sigma^2),

    the variance of x_0 given x_t if data have the deviation s in every direction: for such normal data the method is
    exact. The paper takes s = 1, so that r^2 = sigma^2 / (1 + sigma^2) on VE and sigma^2 on VP. Its sampler multiplies
    the gradient by factors of its own step; here it is the score of the posterior, for any sampler.

    For such data J is alpha r^2 / sigma^2. The J of a network has no bound: errors in the Jacobian of its noise are
    multiplied by sigma / alpha, 152 at t=1 on VP. The gradient is then steeper than a step of a walk can follow, and
    walks with few steps diverge. So J' v is shortened to `most_pull` times its length for such data, |v| alpha r^2 /
    sigma^2, if it is longer. Data whose variance in some direction is more than `most_pull` times s^2 feel this at
    large noise.

    Each evaluation costs a pass back through the network: it counts as two.

    The given tensors are the measurements, (y [B, *measured_shape],), in the SDE's data range.

    Attributes:
      sde: gives alpha and sigma.
      measurement: A.
      noise: the standard deviation of the measurement's noise, in units of the SDE's data range.
      scale: a factor of the gradient, at least 0; 1 for the posterior.
      data_deviation: s, in units of the SDE's data range.
      most_pull: the greatest length of J' v, in lengths that it has for normal data of deviation s.

    Raises:
      ValueError: for a number out of range.

    Reference:
      Song et al., Pseudoinverse-guided diffusion models for inverse problems, 2023, equations 7 to 9 and section 3.2.
    """

    sde: SDE
    measurement: Measurement
    noise: float = 0.0
    scale: float = 1.0
    data_deviation: float = 1.0
    most_pull: float = 4.0

    def __post_init__(self):
        if not 0.0 <= self.scale < float("inf"):
            raise ValueError(f"The scale of guidance must be at least 0 and finite. Received: scale={self.scale:g}.")
        if not 0.0 < self.data_deviation < float("inf"):
            raise ValueError(
                "data_deviation is that of the data, positive and finite. "
                f"Received: data_deviation={self.data_deviation:g}."
            )
        if not 0.0 < self.most_pull < float("inf"):
            raise ValueError(f"most_pull must be positive and finite. Received: most_pull={self.most_pull:g}.")

    def score(self, score_fn: ScoreFunction, sde: SDE, given: Given) -> ScoreFunction:
        """The guided score function; see `Guidance.score`."""
        measurement, (y,) = self.measurement, given
        values = tf.constant(measurement.singular_values)

        def guided(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            predicted = tweedie.predict(score_fn, sde, x, t)
            s, (alpha, sigma) = tf.cast(values, x.dtype), (expand(part, x) for part in sde.marginal(t))
            r = sigma / tf.sqrt(alpha**2 + (sigma / self.data_deviation) ** 2)
            residual = measurement.measured_spectrum(y) - s * measurement.spectrum(predicted.clean)
            variance = tf.where(s > 0.0, (r * s) ** 2 + self.noise**2, np.inf)
            v = measurement.image(s * residual / variance)
            pulled, longest = predicted.pull(v), self.most_pull * alpha * (r / sigma) ** 2 * _length(v)
            pulled *= tf.minimum(tf.ones_like(longest), tf.math.divide_no_nan(longest, _length(pulled)))
            return predicted.scores + self.scale * pulled

        return guided


def _length(x: tf.Tensor) -> tf.Tensor:
    """The Euclidean length of each row, [B, 1, 1, 1] of [B, H, W, C]."""
    return tf.sqrt(tf.reduce_sum(x**2, axis=(1, 2, 3), keepdims=True))
