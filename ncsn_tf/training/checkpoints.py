"""Checkpoints of a run: the raw weights, their average, the optimizer and, in its iteration count, the step.

A checkpoint is there once its index is, and its index comes last: the files are written beside the others, read
back, brought to the disk, and only then renamed. What is loaded is held against the checksums in it before a single
variable changes.
"""

import contextlib
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import files
from ncsn_tf.cluster import strategies
from ncsn_tf.training.trainer import Trainer

_NAME = "checkpoint"
_PARTIAL = ".partial"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # what is in a checkpoint besides variables; read to be verified
_DAMAGE = (tf.errors.OpError, IndexError, RuntimeError, AssertionError, KeyError, ValueError)


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or does not fit."""


class DamagedCheckpointError(CheckpointError):
    """The files of a checkpoint cannot be read, or do not hold what their checksums say."""


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
    """Saves and restores a trainer, keeping the newest few checkpoints.

    In a cluster the chief alone reads and writes, and tells the others what it read, so that the directory need not be
    shared; all must call `restore` together.

    Args:
      directory: where they lie, `DIR/checkpoints`.
      trainer: what is saved.
      keep: how many to keep, at least 1.
    """

    def __init__(self, directory: pathlib.Path, trainer: Trainer, keep: int):
        self._directory = directory
        self._trainer = trainer
        self._keep = keep
        self._parts = {part: _by_number(variables) for part, variables in trainer.state.items()}

    def restore(self) -> int:
        """Restores the newest checkpoint that is whole, if there is one, and returns the step, 0 on a fresh start.

        A damaged one is named in a warning and the one before it is taken.

        Raises:
          CheckpointError: if a checkpoint's variables are not the trainer's, one for one, or all that there are
            are damaged.
        """
        strategy = self._trainer.strategy
        variables = [variable for part in self._parts.values() for variable in part.values()]
        values = self._newest_whole() if strategies.is_chief(strategy) else None
        found = int(values is not None)
        if strategies.from_chief(strategy, [np.array([found], np.int32)])[0][0]:
            mine = values or [variable.numpy() for variable in variables]  # of no chief, only their shapes count
            for variable, value in zip(variables, strategies.from_chief(strategy, mine), strict=True):
                variable.assign(value)
        return self._trainer.step

    def _newest_whole(self) -> list[np.ndarray] | None:
        """The values of the newest checkpoint that can be read, None if there is no checkpoint."""
        damage: dict[str, str] = {}
        for path in reversed(_in_order(self._directory)):
            try:
                values = _read(path, self._parts)
            except _DamageError as error:
                damage[path] = str(error)
                continue
            self._set_aside(damage, f"Going on from step {step_of(path)}, the one before.")
            return values
        if damage:
            reasons = " ".join(damage.values())
            raise CheckpointError(f"{reasons} None is left; restore one from a copy, or give another --workdir.")
        return None

    def _set_aside(self, damage: Mapping[str, str], consequence: str) -> None:
        """Warns of damaged checkpoints, and renames their indices, so that they are not counted among those to keep."""
        for path, reason in damage.items():
            warnings.warn(f"{reason} {consequence}", stacklevel=4)
            with contextlib.suppress(OSError):
                os.replace(f"{path}.index", f"{path}.index.damaged")

    @property
    def latest(self) -> str | None:
        """The path of the newest checkpoint, None if there is none."""
        paths = _in_order(self._directory)
        return paths[-1] if paths else None

    def save(self) -> str | None:
        """Saves the trainer as it is, unless its step is saved already, and deletes the oldest beyond `keep`.

        Returns:
          The checkpoint's path; None on a worker that is not the chief.

        Raises:
          CheckpointWriteError: if it cannot be written, for a full disk say; what was there is there still.
        """
        if not strategies.is_chief(self._trainer.strategy):
            return None
        path = self._directory / f"{_NAME}-{self._trainer.step}"
        if str(path) != self.latest:
            try:
                self._write(path)
            except (OSError, _DamageError, *_DAMAGE) as error:
                self._remove_partial()
                free = shutil.disk_usage(self._directory).free / 1e6
                raise CheckpointWriteError(
                    f"The checkpoint {path} cannot be written, with {free:,.0f} MB free "
                    f"({_reason(error)}). Make room, and give the same command again."
                ) from error
        for old in _in_order(self._directory)[: -self._keep]:
            _remove(old)
        return str(path)

    def _write(self, path: pathlib.Path) -> None:
        """Writes the files aside, reads them back, and renames them into place, the index last."""
        self._remove_partial()
        aside = self._directory / f"{_PARTIAL}-{self._trainer.step}"
        aside.mkdir(parents=True)
        tf.train.Checkpoint(**self._parts).write(str(aside / _NAME))
        _read(str(aside / _NAME), self._parts)
        written = sorted(aside.glob(f"{_NAME}.*"), key=lambda file: file.suffix == ".index")
        for file in (*written, aside):
            files.to_disk(file)
        for file in written:
            os.replace(file, path.with_name(path.name + file.name.removeprefix(_NAME)))
        files.to_disk(self._directory)
        aside.rmdir()

    def _remove_partial(self) -> None:
        """Removes what a process left behind that was killed while it wrote or deleted."""
        for leftover in self._directory.glob(f"{_PARTIAL}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for data in self._directory.glob(f"{_NAME}-*.data-*"):
            index = data.with_suffix(".index")
            if not index.exists() and not index.with_name(index.name + ".damaged").exists():
                data.unlink(missing_ok=True)


def _by_number(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Variables under their number in a model's order.

    TensorFlow's object graph would name them by attribute, but it does not look into the lists in which a Keras 3 layer
    holds others: saved by attribute, a network of blocks loses nearly all its weights, without a word.
    """
    return {f"{number:04d}": variable for number, variable in enumerate(variables)}


