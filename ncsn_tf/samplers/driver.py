"""The one loop that every sampler runs in.

A sampler is a step, `step(score_fn, x, t, t_next, seeds) -> (x, mean)`, and a schedule, the pairs (t, t_next) that it
visits. The driver compiles the loop, gives each step its seeds, hands out frames between segments of the schedule
and counts the evaluations of the score function.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from ncsn_tf import random, times
from ncsn_tf.score import ScoreFunction

Step = Callable[[ScoreFunction, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Condition = Callable[..., Step]
"""condition(step, seeds [B, 2], *given) -> step: a step that heeds tensors given with each batch, [B, ...] each."""
Finish = Callable[[ScoreFunction, tf.Tensor, tf.Tensor], tf.Tensor]
Prior = Callable[[tf.Tensor, tuple[int, ...]], tf.Tensor]


def dwell(grid: np.ndarray, steps_per_level: int) -> np.ndarray:
    """The schedule that takes the same number of steps at each time, as annealed Langevin dynamics does.

    Args:
      grid: float [L], strictly decreasing.
      steps_per_level: T, at least 1.

    Returns:
      float32 [L T, 2], rows (t, t_next) with t_next = t.

    Raises:
      ValueError: if `grid` is no grid of levels or `steps_per_level` is below 1.
    """
    if steps_per_level < 1:
        raise ValueError(f"A schedule needs 1 or more steps per level. Received: steps_per_level={steps_per_level}.")
    column = np.repeat(times.check(grid), steps_per_level)
    return np.stack([column, column], axis=1)


@dataclasses.dataclass
class _Counted:
    """A score function that counts the calls made while a step is traced, which are its evaluations a step."""

    score_fn: ScoreFunction
    calls: int = 0

    def __call__(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        self.calls += 1
        return self.score_fn(x, t)


def integrate(
    step: Step, score_fn: ScoreFunction, x: tf.Tensor, schedule: tf.Tensor, seeds: tf.Tensor, first_step=0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Runs a step over a schedule inside one graph.

    Args:
      step: the sampler.
      score_fn: the score function.
      x: [B, ...], where to start.
      schedule: float32 [N, 2], rows (t, t_next).
      seeds: int32 [B, 2], a seed for each example; step k draws from (seed, k) alone.
      first_step: the number k of the schedule's first row, so that a schedule can be run in pieces.

    Returns:
      (x, mean, evaluations): the result, its mean before the last noise, both [B, ...], and the number of evaluations
      of the score function that each example took, int32.
    """
    batch = _batch(x)
    steps = tf.shape(schedule)[0]
    counted = _Counted(score_fn)

    def body(k: tf.Tensor, x: tf.Tensor, mean: tf.Tensor):
        t, t_next = tf.fill([batch], schedule[k, 0]), tf.fill([batch], schedule[k, 1])
        step_seeds = random.fold_each(seeds, random.Stream.SAMPLER_STEP, first_step + k)
        counted.calls = 0
        new_x, new_mean = step(counted, x, t, t_next, step_seeds)
        return k + 1, tf.ensure_shape(new_x, x.shape), tf.ensure_shape(new_mean, x.shape)

    _, x, mean = tf.while_loop(lambda k, *_: k < steps, body, (tf.constant(0), x, x))
    return x, mean, steps * counted.calls


@dataclasses.dataclass(frozen=True)
class Samples:
    """What a sampler made.

    Attributes:
      x: float32 [B, ...].
      evaluations: evaluations of the score function that each example took, counted.
    """

    x: tf.Tensor
    evaluations: int


