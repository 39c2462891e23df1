"""Euler-Maruyama steps of the reverse-time SDE."""

import dataclasses

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction, expand, reverse_drift
from ncsn_tf.sde import SDE


@dataclasses.dataclass(frozen=True)
class EulerMaruyama:
    """An Euler-Maruyama step of the reverse-time SDE from t to an earlier t_next.

        x <- x - (f x - g^2 score(x, t)) dt + g sqrt(dt) z,   dt = t - t_next

    f and g are those of time t. The order of convergence is 1 in law. The authors' program steps by 1/N whatever the
    spacing of its grid, (1 - t_last) / (N - 1); these steps are as long as the grid says.

    Attributes:
      sde: the SDE; its drift and diffusion are used.
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Reference:
      Song et al. 2021, equation 6 and section 4.1; Anderson 1982.
    """

    sde: SDE
    noise: Noise = random.normal

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): nothing is kept from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step; see `driver.Step`."""
        g, dt = self.sde.diffusion(t), t - t_next
        mean = x - expand(dt, x) * reverse_drift(score_fn, self.sde)(x, t)
        return mean + expand(g * tf.sqrt(dt), x) * self.noise(seeds, x.shape[1:]), mean, state
