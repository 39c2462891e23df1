"""Faults of images that were read wrongly, or of a model that has collapsed."""

import dataclasses
import zlib

import numpy as np

_AT_ONCE = 4096  # bounds the memory of the comparisons
_DARK = 16  # a picture of 16 bits that holds values of 12 bits has no level above 15, but perhaps a dead pixel
_FEW = 0.01


@dataclasses.dataclass(frozen=True)
class Faults:
    """Faults of images, as sentences without a capital letter and a full stop.

    Attributes:
      total: faults that all images share and that make every statistic meaningless.
      partial: faults of some of them, or of their range.
    """

    total: list[str]
    partial: list[str]


def find(images: np.ndarray) -> Faults:
    """Looks for equal images, images of one colour, and images in a small part of the range.

    Args:
      images: uint8 [N, H, W, C], N at least 1; a single image has no total fault.
    """
    count = len(images)
    constant = dark = 0
    checksums = set()
    for start in range(0, count, _AT_ONCE):
        rows = images[start : start + _AT_ONCE].reshape(-1, images[0].size // images.shape[-1], images.shape[-1])
        flat = (rows == rows[:, :1]).all(axis=(1, 2))
        constant += int(flat.sum())
        dark += int((((rows >= _DARK).mean(axis=(1, 2)) < _FEW) & ~flat).sum())
        checksums.update(zlib.crc32(np.ascontiguousarray(row).data) for row in rows)
    total, partial = [], []
    if len(checksums) == 1 < count:
        total.append(f"all {count} images are the same")
    elif constant == count > 1:
        total.append(f"all {count} images are of one colour each")
    largest = int(images.max())
    if largest < 128:
        partial.append(
            f"no value is above {largest} of 255: were the images scaled twice, or not at all, or do files of 16 bits "
            "hold values of fewer?"
        )
    elif dark:
        partial.append(f"{dark} of {count} images have hardly a value above {_DARK - 1} of 255")
    if 0 < constant < count:
        partial.append(f"{constant} of {count} images are of one colour each")
    if 1 < len(checksums) < 0.99 * count:
        partial.append(f"of {count} images only {len(checksums)} are distinct")
    return Faults(total, partial)
