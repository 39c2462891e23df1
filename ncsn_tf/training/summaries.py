"""The record of a training run for people: curves, grids of samples, progress and lines of text."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from ncsn_tf import files, pictures
from ncsn_tf.progress import Progress, progress_bar
from ncsn_tf.training import history
from ncsn_tf.training.results import LoopResult
from ncsn_tf.training.run_directory import RunDirectory


class Summaries:
    """Writes a run's curves and sample grids to TensorBoard.

    Args:
      directory: the folder of the event files.
      bins: the names of the loss curves, one per bin of the time draw.
    """

    def __init__(self, directory: str | os.PathLike, bins: Sequence[str]):
        folder = files.local_path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._plain = contextlib.ExitStack()  # lives as long as the writer
        self._writer = tf.summary.create_file_writer(self._plain.enter_context(files.plain_path(folder)))
        self._names = list(bins)

    def training(self, step: int, result: LoopResult, batch_size: int) -> None:
        """Records a loop of training steps that ended at `step`."""
        with self._writer.as_default(step):
            tf.summary.scalar("loss/training", result.loss)
            tf.summary.scalar("gradient_norm", result.gradient_norm)
            tf.summary.scalar("images_per_second", result.steps * batch_size / result.seconds)
        self._bins("training_loss_by_bin", step, result.bin_losses)

    def held_out(self, step: int, loss: float, bin_losses: np.ndarray) -> None:
        """Records the held-out loss of the averaged weights at `step`."""
        with self._writer.as_default(step):
            tf.summary.scalar("loss/held_out", loss)
        self._bins("held_out_loss_by_bin", step, bin_losses)

    def samples(self, step: int, images: np.ndarray) -> None:
        """Records a grid of samples, uint8 [N, H, W, C]."""
        with self._writer.as_default(step):
            tf.summary.image("samples", pictures.tile(images)[None])

    def flush(self) -> None:
        """Writes everything to the event file; called before a checkpoint, so that no curve lags behind it."""
        self._writer.flush()

    def _bins(self, group: str, step: int, losses: np.ndarray) -> None:
        with self._writer.as_default(step):
            for name, loss in zip(self._names, losses, strict=True):
                if np.isfinite(loss):
                    tf.summary.scalar(f"{group}/{name}", loss)


_print = functools.partial(print, flush=True)  # in a file that others read while the run is going on


class Record:
    """Records a run for people: curves in TensorBoard and in plain text, grids of samples, progress and lines of text.

    If something cannot be written, a single warning says so and the run continues: a run is not lost for its curves.

    Args:
      directory: the run's directory.
      bins: the names of the loss curves.
      writes: whether anything is written or shown; only the chief of a cluster does so.
      log: called with each line of text.
    """

    def __init__(
        self, directory: RunDirectory, bins: Sequence[str], writes: bool = True, log: Callable[[str], None] = _print
    ):
        self._samples = directory.samples
        self._writes = writes
        self._log = log
        self._bar: Progress | None = None
        self._warned = False
        self._summaries: Summaries | None = None
        self._history = history.History(directory.path / history.NAME)
        with self._tolerant():
            self._summaries = Summaries(directory.tensorboard, bins) if writes else None

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Turns the first error of writing into a warning, and suppresses the others."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            if not self._warned:
                reason = files.reason(error)
                warnings.warn(f"Curves and grids cannot be written, and the run continues: {reason}", stacklevel=4)
            self._warned = True

    def say(self, line: str) -> None:
        """Shows a line, above the progress bar if there is one."""
        if self._writes:
            getattr(self._bar, "write", self._log)(line)  # a bar writes above itself

    @contextlib.contextmanager
    def progress(self, step: int, steps: int) -> Iterator[None]:
        """Shows the progress from `step` to `steps`, as a bar or as lines."""
        if not self._writes:
            yield
            return
        try:
            with progress_bar(steps, "step", start=step) as self._bar:
                yield
        finally:
            self._bar = None

    def advance(self, result: LoopResult) -> None:
        """Advances the progress by a loop's steps."""
        if self._bar is not None:
            self._bar.update(result.steps)
            self._bar.set_postfix_str(f"loss {result.loss:.4g}", refresh=False)

    def training(self, step: int, result: LoopResult, batch_size: int) -> None:
        """Records the steps since the last call."""
        self._history.training(step, result)
        if self._summaries is not None:
            with self._tolerant():
                self._summaries.training(step, result, batch_size)
        if result.skipped:
            self.say(f"step {step}: {result.skipped} steps with a gradient beyond float16 were skipped")

    def held_out(self, step: int, loss: float, bin_losses: np.ndarray) -> None:
        """Records the held-out loss."""
        self._history.held_out(step, loss)
        if self._summaries is not None:
            with self._tolerant():
                self._summaries.held_out(step, loss, bin_losses)
        self._write_history()
        self.say(f"step {step}: held-out loss of the averaged weights {loss:.5g}")

    def samples(self, step: int, images: np.ndarray | None, caveats: Sequence[str] = ()) -> None:
        """Records a grid of samples, uint8 [N, H, W, C], and what is wrong with them; None if they diverged."""
        for caveat in caveats:
            self.say(f"step {step}: {caveat}")
        if images is None:
            self.say(f"step {step}: the samples diverged; the score is not good enough for the step size yet")
        elif self._writes:
            with self._tolerant():
                pictures.save_grid(self._samples / f"step_{step:08d}.png", images)
                if self._summaries is not None:
                    self._summaries.samples(step, images)

    def flush(self) -> None:
        """Writes all curves; called before a checkpoint, so that no curve lags behind it."""
        self._write_history()
        if self._summaries is not None:
            with self._tolerant():
                self._summaries.flush()

    def _write_history(self) -> None:
        if self._writes:
            with self._tolerant():
                self._history.write()
