"""Checkpoints of a run: the raw weights, their average, the optimizer and, in its iteration count, the step."""

import pathlib

import keras
import tensorflow as tf

from ncsn_tf.training.trainer import Trainer

_NAME = "checkpoint"


class CheckpointError(ValueError):
    """A checkpoint is missing or does not fit."""


class Checkpoints:
    """Saves and restores a trainer, keeping the newest few checkpoints.

    Args:
      directory: where they lie, `DIR/checkpoints`.
      trainer: what is saved.
      keep: how many to keep, at least 1.
    """

    def __init__(self, directory: pathlib.Path, trainer: Trainer, keep: int):
        self._trainer = trainer
        self._checkpoint = tf.train.Checkpoint(
            network=trainer.network, average=trainer.average, optimizer=trainer.optimizer
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(directory), max_to_keep=keep, checkpoint_name=_NAME
        )

    def restore(self) -> int:
        """Restores the newest checkpoint, if there is one, and returns the step, 0 on a fresh start."""
        if self._manager.latest_checkpoint:
            self._checkpoint.restore(self._manager.latest_checkpoint).assert_existing_objects_matched()
        return self._trainer.step

    def save(self) -> str:
        """Saves the trainer as it is, unless its step is saved already; returns the checkpoint's path."""
        latest = self._manager.latest_checkpoint
        if latest and latest.endswith(f"{_NAME}-{self._trainer.step}"):
            return latest
        return self._manager.save(checkpoint_number=self._trainer.step)


def find(directory: pathlib.Path, step: int | None = None) -> str:
    """The path of a checkpoint, without a trainer to hold it.

    Args:
      directory: where the checkpoints lie.
      step: which one; the newest by default.

    Returns:
      The checkpoint's path, for `load_average`.

    Raises:
      CheckpointError: if there is none, naming those that there are.
    """
    state = tf.train.get_checkpoint_state(str(directory))
    paths = list(state.all_model_checkpoint_paths) if state else []
    if not paths:
        raise CheckpointError(f"No checkpoint in {directory}. Train first: python -m launch.train --workdir=...")
    steps = {step_of(path): path for path in paths}
    if step is None:
        return steps[max(steps)]
    if step not in steps:
        raise CheckpointError(f"No checkpoint of step {step} in {directory}. There are: {sorted(steps)}.")
    return steps[step]


def step_of(path: str) -> int:
    """The step of a checkpoint, from its path."""
    return int(path.rsplit("-", 1)[1])


def load_average(path: str, network: keras.Model) -> None:
    """Loads the averaged weights of a checkpoint into a built network of the run's architecture.

    Args:
      path: a checkpoint, as `find` gives it.
      network: the network to fill.

    Raises:
      CheckpointError: if the network's weights are not all there.
    """
    try:
        status = tf.train.Checkpoint(average=network).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    except (AssertionError, ValueError) as error:
        raise CheckpointError(f"The checkpoint {path} does not fit the configured network: {error}") from error
