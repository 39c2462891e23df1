"""Images in NumPy arrays, `.npy` and `.npz`."""

import dataclasses
import os
import re
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from ncsn_tf.data import levels, parts
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.readers import Loaded, checked_labels
from ncsn_tf.data.splits import Split, some_by_hash

NAMES = ("samples", "images", "arr_0")
"""The names of an array of images beside others, in order of preference."""
_LABELS = ("label", "labels", "y", "target", "targets", "class", "classes")


class ArraysError(ValueError):
    """A file of arrays is damaged, or it is not clear which of its arrays holds images."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of a file, before it is loaded.

    Attributes:
      root: the folder of the dataset.
      file: the path of the `.npy` or `.npz` below it, with "/" between its components.
      key: the array's name in the `.npz`; "" in an `.npy`.
      shape: its shape.
    """

    root: str
    file: str
    key: str
    shape: tuple[int, ...]

    @property
    def path(self) -> str:
        """The path of the file."""
        return os.path.join(self.root, self.file)

    @property
    def name(self) -> str:
        """The name that tells the array's meaning: its file's path without the suffix, and its own."""
        return f"{os.path.splitext(self.file)[0]} {self.key.replace('/', ' ')}".strip()

    @property
    def is_labels(self) -> bool:
        """True if the name and the rank of the array are those of labels."""
        words = re.split(r"[-_. ]", (self.key or os.path.basename(self.name)).lower())
        return len(self.shape) in (1, 2) and not set(_LABELS).isdisjoint(words)

    @property
    def may_be_images(self) -> bool:
        """True if the rank of the array is that of images, [N, H, W, C] or [N, H, W]."""
        return len(self.shape) in (3, 4)

    def describe(self) -> str:
        """The array in a message."""
        return f"{self.path}, {self.key}" if self.key else self.path

    def load(self) -> np.ndarray:
        """Reads the array; raises ArraysError if that is not possible without unpickling."""
        try:
            if not self.key:
                return np.load(self.path, mmap_mode="r", allow_pickle=False)
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[self.key]
        except Exception as error:  # a damaged archive raises whatever zipfile, zlib or NumPy raise
            raise _unreadable(self.path, error) from error


def entries(root: str, file: str) -> list[Entry]:
    """The arrays of an `.npy` or `.npz`, of which only the headers are read; raises ArraysError for a damaged file."""
    path = os.path.join(root, file)
    try:
        if not zipfile.is_zipfile(path):
            return [Entry(root, file, "", np.load(path, mmap_mode="r", allow_pickle=False).shape)]
        found = []
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else _header_2_0
                    found.append(Entry(root, file, member.removesuffix(".npy"), header(stream)[0]))
        return found
    except Exception as error:  # as in `Entry.load`
        raise _unreadable(path, error) from error


