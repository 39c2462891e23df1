"""Reads the content of PyTorch files, and names files of other kinds.

torch is an optional extra: only reading a file needs it. Only tensors and plain values are ever unpickled; NumPy's
numbers become None.
"""

import os
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf import files

_UNKNOWN_CLASS = re.compile(r"GLOBAL ([\w.]+)")  # in torch's message about a file that needs more than tensors
_BEGINNINGS = {
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file, as Keras writes it",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run `git lfs pull` first",
    b"model_checkpoint_path": "the index of a folder of TensorFlow checkpoints",
}
_TENSORFLOW_FILE = re.compile(r"(?:\.index|\.data-\d+-of-\d+|\.meta)$")
CHECKPOINT_ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".tar")
"""The usual suffixes of PyTorch's files."""


class CheckpointFormatError(ValueError):
    """A file is not a valid checkpoint of the expected network."""


class _NumberType:
    """Stands for the type of a NumPy number in a file, so that nothing of NumPy runs on a file's content."""

    def __init__(self, *name: Any):
        del name

    def __setstate__(self, state: Any) -> None:
        del state


def _number(kind: Any, value: bytes = b"") -> None:
    """Stands for a NumPy number in a file: the weights are tensors, and no number is needed."""
    del kind, value


# The program of score_sde writes the learning rates of its optimizer so, under the module's old or new name.
_NUMPY_NUMBERS = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]


def read(path: str | os.PathLike) -> tuple[pathlib.Path, Any]:
    """Reads a PyTorch file: dicts and lists of tensors and plain values, in any nesting.

    Args:
      path: the file; `~` is expanded.

    Returns:
      (the absolute path, the content).

    Raises:
      CheckpointFormatError: if it is not a PyTorch file, or needs more than tensors and plain values; the message says
        what it is.
      ValueError: if the path is empty or a URL.
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be opened.
      ImportError: if torch is not installed.
    """
    place = files.local_path(path)
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Reading a PyTorch checkpoint needs torch, an optional extra of this package: pip install 'ncsn_tf[torch]'."
        ) from error
    _refuse_other_than_a_file(place)
    with place.open("rb") as file:  # opened here, so that a lack of permission is not taken for damage
        other = _other_kind(place, file)
        if other is not None:
            raise CheckpointFormatError(f"{place} cannot be read as a PyTorch checkpoint: it is {other}.")
        file.seek(0)
        try:
            known = torch.serialization.safe_globals(_NUMPY_NUMBERS)
            with known, warnings.catch_warnings(action="ignore"):  # torch's are about how it was written
                return place, torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds for a damaged or hostile file
            raise CheckpointFormatError(_reason(place, error)) from error


def to_arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of any real dtype as float32 arrays.

    Raises:
      CheckpointFormatError: for a complex, sparse, quantized or otherwise unusual tensor; the message names it.
    """
    arrays = {}
    for name, tensor in tensors.items():
        try:
            if not tensor.is_floating_point():  # integers are quantized weights, whose scale is elsewhere
                raise TypeError
            arrays[name] = tensor.detach().float().numpy()
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise CheckpointFormatError(
                f"{name} cannot be converted. Expected a dense tensor of real numbers, not quantized. "
                f"Received: {tensor.dtype}, {tensor.layout}."
            ) from error
    return arrays


def describe(content: Any) -> str:
    """The entries of a file's content with their kinds, for people: "'step' (int), 'net' (dict of 3: a, b, c)"."""
    if isinstance(content, Mapping):
        entries = [f"{str(key)!r} ({_kind_of_value(value)})" for key, value in content.items()]
    elif isinstance(content, list | tuple):
        entries = [f"[{number}] ({_kind_of_value(value)})" for number, value in enumerate(content)]
    else:
        return f"nothing but {_kind_of_value(content)}"
    return few(entries, 8) if entries else f"an empty {type(content).__name__}"


def is_tensor(value: Any) -> bool:
    """Tells whether a value is a tensor of PyTorch."""
    import torch

    return isinstance(value, torch.Tensor)


def _kind_of_value(value: Any) -> str:
    if is_tensor(value):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"dict of {len(value)}: {few([str(key) for key in value], 3)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _refuse_other_than_a_file(path: pathlib.Path) -> None:
    if path.is_dir():
        if (path / "config.json").exists() and (path / "checkpoints").is_dir():
            held = "It is a run of this library: --init_from of launch.train starts another run from it."
        elif (path / "saved_model.pb").exists():
            held = "It is a SavedModel of TensorFlow."
        else:
            inside = sorted(file.name for file in path.iterdir() if file.suffix.lower() in CHECKPOINT_ENDINGS)
            held = f"Give a file in it: {few(inside)}." if inside else "Give the .pth file itself."
        raise CheckpointFormatError(f"{path} is a directory, which cannot be read as a PyTorch checkpoint. {held}")
    if not path.exists():
        if path.with_name(path.name + ".index").exists():
            raise CheckpointFormatError(
                f"{path} cannot be read as a PyTorch checkpoint: it is a TensorFlow checkpoint."
            )
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    if not path.is_file():
        raise CheckpointFormatError(f"{path} is a device or a pipe. Give a file.")


def _other_kind(path: pathlib.Path, file: Any) -> str | None:
    """Names a file that is recognised as something else than a PyTorch file; None if it may be one."""
    size = path.stat().st_size
    beginning = file.read(512)
    if size == 0:
        return "empty (0 bytes)"
    if _TENSORFLOW_FILE.search(path.name):
        return "a part of a TensorFlow checkpoint"
    for words, kind in _BEGINNINGS.items():
        if beginning.startswith(words):
            return kind
    if beginning.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        return "a web page, such as a server sends in place of a download"
    if beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < size:
        return (
            "a safetensors file. Convert it: "
            "torch.save(safetensors.torch.load_file('IN.safetensors'), 'OUT.pth'), with the package safetensors"
        )
    if beginning.startswith(b"PK\x03\x04"):
        return _kind_of_zip(file)
    if not re.search(rb"[\x00-\x08\x0e-\x1f\x80-\xff]", beginning):
        return "a text file"
    return None


def _kind_of_zip(file: Any) -> str | None:
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            names, damaged = archive.namelist(), archive.testzip()  # torch does not compare checksums
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return None  # torch's own reader decides; most likely the file is cut off
    if damaged is not None:
        return f"damaged: {damaged} in it does not have its checksum"
    if any("/code/" in f"/{name}" or name.rpartition("/")[2] == "constants.pkl" for name in names):
        return "a program of TorchScript. Save the state dict: torch.save(model.state_dict(), 'OUT.pth')"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"a NumPy archive (.npz) with {few(names)}"
    if any(name.endswith(".weights.h5") for name in names):
        return "a model of Keras"
    return f"a zip archive of other content: {few(names)}"


def _reason(path: pathlib.Path, error: Exception) -> str:
    """The message for a file that torch refuses, without torch's own, which advises to load everything anyway."""
    unknown = _UNKNOWN_CLASS.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if unknown:
        return (
            f"{path} cannot be read: it holds more than tensors ({unknown[1]}), and unpickling that can run code of "
            "the file. Where it was made, save the tensors alone: torch.save(model.state_dict(), 'OUT.pth')."
        )
    return f"{path} cannot be read as a PyTorch file: damaged, or of another kind ({type(error).__name__})."


def few(names: Sequence[str], count: int = 3) -> str:
    """The first names, and the number of the others."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
