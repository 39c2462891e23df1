"""Langevin dynamics: a Markov chain whose stationary density is given by its score."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE

Noise = Callable[[tf.Tensor, random.Shape], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Langevin:
    """Unadjusted Langevin dynamics (Song & Ermon 2019, equation 4; Algorithm 1, line 6).

        x <- x + a/2 score(x, t) + sqrt(a) z,   a = step_size(t)

    A step does not change the time; annealing takes steps at a grid of times from noise to data, each with its own step
    size. This is the paper's form: the official code computes x + a s + sqrt(2 a) z, so its step of 2e-5 is 4e-5 here.

    Attributes:
      step_size: a(t), [B] for t of shape [B], in squared data units; see `constant` and `annealed`.
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.
    """

    step_size: Callable[[tf.Tensor], tf.Tensor]
    noise: Noise = random.normal

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): Langevin dynamics keeps nothing from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step at time t, towards the density perturbed to t; `t_next` is not used. See `driver.Step`."""
        del t_next
        size = expand(self.step_size(t), x)
        mean = x + 0.5 * size * score_fn(x, t)
        return mean + tf.sqrt(size) * self.noise(seeds, x.shape[1:]), mean, state


def constant(step_size: float | tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same step size, in squared data units, at every time: a number, or a float32 scalar of a graph.

    Raises:
      ValueError: if a number is not positive and finite.
    """
    _check_positive("step size", step_size)
    return lambda t: tf.fill(tf.shape(t), tf.convert_to_tensor(step_size, tf.float32))


def annealed(sde: SDE, epsilon: float | tf.Tensor, last_time: float = 0.0) -> Callable[[tf.Tensor], tf.Tensor]:
    """The step sizes of annealed Langevin dynamics, epsilon sigma_i^2 / sigma_L^2 (Algorithm 1, line 3).

    The signal-to-noise ratio of a step is then the same at every level.

    Args:
      sde: the SDE that gives sigma.
      epsilon: the step size at the last level, in squared data units: a number, or a float32 scalar of a graph.
      last_time: the time of the last level, whose sigma is sigma_L.

    Raises:
      ValueError: if a number is not positive and finite.
    """
    _check_positive("epsilon", epsilon)

    def step_size(t: tf.Tensor) -> tf.Tensor:
        _, sigma = sde.marginal(t)
        _, last_sigma = sde.marginal(tf.fill(tf.shape(t), last_time))
        return epsilon * (sigma / last_sigma) ** 2

    return step_size


def _check_positive(name: str, value: float | tf.Tensor) -> None:
    if not tf.is_tensor(value) and not 0.0 < value < float("inf"):
        raise ValueError(f"The Langevin {name} must be positive and finite. Received: {value}.")
