"""The contracts of steps, guidance and samplers, and the sampler that takes a fixed number of steps."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers import compiling
from ncsn_tf.samplers.counting import Counted
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE

State = Any
"""Nested tensors that a step passes to the next one; () for one-step methods."""

Given = tuple[tf.Tensor, ...]
"""The tensors that guidance takes with each batch, [B, ...] each."""

Finish = Callable[[ScoreFunction, SDE, tf.Tensor, tf.Tensor], tf.Tensor]
"""finish(score_fn, sde, x, t) -> x, applied at the end of a walk; `score.denoise` is one."""

Prior = Callable[[tf.Tensor, random.Shape], tf.Tensor]
"""prior(seeds [B, 2], shape) -> float32 [B, *shape], the start of a walk."""


class Step(Protocol):
    """One step of a sampling method, in a small file of its own."""

    def start(self, x: tf.Tensor) -> State:
        """The state before the first step from x, [B, ...]; () for a method that keeps none."""
        ...

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, tf.Tensor, State]:
        """Takes one step.

        Args:
          score_fn: the score function.
          x: [B, ...], at time t.
          t: [B].
          t_next: [B], the time at the end of the step; equal to t for a method that does not move in time.
          seeds: int32 [B, 2], the seeds of this step's noise.
          state: the state that the previous step returned.

        Returns:
          (x, mean, state): x at time t_next, its mean before this step's noise, both [B, ...], and the new state.
        """
        ...


@dataclasses.dataclass(frozen=True)
class StepSeeds:
    """The randomness of one step for `Guidance.project`.

    Attributes:
      walk: int32 [B, 2], the seeds of the whole walk.
      step: int32 [B, 2], the seeds of this step; at the start of a walk, seeds that no step has.
      level: int32 scalar, the same in all steps of one segment of the schedule, and different in segments that begin
        with different times.
    """

    walk: tf.Tensor
    step: tf.Tensor
    level: tf.Tensor


class Guidance:
    """The contract of guidance, which works with any step; by default it changes nothing.

    `project` is called after each step. Where the first step moves in time it is called before that step too, with the
    step's own time: the start then has the noise of its time in what is given, as all that follows. Langevin dynamics
    at one time starts from anything, and its start is left alone.

    What a method keeps from step to step stays: a step treats all values of x alike, so what is left free is integrated
    as without guidance along a score that depends on the path of what is given.

    Attributes:
      guides_the_end: whether `finish` follows the guided score, as it should where that is the score of a posterior.
    """

    guides_the_end: ClassVar[bool] = True

    def score(self, score_fn: Counted, sde: SDE, given: Given) -> ScoreFunction:
        """The score function that the walk follows, and that denoises at its end.

        Args:
          score_fn: the model's score function; what a guidance evaluates of it is counted.
          sde: the SDE.
          given: the tensors that guide this batch, [B, ...] each.
        """
        return score_fn

    def project(
        self, x: tf.Tensor, mean: tf.Tensor, t: tf.Tensor, seeds: StepSeeds, given: Given
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Changes x, [B, ...], and its mean at time t, [B], after a step or at the start; returns both."""
        return x, mean


NO_GUIDANCE = Guidance()


@dataclasses.dataclass(frozen=True)
class Samples:
    """The result of a sampler.

    Attributes:
      x: float32 [B, ...].
      evaluations: int32 [B], the counted evaluations of the score function per sample.
    """

    x: tf.Tensor
    evaluations: tf.Tensor


class Sampler(Protocol):
    """The contract of samplers, such as `FixedSteps`."""

    @property
    def takes_projections(self) -> bool:
        """Whether guidance may change samples after each step, and a walk may start at any segment."""
        ...

    @property
    def segments(self) -> int:
        """The number of frames of a walk."""
        ...

    def __call__(
        self,
        score_fn: ScoreFunction,
        x: tf.Tensor,
        seeds: tf.Tensor,
        guidance: Guidance = NO_GUIDANCE,
        given: Given = (),
        on_frame: Callable[[int, Any], None] | None = None,
    ) -> Samples:
        """Draws samples, starting from x, [B, ...], with one seed per sample, int32 [B, 2]; see `FixedSteps`."""
        ...


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """The functions of a sampler for one score function and one guidance."""

    start: Callable
    segment: Callable
    finish: Callable


