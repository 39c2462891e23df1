"""Checkpoints of a run: the raw weights, their average, and the optimizer, whose iteration count is the step.

A checkpoint exists once its index exists, and the index comes last: the files are written to a folder of their own,
read back, flushed to the disk, and only then renamed into place. Loaded values are verified against the checkpoint's
checksums before any variable changes.
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
_WEIGHTS = ("network", "average")
"""The parts of a checkpoint that hold the network's weights, raw and averaged."""
_OBJECT_GRAPH = (
    "_CHECKPOINTABLE_OBJECT_GRAPH"  # the part of a checkpoint besides the variables; read only to be verified
)
_UNREADABLE = (tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError, OSError)
_DAMAGE = (tf.errors.OpError, IndexError, RuntimeError, AssertionError, KeyError, ValueError)


class CheckpointError(ValueError):
    """A checkpoint is missing or damaged, or does not fit."""


class MisfitError(CheckpointError):
    """The variables of a checkpoint are others than those to fill, in number or shape."""


class DamagedCheckpointError(CheckpointError):
    """The files of a checkpoint cannot be read, or do not match their checksums."""


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; earlier checkpoints are unchanged."""


class Checkpoints:
    """Saves and restores a trainer, and keeps the newest checkpoints.

    In a cluster, only the chief reads and writes files, and it sends the values that it reads to the other workers. So
    the directory need not be shared. All workers must call `restore` together; the others ignore `save`.

    Args:
      directory: the folder of the checkpoints, `DIR/checkpoints`.
      trainer: the trainer whose state is saved and restored.
      keep: the number of checkpoints to keep, at least 1.
    """

    def __init__(self, directory: str | os.PathLike, trainer: Trainer, keep: int):
        self._directory = files.local_path(directory)
        self._trainer = trainer
        self._keep = keep
        self._parts = {part: _by_number(variables) for part, variables in trainer.state.items()}

    def restore(self, initial: Sequence[np.ndarray] | None = None) -> int:
        """Restores the newest undamaged checkpoint, if there is one, and returns its step; 0 without a checkpoint.

        If a checkpoint is damaged, a warning names it, and the previous checkpoint is restored. Without a checkpoint,
        the network and its average take the weights `initial`, of which the chief's count, if they are given.

        Raises:
          CheckpointError: if the variables of a checkpoint differ from the trainer's in number or shape, or if all
            checkpoints are damaged.
        """
        strategy = self._trainer.strategy
        variables = [variable for part in self._parts.values() for variable in part.values()]
        values = self._read_newest() if strategies.is_chief(strategy) else None
        if values is None and initial is not None:
            values = [
                value
                for name, part in self._parts.items()
                for value in (initial if name in _WEIGHTS else [variable.numpy() for variable in part.values()])
            ]
        found = int(values is not None)
        if strategies.from_chief(strategy, [np.array([found], np.int32)])[0][0]:
            mine = values or [variable.numpy() for variable in variables]  # only the chief's values matter
            for variable, value in zip(variables, strategies.from_chief(strategy, mine), strict=True):
                variable.assign(value)
        return self._trainer.step

    def _read_newest(self) -> list[np.ndarray] | None:
        """The values of the newest undamaged checkpoint; None if there is no checkpoint."""
        damage: dict[str, str] = {}
        for path in reversed(_in_order(self._directory)):
            try:
                values = _read(path, self._parts)
            except _DamageError as error:
                damage[path] = str(error)
                continue
            self._set_aside(damage, f"Continuing from step {step_of(path)}, the previous checkpoint.")
            return values
        if damage:
            reasons = " ".join(damage.values())
            raise CheckpointError(f"{reasons} No other is left: restore one from a copy, or give another --workdir.")
        return None

    def _set_aside(self, damage: Mapping[str, str], consequence: str) -> None:
        """Warns about damaged checkpoints, and renames their indices, so that they do not count among those to keep."""
        for path, reason in damage.items():
            warnings.warn(f"{reason} {consequence}", stacklevel=4)
            with contextlib.suppress(OSError):
                os.replace(f"{path}.index", f"{path}.index.damaged")

    @property
    def latest(self) -> str | None:
        """The path of the newest checkpoint; None if there is none."""
        paths = _in_order(self._directory)
        return paths[-1] if paths else None

    def save(self) -> str | None:
        """Saves the trainer, unless its step is saved already, and deletes the oldest checkpoints beyond `keep`.

        Returns:
          The checkpoint's path; None on a worker other than the chief.

        Raises:
          CheckpointWriteError: if the checkpoint cannot be written; the message gives the reason, for instance a full
            disk. Earlier checkpoints are unchanged.
        """
        if not strategies.is_chief(self._trainer.strategy):
            return None
        path = self._directory / f"{_NAME}-{self._trainer.step}"
        if str(path) != self.latest:
            try:
                self._write(path)
            except (OSError, _DamageError, *_DAMAGE) as error:
                with contextlib.suppress(OSError):
                    self._remove_partial()
                remedy = "Make room" if files.no_space(error) else "Remove the cause"
                raise CheckpointWriteError(
                    f"The checkpoint {path} cannot be written ({files.reason(error)}). "
                    f"{remedy}, and run the same command again."
                ) from error
        for old in _in_order(self._directory)[: -self._keep]:
            _remove(old)
        return str(path)

    def _write(self, path: pathlib.Path) -> None:
        """Writes the files to a folder of their own, reads them back, and renames them into place, the index last."""
        self._remove_partial()
        aside = self._directory / f"{_PARTIAL}-{self._trainer.step}"
        aside.mkdir(parents=True)
        with files.plain_path(aside / _NAME) as prefix:
            tf.train.Checkpoint(**self._parts).write(prefix)
        _read(str(aside / _NAME), self._parts)
        written = sorted(aside.glob(f"{_NAME}.*"), key=lambda file: file.suffix == ".index")
        for file in (*written, aside):
            files.to_disk(file)
        for file in written:
            os.replace(file, path.with_name(path.name + file.name.removeprefix(_NAME)))
        files.to_disk(self._directory)
        aside.rmdir()

    def _remove_partial(self) -> None:
        """Removes the files of a process that was killed while it wrote or deleted a checkpoint."""
        for leftover in self._directory.glob(f"{_PARTIAL}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for data in self._directory.glob(f"{_NAME}-*.data-*"):
            index = data.with_suffix(".index")
            if not index.exists() and not index.with_name(index.name + ".damaged").exists():
                data.unlink(missing_ok=True)


def _by_number(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Variables by their number in the model's order.

    TensorFlow's object graph would name them by attribute, but it does not look into lists of Keras 3 layers: saved by
    attribute, a network of blocks silently loses nearly all its weights.
    """
    return {f"{number:04d}": variable for number, variable in enumerate(variables)}