class Sampler:
    """A step and a schedule, compiled.

    Args:
      step: the sampler's step.
      score_fn: the score function.
      schedule: float32 [N, 2], rows (t, t_next).
      segments: in how many equal pieces to run the schedule; a frame can be looked at after each.
      finish: applied to (x, t) at the schedule's last time, for instance a final denoising; None leaves x alone.
      condition: makes, of the step, one that heeds what is given with each batch; None where nothing is given.
      jit_compile: whether XLA compiles the loop.

    Raises:
      ValueError: if the schedule is not [N, 2] with N a multiple of `segments`.
    """

    def __init__(
        self,
        step: Step,
        score_fn: ScoreFunction,
        schedule: np.ndarray,
        *,
        segments: int = 1,
        finish: Finish | None = None,
        condition: Condition | None = None,
        jit_compile: bool = False,
    ):
        schedule = np.asarray(schedule, np.float32)
        if schedule.ndim != 2 or schedule.shape[1] != 2 or segments < 1 or len(schedule) % segments:
            raise ValueError(
                "A schedule has shape [N, 2] with N a positive multiple of `segments`. "
                f"Received: shape {schedule.shape}, segments={segments}."
            )
        self.segments = segments
        self._pieces = np.split(schedule, segments)
        self._counted = _Counted(score_fn)

        def segment(x, piece, seeds, first, *given):
            conditioned = condition(step, seeds, *given) if condition is not None else step
            return integrate(conditioned, score_fn, x, piece, seeds, first)

        self._segment = tf.function(segment, jit_compile=jit_compile, autograph=False)
        self._finish = None
        if finish is not None:
            self._finish = tf.function(lambda x: self._apply(finish, x), jit_compile=jit_compile, autograph=False)

    def __call__(
        self,
        x: tf.Tensor,
        seeds: tf.Tensor,
        on_frame: Callable[[int, tf.Tensor], None] | None = None,
        given: tuple[tf.Tensor, ...] = (),
    ) -> Samples:
        """Runs the whole schedule.

        Args:
          x: float32 [B, ...], where to start.
          seeds: int32 [B, 2], a seed for each example.
          on_frame: called after each segment with its number, from 1, and x, [B, ...].
          given: what the condition takes, [B, ...] each.

        Returns:
          The samples and the evaluations that they took.
        """
        evaluations, first = 0, 0
        for number, piece in enumerate(self._pieces, start=1):
            x, _, taken = self._segment(x, tf.constant(piece), seeds, tf.constant(first), *given)
            evaluations += int(taken)
            first += len(piece)
            if on_frame is not None:
                on_frame(number, x)
        if self._finish is not None:
            x = self._finish(x)
            evaluations += self._counted.calls
        return Samples(x, evaluations)

    def in_graph(
        self, x: tf.Tensor, seeds: tf.Tensor, given: tuple[tf.Tensor, ...] = ()
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the whole schedule as a part of the caller's graph, such as a replica's.

        Args:
          x: float32 [B, ...], where to start.
          seeds: int32 [B, 2], a seed for each example.
          given: what the condition takes, [B, ...] each.

        Returns:
          (samples, evaluations): [B, ...], and the evaluations that each took, int32.
        """
        x, _, evaluations = self._segment(x, tf.constant(np.concatenate(self._pieces)), seeds, tf.constant(0), *given)
        if self._finish is not None:
            x = self._finish(x)
            evaluations += self._counted.calls
        return x, evaluations

    def _apply(self, finish: Finish, x: tf.Tensor) -> tf.Tensor:
        self._counted.calls = 0
        last_time = tf.fill([_batch(x)], tf.constant(self._pieces[-1][-1, 0]))
        return finish(self._counted, x, last_time)


def _batch(x: tf.Tensor) -> int | tf.Tensor:
    """The number of rows, as a number where it is known: a TPU's graph has no shapes that are not."""
    rows = x.shape[0]
    return tf.shape(x)[0] if rows is None else rows


def uniform_prior(seeds: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Uniform noise on [0, 1), from which the paper starts annealed Langevin dynamics; float32 [B, *shape]."""
    return random.uniform(seeds, shape)


def base_seed(run_seed: int) -> tf.Tensor:
    """The seed, int32 [2], from which those of a run's samples are folded."""
    return random.fold(random.seed(run_seed), random.Stream.SAMPLE)


def begin(base: tf.Tensor, numbers: tf.Tensor, prior: Prior, shape: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Where samples start: their seeds, int32 [B, 2], and x, float32 [B, *shape]; row b depends on numbers[b] alone.

    Args:
      base: `base_seed(run_seed)`.
      numbers: int [B], the samples' numbers.
      prior: draws the start.
      shape: the shape of one sample.
    """
    seeds = random.per_example(base, numbers)
    return seeds, prior(random.fold_each(seeds, random.Stream.PRIOR), shape)


def generate(
    sampler: Sampler,
    prior: Prior,
    shape: tuple[int, ...],
    *,
    run_seed: int,
    num_samples: int,
    batch_size: int,
    on_frame: Callable[[int, int, tf.Tensor], None] | None = None,
) -> Iterator[Samples]:
    """Makes samples batch by batch; sample i depends on (run_seed, i) alone, whatever the batch size.

    Args:
      sampler: the compiled sampler.
      prior: draws the start, `prior(seeds [B, 2], shape) -> [B, *shape]`.
      shape: the shape of one sample.
      run_seed: an integer in [0, 2^31).
      num_samples: how many to make.
      batch_size: how many at a time; a smaller last batch is filled up and cut, so nothing is traced twice.
      on_frame: called after each segment with the first sample's number, the segment's number and x.

    Yields:
      `Samples` of at most `batch_size` rows.

    Raises:
      ValueError: if `num_samples` or `batch_size` is below 1.
    """
    if num_samples < 1 or batch_size < 1:
        raise ValueError(
            "Sampling needs a positive number of samples and batch size. "
            f"Received: num_samples={num_samples}, batch_size={batch_size}."
        )
    batch_size = min(batch_size, num_samples)
    base = base_seed(run_seed)
    for start in range(0, num_samples, batch_size):
        kept = min(batch_size, num_samples - start)
        seeds, x = begin(base, start + tf.range(batch_size), prior, shape)
        forward = None
        if on_frame is not None:
            forward = lambda number, x, start=start, kept=kept: on_frame(start, number, x[:kept])  # noqa: E731
        samples = sampler(x, seeds, forward)
        yield Samples(samples.x[:kept], samples.evaluations)
