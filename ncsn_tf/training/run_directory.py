"""A run's directory, which explains itself: the resolved configuration, the versions, the commit.

DIR/config.json        the configuration, every default resolved
DIR/dataset.json       the images: name, number, shape
DIR/environment.json   versions, commit, devices and command of every start
DIR/checkpoints/       weights, their average, optimizer and step
DIR/tensorboard/       losses by level, held-out loss, gradient norm, images/s, sample grids
DIR/samples/           grids made during training
"""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys

from ncsn_tf import files

_PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "ml_collections")
_MAY_CHANGE = ("training.steps", "training.steps_per_loop", "training.keep_checkpoints", "training.jit_compile")


class RunDirectoryError(ValueError):
    """A run directory is missing, or belongs to another configuration."""


class RunDirectory:
    """Paths of a run and the files that explain it.

    Args:
      path: the run's directory.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.samples = self.path / "samples"
        self._config = self.path / "config.json"
        self._environment = self.path / "environment.json"
        self._dataset = self.path / "dataset.json"

    def open(self, config: dict, *, dataset: str, images: int, shape: tuple[int, int, int]) -> None:
        """Makes the directory for a configuration, or checks that it is this configuration's.

        Args:
          config: the resolved configuration, plain values in nested dicts.
          dataset: the name of the training images, for the record.
          images: their number.
          shape: their (H, W, C), which a sampler needs.

        Raises:
          RunDirectoryError: if the directory holds a run of another configuration; the first differences are named.
            The number of steps, and what has no bearing on the result, may change.
        """
        if self._config.exists():
            before, now = _flatten(self.config()), _flatten(json.loads(json.dumps(config)))
            differing = [
                f"{key}: {before.get(key, 'absent')!r} there, {now.get(key, 'absent')!r} now"
                for key in sorted(before.keys() | now.keys())
                if before.get(key) != now.get(key) and key not in _MAY_CHANGE
            ]
            if differing:
                raise RunDirectoryError(
                    f"{self.path} holds a run of another configuration ({'; '.join(differing[:3])}). "
                    "Give another --workdir, or the configuration that it was started with."
                )
        for directory in (self.path, self.samples):
            directory.mkdir(parents=True, exist_ok=True)
        described = {"name": dataset, "images": images, "shape": list(shape)}
        files.write_text(self._dataset, json.dumps(described, indent=2) + "\n")
        files.write_text(self._config, json.dumps(config, indent=2) + "\n")
        starts = json.loads(self._environment.read_text()) if self._environment.exists() else []
        files.write_text(self._environment, json.dumps([*starts, environment()], indent=2) + "\n")

    def config(self) -> dict:
        """The resolved configuration of the run.

        Raises:
          RunDirectoryError: if there is no run here, or the file cannot be read.
        """
        return self._read(self._config)

    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the run's images; raises as `config`."""
        height, width, channels = self._read(self._dataset)["shape"]
        return height, width, channels

    def _read(self, path: pathlib.Path) -> dict:
        if not path.exists():
            raise RunDirectoryError(f"{self.path} is no run directory: it has no {path.name}. Train into it first.")
        try:
            return json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise RunDirectoryError(f"{path} is not valid JSON: {error}.") from error


def environment() -> dict:
    """Versions, commit, machine, command and time, for the record."""
    root = pathlib.Path(__file__).resolve().parents[2]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "commit": _commit(root),
    }


def _commit(root: pathlib.Path) -> str | None:
    """The commit of a checkout, with `+changes` if files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
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
