"""Images in NumPy arrays, `.npy` and `.npz`."""

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from ncsn_tf.data import levels, parts
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.readers import Loaded, checked_labels
from ncsn_tf.data.splits import Split, by_hash

NAMES = ("samples", "images", "arr_0")
"""The names of an array of images beside others, in order of preference."""
_LABELS = ("label", "labels", "y", "target", "targets", "class", "classes")


class ArraysError(ValueError):
    """A file of arrays is damaged, or it is not clear which of its arrays holds images."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of a file, before it is loaded.

    Attributes:
      file: the path of the `.npy` or `.npz`.
      key: the array's name in the `.npz`; "" in an `.npy`.
      shape: its shape.
    """

    file: str
    key: str
    shape: tuple[int, ...]

    def load(self) -> np.ndarray:
        """Reads the array; raises ArraysError if that is not possible without unpickling."""
        try:
            if not self.key:
                return np.load(self.file, mmap_mode="r", allow_pickle=False)
            with np.load(self.file, allow_pickle=False) as archive:
                return archive[self.key]
        except Exception as error:  # a damaged archive raises whatever zipfile, zlib or NumPy raise
            raise _unreadable(self.file, error) from error

    @property
    def name(self) -> str:
        """The name that tells the array's meaning: of the file, and of the array in it."""
        return f"{os.path.splitext(os.path.basename(self.file))[0]} {self.key}".strip()

    @property
    def is_labels(self) -> bool:
        """Whether the array holds labels, by its name and its rank."""
        words = (self.key or self.name).lower().replace("-", "_").split("_")
        return len(self.shape) <= 2 and not set(_LABELS).isdisjoint(words)


def entries(file: str) -> list[Entry]:
    """The arrays of an `.npy` or `.npz`, of which only the headers are read; raises ArraysError for a damaged file."""
    try:
        if not zipfile.is_zipfile(file):
            return [Entry(file, "", np.load(file, mmap_mode="r", allow_pickle=False).shape)]
        found = []
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else _header_2_0
                    found.append(Entry(file, member.removesuffix(".npy"), header(stream)[0]))
        return found
    except Exception as error:  # as in `Entry.load`
        raise _unreadable(file, error) from error


def _header_2_0(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_2_0(stream)


def images_among(found: Sequence[Entry], where: str) -> Entry:
    """The array that holds the images: the first of `NAMES`, or the only one that is not of labels.

    Raises:
      ArraysError: if it is not clear which one; the message lists them.
    """
    pictures = [entry for entry in found if not entry.is_labels]
    named = [entry for name in NAMES for entry in pictures if entry.key == name] or pictures
    if not named or (len(pictures) > 1 and named is pictures):
        raise ArraysError(f"{where} holds {[entry.key for entry in found]}; name the images one of {', '.join(NAMES)}.")
    return named[0]


class Arrays:
    """Images [N, H, W, C] in arrays, and the labels beside them.

    The images of a file are the array `samples`, `images` or `arr_0`, or the only one; its labels, int [N], are
    `labels`, `y`, or another usual name. Parts are told by names of files or arrays: "train.npz" and "test.npz",
    "x_train" and "x_test". Otherwise about one row in ten, chosen by the hash of "file name#row", is held out.

    Args:
      where: names the dataset in messages.
      files: `.npy` and `.npz` files.
    """

    def __init__(self, where: str, files: Sequence[str]):
        self._where = where
        found = [entry for file in files for entry in entries(file)]
        self._pictures, self._labels = _pairs(found, where)

    def images(self, split: Split, preparation: Preparation) -> Loaded:
        """Reads the images of a split; see `readers.Reader` and, for their values, `levels.as_bytes`."""
        chosen = self._select(split)
        loaded, rows = None, 0
        for entry, taken in chosen:
            array = entry.load()
            try:
                pictures = levels.as_bytes(levels.with_channels(array)[taken])
            except ValueError as error:
                raise ArraysError(f"{entry.file}, {entry.key or 'its array'}: {error}") from error
            shape = *preparation.output_size(*pictures.shape[1:3]), preparation.channels or pictures.shape[3]
            if loaded is None:
                loaded = preparation.allocate(sum(len(part) for _, part in chosen), shape, self._where)
            if loaded.shape[1:] != shape:
                raise ArraysError(f"The arrays of {self._where} differ: {loaded.shape[1:]} and {shape} ({entry.name}).")
            for picture in pictures:
                loaded[rows] = preparation.apply(picture)
                rows += 1
        assert loaded is not None
        return Loaded(loaded)

    def labels(self, split: Split) -> tuple[np.ndarray, int]:
        """The labels of these images; raises ValueError if an array of images has none."""
        values = {}
        for entry, labels in zip(self._pictures, self._labels, strict=True):
            if labels is None:
                raise ArraysError(
                    f"{self._where} has no labels beside the images {entry.name!r}. Add an array 'labels' of one whole "
                    "number per image."
                )
            values[entry] = checked_labels(labels.load(), entry.shape[0], f"{labels.file}, {labels.key or 'its array'}")
        classes = 1 + max(int(part.max()) for part in values.values())
        return np.concatenate([values[entry][taken] for entry, taken in self._select(split)]), classes

    def _select(self, split: Split) -> list[tuple[Entry, np.ndarray]]:
        """The arrays of a split with the numbers of their rows."""
        by_name = {f"{number} {entry.name.replace('/', ' ')}": entry for number, entry in enumerate(self._pictures)}
        names, divided = parts.divide(list(by_name), split.part, self._where, by_file_name=True)
        rows = [(by_name[name], row) for name in names for row in range(by_name[name].shape[0])]
        if not divided:
            keys = [f"{os.path.basename(entry.file)}{entry.key and '/'}{entry.key}#{row}" for entry, row in rows]
            rows = [rows[i] for i in by_hash(keys, split.part)]
        start, stop = split.bounds(len(rows))
        chosen: dict[Entry, list[int]] = {}
        for entry, row in rows[start:stop]:
            chosen.setdefault(entry, []).append(row)
        return [(entry, np.array(taken)) for entry, taken in chosen.items()]


def _pairs(found: Sequence[Entry], where: str) -> tuple[list[Entry], list[Entry | None]]:
    """The arrays of images, and the labels of each, which are of the same file, or of files alone and of one part."""
    pictures = [entry for entry in found if not entry.is_labels]
    divided = {role.part for entry in pictures if (role := parts.role(entry.name))} == {"train", "held_out"}
    several = {entry.file for entry in pictures}
    if not divided:
        pictures = [images_among([entry for entry in found if entry.file == file], file) for file in sorted(several)]
    if not pictures:
        raise ArraysError(f"{where} holds {[entry.name for entry in found]}, none of which are images.")
    labels = [entry for entry in found if entry.is_labels]

    def beside(entry: Entry) -> Entry | None:
        role = parts.role(entry.name)
        same = [other for other in labels if other.file == entry.file] or labels
        of_part = [other for other in same if parts.role(other.name) == role] if divided else same
        return of_part[0] if len(of_part) == 1 else None

    return pictures, [beside(entry) for entry in pictures]


def _unreadable(file: str, error: Exception) -> ArraysError:
    if isinstance(error, OSError) and error.strerror:
        return ArraysError(f"{file} cannot be opened ({error.strerror}). Check the path and the access to it.")
    return ArraysError(f"{file} cannot be read as .npz or .npy ({type(error).__name__}: {error}).")
