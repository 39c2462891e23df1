"""DDIM: Euler's method for the probability flow with the noise ratio as its time."""

import dataclasses

import tensorflow as tf

from ncsn_tf.score import ScoreFunction, expand, predicted_noise
from ncsn_tf.sde import SDE


@dataclasses.dataclass(frozen=True)
class DDIM:
    """A step of DDIM from t to an earlier t_next, which is also the first order of DPM-Solver.

    In y = x / alpha and rho = sigma / alpha the probability flow is dy / d rho = e, the predicted noise -sigma score,
    and DDIM is Euler's method for it:

        x_next / alpha_next = x / alpha + (rho_next - rho) e(x, t).

    The order of convergence is 1.

    Attributes:
      sde: the SDE; only its marginals are used.

    Reference:
      Song, Meng & Ermon, Denoising diffusion implicit models, 2021, equations 12 to 14; Lu et al., DPM-Solver, 2022,
      equation 3.7.
    """

    sde: SDE

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): nothing is kept from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step; see `driver.Step`."""
        x = drift(self.sde, x, t, t_next, predicted_noise(score_fn, self.sde, x, t))
        return x, x, state


def drift(sde: SDE, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Moves x from t to t_next along the probability flow as if the predicted noise were `noise`, [B, ...], all along.

    x_next = (alpha_next / alpha) x + (sigma_next - alpha_next sigma / alpha) noise
    """
    (alpha, sigma), (alpha_next, sigma_next) = sde.marginal(t), sde.marginal(t_next)
    ratio = alpha_next / alpha
    return expand(ratio, x) * x + expand(sigma_next - ratio * sigma, x) * noise
