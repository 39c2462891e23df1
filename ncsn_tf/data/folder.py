"""A folder of pictures, with classes as subfolders if it has any."""

import concurrent.futures
import os
from collections.abc import Sequence

import numpy as np

from ncsn_tf.data import decoding, listing, parts
from ncsn_tf.data.listing import Listing
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.readers import Loaded, count_formats
from ncsn_tf.data.splits import Split, some_by_hash


class Pictures:
    """The pictures of a folder and its subfolders, in the order of their relative paths.

    Subfolders "train" and "test", or other usual names, are the two parts; see `parts.divide`. Otherwise the hash of
    each file's relative path decides: about one in ten is held out (`splits.by_hash`). Without `channels`, images are
    grey if all files have a grey format (palettes count as colour).

    Labels are the subfolders of the folder, or of its parts, in alphabetical order: "train/cat/1.png" is of class
    "cat".

    Args:
      found: the folder's files.
    """

    def __init__(self, found: Listing):
        self._found = found
        self._where = f"The folder {found.path}"

    def images(self, split: Split, preparation: Preparation) -> Loaded:
        """Reads the pictures of a split; see `readers.Reader`.

        Raises:
          ValueError: if the folder has no pictures, its division is unclear, a picture is damaged, sizes differ and no
            `image_size` is given, or the images need too much memory.
        """
        chosen, _ = self._select(split)
        self._found.warn_passed_over("pictures")
        return read_files([os.path.join(self._found.path, file) for file in chosen], preparation, self._where)

    def labels(self, split: Split) -> tuple[np.ndarray, int]:
        """The classes of these pictures; raises ValueError unless each picture is in a subfolder of its class."""
        chosen, depth = self._select(split)
        everything = self._found.pictures
        missing = [file for file in everything if file.count("/") <= depth]
        if missing:
            raise ValueError(
                f"{self._where} has no labels: {len(missing)} of its {len(everything)} pictures are in no subfolder of "
                f"a class, such as {missing[0]!r}. Put the pictures of each class into a subfolder of its name, as in "
                "'train/cat/1.png', or in 'cat/1.png' if there are no parts."
            )
        names = sorted({file.split("/")[depth] for file in everything})
        if len(names) < 2:
            raise ValueError(
                f"{self._where} has only one class, the subfolder {names[0]!r}. Classes are its topmost subfolders, "
                "or those of 'train' and 'test'; give the folder that holds them."
            )
        number = {name: index for index, name in enumerate(names)}
        return np.array([number[file.split("/")[depth]] for file in chosen], np.int32), len(names)

    def _select(self, split: Split) -> tuple[list[str], int]:
        """The files of a split, and the number of folders above those of the classes."""
        files = self._found.pictures
        names = [os.path.splitext(file)[0] for file in files]
        positions, divided = parts.divide(names, split.part, self._where, by_file_name=False)
        chosen = [files[i] for i in positions]
        tops = {file.partition("/")[0] for file in files if "/" in file}
        alone = parts.role(next(iter(tops))) if len(tops) == 1 and all("/" in file for file in files) else None
        depth = int(divided or (alone is not None and alone.exact))
        if not divided:
            chosen = [chosen[i] for i in some_by_hash(chosen, split.part, self._where)]
        start, stop = split.bounds(len(chosen))
        return chosen[start:stop], depth


def read_all(path: str, preparation: Preparation) -> Loaded:
    """Reads every picture of a folder and its subfolders, of either part; otherwise as `Pictures.images`."""
    found = listing.read(path)
    require_pictures(found)
    found.warn_passed_over("pictures")
    return read_files([os.path.join(path, file) for file in found.pictures], preparation, f"The folder {path}")


def require_pictures(found: Listing) -> None:
    """Raises ValueError if a folder has no pictures; the message says what it has."""
    if not found.pictures:
        raise ValueError(
            f"The folder {found.path!r} has no images that Pillow reads, such as .png or .jpg; it and its subfolders "
            f"have {found.describe()}. To read a TensorFlow Datasets dataset of the same name, run from another "
            "directory."
        )


def read_files(files: Sequence[str], preparation: Preparation, where: str) -> Loaded:
    """Reads picture files by name, otherwise as `Pictures.images`; `where` names them in messages."""
    with decoding.any_size(), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        headers = list(pool.map(lambda file: decoding.inspect(file, file), files))
        shape = decoding.common_shape(headers, preparation)
        images = preparation.allocate(len(files), shape, where)

        def store(row: int) -> None:
            picture = decoding.decode(files[row], shape[2], files[row])
            images[row] = preparation.apply(picture)

        for _ in pool.map(store, range(len(files))):
            pass
    return Loaded(images, count_formats(header.format for header in headers))
