"""Images in TFRecord files of `tf.train.Example`."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from ncsn_tf.data import decoding, levels, listing, parts
from ncsn_tf.data.preparation import Preparation, convert_channels
from ncsn_tf.data.readers import Loaded, checked_labels, count_formats
from ncsn_tf.data.splits import Split, some_by_hash
from ncsn_tf.files import is_address, reason

_ENCODED_KEYS = ("image", "image/encoded", "image_raw")
_CHANNELS_FIRST_KEY = "data"  # of StyleGAN, with `shape` [channels, height, width]
_SIDE_KEYS = (
    ("height", "width", "depth"),
    ("height", "width", "channels"),
    ("image/height", "image/width", "image/channels"),
)
_LABEL_KEYS = ("label", "image/class/label", "labels", "class")
_RESOLUTION = re.compile(r"(.*)-r(\d\d)(\.tfrecords?)")  # of StyleGAN: a file per resolution, 2^r pixels a side


class _Image(NamedTuple):
    """The bytes of a record's image; `shape` is that of a raw one, `channels_first` its order."""

    content: bytes
    shape: tuple[int, ...] | None
    channels_first: bool = False


class Records:
    """Images in TFRecord files, in the order of file names and records.

    A record is a `tf.train.Example` with the bytes feature "image" (or "image/encoded", "image_raw"): an encoded
    picture, or the raw bytes of a uint8 image with its sizes in the int64 feature "shape" (height, width, channels), or
    in "height", "width" and "depth" (or "channels"), then with any number of channels. Records of StyleGAN hold raw
    bytes in "data" and (channels, height, width) in "shape"; of several files for several resolutions, the largest is
    read. Files may be compressed by gzip or zlib. Labels are the int64 feature "label" (or "image/class/label").

    The two parts are told by the names of folders, or of files, as in "mnist-train.tfrecord-00000-of-00001"; see
    `parts.divide`. Otherwise about one record in ten, chosen by the hash of "relative path#record number", is held out.

    Args:
      where: the path, for messages and as the start of relative names.
      files: the files.
    """

    def __init__(self, where: str, files: Sequence[str]):
        self._where = where
        self._files = _largest_resolution(sorted(files), where)
        folder = os.path.commonpath([os.path.dirname(file) for file in self._files])
        self._root = where if where in (folder, f"{folder}/") or folder.startswith(where.rstrip("/") + "/") else folder

    def images(self, split: Split, preparation: Preparation) -> Loaded:
        """Reads the images of a split; see `readers.Reader`."""
        with decoding.any_size():
            files, chosen = self._select(split, lambda data, where: _inspect(_image_of(data, where), where))
            shape = decoding.common_shape([header for *_, header in chosen], preparation)
            wanted = {(number, record): row for row, (number, record, _) in enumerate(chosen)}
            images = preparation.allocate(len(wanted), shape, self._where)
            for number, file in enumerate(files):
                for record, data, where in _records(file):
                    row = wanted.get((number, record))
                    if row is not None:
                        images[row] = preparation.apply(_decode(_image_of(data, where), shape[2], where))
        return Loaded(images, count_formats(header.format for *_, header in chosen))

    def labels(self, split: Split) -> tuple[np.ndarray, int]:
        """The labels of these images; raises ValueError, with the record, if one has none."""
        _, chosen = self._select(split, _label_of)
        other = "held_out" if split.part == "train" else "train"
        _, others = self._select(Split(other), _label_of)
        values = [label for *_, label in chosen]
        return (
            checked_labels(np.array(values, np.int64), len(chosen), f"The labels of {self._where}"),
            1 + max([*values, *(label for *_, label in others)]),
        )

    def _select(self, split: Split, look: Any) -> tuple[list[str], list[tuple[int, int, Any]]]:
        """The files of a part, and (file number, record, what was seen) of each record of the split."""
        relative = [os.path.relpath(file, self._root) for file in self._files]
        names = [listing.stem_of_records(name) or name for name in relative]
        positions, divided = parts.divide(names, split.part, self._where, by_file_name=True)
        files = [self._files[i] for i in positions]
        seen = [
            (number, record, look(data, where))
            for number, file in enumerate(files)
            for record, data, where in _records(file)
        ]
        if not seen:
            raise ValueError(f"The TFRecord files of {self._where!r} ({len(files)}) hold no records; write them again.")
        if not divided:
            keys = [f"{relative[positions[number]]}#{record}" for number, record, _ in seen]
            seen = [seen[i] for i in some_by_hash(keys, split.part, self._where)]
        start, stop = split.bounds(len(seen))
        return files, seen[start:stop]