def _remove(path: str) -> None:
    """Deletes a checkpoint, its index first: without one it is none."""
    files = pathlib.Path(path).parent.glob(pathlib.Path(path).name + ".*")
    for file in sorted(files, key=lambda file: file.suffix != ".index"):
        file.unlink(missing_ok=True)


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
    """The checkpoints in a directory by step."""
    found = [str(index.with_suffix("")) for index in directory.glob(f"{_NAME}-*.index")]
    return {step_of(path): path for path in found if path.rsplit("-", 1)[1].isdigit()}


def _in_order(directory: pathlib.Path) -> list[str]:
    """The checkpoints in a directory, the newest last."""
    return [path for _, path in sorted(_paths(directory).items())]


def step_of(path: str) -> int:
    """The step of a checkpoint, from its path."""
    return int(path.rsplit("-", 1)[1])


def load_newest_average(directory: pathlib.Path, network: keras.Model, step: int | None = None) -> str:
    """Loads the averaged weights of the newest checkpoint that is whole, or of one step's, into a network.

    A damaged one is named in a warning and the one before it is taken, unless it was asked for by its step.

    Args:
      directory: where the checkpoints lie.
      network: the network to fill.
      step: which one; the newest that is whole by default.

    Returns:
      The checkpoint's path.

    Raises:
      CheckpointError: if there is none, or none that is whole, or its weights are not the network's.
    """
    newest = find(directory, step)
    for path in [newest] if step is not None else reversed(_in_order(directory)):
        try:
            load_average(path, network)
            return path
        except DamagedCheckpointError as error:
            if step is not None or path == _in_order(directory)[0]:
                raise
            warnings.warn(f"{error} Taking the one before.", stacklevel=2)
    raise CheckpointError(f"No checkpoint in {directory}.")  # they were deleted meanwhile


def load_average(path: str, network: keras.Model) -> None:
    """Loads the averaged weights of a checkpoint into a built network of the run's architecture.

    Args:
      path: a checkpoint, as `find` gives it.
      network: the network to fill.

    Raises:
      CheckpointError: if the checkpoint's weights are not the network's, one for one.
      DamagedCheckpointError: if it is damaged.
    """
    variables = _by_number([weight.value for weight in network.weights])
    try:
        values = _read(path, {"average": variables})
    except _DamageError as error:
        others = sorted(set(_paths(pathlib.Path(path).parent)) - {step_of(path)})
        raise DamagedCheckpointError(f"{error} Besides it there are: {others}.") from error
    for variable, value in zip(variables.values(), values, strict=True):
        variable.assign(value)


class _DamageError(Exception):
    """The files of a checkpoint cannot be read, or do not hold what their checksums say."""


def _reason(error: Exception) -> str:
    """An error's type and words in one line, without the names that TensorFlow gives its nodes."""
    words = " ".join(re.sub(r"\{\{.*?\}\}", "", str(error)).split())
    return f"{type(error).__name__}: {words[:160]}"


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Turns the several errors that a truncated, altered or missing file raises into one that names the checkpoint."""
    try:
        yield
    except _DAMAGE as error:
        raise _DamageError(f"The checkpoint {path} is damaged or incomplete ({_reason(error)}).") from error


def _read(path: str, parts: Mapping[str, Mapping[str, tf.Variable]]) -> list[np.ndarray]:
    """The values of the parts' variables, in order; what is read is verified by TensorFlow against its checksums.

    Raises:
      CheckpointError: if the parts are not in it variable for variable.
      _DamageError: if it cannot be read.
    """
    with _damage_named(path):
        reader = tf.train.load_checkpoint(path)
        shapes = reader.get_variable_to_shape_map()
    for part, variables in parts.items():
        _check_fit(path, part, variables, shapes)
    with _damage_named(path):
        reader.get_tensor(_OBJECT_GRAPH)
        return [reader.get_tensor(_key(part, number)) for part, variables in parts.items() for number in variables]


def _key(part: str, number: str) -> str:
    return f"{part}/{number}/.ATTRIBUTES/VARIABLE_VALUE"


def _check_fit(path: str, part: str, variables: Mapping[str, tf.Variable], shapes: Mapping[str, Sequence[int]]) -> None:
    """Holds the shapes of a part's variables in a file against those that are to be filled."""
    pattern = re.compile(_key(re.escape(part), r"(\d+)").replace("/.", r"/\."))
    there = {found[1]: tuple(shape) for name, shape in shapes.items() if (found := pattern.fullmatch(name))}
    wanted = {number: tuple(variable.shape) for number, variable in variables.items()}
    differing = sorted(number for number in there.keys() | wanted.keys() if there.get(number) != wanted.get(number))
    if differing:
        first = "; ".join(
            f"number {number}: {there.get(number, 'absent')} there, {wanted.get(number, 'absent')} now"
            for number in differing[:3]
        )
        raise CheckpointError(
            f"The checkpoint {path} does not fit: {len(differing)} of its {part}'s variables differ, first {first}."
        )
