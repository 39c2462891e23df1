"""Trains a run from its current step to its end: loops of steps, and the tasks that are due between them."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from ncsn_tf.cluster.strategies import place
from ncsn_tf.training.checkpoints import Checkpoints, CheckpointWriteError
from ncsn_tf.training.preemption import Preempted, StopMade
from ncsn_tf.training.summaries import Record
from ncsn_tf.training.trainer import Trainer

MeasureHeldOut = Callable[[], tuple[float, np.ndarray]]
"""() -> the mean held-out loss per example, and that of each bin, [bins]."""

DrawSamples = Callable[[Callable[[], None]], tuple[np.ndarray, Sequence[str]] | None]
"""(a function to call after each noise level) -> (uint8 [N, H, W, C], a line per fault), or None if they diverged."""


@dataclasses.dataclass(frozen=True)
class Cadence:
    """The length of a run and the intervals of its tasks, all in steps.

    Attributes:
      steps: length of the run.
      steps_per_loop: steps in one call of the compiled loop, and the interval of training summaries.
      evaluate_every: interval of the held-out loss; 0 for never.
      sample_every: interval of sample grids; 0 for never.
      checkpoint_every: interval of checkpoints; one is also written at the end.

    Raises:
      ValueError: if a number is negative, or `steps`, `steps_per_loop` or `checkpoint_every` is 0.
    """

    steps: int
    steps_per_loop: int
    evaluate_every: int
    sample_every: int
    checkpoint_every: int

    def __post_init__(self):
        for field in dataclasses.fields(Cadence):
            value = getattr(self, field.name)
            smallest = 0 if field.name in ("evaluate_every", "sample_every") else 1
            if value < smallest:
                raise ValueError(f"training.{field.name} must be at least {smallest}. Received: {value}.")

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which something is due."""
        intervals = (self.steps_per_loop, self.evaluate_every, self.sample_every, self.checkpoint_every)
        return min(self.steps, *(step - step % every + every for every in intervals if every))

    def due(self, step: int, every: int) -> bool:
        """True if a task with this interval, which is also due at the end, is due at `step`."""
        return every > 0 and (step % every == 0 or step == self.steps)


def fit(
    trainer: Trainer,
    batches: Callable[[int], tf.data.Dataset],
    cadence: Cadence,
    *,
    checkpoints: Checkpoints,
    record: Record,
    probe: dict[str, tf.Tensor] | None = None,
    held_out_loss: MeasureHeldOut | None = None,
    draw_samples: DrawSamples | None = None,
) -> None:
    """Trains from the trainer's step to `cadence.steps`; every worker of a cluster calls it.

    A checkpoint is written before the other tasks of its step: a kill during evaluation or sampling, which take long,
    then costs no training. A run that resumes at a step at which they are due repeats them.

    Args:
      trainer: the trainer, restored from the run's newest checkpoint if there is one.
      batches: `batches(step)` returns the distributed training batches from that step on.
      cadence: the run's length and intervals.
      checkpoints: saves the trainer.
      record: records curves, grids and lines of text.
      probe: a few images on which the weights are checked before they are saved; None for no check.
      held_out_loss: measures the loss on held-out examples; None to skip it.
      draw_samples: draws a few samples with the averaged weights; None to skip it.

    Raises:
      NonFiniteLossError: at the first loss that is not finite; the last checkpoint is unchanged.
      CheckpointWriteError: if a checkpoint cannot be written; earlier checkpoints are unchanged.
      Preempted: once the trainer's `stop` is made, with the last step saved.
    """
    step = trainer.step
    if step >= cadence.steps:
        record.say(f"The run is complete: it is at step {step} of {cadence.steps}.")
        return
    record.say(f"Training from step {step} to {cadence.steps}.")

    def save() -> None:
        if probe is not None:
            trainer.check_weights(probe)
        record.flush()
        try:
            checkpoints.save()
        except CheckpointWriteError as error:
            if step < cadence.steps and place(trainer.strategy)[1] > 1:
                trainer.stop.make(str(error))  # the other workers learn of it with the next step
                trainer.run(iterator, 1)
            raise

    def look() -> None:
        if held_out_loss is not None and cadence.due(step, cadence.evaluate_every):
            record.held_out(step, *held_out_loss())
        if draw_samples is not None and cadence.due(step, cadence.sample_every):
            drawn = draw_samples(trainer.stop.raise_if_made)
            record.samples(step, *drawn) if drawn is not None else record.samples(step, None)

    iterator = iter(batches(step))
    with record.progress(step, cadence.steps):
        if step > 0:
            _unless_stopped(look)
        first, since_summary = True, None
        while step < cadence.steps:
            # The first call takes one step, so that an error in the graph or the data appears before a long loop.
            stop = step + 1 if first else cadence.next_stop(step)
            result = trainer.run(iterator, stop - step)
            step, first = step + result.steps, False
            since_summary = result if since_summary is None else since_summary + result
            record.advance(result)
            if cadence.due(step, cadence.steps_per_loop):
                record.training(step, since_summary, trainer.batch_size)
                since_summary = None
            if result.stopped or cadence.due(step, cadence.checkpoint_every):
                save()
            if result.stopped and step < cadence.steps:
                raise Preempted(step, trainer.stop.reason or "another worker was asked to", trainer.stop.signal_number)
            _unless_stopped(look)


def _unless_stopped(look: Callable[[], None]) -> None:
    """Evaluates and draws samples, unless a request to stop interrupts them; the next step then ends the training."""
    with contextlib.suppress(StopMade):
        look()