def _remove(path: str) -> None:
    """Deletes a checkpoint, its index first: without its index it is not a checkpoint."""
    parts = pathlib.Path(path).parent.glob(pathlib.Path(path).name + ".*")
    for part in sorted(parts, key=lambda part: part.suffix != ".index"):
        part.unlink(missing_ok=True)


def find(directory: str | os.PathLike, step: int | None = None) -> str:
    """The path of a checkpoint, for `load_average`.

    Args:
      directory: the folder of the checkpoints.
      step: the checkpoint's step; the newest by default.

    Raises:
      CheckpointError: if there is no such checkpoint; the message lists the existing steps.
    """
    directory = files.local_path(directory)
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


def load_newest_average(directory: str | os.PathLike, network: keras.Model, step: int | None = None) -> str:
    """Loads the averaged weights of the newest undamaged checkpoint, or of one step's checkpoint, into a network.

    If a checkpoint is damaged, a warning names it, and the previous checkpoint is loaded, unless a step is given.

    Args:
      directory: the folder of the checkpoints.
      network: the network to fill.
      step: the checkpoint's step; by default the newest undamaged checkpoint is loaded.

    Returns:
      The checkpoint's path.

    Raises:
      CheckpointError: if there is no undamaged checkpoint, or if its weights differ from the network's in number or
        shape.
    """
    path, values = newest_average(directory, network, step)
    _assign(network, values)
    return path


