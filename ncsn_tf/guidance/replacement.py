"""Replacement: after each step the measured coefficients are set to noisy copies of what was measured."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.guidance import references
from ncsn_tf.guidance.measurements import Measurement
from ncsn_tf.samplers.driver import Given, Guidance, StepSeeds
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import expand
from ncsn_tf.sde import SDE


@dataclasses.dataclass(frozen=True, eq=False)
class Replacement(Guidance):
    """Sets the coefficients c = V' x that y = A x + noise n measures to those of y with the noise of a step's time.

        c <- (1 - weight) c + weight (alpha d + e z),   d = S^-1 U' y

    for each measured coefficient, where A = U S V'; the others stay. Without noise e = sigma. With a mask this is
    `inpainting.Inpainting` bit for bit, and with grey values the colorization of Song et al. 2021. With `weight` it is
    their method for measurements in medicine, which there is applied before each step and here after it.

    With noise, d already has the deviation noise / S, so e^2 = sigma^2 - (alpha noise / S)^2: what is set has the noise
    of the level, no more. From the time on when there is less noise than that in the samples, the coefficient is no
    longer set, and the walk itself removes the noise that was measured: stochastic walks as the posterior does, walks
    along the probability flow without the posterior's variance. Between two times it is let go by part of a step too
    early, an error of the first order.

    The method is exact for walks that equilibrate at each level, such as annealed Langevin dynamics. In other walks the
    coefficients that are left free follow the noisy copies at each time as if those were all that is known: they are
    not told in time where the copies lead.

    The given tensors are the measurements, (y [B, *measured_shape],), in the SDE's data range.

    Attributes:
      sde: gives alpha and sigma.
      measurement: A.
      noise: the standard deviation of the measurement's noise, in units of the SDE's data range.
      weight: how far measured coefficients are moved, in (0, 1].
      reference: "walk", "level" or "step": when a new z is drawn.
      draw: draws z, `draw(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Raises:
      ValueError: for a number out of range or another `reference`.

    Reference:
      Song et al. 2021, appendices I.2 and I.3; Song et al., Solving inverse problems in medical imaging with
      score-based generative models, 2022, section 3.2 (its lambda is `weight`); for noise, Kawar et al., Denoising
      diffusion restoration models, 2022, section 4.
    """

    sde: SDE
    measurement: Measurement
    noise: float = 0.0
    weight: float = 1.0
    reference: str = "level"
    draw: Noise = random.normal

    def __post_init__(self):
        if not 0.0 < self.weight <= 1.0:
            raise ValueError(f"The weight of a replacement must be in (0, 1]. Received: weight={self.weight:g}.")
        references.check(self.reference)

    def project(
        self, x: tf.Tensor, mean: tf.Tensor, t: tf.Tensor, seeds: StepSeeds, given: Given
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Sets the measured coefficients of x and of its mean; see `Guidance.project`."""
        values = self.measurement.singular_values
        alpha, sigma = (expand(part, x) for part in self.sde.marginal(t))
        clean = alpha * self.measurement.coefficients(given[0])
        z = references.draw(self.reference, seeds, x.shape[1:], self.draw)
        known = tf.constant(values > 0.0)
        if self.noise == 0.0:
            noisy = clean + sigma * z
        else:
            own = alpha * tf.constant(self.noise / np.where(values > 0.0, values, 1.0), x.dtype)
            known &= own <= sigma
            noisy = clean + tf.sqrt(tf.maximum((sigma - own) * (sigma + own), 0.0)) * z
        return self._set(x, noisy, known), self._set(mean, clean, known)

    def _set(self, x: tf.Tensor, wanted: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """x with its known coefficients moved to the wanted ones."""
        found = self.measurement.spectrum(x)
        if self.weight < 1.0:
            wanted = (1.0 - self.weight) * found + self.weight * wanted
        return self.measurement.image(tf.where(known, wanted, found))