class FixedSteps:
    """A sampler that takes one step per row of a schedule.

    Args:
      sde: the SDE, for guidance and for `finish`.
      step: the method.
      rows: float32 [N, 2], the schedule: rows (t, t_next). A tensor may have an N that only its graph knows.
      segments: the number of parts of the schedule, equal up to one row; `on_frame` is called after each. Guidance that
        draws one noise per level draws one per segment.
      finish: applied at the end, at the last row's t_next, for instance `score.denoise`; None leaves x unchanged.
      end_with_mean: whether the noise of the last step is omitted, as Song et al. 2021 do.
      jit_compile: whether XLA compiles the loop.
      strategy: the strategy to run on; None to run without one. With a strategy the sampler is called in cross-replica
        context, and `x`, `seeds` and `given` are distributed values, as are the results.

    Raises:
      ValueError: if the schedule is not [N, 2] with N at least `segments`.
    """

    takes_projections = True

    def __init__(
        self,
        sde: SDE,
        step: Step,
        rows: np.ndarray | tf.Tensor,
        *,
        segments: int = 1,
        finish: Finish | None = None,
        end_with_mean: bool = False,
        jit_compile: bool = False,
        strategy: tf.distribute.Strategy | None = None,
    ):
        rows = rows if tf.is_tensor(rows) else np.asarray(rows, np.float32)
        count = rows.shape[0] if len(rows.shape) == 2 and rows.shape[1] == 2 else 0
        if segments < 1 or (count is not None and count < segments):
            raise ValueError(
                "A schedule has shape [N, 2], with N at least the number of `segments`, which is at least 1. "
                f"Received: shape {tuple(rows.shape)}, segments={segments}."
            )
        self.segments = segments
        self._sde = sde
        self._step = step
        self._rows = rows
        self._finish = finish
        self._end_with_mean = end_with_mean
        self._jit_compile = jit_compile
        self._strategy = strategy
        self._compiled = compiling.Recent(self._compile)

    def __call__(
        self,
        score_fn: ScoreFunction,
        x: tf.Tensor,
        seeds: tf.Tensor,
        guidance: Guidance = NO_GUIDANCE,
        given: Given = (),
        on_frame: Callable[[int, Any], None] | None = None,
        span: tuple[int, int] | None = None,
    ) -> Samples:
        """Walks along the schedule.

        Args:
          score_fn: the model's score function, as `Counted` takes it. It is compiled once per object: pass the same
            object each time.
          x: float32 [B, ...], the start.
          seeds: int32 [B, 2], one seed per sample; step k of sample b draws only from (seeds[b], k).
          guidance: the guidance of the walk.
          given: the tensors for the guidance, [B, ...] each.
          on_frame: called after each segment with its number, from 1, and x; only for calls outside of graphs.
          span: (first, end), the segments to walk, without `end`; None for all. Steps are counted from `first`.

        Returns:
          The samples, and the number of evaluations per sample.
        """
        compiled = self._compiled(score_fn, guidance)
        first, last = span or (0, self.segments)
        parts, segments = [self._rows], self.segments  # `segments` in each part
        if on_frame is not None or span is not None:
            starts = segment_starts(len(self._rows), self.segments)
            parts, segments = np.split(np.asarray(self._rows), starts[1:])[first:last], 1
        x, mean, state, evaluations = compiled.start(x, tf.convert_to_tensor(parts[0][0]), seeds, given)
        done = 0
        for number, part in enumerate(parts, start=first + 1):
            x, mean, state, evaluations = compiled.segment(
                x,
                state,
                evaluations,
                tf.convert_to_tensor(part),
                tf.constant(segments),
                seeds,
                tf.constant(done),
                given,
            )
            done += part.shape[0] or 0  # unknown for a schedule that is made in a graph, which has a single part
            if on_frame is not None:
                on_frame(number, x)
        end = mean if self._end_with_mean else x
        return Samples(*compiled.finish(end, evaluations, tf.convert_to_tensor(parts[-1][-1, 1]), given))

    def _compile(self, score_fn: ScoreFunction, guidance: Guidance) -> _Compiled:
        def start(x, row, seeds, given):
            if x.dtype != tf.float32:
                raise ValueError(f"Samplers with fixed steps take float32; cast x. Received: {x.dtype.name}.")
            x = self._begin(x, row, seeds, guidance, given)
            return x, x, self._step.start(x), tf.zeros([batch_size(x)], tf.int32)

        def segment(x, state, evaluations, rows, segments, seeds, first_step, given):
            counted = Counted(score_fn)
            x, mean, state = self._integrate(counted, x, state, rows, segments, seeds, first_step, guidance, given)
            return x, mean, state, evaluations + tf.shape(rows)[0] * counted.calls

        def finish(x, evaluations, last_time, given):
            if self._finish is None:
                return x, evaluations
            counted = Counted(score_fn)
            guided = guidance.score(counted, self._sde, given) if guidance.guides_the_end else counted
            x = self._finish(guided, self._sde, x, tf.fill([batch_size(x)], last_time))
            return x, evaluations + counted.calls

        functions = start, segment, finish
        return _Compiled(*(compiling.on_replicas(each, self._strategy, self._jit_compile) for each in functions))

    def _begin(self, x: tf.Tensor, row: tf.Tensor, seeds: tf.Tensor, guidance: Guidance, given: Given) -> tf.Tensor:
        """The start, projected if the first row of the schedule moves in time."""
        own = StepSeeds(seeds, random.fold_each(seeds, random.Stream.SAMPLER_STEP, -1), tf.bitcast(row[0], tf.int32))
        projected, _ = guidance.project(x, x, tf.fill([batch_size(x)], row[0]), own, given)
        return tf.where(row[0] > row[1], tf.ensure_shape(projected, x.shape), x)

    def _integrate(
        self,
        score_fn: Counted,
        x: tf.Tensor,
        state: State,
        rows: tf.Tensor,
        segments: tf.Tensor,
        seeds: tf.Tensor,
        first_step: tf.Tensor,
        guidance: Guidance,
        given: Given,
    ) -> tuple[tf.Tensor, tf.Tensor, State]:
        """Takes one step per row of a part of the schedule, `segments` whole ones, from step number `first_step` on."""
        batch, steps = batch_size(x), tf.shape(rows)[0]
        guided = guidance.score(score_fn, self._sde, given)

        def body(k: tf.Tensor, x: tf.Tensor, _: tf.Tensor, state: State):
            t, t_next = tf.fill([batch], rows[k, 0]), tf.fill([batch], rows[k, 1])
            step_seeds = random.fold_each(seeds, random.Stream.SAMPLER_STEP, first_step + k)
            new_x, mean, state = self._step(guided, x, t, t_next, step_seeds, state)
            # The bits of a segment's first t_next identify the segment, whatever the number of its steps.
            level = tf.bitcast(rows[_segment_start(k, steps, segments), 1], tf.int32)
            new_x, mean = guidance.project(new_x, mean, t_next, StepSeeds(seeds, step_seeds, level), given)
            return k + 1, tf.ensure_shape(new_x, x.shape), tf.ensure_shape(mean, x.shape), state

        _, x, mean, state = tf.while_loop(lambda k, *_: k < steps, body, (tf.constant(0), x, x, state))
        return x, mean, state


def segment_starts(count: int, segments: int) -> list[int]:
    """The numbers of the rows at which the segments of a schedule of `count` rows begin; the first is 0."""
    return [segment * count // segments for segment in range(segments)]


def _segment_start(row: tf.Tensor, count: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
    """The row at which the segment of a row begins; int64, because long schedules of many segments exceed int32."""
    row, count, segments = (tf.cast(value, tf.int64) for value in (row, count, segments))
    segment = ((row + 1) * segments - 1) // count
    return segment * count // segments


def batch_size(x: tf.Tensor) -> int | tf.Tensor:
    """The number of rows, a Python integer if it is static: graphs for TPUs need static shapes."""
    rows = x.shape[0]
    return tf.shape(x)[0] if rows is None else rows


def uniform_prior(seeds: tf.Tensor, shape: random.Shape) -> tf.Tensor:
    """Uniform noise on [0, 1), the paper's start of annealed Langevin dynamics; float32 [B, *shape]."""
    return random.uniform(seeds, shape)
