"""Images in TFRecord files of `tf.train.Example`."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from ncsn_tf.data import decoding
from ncsn_tf.data.preparation import Preparation, convert_channels
from ncsn_tf.data.splits import HELD_OUT_FOLDERS, Split, by_hash

_MARK = ".tfrecord"
_IMAGE_KEYS = ("image", "image/encoded", "image_raw")
_SIDE_KEYS = (("height", "width", "depth"), ("image/height", "image/width", "image/channels"))


def recognises(path: str) -> bool:
    """Returns whether a path denotes TFRecords: a file or glob with ".tfrecord" in its name, or a folder of these."""
    return bool(_MARK in os.path.basename(path) or _folder_files(path))


def read(path: str, split: Split, preparation: Preparation) -> np.ndarray:
    """Reads the images of TFRecord files, in the order of file names and records.

    A record is a `tf.train.Example` with the bytes feature "image" (or "image/encoded", "image_raw"): an encoded PNG,
    JPEG, BMP, GIF or WebP, or the raw bytes of a uint8 image of any number of channels with its sizes in the int64
    feature "shape" (height, width, channels) or in "height", "width" and "depth". Files ending in ".gz" are gunzipped.

    The two parts are subfolders "train" and "test", "held_out" or "validation", if both exist; else files with these
    words in their names, as in "mnist-train.tfrecord-00000-of-00001", if there are both kinds; else about one record in
    ten, chosen by the hash of "file name#record number", is held out.

    Args:
      path: a file, a glob or a folder, on any file system that `tf.io.gfile` reaches.
      split: which part.
      preparation: crop, size, channels, memory limit.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      ValueError: if there are no files or records, a record is damaged or lacks its features (the message names file
        and record), sizes differ and no `image_size` is given, or the images need too much memory.
    """
    files, divided = _files_of(path, split.part)
    headers: list[tuple[int, int, decoding.Header]] = []
    for number, file in enumerate(files):
        headers += [
            (number, record, _inspect(*_image_of(data, where), where)) for record, data, where in _records(file)
        ]
    if not headers:
        raise ValueError(f"The TFRecord files of {path!r} ({len(files)}) hold no records; write them again.")
    if not divided:
        keys = [f"{os.path.basename(files[number])}#{record}" for number, record, _ in headers]
        headers = [headers[i] for i in by_hash(keys, split.part)]
    start, stop = split.bounds(len(headers))
    wanted = {(number, record): row for row, (number, record, _) in enumerate(headers[start:stop])}
    shape = decoding.common_shape([header for *_, header in headers[start:stop]], preparation)
    images = preparation.allocate(len(wanted), shape, path)
    for number, file in enumerate(files):
        for record, data, where in _records(file):
            row = wanted.get((number, record))
            if row is not None:
                images[row] = preparation.apply(_decode(*_image_of(data, where), shape[2], where))
    return images


def _files_of(path: str, part: str) -> tuple[list[str], bool]:
    """Returns the sorted files to read, and whether they contain `part` alone."""
    for held_out in HELD_OUT_FOLDERS:
        train, other = (_in_folder(os.path.join(path, name)) for name in ("train", held_out))
        if train and other:
            return (train if part == "train" else other), True
    files = _in_folder(path) or sorted(tf.io.gfile.glob(path))
    if not files:
        raise ValueError(f"No TFRecord file matches {path!r}. Check the path, or the pattern.")
    train = [file for file in files if _says(file, ("train",))]
    other = [file for file in files if _says(file, HELD_OUT_FOLDERS)]
    if train and other:
        return (train if part == "train" else other), True
    return files, False


def _folder_files(path: str) -> list[str]:
    """TFRecord files directly in a folder or in its subfolders of parts."""
    return [f for folder in ("", "train", *HELD_OUT_FOLDERS) for f in _in_folder(os.path.join(path, folder))]


def _in_folder(path: str) -> list[str]:
    try:
        if not tf.io.gfile.isdir(path):
            return []
        names = [name for name in tf.io.gfile.listdir(path) if _MARK in name and not name.startswith(".")]
        return sorted(os.path.join(path, name) for name in names if not tf.io.gfile.isdir(os.path.join(path, name)))
    except tf.errors.OpError as error:
        raise ValueError(f"{path!r} cannot be listed: {error.message}. Check the path and the access to it.") from error


def _says(file: str, words: Sequence[str]) -> bool:
    name = os.path.basename(file).lower().split(_MARK)[0].replace("-", ".").replace("held_out", "held.out")
    parts = name.replace("_", ".").replace("held.out", "held_out").split(".")
    return any(word in parts for word in words)


def _records(file: str) -> Iterator[tuple[int, bytes, str]]:
    """Numbers, contents and names ("file, record 3") of a file's records."""
    number = 0
    try:
        for data in tf.data.TFRecordDataset(file, "GZIP" if file.endswith(".gz") else ""):
            yield number, bytes(data.numpy()), f"{file}, record {number}"
            number += 1
    except tf.errors.OpError as error:
        raise ValueError(
            f"{file}, record {number}, cannot be read ({error.message}). The file is damaged or not a TFRecord "
            "file; write or copy it again."
        ) from error


def _image_of(data: bytes, where: str) -> tuple[bytes, tuple[int, ...] | None]:
    """Returns the bytes of an example's image, and its shape if it is stored raw."""
    try:
        features = tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(
            f"{where}, is not a tf.train.Example ({error}). Write the records as tf.train.Example."
        ) from error
    key = next((key for key in _IMAGE_KEYS if key in features and len(features[key].bytes_list.value) == 1), None)
    if key is None:
        raise ValueError(
            f"{where}, has no bytes feature {' or '.join(map(repr, _IMAGE_KEYS))} with one value; its features are "
            f"{sorted(features)}. Write the encoded image under 'image'."
        )
    image = features[key].bytes_list.value[0]
    for shape in _shapes(features):
        if len(shape) == 3 and int(np.prod(shape)) == len(image) and min(shape) > 0:
            return image, shape
    return image, None


def _shapes(features) -> Iterator[tuple[int, ...]]:
    if "shape" in features:
        yield tuple(features["shape"].int64_list.value)
    for height, width, depth in _SIDE_KEYS:
        if height in features and width in features:
            channels = features[depth].int64_list.value[:1] if depth in features else [1]
            sides = (*features[height].int64_list.value[:1], *features[width].int64_list.value[:1], *channels)
            yield tuple(sides)


def _inspect(image: bytes, shape: tuple[int, ...] | None, where: str) -> decoding.Header:
    if shape is None:
        return decoding.inspect(image, where)
    height, width, channels = shape
    return decoding.Header(where, height, width, channels)


def _decode(image: bytes, shape: tuple[int, ...] | None, channels: int, where: str) -> np.ndarray:
    if shape is None:
        return decoding.decode(image, channels, where)
    return convert_channels(np.frombuffer(image, np.uint8).reshape(shape), channels)