def newest_average(directory: str | os.PathLike, network: keras.Model, step: int | None) -> tuple[str, list]:
    """Reads what `load_newest_average` loads: (the checkpoint's path, the arrays); the network is not changed."""
    directory = files.local_path(directory)
    newest = find(directory, step)
    for path in [newest] if step is not None else reversed(_in_order(directory)):
        try:
            return path, _read_average(path, network)
        except DamagedCheckpointError as error:
            if step is not None or path == _in_order(directory)[0]:
                raise
            warnings.warn(f"{error} Loading the previous checkpoint.", stacklevel=2)
    raise CheckpointError(f"No checkpoint in {directory}.")  # they were deleted in the meantime


def load_average(path: str, network: keras.Model) -> None:
    """Loads the averaged weights of a checkpoint into a built network of the run's architecture.

    Args:
      path: a checkpoint, as `find` returns it.
      network: the network to fill.

    Raises:
      CheckpointError: if the checkpoint's weights differ from the network's in number or shape, or may not be read.
      DamagedCheckpointError: if the checkpoint is damaged.
    """
    _assign(network, _read_average(path, network))


def _read_average(path: str, network: keras.Model) -> list[np.ndarray]:
    try:
        return _read(path, {"average": _by_number([weight.value for weight in network.weights])})
    except _DamageError as error:
        others = sorted(set(_paths(pathlib.Path(path).parent)) - {step_of(path)})
        raise DamagedCheckpointError(f"{error} Other checkpoints: {others}.") from error


def _assign(network: keras.Model, values: Sequence[np.ndarray]) -> None:
    for weight, value in zip(network.weights, values, strict=True):
        weight.value.assign(value)


class _DamageError(Exception):
    """The files of a checkpoint cannot be read, or do not match their checksums."""


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Turns the errors of a truncated, altered or missing file into one error that names the checkpoint.

    A file that may not be read, or for which the system lacks resources, is not damaged: it raises CheckpointError.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise _DamageError(f"The checkpoint {path} is no longer there ({files.reason(error)}).") from error
    except _UNREADABLE as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read ({files.reason(error)}).") from error
    except _DAMAGE as error:
        raise _DamageError(f"The checkpoint {path} is damaged or incomplete ({files.reason(error)}).") from error


def _read(path: str, parts: Mapping[str, Mapping[str, tf.Variable]]) -> list[np.ndarray]:
    """The values of the parts' variables, in order; TensorFlow verifies them against the checksums.

    Raises:
      CheckpointError: if the checkpoint does not hold the parts, variable by variable, or may not be read.
      _DamageError: if the checkpoint is truncated, altered or missing.
    """
    with contextlib.ExitStack() as opened:
        with _damage_named(path):
            reader = tf.train.load_checkpoint(opened.enter_context(files.plain_path(path)))
            shapes = reader.get_variable_to_shape_map()
        for part, variables in parts.items():
            _check_fit(path, part, variables, shapes)
        with _damage_named(path):
            reader.get_tensor(_OBJECT_GRAPH)
            return [reader.get_tensor(_key(part, number)) for part, variables in parts.items() for number in variables]


def _key(part: str, number: str) -> str:
    return f"{part}/{number}/.ATTRIBUTES/VARIABLE_VALUE"


def _check_fit(path: str, part: str, variables: Mapping[str, tf.Variable], shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises CheckpointError unless the shapes of a part's variables in the file are those of the given variables."""
    pattern = re.compile(_key(re.escape(part), r"(\d+)").replace("/.", r"/\."))
    there = {found[1]: tuple(shape) for name, shape in shapes.items() if (found := pattern.fullmatch(name))}
    wanted = {number: tuple(variable.shape) for number, variable in variables.items()}
    differing = sorted(number for number in there.keys() | wanted.keys() if there.get(number) != wanted.get(number))
    if differing:
        first = "; ".join(
            f"number {number}: {there.get(number, 'absent')} there, {wanted.get(number, 'absent')} now"
            for number in differing[:3]
        )
        raise MisfitError(
            f"The checkpoint {path} does not fit: {len(differing)} of its {part}'s variables differ, first {first}."
        )
