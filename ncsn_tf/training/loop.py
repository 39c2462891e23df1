"""A run from its first or last step to its end: loops of steps, and what is due between them."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ncsn_tf import pictures
from ncsn_tf.training.checkpoints import Checkpoints
from ncsn_tf.training.run_directory import RunDirectory
from ncsn_tf.training.summaries import Summaries, progress_bar
from ncsn_tf.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How long a run is and how often things are done, all in steps.

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
        """Whether what happens every so many steps, and at the end, happens at `step`."""
        return every > 0 and (step % every == 0 or step == self.steps)


def fit(
    trainer: Trainer,
    batches: Callable[[int], tf.data.Dataset],
    cadence: Cadence,
    *,
    directory: RunDirectory,
    checkpoints: Checkpoints,
    summaries: Summaries,
    probe: dict[str, tf.Tensor] | None = None,
    held_out: tf.data.Dataset | None = None,
    draw_samples: Callable[[], np.ndarray | None] | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Trains from where the trainer stands to `cadence.steps`.

    Args:
      trainer: what is trained; restored from the run's newest checkpoint, if there is one.
      batches: `batches(step)` gives the distributed training batches from that step on.
      cadence: the run's length and intervals.
      directory: where sample grids go.
      checkpoints: where the trainer is saved to.
      summaries: where the figures go.
      probe: a few images on which weights prove themselves before they are saved; None to trust them.
      held_out: batches for the held-out loss, or None.
      draw_samples: makes a few samples from the averaged weights, uint8 [N, H, W, C], or None where they diverged; None
        for no samples at all.
      log: takes lines for the person who watches.

    Raises:
      NonFiniteLossError: at the first loss that is not finite; the last checkpoint is left as it was.
    """
    step = trainer.step
    if step >= cadence.steps:
        log(f"The run is complete: it stands at step {step} of {cadence.steps}.")
        return
    log(f"Training from step {step} to {cadence.steps}.")
    iterator = iter(batches(step))
    with progress_bar(cadence.steps, "step", start=step) as bar:
        first, since_summary = True, None
        while step < cadence.steps:
            # One step alone at first: what is wrong with the graph or the data shows before a long loop hides it.
            stop = step + 1 if first else cadence.next_stop(step)
            result = trainer.run(iterator, stop - step)
            step, first = stop, False
            bar.update(result.steps)
            bar.set_postfix_str(f"loss {result.loss:.4g}", refresh=False)
            since_summary = result if since_summary is None else since_summary + result
            if cadence.due(step, cadence.steps_per_loop):
                summaries.training(step, since_summary, trainer.batch_size)
                since_summary = None
            if held_out is not None and cadence.due(step, cadence.evaluate_every):
                loss, by_level = trainer.held_out_loss(held_out)
                summaries.held_out(step, loss, by_level)
                bar.write(f"step {step}: loss {result.loss:.5g}, held-out loss of the averaged weights {loss:.5g}")
            if draw_samples is not None and cadence.due(step, cadence.sample_every):
                _show_samples(step, draw_samples(), directory, summaries, bar.write)
            if cadence.due(step, cadence.checkpoint_every):
                if probe is not None:
                    trainer.check_weights(probe)
                summaries.flush()
                checkpoints.save()


def _show_samples(
    step: int, images: np.ndarray | None, directory: RunDirectory, summaries: Summaries, log: Callable[[str], None]
) -> None:
    if images is None:
        log(f"step {step}: the samples diverged; the score is not good enough for the step size yet")
        return
    summaries.samples(step, images)
    pictures.save_grid(directory.samples / f"step_{step:08d}.png", images)
