"""Reverse diffusion sampling: the reverse-time SDE in the same steps as the forward one."""

import dataclasses

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE, transition


@dataclasses.dataclass(frozen=True)
class ReverseDiffusion:
    """A step of reverse diffusion sampling from t to an earlier t_next, for any linear SDE.

    With x_t = a x_s + b z the transition from s = t_next to t, the forward step is x_t = x_s + f(x_s) + G z with
    f(x) = (a - 1) x and G = b, and its reverse is

        x_s = x_t - f(x_t) + G^2 score(x_t, t) + G z = (2 - a) x_t + b^2 score(x_t, t) + b z.

    With `flow` it is a step of the probability flow, which has half the score term and no noise. On VE a = 1 and b^2 =
    sigma_t^2 - sigma_s^2; on DDPM's levels a^2 = 1 - beta_i and b^2 = beta_i. For sub-VP the authors' program takes
    Euler's f and G; here they follow from the transition, as for the others. Both orders of convergence are 1.

    On VE a last step to sigma = 0 is Tweedie's formula exactly, so a walk that ends with `score.denoise` ends as that
    of the authors' program.

    Attributes:
      sde: the SDE; only its marginals are used.
      flow: whether the step follows the probability flow.
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Reference:
      Song et al. 2021, equation 46 (appendix E) and equations 47 to 49 (appendix D.3).
    """

    sde: SDE
    flow: bool = False
    noise: Noise = random.normal

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): nothing is kept from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step; see `driver.Step`."""
        a, b = transition(self.sde, t_next, t)
        share = 0.5 if self.flow else 1.0
        mean = expand(2.0 - a, x) * x + expand(share * b**2, x) * score_fn(x, t)
        if self.flow:
            return mean, mean, state
        return mean + expand(b, x) * self.noise(seeds, x.shape[1:]), mean, state
