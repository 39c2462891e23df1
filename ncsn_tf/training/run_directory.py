"""A run's directory, which documents itself: the resolved configuration, the versions, the commit.

DIR/config.json        the configuration, every default resolved
DIR/dataset.json       the images: name, number, shape, checksum
DIR/lock               held by the job that trains here
DIR/environment.json   versions, commit, devices and command of every start
DIR/init.json          the checkpoint whose weights the run started with, if it did not start from random ones
DIR/history.csv        training time, loss and held-out loss by step
DIR/checkpoints/       weights, their average, optimizer and step
DIR/tensorboard/       losses by level, held-out loss, gradient norm, images/s, sample grids
DIR/samples/           grids made during training
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ncsn_tf import determinism, files
from ncsn_tf.config import sections, upgrade
from ncsn_tf.data import names

_PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "ml_collections")
_RESTORE = "Restore the file from a copy, or give another --workdir."


class RunDirectoryError(ValueError):
    """A run directory is missing, or belongs to another configuration."""


class RunDirectory:
    """The paths of a run and the files that document it.

    Args:
      path: the run's directory.

    Attributes:
      path: the same, absolute, with `~` expanded.

    Raises:
      ValueError: if the path is not one of this machine; see `files.local_path`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = files.local_path(path)
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.samples = self.path / "samples"
        self._config = self.path / "config.json"
        self._environment = self.path / "environment.json"
        self._dataset = self.path / "dataset.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the directory and locks it for this process, which may then write into it; see `files.locked`.

        Raises:
          RunDirectoryError: if another process holds it, or it cannot be made.
        """
        self._refuse_file()
        self.path.mkdir(parents=True, exist_ok=True)

        def refusal(holder: str) -> RunDirectoryError:
            return RunDirectoryError(
                f"Another job trains in {self.path} ({holder}). Wait until it ends, or give another --workdir."
            )

        with files.locked(self.path / "lock", refusal):
            yield

    def check_images(self, found: Mapping[str, Any]) -> None:
        """Checks that training images are those that the run was trained on, as far as their checksum is known.

        Args:
          found: the present images, as `ImageSource.describe` returns them.

        Raises:
          RunDirectoryError: if they differ; the message says how.
        """
        trained_on = self._read(self._dataset)
        if trained_on.get("checksum") not in (None, found["checksum"]):
            raise RunDirectoryError(
                f"{self.path} holds a run on {trained_on.get('images')} images of checksum {trained_on['checksum']}; "
                f"{found['name']} now has {found['images']} of checksum {found['checksum']}. Give another --workdir, "
                "or the images that it was started with."
            )

    def _same_images(self, before: Any, now: Any) -> bool:
        """Returns whether two names may be of the same images: the checksum decides, if it is known."""
        if self._read(self._dataset).get("checksum") is not None:
            return True  # `check_images` compares it
        return isinstance(before, str) and isinstance(now, str) and names.located(before) == names.located(now)

    def _refuse_file(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"{self.path} is a file. Give another --workdir.")

    def check(self, config: dict, dataset: Mapping[str, Any]) -> None:
        """Checks that a configuration and images are those of the run; a directory without checkpoints accepts any.

        Args:
          config: the resolved configuration, plain values in nested dicts.
          dataset: `name`, `images`, `shape` and `checksum` of the training images, as `ImageSource.describe` returns.

        Raises:
          RunDirectoryError: if the directory holds another run; the message gives the first differences. Keys that do
            not affect the weights at a step, or only their rounding, may change: the number of steps, intervals, the
            place of the data, the sampler, the accumulation and compilation of a step; see `schema.MAY_CHANGE`. The
            images may have another name, such as that of a folder they were moved to, if their checksum is the same.
        """
        self._refuse_file()
        if not any(self.checkpoints.glob("*.index")):
            return
        before = _flatten(self.config())
        now = _flatten(upgrade.upgraded(config))
        differing = [
            f"{key}: {before.get(key, 'absent')!r} there, {now.get(key, 'absent')!r} now"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
            and not sections.may_change(*key.partition(".")[::2])
            and not (key == "data.name" and self._same_images(before.get(key), now.get(key)))
        ]
        if differing:
            raise RunDirectoryError(
                f"{self.path} holds a run of another configuration ({'; '.join(differing[:3])}). "
                "Give another --workdir, or the configuration that it was started with."
            )
        if self.shape() != tuple(dataset["shape"]):
            raise RunDirectoryError(
                f"{self.path} holds a run on images {self.shape()}. Received: {tuple(dataset['shape'])}."
            )
        self.check_images(dataset)

    def open(self, config: dict, dataset: Mapping[str, Any], devices: str) -> None:
        """Creates the directory, or continues in an existing one, after `check`.

        Args:
          config: the resolved configuration, plain values in nested dicts.
          dataset: as for `check`; a sampler needs its shape.
          devices: a description of the devices, for the record.

        Raises:
          RunDirectoryError: as `check` does.
        """
        self.check(config, dataset)
        for directory in (self.path, self.samples):
            directory.mkdir(parents=True, exist_ok=True)
        for path, content in ((self._dataset, dict(dataset)), (self._config, config)):
            text = json.dumps(content, indent=2) + "\n"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                files.write_text(path, text)
        try:
            starts = list(json.loads(self._environment.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            starts = []  # a lost or damaged record is started again; it must not stop the run
        files.write_json(self._environment, [*starts, environment(devices)])

    def config(self) -> dict:
        """The resolved configuration of the run; keys that were added later have their defaults.

        Raises:
          RunDirectoryError: if there is no run here, the file cannot be read, or a value is of the wrong type.
        """
        content = self._read(self._config)
        try:
            found = upgrade.upgraded(content)
            sections.plain(found)
        except ValueError as error:
            raise RunDirectoryError(f"{self._config}: {error} {_RESTORE}") from error
        return found

    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the run's images; raises as `config`."""
        try:
            height, width, channels = self._read(self._dataset)["shape"]
        except (KeyError, ValueError, TypeError) as error:
            raise RunDirectoryError(f"{self._dataset} gives no shape of three numbers. {_RESTORE}") from error
        return height, width, channels

    def _read(self, path: pathlib.Path) -> dict:
        if not path.exists():
            raise RunDirectoryError(f"{self.path} is not a run directory: it has no {path.name}. Train into it first.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise RunDirectoryError(f"{path} is not valid JSON: {error}. {_RESTORE}") from error
        if not isinstance(content, dict):
            raise RunDirectoryError(f"{path} holds no JSON object but a {type(content).__name__}. {_RESTORE}")
        return content


def environment(devices: str) -> dict:
    """Versions, commit, machine, devices, command and time, for the record."""
    root = pathlib.Path(__file__).resolve().parents[2]
    return {
        "time": _now(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices,
        "gradients": determinism.DESCRIPTION,
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(root),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    """The installed version; None if the package has another name, such as `tensorflow-cpu`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(root: pathlib.Path) -> str | None:
    """The commit of a checkout, with `+changes` if files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=10,
        ).stdout.strip()

    if not (root / ".git").exists():
        return None
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