def remote_files(path: str) -> list[str]:
    """The TFRecord files of a remote file, glob or folder, at any depth.

    Raises:
      ValueError: if there are none, or the file system cannot be reached.
    """
    try:
        if tf.io.gfile.isdir(path):
            found = [f"{folder.rstrip('/')}/{name}" for folder, _, names in tf.io.gfile.walk(path) for name in names]
            found = [file for file in found if listing.stem_of_records(os.path.basename(file)) is not None]
        else:
            found = [path] if tf.io.gfile.exists(path) else tf.io.gfile.glob(path)
    except tf.errors.OpError as error:
        raise ValueError(f"{path!r} cannot be listed: {error.message}. Check the path and the access to it.") from error
    if not found:
        raise ValueError(f"No TFRecord file matches {path!r}. Check the path, or the pattern.")
    return found


def _largest_resolution(files: list[str], where: str) -> list[str]:
    """Leaves out the smaller copies of images that StyleGAN keeps in files of their own."""
    sizes = {file: match for file in files if (match := _RESOLUTION.fullmatch(file))}
    largest: dict[tuple[str, str], str] = {}
    for file, match in sorted(sizes.items()):  # of one name, the largest resolution comes last
        largest[match[1], match[3]] = file
    smaller = sorted(sizes.keys() - set(largest.values()))
    if not smaller or not all(_has_side(file, 2 ** int(match[2])) for file, match in sizes.items()):
        return files
    warnings.warn(
        f"{where} has the same images at several resolutions; only the largest is read: "
        f"{', '.join(map(os.path.basename, largest.values()))}.",
        stacklevel=3,
    )
    return [file for file in files if file not in smaller]


def _has_side(file: str, side: int) -> bool:
    """Returns whether the first record of a file is of StyleGAN, [channels, side, side]."""
    first = next(_records(file), None)
    if first is None:
        return False
    features = _features_of(*first[1:])
    shape = list(features["shape"].int64_list.value) if "shape" in features else []
    return _CHANNELS_FIRST_KEY in features and shape[1:] == [side, side]


def _records(file: str) -> Iterator[tuple[int, bytes, str]]:
    """Numbers, contents and names ("file, record 3") of a file's records."""
    number = 0
    # As bytes: a local name need not be UTF-8.
    path = file if is_address(file) else os.fsencode(file)
    try:
        compression: Any = _compression(path)  # the stubs want literals
        for data in tf.data.TFRecordDataset(path, compression):
            yield number, bytes(data.numpy()), f"{file}, record {number}"
            number += 1
    except tf.errors.OpError as error:
        raise ValueError(
            f"{file}, record {number}, cannot be read ({reason(error)}). The file is damaged or not a TFRecord "
            "file; write or copy it again."
        ) from error


