"""DPM-Solver++(2M): a multistep method that predicts the clean image, for the probability flow and the reverse SDE."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import batch_size
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction, denoise, expand
from ncsn_tf.sde import SDE, noise_ratio

State = tuple[tf.Tensor, tf.Tensor]
"""The clean image that the previous step predicted, [B, ...], and that step's length h, [B], infinite before the first
step."""


@dataclasses.dataclass(frozen=True)
class DPMSolver:
    """A step of DPM-Solver++(2M) from t to an earlier t_next, with one evaluation.

    With lambda = log(alpha / sigma), h = lambda_next - lambda > 0, k = (1 + eta) h, D the predicted clean image and D',
    h' those of the previous step,

        x_next = (sigma_next / sigma) e^{-eta h} x + alpha_next (1 - e^{-k}) (D + h / (2 h') (D - D'))
                 + sigma_next sqrt(1 - e^{-2 eta h}) z;

    the first step has no D' and is DDIM's. eta = 0 follows the probability flow, eta = 1 the reverse SDE; the order is
    2, on Gaussian data for every eta. The method extrapolates from the previous step: a grid should not have a step
    much longer in lambda than the one before, as a grid uniform in t has at its end.

    Attributes:
      sde: the SDE; only its marginals are used.
      eta: the strength of the noise, at least 0.
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Raises:
      ValueError: for a negative eta.

    Reference:
      Lu et al., DPM-Solver++, 2022, algorithm 2, and its SDE form in appendix A.
    """

    sde: SDE
    eta: float = 0.0
    noise: Noise = random.normal

    def __post_init__(self):
        if not 0.0 <= self.eta < float("inf"):
            raise ValueError(f"eta must be at least 0 and finite. Received: {self.eta}.")

    def start(self, x: tf.Tensor) -> State:
        """No prediction yet."""
        return tf.zeros_like(x), tf.fill([batch_size(x)], tf.constant(np.inf, x.dtype))

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, tf.Tensor, State]:
        """Takes one step; see `driver.Step`."""
        previous, previous_h = state
        (_, sigma), (alpha_next, sigma_next) = self.sde.marginal(t), self.sde.marginal(t_next)
        h = tf.math.log(noise_ratio(self.sde, t) / noise_ratio(self.sde, t_next))
        clean = denoise(score_fn, self.sde, x, t)
        straight = clean + expand(0.5 * h / previous_h, x) * (clean - previous)
        gain = alpha_next * -tf.math.expm1(-(1.0 + self.eta) * h)
        mean = expand(sigma_next / sigma * tf.exp(-self.eta * h), x) * x + expand(gain, x) * straight
        if self.eta == 0.0:
            return mean, mean, (clean, h)
        deviation = sigma_next * tf.sqrt(-tf.math.expm1(-2.0 * self.eta * h))
        return mean + expand(deviation, x) * self.noise(seeds, x.shape[1:]), mean, (clean, h)
