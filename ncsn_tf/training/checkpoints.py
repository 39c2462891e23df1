"""Checkpoints of a run: the raw weights, their average, the optimizer and, in its iteration count, the step."""

import contextlib
import pathlib
import re
from collections.abc import Iterator

import keras
import tensorflow as tf

from ncsn_tf.training.trainer import Trainer

_NAME = "checkpoint"


class CheckpointError(ValueError):
    """A checkpoint is missing or does not fit."""


def _by_number(variables) -> dict[str, tf.Variable]:
    """Variables under their number in a model's order.

    TensorFlow's object graph would name them by attribute, but it does not look into the lists in which a Keras 3 layer
    holds others: saved by attribute, a network of blocks loses nearly all its weights, without a word.
    """
    return {f"{number:04d}": variable.value for number, variable in enumerate(variables)}


class Checkpoints:
    """Saves and restores a trainer, keeping the newest few checkpoints.

    Args:
      directory: where they lie, `DIR/checkpoints`.
      trainer: what is saved.
      keep: how many to keep, at least 1.
    """

    def __init__(self, directory: pathlib.Path, trainer: Trainer, keep: int):
        self._trainer = trainer
        self._parts = {
            "network": _by_number(trainer.network.weights),
            "average": _by_number(trainer.average.weights),
            "optimizer": _by_number(trainer.optimizer.variables),
        }
        self._checkpoint = tf.train.Checkpoint(**self._parts)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(directory), max_to_keep=keep, checkpoint_name=_NAME
        )

    def restore(self) -> int:
        """Restores the newest checkpoint, if there is one, and returns the step, 0 on a fresh start.

        Raises:
          CheckpointError: if its variables are not the trainer's, one for one, or it is damaged.
        """
        path = self.latest
        if path:
            for part, variables in self._parts.items():
                _check_fit(path, part, variables)
            with _damage_named(path):
                self._checkpoint.restore(path).assert_existing_objects_matched()
        return self._trainer.step

    @property
    def latest(self) -> str | None:
        """The path of the newest checkpoint, None if there is none."""
        paths = _paths(pathlib.Path(self._manager.directory))
        return paths[max(paths)] if paths else None

    def save(self) -> str:
        """Saves the trainer as it is, unless its step is saved already; returns the checkpoint's path."""
        latest = self.latest
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
    steps = _paths(directory)
    if not steps:
        raise CheckpointError(f"No checkpoint in {directory}. Train first: python -m launch.train --workdir=...")
    if step is None:
        return steps[max(steps)]
    if step not in steps:
        raise CheckpointError(f"No checkpoint of step {step} in {directory}. There are: {sorted(steps)}.")
    return steps[step]


def _paths(directory: pathlib.Path) -> dict[int, str]:
    """The checkpoints in a directory by step; by their files, since TensorFlow's list of them may be lost."""
    found = [str(index.with_suffix("")) for index in directory.glob(f"{_NAME}-*.index")]
    return {step_of(path): path for path in found if path.rsplit("-", 1)[1].isdigit()}


def step_of(path: str) -> int:
    """The step of a checkpoint, from its path."""
    return int(path.rsplit("-", 1)[1])


def load_average(path: str, network: keras.Model) -> None:
    """Loads the averaged weights of a checkpoint into a built network of the run's architecture.

    Args:
      path: a checkpoint, as `find` gives it.
      network: the network to fill.

    Raises:
      CheckpointError: if the checkpoint's weights are not the network's, one for one, or it is damaged.
    """
    variables = _by_number(network.weights)
    _check_fit(path, "average", variables)
    with _damage_named(path):
        tf.train.Checkpoint(average=variables).restore(path).assert_existing_objects_matched().expect_partial()


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Turns the several errors that a truncated or missing file of a checkpoint raises into one that names it."""
    try:
        yield
    except (tf.errors.OpError, IndexError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"The checkpoint {path} is damaged or incomplete ({type(error).__name__}: {reason}). Delete its files to "
            f"go on from an older one; there are: {sorted(set(_paths(pathlib.Path(path).parent)) - {step_of(path)})}."
        ) from error


def _check_fit(path: str, part: str, variables: dict[str, tf.Variable]) -> None:
    """Holds the shapes of a part's variables in a file against those that are to be filled."""
    pattern = re.compile(rf"{part}/(\d+)/\.ATTRIBUTES/VARIABLE_VALUE")
    with _damage_named(path):
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    there = {found[1]: tuple(shape) for name, shape in shapes.items() if (found := pattern.fullmatch(name))}
    wanted = {number: tuple(variable.shape) for number, variable in variables.items()}
    differing = sorted(number for number in there.keys() | wanted.keys() if there.get(number) != wanted.get(number))
    if differing:
        first = differing[0]
        raise CheckpointError(
            f"The checkpoint {path} does not fit: {len(differing)} of its {part}'s variables differ, first number "
            f"{first}: {there.get(first, 'absent')} there, {wanted.get(first, 'absent')} in this configuration."
        )
