"""Masks of the known pixels of images: True where a pixel is known."""

import math
import os

import numpy as np
import tensorflow as tf
from PIL import Image

from ncsn_tf import files, random
from ncsn_tf.guidance.names import MASKS

_STROKES = 3
_CORNERS = 4


def make(name: str, shape: tuple[int, int, int], count: int, *, share: float = 0.5, run_seed: int = 0) -> np.ndarray:
    """Masks for a batch of images.

    Args:
      name: one of `names.MASKS`. "random" keeps each pixel with probability `share`, in all its channels; "strokes"
        leaves out three polylines with random corners, a sixth of the image wide. Both differ from image to image.
      shape: (H, W, C) of an image.
      count: the number of masks.
      share: the share of the pixels that "random" keeps, in (0, 1).
      run_seed: mask i depends only on (run_seed, i).

    Returns:
      bool [count, H, W, 1].

    Raises:
      ValueError: for an unknown name, a share out of range, or an image too small for the mask.
    """
    height, width, _ = shape
    if name not in MASKS:
        raise ValueError(f"A mask must be one of {', '.join(MASKS)}, or a picture. Received: {name!r}.")
    if not 0.0 < share < 1.0:
        raise ValueError(f"The share of known pixels must be in (0, 1). Received: {share}.")
    rows, columns = np.mgrid[:height, :width]
    fixed = {
        "left": columns < width // 2,
        "right": columns >= width - width // 2,
        "top": rows < height // 2,
        "bottom": rows >= height - height // 2,
        "centre": ~(_middle(rows, height) & _middle(columns, width)),
    }
    seeds = random.per_example(random.fold(random.seed(run_seed), random.Stream.MASK), tf.range(count))
    if name == "random":
        known = random.uniform(seeds, (height, width)).numpy() < share
        known.reshape(count, -1)[:, 0] |= ~known.any(axis=(1, 2))  # a mask needs a known pixel,
        known.reshape(count, -1)[:, -1] &= ~known.all(axis=(1, 2))  # and an unknown one
    elif name == "strokes":
        corners = random.uniform(seeds, (_STROKES, _CORNERS, 2)).numpy() * [height, width]
        known = np.stack([_distance_to_lines(rows, columns, lines) > min(height, width) / 12 for lines in corners])
    else:
        known = np.broadcast_to(fixed[name], (count, height, width))
    if known.all(axis=(1, 2)).any() or not known.any(axis=(1, 2)).all():
        raise ValueError(f"Images {shape} are too small for the mask {name!r}: no pixel, or every one, would be known.")
    return known[..., None]


def read(path: str | os.PathLike, shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Reads a picture as the mask of every image: white is known, black is unknown.

    Returns:
      bool [count, H, W, 1].

    Raises:
      ValueError: if it cannot be read, has another size than the images, is all white or all black, or has grey pixels.
    """
    path = files.local_path(path)
    if not path.exists():
        raise ValueError(f"There is no picture at {path}. A mask is a picture or one of {', '.join(MASKS)}.")
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture.convert("L"))
    except (OSError, ValueError) as error:
        raise ValueError(f"The mask {path} cannot be read as a picture: {error}.") from error
    if values.shape != shape[:2]:
        raise ValueError(f"A mask must have the (height, width) of the images, {shape[:2]}. {path} is {values.shape}.")
    between = np.sum((values > 31) & (values < 224))
    if between or values.min() == values.max() or (values > 127).all() or not (values > 127).any():
        raise ValueError(
            f"A mask must be white where the image is known, black elsewhere. {path} has {np.sum(values >= 224)} "
            f"white, {np.sum(values <= 31)} black and {between} other pixels."
        )
    return np.broadcast_to(values > 127, (count, *values.shape))[..., None]


def _middle(coordinate: np.ndarray, size: int) -> np.ndarray:
    hole = size // 2
    return (coordinate >= (size - hole) // 2) & (coordinate < (size - hole) // 2 + hole)


def _distance_to_lines(rows: np.ndarray, columns: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """The distance of each pixel's centre from the nearest of the polylines, [lines, corners, 2]; float [H, W]."""
    pixels = np.stack([rows + 0.5, columns + 0.5], axis=-1)
    nearest = np.full(rows.shape, math.inf)
    for line in lines:
        for start, stop in zip(line[:-1], line[1:], strict=True):
            along = stop - start
            part = np.clip((pixels - start) @ along / max(along @ along, 1e-12), 0.0, 1.0)
            nearest = np.minimum(nearest, np.linalg.norm(pixels - start - part[..., None] * along, axis=-1))
    return nearest
