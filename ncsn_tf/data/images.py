"""Image datasets, decoded once into memory as bytes.

In memory, MNIST takes 47 MB, CIFAR-10 184 MB, and CelebA at 32x32 620 MB. This gives random access: the order of an
epoch is a function of (seed, epoch), and a run resumes at any step at no cost.
"""

import dataclasses
import functools
import os
import warnings
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ncsn_tf.data import faults
from ncsn_tf.data.names import DIGITS, checked_name, is_path
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.readers import Loaded
from ncsn_tf.data.splits import Split

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """A dataset in memory.

    Attributes:
      name: the dataset's name or path, as given by the caller.
      images: uint8 [N, H, W, C], N at least 1. Must not be modified.
      formats: the number of images per format of their files, such as {"JPEG": 12}; empty if they were not encoded.
    """

    name: str
    images: np.ndarray
    formats: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        got = f"dtype {self.images.dtype}, shape {self.images.shape}"
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.size == 0:
            raise ValueError(f"Images must be uint8 of shape [N, H, W, C], each at least 1. Received {got}.")

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def describe(self) -> dict[str, Any]:
        """Returns plain values that identify the dataset: `name`, `images`, `shape`, a CRC-32 `checksum`, `formats`."""
        return {
            "name": self.name,
            "images": len(self),
            "shape": list(self.shape),
            "checksum": self._checksum,
            "formats": dict(self.formats),
        }

    @functools.cached_property
    def _checksum(self) -> int:
        return zlib.crc32(np.ascontiguousarray(self.images).data)

    @functools.cached_property
    def tensor(self) -> "tf.Tensor":
        """The images as one eager tensor in host memory, copied on first use and shared by all pipelines."""
        import tensorflow as tf  # here: reading images needs no TensorFlow

        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self.images)


def load(
    name: str | os.PathLike,
    split: str,
    *,
    data_dir: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    center_crop: int | None = None,
    channels: int | None = None,
    memory_limit_gib: float = 8.0,
    download: bool = False,
) -> ImageSource:
    """Reads a dataset into memory. Its labels, if it has any, are read by `ncsn_tf.data.labels`.

    `name` is one of

    * "digits": the 1,797 real 8x8 grey digits of scikit-learn, which need no network; see `load_digits`;
    * a path (an existing directory, or a name that has a path separator and is not a TFDS name) to a folder of images
      (`ncsn_tf.data.folder`), to TFRecords, as a file, a glob or a folder (`ncsn_tf.data.tfrecords`), or to an `.npz`
      or `.npy` of images (`ncsn_tf.data.arrays`);
    * a dataset of TensorFlow Datasets with an "image" feature, such as "mnist" or "cifar10"
      (`ncsn_tf.data.tfds_images`). Song & Ermon (2019) crop "celeb_a" to 140 and resize it to 32x32.

    Args:
      name: what to read.
      split: "train" or "held_out", or a slice of one: "train[:50000]", "held_out[:10%]".
      data_dir: the folder of prepared TFDS datasets; TFDS's own default if None.
      image_size: pixels to resize to, a side or (height, width), antialiased and without distortion: the image is
        first cropped evenly to the new aspect ratio.
      center_crop: the side in pixels of a central square that is cut out before resizing.
      channels: 1 or 3 to convert grey to colour or back.
      memory_limit_gib: refuse, before allocating, a dataset that would need more memory than this, in GiB. The
        batches of `ncsn_tf.data.pipeline` hold a second copy.
      download: let TFDS download and prepare what `data_dir` lacks.

    Returns:
      The images in a fixed order. A warning says if they look as if they were read wrongly: see `ncsn_tf.data.faults`.

    Raises:
      ValueError: for an unknown name or split, a dataset that is missing, damaged or too large, and incompatible sizes.
    """
    name = checked_name(name)
    parsed = Split.parse(split)
    preparation = Preparation(_size(image_size), center_crop, channels, memory_limit_gib)
    _check(preparation)
    if name == DIGITS:
        loaded = Loaded(load_digits(parsed, preparation))
    elif is_path(name):
        from ncsn_tf.data import paths  # here: reading files needs Pillow

        loaded = paths.open_path(name).images(parsed, preparation)
    else:
        from ncsn_tf.data import tfds_images  # here: importing TFDS costs seconds

        loaded = tfds_images.read(name, parsed, preparation, data_dir=data_dir, download=download)
    found = faults.find(loaded.images)
    for fault in [*found.total, *found.partial]:
        warnings.warn(f"The images of {name}, {split}: {fault}", stacklevel=2)
    return ImageSource(name, loaded.images, loaded.formats)


def load_digits(split: Split, preparation: Preparation) -> np.ndarray:
    """The digits of scikit-learn, uint8 [N, 8, 8, 1], grey levels 0..16 scaled to 0..255.

    Every sixth image of each class, in the dataset's order, is held out, so both parts have the same mix of classes:
    always the same 1,501 training and 296 held-out images.
    """
    from sklearn import datasets  # here: importing scikit-learn costs a second

    rows, classes = datasets.load_digits(return_X_y=True)
    levels = np.reshape(rows, (-1, 8, 8, 1))[held_out_digits(classes) == (split.part == "held_out")]
    start, stop = split.bounds(len(levels))
    pictures = np.round(levels[start:stop] * (255 / 16)).astype(np.uint8)
    shape = (*preparation.output_size(8, 8), preparation.channels or 1)
    images = preparation.allocate(len(pictures), shape, DIGITS)
    for i, picture in enumerate(pictures):
        images[i] = preparation.apply(picture)
    return images


def held_out_digits(classes: np.ndarray) -> np.ndarray:
    """Returns which digits are held out, bool [N]: every sixth of a class, given the classes [N] in dataset order."""
    held_out = np.zeros(len(classes), bool)
    for digit in range(10):
        held_out[np.flatnonzero(classes == digit)[5::6]] = True
    return held_out


def _size(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = tuple(image_size) if isinstance(image_size, list | tuple) else (image_size, image_size)
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in sides):
        raise ValueError(f"image_size must be one side or (height, width), in pixels. Received: {image_size!r}.")
    return int(sides[0]), int(sides[1])


def _check(preparation: Preparation) -> None:
    if preparation.image_size is not None and min(preparation.image_size) < 1:
        raise ValueError(f"image_size must be positive, in pixels. Received: {preparation.image_size}.")
    crop = preparation.center_crop
    if crop is not None and (isinstance(crop, bool) or not isinstance(crop, int | np.integer) or crop < 1):
        raise ValueError(f"center_crop must be positive, in whole pixels. Received: {preparation.center_crop}.")
    if preparation.channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 (grey), 3 (colour) or None. Received: {preparation.channels}.")
    if not preparation.memory_limit_gib > 0:  # nor NaN
        raise ValueError(f"memory_limit_gib must be positive. Received: {preparation.memory_limit_gib}.")