def _header_2_0(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_2_0(stream)


def images_among(found: Sequence[Entry], where: str) -> Entry:
    """The array of one file that holds the images: the first of `NAMES`, or the only one that is not of labels.

    Raises:
      ArraysError: if it is not clear which one; the message lists them.
    """
    others = [entry for entry in found if not entry.is_labels]
    named = [entry for name in NAMES for entry in others if entry.key == name]
    if not named and len(others) > 1:
        others = [entry for entry in others if entry.may_be_images]
    if not named and len(others) != 1:
        raise ArraysError(
            f"{where} holds {[entry.key for entry in found]}; name the images one of {', '.join(NAMES)}, or move the "
            "file elsewhere."
        )
    return (named or others)[0]


class Arrays:
    """Images [N, H, W, C] in arrays, and the labels beside them.

    The images of a file are the array `samples`, `images` or `arr_0`, or the only one; its labels, int [N], are
    `labels`, `y`, or another usual name. Parts are told by names of folders, files or arrays: "train/a.npy",
    "test.npz", "x_train". Otherwise about one row in ten, chosen by the hash of "file/array#row", is held out.

    Args:
      where: names the dataset in messages.
      root: the folder of the dataset.
      files: paths of `.npy` and `.npz` files below it, with "/" between their components.
    """

    def __init__(self, where: str, root: str, files: Sequence[str]):
        self._where = where
        found = [entry for file in files for entry in entries(root, file)]
        self._pictures = [entry for file in files for entry in _pictures([e for e in found if e.file == file])]
        if not self._pictures:
            raise ArraysError(f"{where} holds {[entry.name for entry in found]}, none of which are images.")
        self._labels = {entry: _labels_of(entry, found) for entry in self._pictures}
        unread = [entry for entry in found if entry not in self._pictures and not entry.is_labels]
        if unread:
            warnings.warn(
                f"{where}: arrays are passed over, since they are neither its images nor labels: "
                f"{', '.join(entry.name for entry in unread)}.",
                stacklevel=3,
            )

    def images(self, split: Split, preparation: Preparation) -> Loaded:
        """Reads the images of a split; see `readers.Reader` and, for their values, `levels.as_bytes`."""
        chosen = self._select(split)
        shapes = {entry: _prepared_shape(entry, preparation) for entry in chosen}
        (first, shape), *others = shapes.items()
        for entry, other in others:
            if other != shape:
                raise ArraysError(
                    f"The arrays of {self._where} differ: images {shape} in {first.name!r}, {other} in {entry.name!r}."
                )
        loaded = preparation.allocate(sum(map(len, chosen.values())), shape, self._where)
        row = 0
        for entry, rows in chosen.items():
            array = entry.load()
            try:
                pictures = levels.as_bytes(levels.with_channels(array)[rows])
            except ValueError as error:
                raise ArraysError(f"{entry.describe()}: {error}") from error
            for picture in pictures:
                loaded[row] = preparation.apply(picture)
                row += 1
        return Loaded(loaded)

    def labels(self, split: Split) -> tuple[np.ndarray, int]:
        """The labels of these images; raises ValueError if an array of images has none."""
        values = {}
        for entry, labels in self._labels.items():
            if labels is None:
                raise ArraysError(
                    f"{self._where} has no labels beside the images {entry.name!r}. Add an array 'labels' of one whole "
                    "number per image."
                )
            values[entry] = checked_labels(labels.load(), entry.shape[0], labels.describe())
        classes = 1 + max(int(part.max()) for part in values.values())
        return np.concatenate([values[entry][rows] for entry, rows in self._select(split).items()]), classes

    def _select(self, split: Split) -> dict[Entry, np.ndarray]:
        """The arrays of a split with the numbers of their rows."""
        names = [entry.name for entry in self._pictures]
        positions, divided = parts.divide(names, split.part, self._where, by_file_name=True)
        rows = [(self._pictures[i], row) for i in positions for row in range(self._pictures[i].shape[0])]
        if not divided:
            keys = [f"{entry.file}{entry.key and '/'}{entry.key}#{row}" for entry, row in rows]
            rows = [rows[i] for i in some_by_hash(keys, split.part, self._where)]
        start, stop = split.bounds(len(rows))
        chosen: dict[Entry, list[int]] = {}
        for entry, row in rows[start:stop]:
            chosen.setdefault(entry, []).append(row)
        return {entry: np.array(taken) for entry, taken in chosen.items()}


def _pictures(found: Sequence[Entry]) -> list[Entry]:
    """The arrays of images in one file: one, or one per part, as in "x_train" and "x_test"; none in a file of labels.

    Raises:
      ArraysError: if it is not clear which they are.
    """
    if all(entry.is_labels for entry in found):
        return []
    named = [entry for entry in found if entry.may_be_images and not entry.is_labels and parts.role(entry.key)]
    of_parts = {role.part for entry in named if (role := parts.role(entry.key)) is not None}
    chosen = named if of_parts == {"train", "held_out"} else [images_among(found, found[0].path)]
    if not chosen[0].may_be_images:
        raise ArraysError(f"{chosen[0].describe()}: images must be [N, H, W, C]. Received: {chosen[0].shape}.")
    return chosen


def _labels_of(images: Entry, found: Sequence[Entry]) -> Entry | None:
    """The only labels of the same part, of the same file if it has any, else of the same folder; None without one."""
    labels = [entry for entry in found if entry.is_labels]
    folder = os.path.dirname(images.file)
    near = [entry for entry in labels if entry.file == images.file]
    near = near or [entry for entry in labels if os.path.dirname(entry.file) == folder]
    if len(near) > 1:
        near = [entry for entry in near if _part(entry) == _part(images)]
    return near[0] if len(near) == 1 else None


def _part(entry: Entry) -> tuple[str, int] | None:
    role = parts.role(os.path.basename(entry.name))
    return None if role is None else (role.part, role.rank)


def _prepared_shape(entry: Entry, preparation: Preparation) -> tuple[int, int, int]:
    height, width = preparation.output_size(*entry.shape[1:3])
    channels = entry.shape[3] if len(entry.shape) == 4 else 1
    return height, width, preparation.channels or channels


def _unreadable(file: str, error: Exception) -> ArraysError:
    if isinstance(error, OSError) and error.strerror:
        return ArraysError(f"{file} cannot be opened ({error.strerror}). Check the path and the access to it.")
    reason = "it holds Python objects, or no array" if "pickle" in str(error) else f"{type(error).__name__}: {error}"
    return ArraysError(f"{file} cannot be read as .npz or .npy ({reason}).")
