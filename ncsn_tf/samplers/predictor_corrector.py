"""Predictor-corrector sampling: steps in time, with Langevin steps at the same time between them."""

import dataclasses
from typing import Any

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers import correctors
from ncsn_tf.samplers.driver import State, Step
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE

ORDERS = ("corrector_first", "predictor_first")


@dataclasses.dataclass(frozen=True)
class Stay:
    """A predictor that leaves x where it is, so that a corrector alone carries it from one time to the next.

    With `order="predictor_first"` the corrections are at every time but the first, the last one included: annealed
    Langevin dynamics, which Song et al. 2021 (section 4.2) read as a predictor that is the identity. With
    "corrector_first" the last time would be left uncorrected.
    """

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): nothing is kept from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes no step; see `driver.Step`."""
        return x, x, state


@dataclasses.dataclass(frozen=True)
class PredictorCorrector:
    """One step of a predictor with steps of a corrector before it, at t, or after it, at t_next.

    The paper's algorithm 1 has the predictor first; the authors' program, and so the paper's figures, the corrector:
    each correction then precedes a step that makes it cleaner, and the result of a walk is not a corrector's.
    The mean is the last part's.

    Attributes:
      sde: the SDE.
      predictor: any step.
      size: the size of the corrector's steps.
      corrections: the number of corrector steps per step, each with one evaluation; at least 1.
      order: "corrector_first" or "predictor_first".
      noise: draws the corrector's noise, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Raises:
      ValueError: for another order, or less than one correction.

    Reference:
      Song et al. 2021, section 4.2, algorithm 1, and appendix G.
    """

    sde: SDE
    predictor: Step
    size: correctors.Corrector
    corrections: int = 1
    order: str = ORDERS[0]
    noise: Noise = random.normal

    def __post_init__(self):
        if self.order not in ORDERS:
            raise ValueError(f"order must be {' or '.join(ORDERS)}. Received: {self.order!r}.")
        if self.corrections < 1:
            raise ValueError(f"A corrector takes 1 or more steps. Received: corrections={self.corrections}.")

    def start(self, x: tf.Tensor) -> State:
        """The predictor's state."""
        return self.predictor.start(x)

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, tf.Tensor, State]:
        """Takes one step; see `driver.Step`."""

        def corrected(x: tf.Tensor, time: tf.Tensor) -> tuple[tf.Tensor, Any]:
            mean = x
            for number in range(self.corrections):
                folded = random.fold_each(seeds, random.Stream.CORRECTOR, number)
                x, mean = correctors.correct(self.size, self.sde, score_fn, x, time, (t_next, t), folded, self.noise)
            return x, mean

        if self.order == "corrector_first":
            x, _ = corrected(x, t)
            return self.predictor(score_fn, x, t, t_next, seeds, state)
        x, _, state = self.predictor(score_fn, x, t, t_next, seeds, state)
        return *corrected(x, t_next), state
