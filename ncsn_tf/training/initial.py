"""Starts a new run from the averaged weights of another run's checkpoint, and records which one."""

import dataclasses
import json
import os
import pathlib
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ncsn_tf import files
from ncsn_tf.config import upgrade
from ncsn_tf.training import checkpoints
from ncsn_tf.training.checkpoints import CheckpointError
from ncsn_tf.training.run_directory import RunDirectory, RunDirectoryError

_RECORD = "init.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)(?:\.index|\.data-\d+-of-\d+)?")
_TORCH_FILES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
_NOT_SHAPING = ("network.rematerialise", "network.dtype")


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """The averaged weights of a checkpoint, with which a run starts as raw weights and as average.

    Attributes:
      given: the run's directory or the checkpoint that was asked for, absolute.
      checkpoint: the path of the checkpoint.
      values: the weights, in the network's order.
    """

    given: str
    checkpoint: str
    values: Sequence[np.ndarray]

    def record(self, directory: RunDirectory) -> None:
        """Writes DIR/init.json: `given`, `checkpoint`, its `step`, and `weights`, the CRC-32 of the weights' bytes."""
        checksum = 0
        for value in self.values:
            checksum = zlib.crc32(np.ascontiguousarray(value).data, checksum)
        about = {"step": checkpoints.step_of(self.checkpoint), "weights": checksum}
        content = {"given": self.given, "checkpoint": self.checkpoint, **about}
        files.write_json(directory.path / _RECORD, content)


def source(directory: RunDirectory, given: str | os.PathLike | None) -> pathlib.Path | None:
    """The path from which a run has to start; None if it resumes, or starts from random weights.

    Args:
      directory: the run's directory.
      given: another run's directory, or a checkpoint in it, `DIR/checkpoints/checkpoint-1000`; None for random weights.
        When the run resumes, the path that it was started from has no effect.

    Raises:
      RunDirectoryError: if the run has a checkpoint and was started from other weights, or `given` is the run itself.
    """
    before = _recorded(directory)
    resumes = any(directory.checkpoints.glob("*.index"))
    if given is None:  # a run that was stopped before its first checkpoint starts as it did before
        return None if resumes or before is None else files.local_path(before[0])
    path = files.local_path(given)
    own = os.path.realpath(directory.path)
    if own == os.path.realpath(path) or own in map(os.path.realpath, path.parents):
        raise RunDirectoryError(
            f"A run cannot start from its own weights, in {path}. Leave out --init_from to resume it."
        )
    if not resumes:
        return path
    if before is None or os.path.realpath(path) not in map(os.path.realpath, before):
        started = before[0] if before is not None else "random weights"
        raise RunDirectoryError(
            f"{directory.path} holds a run that started from {started}, not from {path}. Leave out --init_from to "
            "resume it, or give another --workdir."
        )
    return None


def read(path: pathlib.Path, network: keras.Model, config: Mapping[str, Any], channels: int) -> InitialWeights:
    """Reads the averaged weights of a checkpoint for a network.

    If the newest checkpoint of a run is damaged, a warning names it, and the previous one is read. Another warning says
    if the weights were trained with another SDE, other noise levels, or another meaning of the network's output.

    Args:
      path: as `source` returns it.
      network: the built network, which is not changed.
      config: the configuration of the new run.
      channels: the channels of the new run's images.

    Raises:
      CheckpointError: if there is no such checkpoint, or it is damaged or does not fit; the message says what differs.
    """
    folder, step = _located(path)
    differences = _differences(RunDirectory(folder.parent), config, channels)
    try:
        checkpoint, values = checkpoints.newest_average(folder, network, step)
    except checkpoints.MisfitError as error:
        shaping = [text for key, text in differences.items() if key.startswith(("network.", "times.", "images"))]
        if not shaping:
            raise
        raise CheckpointError(f"The weights of {path} do not fit this run: {'; '.join(shaping)}.") from error
    if differences:
        warnings.warn(
            f"The weights of {path} were trained differently: {'; '.join(differences.values())}.", stacklevel=2
        )
    return InitialWeights(str(path), checkpoint, values)


def _located(path: pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """The folder of the checkpoints, and the step if the path is that of one checkpoint.

    Raises:
      CheckpointError: if the path is something else.
    """
    expected = "Expected a run's directory, or a checkpoint in it: DIR/checkpoints/checkpoint-1000."
    if path.is_dir():
        for folder in (path / "checkpoints", path):
            if any(folder.glob("checkpoint-*.index")):
                return folder, None
        if (path / "config.json").exists():
            raise CheckpointError(f"The run {path} has no checkpoint yet to start from.")
        raise CheckpointError(f"{path} holds no checkpoint to start from. {expected}")
    if (found := _CHECKPOINT.fullmatch(path.name)) and path.parent.is_dir():
        return path.parent, int(found[1])
    if not path.exists():
        raise CheckpointError(f"There is nothing at {path} to start from. {expected}")
    if path.suffix.lower() in _TORCH_FILES:
        raise CheckpointError(f"{path} is a file of PyTorch: make a run of it with launch.import_checkpoint first.")
    raise CheckpointError(f"{path} is a file. {expected}")


def _recorded(directory: RunDirectory) -> tuple[str, str] | None:
    """The source of the run's first weights, (given, checkpoint), if it is on record."""
    record = directory.path / _RECORD
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        return content["given"], content["checkpoint"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{record} cannot be read. Restore it from a copy, or give another --workdir."
        ) from error


def _differences(other: RunDirectory, config: Mapping[str, Any], channels: int) -> dict[str, str]:
    """Settings that determine the weights and differ between another run and a configuration, by key, as text."""
    try:
        there, before = other.config(), other.shape()[-1]
    except RunDirectoryError:
        return {}  # a checkpoint apart from its run: its shapes are compared
    now = upgrade.upgraded(config)
    differing = {
        f"{section}.{key}": (there[section].get(key, "absent"), now[section].get(key, "absent"))
        for section in ("network", "times", "sde", "output", "condition")
        for key in there[section].keys() | now[section].keys()
        if there[section].get(key) != now[section].get(key)
    }
    if before != channels:
        differing["images"] = (f"{before} channels", f"{channels} channels")
    return {
        key: f"{key}: {values[0]} there, {values[1]} now"
        for key, values in sorted(differing.items())
        if key not in _NOT_SHAPING
    }