def _compression(path: str | bytes) -> str:
    """The compression of a file, by its first bytes: "GZIP", "ZLIB" or ""."""
    with tf.io.gfile.GFile(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x1f\x8b\x08"):
        return "GZIP"
    # Without compression the file begins with a length of 64 bits, whose upper half is 0.
    is_zlib = start[:1] == b"\x78" and int.from_bytes(start[:2], "big") % 31 == 0 and any(start[4:])
    return "ZLIB" if is_zlib else ""


def _features_of(data: bytes, where: str) -> Any:
    try:
        return tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(
            f"{where}, is not a tf.train.Example ({error}). Write the records as tf.train.Example."
        ) from error


def _image_of(data: bytes, where: str) -> _Image:
    """An example's image; raises ValueError, with the reason, if the record has none that can be read."""
    features = _features_of(data, where)
    keys = (*_ENCODED_KEYS, *([_CHANNELS_FIRST_KEY] if "shape" in features else []))
    key = next((key for key in keys if key in features and len(features[key].bytes_list.value) == 1), None)
    if key is None:
        raise ValueError(
            f"{where}, has no bytes feature {' or '.join(map(repr, _ENCODED_KEYS))} with one value; its features are "
            f"{sorted(features)}. Write the encoded image under 'image'."
        )
    content = features[key].bytes_list.value[0]
    shapes = list(_shapes(features))
    for shape, named in shapes:
        if int(np.prod(shape)) == len(content) and len(shape) == 3 and min(shape) > 0:
            if key == _CHANNELS_FIRST_KEY:
                return _Image(content, _checked_channels_first(shape, where), True)
            if not named:
                levels.check_channels_last(shape, f"{where},")
            return _Image(content, shape)
    try:
        decoding.inspect(content, where)
    except ValueError as error:
        if shapes:
            raise ValueError(_misfit(content, shapes[0][0], where)) from error
        raise
    return _Image(content, None)


def _checked_channels_first(shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    if shape[0] not in (1, 3):
        raise ValueError(
            f"{where}: the shape of 'data' must be [channels, height, width], with 1 or 3 channels, as StyleGAN writes "
            f"it. Received: {list(shape)}. Write an image [height, width, channels] under 'image'."
        )
    return shape


def _misfit(content: bytes, shape: tuple[int, ...], where: str) -> str:
    if len(shape) != 3:
        return (
            f"{where}: the image is no encoded picture, and its shape {list(shape)} is not [height, width, channels]. "
            "Write one image per record, with its shape."
        )
    needed = int(np.prod(shape))
    is_wider = needed > 0 and len(content) in (2 * needed, 4 * needed, 8 * needed)
    times = " Are its values of a wider type than uint8?" if is_wider else ""
    return (
        f"{where}: the image has {len(content)} bytes, which are no encoded picture; the shape {list(shape)} needs "
        f"{needed} bytes of uint8.{times} Write the shape that belongs to the bytes, or an encoded picture."
    )


def _label_of(data: bytes, where: str) -> int:
    features = _features_of(data, where)
    key = next((key for key in _LABEL_KEYS if key in features and len(features[key].int64_list.value) == 1), None)
    if key is None:
        raise ValueError(
            f"{where}, has no label: no int64 feature {' or '.join(map(repr, _LABEL_KEYS))} with one value; its "
            f"features are {sorted(features)}."
        )
    return int(features[key].int64_list.value[0])


def _shapes(features: Any) -> Iterator[tuple[tuple[int, ...], bool]]:
    """The shapes that an example states, and whether the sides are named, so that their order is certain."""
    if "shape" in features:
        sides = tuple(features["shape"].int64_list.value)
        yield (*sides, 1) if len(sides) == 2 else sides, False
    says_channels = any(depth in features for *_, depth in _SIDE_KEYS)
    for height, width, depth in _SIDE_KEYS:
        if height in features and width in features and (depth in features or not says_channels):
            channels = features[depth].int64_list.value[:1] if depth in features else [1]
            sides = (*features[height].int64_list.value[:1], *features[width].int64_list.value[:1], *channels)
            yield tuple(sides), True


def _inspect(image: _Image, where: str) -> decoding.Header:
    if image.shape is None:
        return decoding.inspect(image.content, where)
    height, width, channels = (*image.shape[1:], image.shape[0]) if image.channels_first else image.shape
    return decoding.Header(where, height, width, channels)


def _decode(image: _Image, channels: int, where: str) -> np.ndarray:
    if image.shape is None:
        return decoding.decode(image.content, channels, where)
    pixels = np.frombuffer(image.content, np.uint8).reshape(image.shape)
    return convert_channels(np.moveaxis(pixels, 0, -1) if image.channels_first else pixels, channels)
