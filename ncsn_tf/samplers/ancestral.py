"""Ancestral sampling: the reverse of the chain of transitions between the times of a grid."""

import dataclasses

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE, transition

VARIANCES = ("posterior", "transition")


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """A step of ancestral sampling from t to an earlier t_next, for any linear SDE.

    With x_t = a x_s + b z the transition from s = t_next to t,

        x_s = (x_t + b^2 score(x_t, t)) / a + std z,

    whose first term is the mean of x_s given x_t, by Tweedie's formula. The variance of x_s given x_t and the clean
    image is std^2 = b^2 sigma_s^2 / sigma_t^2, "posterior", which Song et al. 2021 take for VE. For DDPM they take
    std^2 = b^2, "transition", the variance of x_s given x_t if the data have unit variance. The two agree as steps get
    small.
    On VE a = 1 and b^2 = sigma_t^2 - sigma_s^2; on DDPM's levels a^2 = 1 - beta_i and b^2 = beta_i.

    A walk ends at the last time of its grid, where the noise sigma is left; `score.denoise` removes it.

    Attributes:
      sde: the SDE; only its marginals are used.
      variance: "posterior" or "transition".
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Raises:
      ValueError: for another `variance`.

    Reference:
      Ho et al. 2020, algorithm 2 and section 3.2; Song et al. 2021, equation 4 and appendix F.
    """

    sde: SDE
    variance: str = VARIANCES[0]
    noise: Noise = random.normal

    def __post_init__(self):
        if self.variance not in VARIANCES:
            raise ValueError(f"variance must be {' or '.join(VARIANCES)}. Received: {self.variance!r}.")

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): ancestral sampling keeps nothing from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step; see `driver.Step`."""
        a, b = transition(self.sde, t_next, t)
        mean = (x + expand(b**2, x) * score_fn(x, t)) / expand(a, x)
        deviation = b
        if self.variance == "posterior":
            deviation = b * self.sde.marginal(t_next)[1] / self.sde.marginal(t)[1]
        return mean + expand(deviation, x) * self.noise(seeds, x.shape[1:]), mean, state
