"""The contract of a reader of datasets that are given by a path."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.splits import Split


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Images in memory.

    Attributes:
      images: uint8 [N, H, W, C].
      formats: the number of images per format of their files, such as {"JPEG": 12}; empty if they were not encoded.
    """

    images: np.ndarray
    formats: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Reader(Protocol):
    """A dataset at a path, divided into "train" and "held_out"."""

    def images(self, split: Split, preparation: Preparation) -> Loaded:
        """Reads the images of a split; raises ValueError with the file that cannot be read, or the reason."""
        ...

    def labels(self, split: Split) -> tuple[np.ndarray, int]:
        """The classes of these images, int32 [N], and the number of classes; raises ValueError if there are none."""
        ...


def count_formats(formats: Iterable[str]) -> dict[str, int]:
    """The number of images per format, without those of no format, ""."""
    return dict(collections.Counter(name for name in formats if name))


def checked_labels(values: np.ndarray, count: int, where: str) -> np.ndarray:
    """Returns the labels of `count` images as int32 [N].

    Raises:
      ValueError: unless they are one whole number per image, none of them negative.
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iu" or len(values) != count:
        hint = " Take the argmax of one-hot rows." if values.ndim == 2 else ""
        raise ValueError(
            f"{where} must be one whole number per image, [{count}]. Received: {values.dtype} {values.shape}.{hint}"
        )
    if count and (values.min() < 0 or values.max() > 2**31 - 1):
        raise ValueError(f"{where} must count the classes from 0. Received: {values.min()} to {values.max()}.")
    return values.astype(np.int32)
