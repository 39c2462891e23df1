"""The frame of samplers that choose their own steps, each sample with steps of its own."""

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ncsn_tf import ode
from ncsn_tf.samplers import compiling
from ncsn_tf.samplers.counting import Counted
from ncsn_tf.samplers.driver import NO_GUIDANCE, Finish, Given, Guidance, Samples, batch_size
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE


class Adaptive(abc.ABC):
    """A sampler with error control from t=1 to a last time.

    Its steps depend on the sample alone, and `evaluations` counts what each sample needed; a batch costs what its
    slowest sample needs.

    Args:
      sde: the SDE.
      last_time: where the walk ends, in [0, 1).
      rtol: the relative tolerance.
      atol: the absolute tolerance, in data units.
      finish: applied at the end, for instance `score.denoise`; None leaves x unchanged.
      jit_compile: whether XLA compiles the solver.
      strategy: the strategy to run on, as `driver.FixedSteps` takes it.

    Attributes:
      segments: 1, the only frame is the end.
      takes_projections: False.

    Raises:
      ValueError: for a tolerance or a last time out of range.
    """

    segments = 1
    takes_projections = False

    def __init__(
        self,
        sde: SDE,
        *,
        last_time: float,
        rtol: float,
        atol: float,
        finish: Finish | None = None,
        jit_compile: bool = False,
        strategy: tf.distribute.Strategy | None = None,
    ):
        if not 0.0 <= last_time < 1.0:
            raise ValueError(f"The last time of a walk must be in [0, 1). Received: last_time={last_time}.")
        ode.check_tolerances(tf.float32, rtol, atol)
        self._sde = sde
        self._last_time = last_time
        self._rtol = rtol
        self._atol = atol
        self._finish = finish
        self._strategy = strategy
        self._jit_compile = jit_compile
        self._compiled = compiling.Recent(self._compile)

    @abc.abstractmethod
    def _solve(self, score_fn: ScoreFunction, x: tf.Tensor, seeds: tf.Tensor) -> ode.Solution:
        """Walks from x [B, ...] at t=1 to the last time; `evaluations` counts those of `score_fn`."""

    def __call__(
        self,
        score_fn: ScoreFunction,
        x: tf.Tensor,
        seeds: tf.Tensor,
        guidance: Guidance = NO_GUIDANCE,
        given: Given = (),
        on_frame: Callable[[int, Any], None] | None = None,
    ) -> Samples:
        """Draws samples from x, [B, ...] at t=1, with one seed per sample, int32 [B, 2].

        A sample that does not converge is NaN, which the programs that draw report.

        Raises:
          ValueError: for guidance that changes samples after each step, such as inpainting.
        """
        if type(guidance).project is not Guidance.project:
            raise ValueError(
                "Guidance that changes samples after each step, such as inpainting, needs fixed steps: choose another "
                "sampler, such as heun. Received: a sampler with error control."
            )
        samples = Samples(*self._compiled(score_fn, guidance)(x, seeds, given))
        if on_frame is not None:
            on_frame(1, samples.x)
        return samples

    def _compile(self, score_fn: ScoreFunction, guidance: Guidance) -> Callable:
        def solve(x, seeds, given):
            counted = Counted(score_fn)
            guided = Counted(guidance.score(counted, self._sde, given))
            found = self._solve(guided, x, seeds)
            # Guidance may evaluate the model several times for one score.
            evaluations = found.evaluations * (counted.calls // guided.calls)
            if self._finish is None:
                return found.y, evaluations
            before = counted.calls
            last = tf.fill([batch_size(x)], tf.constant(self._last_time, x.dtype))
            end = self._finish(guided, self._sde, found.y, last)
            return end, evaluations + counted.calls - before

        return compiling.on_replicas(solve, self._strategy, self._jit_compile)
