"""Langevin dynamics: a Markov chain whose stationary density is given by its score."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE

Noise = Callable[[tf.Tensor, random.Shape], tf.Tensor]

_FLOAT32 = np.finfo(np.float32)
_ROUNDING = 1e-6
"""The relative error of a noise level that has been a float32."""
_USUAL_RATIO = 0.2
"""epsilon / sigma_L^2 in Song & Ermon 2019: 2e-5 at a smallest level of 0.01."""

_HARDLY_MOVED = 0.95
"""The share of the start that may be left at the end of a walk."""


class UnstableStepError(ValueError):
    """A step size with which Langevin dynamics diverges whatever the score network has learnt."""


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


def largest_epsilon(sigma: float) -> float:
    """The step size from which on Langevin dynamics diverges, 4 sigma^2, in squared data units.

    Where the data have no spread, the score at the smallest level is -(x - m) / sigma^2, and a step of size epsilon
    multiplies the deviation from m by

        1 - epsilon / (2 sigma^2),

    which shrinks it if 0 < epsilon < 4 sigma^2. `annealed` has the same factor at every level, since its step sizes
    grow like sigma_i^2. Stable steps are biased: with epsilon, the stationary variance is sigma^2 / (1 - epsilon /
    (4 sigma^2)), not sigma^2. The steps of `metropolis.MetropolisLangevin` are corrected and have no such limit.

    Args:
      sigma: the noise standard deviation of the smallest level that is visited, in data units.
    """
    return 4.0 * sigma**2


def check_stability(epsilon: float, sigma: float, steps: int | None = None) -> list[str]:
    """Checks the step size at the smallest level of `annealed` or `constant` against `largest_epsilon`.

    Args:
      epsilon: the step size at the smallest level, in squared data units.
      sigma: the noise standard deviation of that level, in data units.
      steps: the number of steps of the whole walk; None if it is not known.

    Returns:
      One line if steps overshoot, from 2 sigma^2 on: samples are then noisier than the level. One line if all steps
      together hardly move the start: a step multiplies deviations by no less than 1 - epsilon / (2 sigma^2), since the
      derivative of a score in any direction is at least -1 / sigma^2. Otherwise empty.

    Raises:
      UnstableStepError: if the dynamics diverges.
    """
    limit, factor = largest_epsilon(sigma), 1.0 - epsilon / (2.0 * sigma**2)
    about = f"at the smallest level, sigma = {sigma:.4g}, a step multiplies deviations by {factor:.4g}"
    remedy = f"Song & Ermon 2019 take {_USUAL_RATIO:g} sigma^2 = {_USUAL_RATIO * sigma**2:.3g}"
    if not epsilon < limit * (1.0 - _ROUNDING):
        raise UnstableStepError(
            f"With this step size samples diverge: {about}. sampler.epsilon (--epsilon) must be below 4 sigma^2 = "
            f"{limit:.3g}; {remedy}. Received: {epsilon:g}."
        )
    if epsilon >= 0.5 * limit:
        inflation = 1.0 / (1.0 - epsilon / limit)
        return [
            f"sampler.epsilon={epsilon:g} overshoots: {about}, and the noise in samples has {inflation:.3g} times the "
            f"level's variance; {remedy}"
        ]
    left = factor**steps if steps is not None else 0.0
    if left > _HARDLY_MOVED:
        return [
            f"sampler.epsilon={epsilon:g} is too small for {steps} steps: {left:.2%} of the initial deviation "
            f"remains at the end; {remedy}, and 100 steps at each of 10 levels"
        ]
    return []


def _check_positive(name: str, value: float | tf.Tensor) -> None:
    if tf.is_tensor(value):
        return
    if not float(_FLOAT32.tiny) <= float(value) <= float(_FLOAT32.max):
        raise ValueError(f"The Langevin {name} must be positive and finite, as a float32. Received: {value}.")
