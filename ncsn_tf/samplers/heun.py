"""Heun's method for the probability flow, with or without churn."""

import dataclasses
import math

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.ddim import drift
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction, expand, predicted_noise
from ncsn_tf.sde import SDE, noise_ratio

MOST_CHURN = math.sqrt(2.0) - 1.0
"""The largest relative increase of the noise per step in Karras et al. 2022."""


@dataclasses.dataclass(frozen=True)
class Heun:
    """A step of Heun's method from t to an earlier t_next, with two evaluations (Karras et al. 2022).

    In y = x / alpha and rho = sigma / alpha, where the probability flow is dy / d rho = e(x, t),

        y' = y + (rho_next - rho) e(x, t),
        y_next = y + (rho_next - rho) (e(x, t) + e(alpha_next y', t_next)) / 2.

    The order of convergence is 2. Their last step, to sigma = 0, is Euler's; a walk that ends with `score.denoise` ends
    in the same way, so a grid of 18 times costs 2 x 17 + 1 = 35 evaluations, as theirs of 18 steps.

    With churn the step begins with fresh noise: rho becomes rho' = (1 + churn) rho, and y gains
    inflation sqrt(rho'^2 - rho^2) z, where rho is in [churn_from, churn_to]; rho' stays below rho at t=1.

    Attributes:
      sde: the SDE.
      churn: the relative increase of the noise per step, S_churn / N in the paper; 0 for the deterministic method.
      churn_from: S_min, the smallest noise ratio at which noise is added.
      churn_to: S_max, the largest.
      inflation: S_noise, the standard deviation of z.
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Raises:
      ValueError: if `churn` is not in [0, sqrt(2) - 1].

    Reference:
      Karras et al. 2022, algorithms 1 and 2.
    """

    sde: SDE
    churn: float = 0.0
    churn_from: float = 0.0
    churn_to: float = math.inf
    inflation: float = 1.0
    noise: Noise = random.normal

    def __post_init__(self):
        if not 0.0 <= self.churn <= MOST_CHURN:
            raise ValueError(f"churn must be in [0, sqrt(2) - 1], per step. Received: {self.churn}.")

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): nothing is kept from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step; see `driver.Step`. The mean is x: the noise of churn comes at the beginning."""
        if self.churn > 0.0:
            x, t = self._churned(x, t, seeds)
        first = predicted_noise(score_fn, self.sde, x, t)
        second = predicted_noise(score_fn, self.sde, drift(self.sde, x, t, t_next, first), t_next)
        x = drift(self.sde, x, t, t_next, 0.5 * (first + second))
        return x, x, state

    def _churned(self, x: tf.Tensor, t: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """x and its time with more noise."""
        rho = noise_ratio(self.sde, t)
        inside = (rho >= self.churn_from) & (rho <= self.churn_to)
        raised = tf.minimum(rho * (1.0 + self.churn), noise_ratio(self.sde, tf.ones_like(t)))
        raised = tf.where(inside, tf.maximum(raised, rho), rho)
        new_t = tf.where(raised > rho, self.sde.time(raised), t)
        alpha, new_alpha = self.sde.marginal(t)[0], self.sde.marginal(new_t)[0]
        # As a product, because a difference of squares may be rounded below zero.
        deviation = new_alpha * self.inflation * tf.sqrt((raised - rho) * (raised + rho))
        x = expand(new_alpha / alpha, x) * x + expand(deviation, x) * self.noise(seeds, x.shape[1:])
        return x, new_t
