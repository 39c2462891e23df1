"""Diffusion posterior sampling: the score is led towards clean images that fit the measurement."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from ncsn_tf.guidance import tweedie
from ncsn_tf.guidance.measurements import Measurement
from ncsn_tf.samplers.driver import Given, Guidance
from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE

STEPS = 1_000
"""The number of steps of the paper's walks, for which its zeta is meant."""


@dataclasses.dataclass(frozen=True, eq=False)
class DPS(Guidance):
    """Adds to the score a multiple of the gradient of -||y - A D||^2, with D = E[x_0 | x_t] by Tweedie's formula.

    The paper takes zeta / ||y - A D|| times this gradient, whatever the noise is, as a move of x in each of 1,000 steps
    of the reverse SDE on VP. The SDE moves x by g^2 score dt, so that

        score <- score - 1000 zeta / (g^2 ||y - A D||) gradient of ||y - A D||^2

    makes the same moves in walks of 1,000 steps of time, and the same way in more and fewer; walks along the
    probability flow, which has half the score, make half of them. Steps that do not move in time, such as those of
    Langevin dynamics, have nothing to do with g: `restoring.check_sampler` refuses them, and the denoising at the end
    of a walk follows the score alone. The moves have one length however near the measurement is. A long step
    goes too far: with few steps take a smaller zeta, or PiGDM.

    Each evaluation costs a pass back through the network: it counts as two. Not even on normal data is the method
    exact; docs/guidance.md says by how much.

    The given tensors are the measurements, (y [B, *measured_shape],), in the SDE's data range.

    Attributes:
      sde: gives g.
      measurement: A.
      noise: the standard deviation of the measurement's noise; the method does not use it.
      zeta: the paper's zeta', at least 0; the paper takes larger ones.

    Raises:
      ValueError: for a number out of range.

    Reference:
      Chung et al., Diffusion posterior sampling for general noisy inverse problems, 2023, algorithm 1 and appendix C.2.
    """

    sde: SDE
    measurement: Measurement
    noise: float = 0.0
    zeta: float = 0.01
    guides_the_end: ClassVar[bool] = False

    def __post_init__(self):
        if not 0.0 <= self.zeta < float("inf"):
            raise ValueError(f"zeta must be at least 0 and finite. Received: zeta={self.zeta:g}.")

    def score(self, score_fn: ScoreFunction, sde: SDE, given: Given) -> ScoreFunction:
        """The guided score function; see `Guidance.score`."""
        measurement, (y,) = self.measurement, given

        def guided(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            predicted = tweedie.predict(score_fn, sde, x, t)
            s = tf.constant(measurement.singular_values, x.dtype)
            residual = measurement.measured_spectrum(y) - s * measurement.spectrum(predicted.clean)
            norm = tf.sqrt(tf.reduce_sum(residual**2, axis=(1, 2, 3), keepdims=True))
            toward = predicted.pull(measurement.image(s * tf.math.divide_no_nan(residual, norm)))
            return predicted.scores + expand(2.0 * STEPS * self.zeta / sde.diffusion(t) ** 2, x) * toward

        return guided
