"""What a person watches while a run goes on: TensorBoard and a progress bar."""

import pathlib
import sys

import numpy as np
import tensorflow as tf
import tqdm

from ncsn_tf import pictures
from ncsn_tf.training.trainer import LoopResult


class Summaries:
    """Writes a run's figures to TensorBoard.

    Args:
      directory: where the event files go.
      sigmas: [L], the noise level of each index, for the names of the per-level curves.
    """

    def __init__(self, directory: pathlib.Path, sigmas: np.ndarray):
        self._writer = tf.summary.create_file_writer(str(directory))
        self._names = [f"level_{index:03d}_sigma_{sigma:.4g}" for index, sigma in enumerate(sigmas)]

    def training(self, step: int, result: LoopResult, batch_size: int) -> None:
        """Records a loop of training steps that ended at `step`."""
        with self._writer.as_default(step):
            tf.summary.scalar("loss/training", result.loss)
            tf.summary.scalar("gradient_norm", result.gradient_norm)
            tf.summary.scalar("images_per_second", result.steps * batch_size / result.seconds)
        self._levels("training_loss_by_level", step, result.level_losses)

    def held_out(self, step: int, loss: float, level_losses: np.ndarray) -> None:
        """Records the held-out loss of the averaged weights at `step`."""
        with self._writer.as_default(step):
            tf.summary.scalar("loss/held_out", loss)
        self._levels("held_out_loss_by_level", step, level_losses)

    def samples(self, step: int, images: np.ndarray) -> None:
        """Records a grid of samples, uint8 [N, H, W, C]."""
        with self._writer.as_default(step):
            tf.summary.image("samples", pictures.tile(images)[None])

    def flush(self) -> None:
        """Writes everything out; called before a checkpoint, so that no curve lags behind it."""
        self._writer.flush()

    def _levels(self, group: str, step: int, losses: np.ndarray) -> None:
        with self._writer.as_default(step):
            for name, loss in zip(self._names, losses, strict=True):
                if np.isfinite(loss):
                    tf.summary.scalar(f"{group}/{name}", loss)


def progress_bar(total: int, unit: str, start: int = 0) -> tqdm.tqdm:
    """A bar with rate and time left; into a file, a line every half minute instead of ten a second."""
    interactive = sys.stderr.isatty()
    return tqdm.tqdm(
        total=total, initial=start, unit=unit, dynamic_ncols=interactive, mininterval=0.1 if interactive else 30.0
    )
