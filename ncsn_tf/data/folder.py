"""A folder of image files."""

import concurrent.futures
import os
import pathlib

import numpy as np

from ncsn_tf.data import decoding
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.splits import HELD_OUT_FOLDERS, Split, by_hash

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def read(path: str, split: Split, preparation: Preparation) -> np.ndarray:
    """Reads the images of a folder and its subfolders, in the order of their relative paths.

    If the folder has a subfolder "train" and one of "test", "held_out" or "validation" (the first of these that
    exists), they are the two parts and anything else is ignored. Otherwise the hash of each file's relative path
    decides: about one in ten is held out (`ncsn_tf.data.splits.by_hash`). Hidden files, whose names begin with a dot,
    are skipped. Without `channels`, images are grey if all files have a grey format (palettes count as colour).

    Args:
      path: the folder.
      split: which part.
      preparation: crop, size, channels, memory limit.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      ValueError: if the folder is missing or has no images, an image is damaged, sizes differ and no `image_size` is
        given, or the images need too much memory.
    """
    files = _files_of(path, split)
    start, stop = split.bounds(len(files))
    return read_files(files[start:stop], preparation, f"The folder {path}")


def read_all(path: str, preparation: Preparation) -> np.ndarray:
    """Reads every image of a folder and its subfolders, held out or not; otherwise as `read`."""
    files = [os.path.join(path, relative) for relative in _relative_paths(path)]
    return read_files(files, preparation, f"The folder {path}")


def read_files(files: list[str], preparation: Preparation, where: str) -> np.ndarray:
    """Reads image files by name, otherwise as `read`; `where` names them in messages."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        headers = list(pool.map(lambda file: decoding.inspect(file, file), files))
        shape = decoding.common_shape(headers, preparation)
        images = preparation.allocate(len(files), shape, where)

        def store(row: int) -> None:
            picture = decoding.decode(files[row], shape[2], files[row])
            images[row] = preparation.apply(picture)

        for _ in pool.map(store, range(len(files))):
            pass
    return images


def _files_of(path: str, split: Split) -> list[str]:
    if not os.path.isdir(path):
        raise ValueError(
            f"There is no folder {path!r}. Check the path (relative to {os.getcwd()}); a dataset is a folder of "
            "images, TFRecords (*.tfrecord*), 'digits', or the name of a TensorFlow Datasets dataset."
        )
    held_out = next((name for name in HELD_OUT_FOLDERS if os.path.isdir(os.path.join(path, name))), None)
    if held_out is not None and os.path.isdir(os.path.join(path, "train")):
        path = os.path.join(path, "train" if split.part == "train" else held_out)
        return [os.path.join(path, relative) for relative in _relative_paths(path)]
    relative_paths = _relative_paths(path)
    chosen = by_hash(relative_paths, split.part)
    if not chosen:
        raise ValueError(
            f"{path!r} has {len(relative_paths)} image, too few to hold any out. Add images, or make subfolders "
            "'train' and 'test'."
        )
    return [os.path.join(path, relative_paths[i]) for i in chosen]


def _relative_paths(path: str) -> list[str]:
    found = []
    for parent, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            full = os.path.join(parent, name)
            # Opening a named pipe would block. A dead link is left to the decoder, whose message names it.
            if name.lower().endswith(SUFFIXES) and not name.startswith(".") and not pathlib.Path(full).is_fifo():
                found.append(os.path.relpath(full, path).replace(os.sep, "/"))
    if not found:
        raise ValueError(
            f"The folder {path!r} has no images; looked for {', '.join(SUFFIXES)} in it and its subfolders. To "
            "read a TensorFlow Datasets dataset of the same name, run from another directory."
        )
    return sorted(found)
