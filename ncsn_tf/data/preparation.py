"""Preparation of decoded pictures as rows of the image array: crop, resize, channels, and the memory for it."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Preparation:
    """The steps applied to every picture of a dataset before it is stored.

    Attributes:
      image_size: (height, width) to resize to, or None to keep the size.
      center_crop: the side in pixels of a central square cut out before resizing, or None.
      channels: 1 or 3 to convert between grey and colour, or None to keep the picture's channels.
      memory_limit_gib: the most memory, in GiB, that a dataset's array may take.
    """

    image_size: tuple[int, int] | None = None
    center_crop: int | None = None
    channels: int | None = None
    memory_limit_gib: float = 8.0

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size at which a picture of (height, width) pixels is stored.

        Raises:
          ValueError: if the picture is smaller than `center_crop`.
        """
        if self.center_crop is not None:
            if self.center_crop > min(height, width):
                raise ValueError(
                    f"center_crop={self.center_crop} is larger than an image of {height}x{width} pixels; "
                    f"use at most {min(height, width)}."
                )
            height = width = self.center_crop
        return self.image_size or (height, width)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Crops, resizes and converts one picture.

        The central square is cut first if `center_crop` is set. Resizing keeps proportions: the largest central
        rectangle of the target's aspect ratio is scaled, with the antialiasing triangle filter of Pillow.

        Args:
          picture: uint8 [H, W, C].

        Returns:
          uint8 [H', W', C'].
        """
        target = self.output_size(*picture.shape[:2])
        if self.center_crop is not None:
            top, left = ((side - self.center_crop) // 2 for side in picture.shape[:2])
            picture = picture[top : top + self.center_crop, left : left + self.center_crop]
        return convert_channels(_resize(picture, target), self.channels)

    def allocate(self, count: int, shape: Sequence[int], what: str) -> np.ndarray:
        """Returns an uninitialised array for `count` images of `shape`, (H, W, C).

        Raises:
          ValueError: if it would need more than `memory_limit_gib`.
        """
        needed_gib = count * float(np.prod(shape, dtype=np.float64)) / 2**30
        if needed_gib > self.memory_limit_gib:
            raise ValueError(
                f"{what} has {count} images of shape {tuple(map(int, shape))}, which need {needed_gib:.3g} GiB of "
                f"memory; the limit is {self.memory_limit_gib:g} GiB. Choose a smaller image_size, a part of the "
                "split such as split='train[:50000]' or 'train[:10%]', or raise memory_limit_gib."
            )
        return np.empty((count, *shape), np.uint8)


def convert_channels(picture: np.ndarray, channels: int | None) -> np.ndarray:
    """Converts grey to colour by repetition, colour to grey by ITU-R 601 luma; uint8 [H, W, C] to [H, W, channels].

    Raises:
      ValueError: for a conversion other than between 1 and 3 channels.
    """
    present = picture.shape[-1]
    if channels is None or channels == present:
        return picture
    if (present, channels) == (1, 3):
        return np.repeat(picture, 3, axis=-1)
    if (present, channels) == (3, 1):
        # Integer weights that add up to 2^16, rounded: the same on every machine.
        luma = (picture.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 2**15) >> 16
        return luma.astype(np.uint8)[..., None]
    raise ValueError(
        f"Only 1 and 3 channels convert into each other. Received channels={channels} for images with {present} "
        "channels; leave channels unset to keep them."
    )


def _resize(picture: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Scales the largest central rectangle of the target's aspect ratio; uint8 [H, W, C] to uint8 [*target, C]."""
    height, width, channels = picture.shape
    if (height, width) == target:
        return picture
    from PIL import Image  # here: the embedded digits need no Pillow

    scale = max(target[0] / height, target[1] / width)
    box_height, box_width = target[0] / scale, target[1] / scale
    top, left = max(0.0, (height - box_height) / 2), max(0.0, (width - box_width) / 2)
    box = (left, top, min(float(width), left + box_width), min(float(height), top + box_height))

    def scaled(plane: np.ndarray) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(plane))
        return np.asarray(image.resize((target[1], target[0]), Image.Resampling.BILINEAR, box=box))

    if channels == 3:
        return scaled(picture)
    return np.stack([scaled(picture[..., c]) for c in range(channels)], axis=-1)
