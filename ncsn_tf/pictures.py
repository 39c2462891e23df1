"""Pictures of images: grids, the trajectory of a sampler, animations."""

import contextlib
import math
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ncsn_tf import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMALLEST_TILE = 32
"""Images smaller than this are enlarged by a whole factor, so that a person sees their pixels."""


def tile(images: np.ndarray, columns: int | None = None, border: int = 1) -> np.ndarray:
    """Lays images out in a grid.

    Args:
      images: uint8 [N, H, W, C]. One channel is grey, three are RGB; any other number is shown side by side in grey.
      columns: images per row; by default those of the smallest square that holds all images.
      border: width of the white lines between images, in pixels.

    Returns:
      uint8 [height, width, 3], filled row by row.

    Raises:
      ValueError: if `images` is not a non-empty uint8 batch.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise ValueError(f"A grid needs uint8 images [N, H, W, C]. Received: {images.dtype} {images.shape}.")
    if images.shape[-1] not in (1, 3):
        images = np.concatenate(np.split(images, images.shape[-1], axis=-1), axis=2)
    images = np.broadcast_to(images, (*images.shape[:-1], 3))
    factor = max(1, math.ceil(_SMALLEST_TILE / min(images.shape[1:3])))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, _ = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + border) + border, columns * (width + border) + border, 3), 255, np.uint8)
    for position, image in enumerate(images):
        top = (position // columns) * (height + border) + border
        left = (position % columns) * (width + border) + border
        canvas[top : top + height, left : left + width] = image
    return canvas


def save_grid(path: pathlib.Path, images: np.ndarray, columns: int | None = None) -> None:
    """Writes `tile(images, columns)` as a PNG, atomically."""
    with files.replacing(path) as partial:
        Image.fromarray(tile(images, columns)).save(partial, format="PNG")


@contextlib.contextmanager
def drawn(width: float, height: float) -> "Iterator[Figure]":
    """Yields a new figure of Matplotlib to draw on; in the block, Matplotlib has its default settings, not a user's.

    Args:
      width: the figure's width in inches.
      height: its height in inches.
    """
    with _default_settings():
        from matplotlib.figure import Figure

        yield Figure(figsize=(width, height), layout="constrained")


@contextlib.contextmanager
def _default_settings() -> Iterator[None]:
    """Within it, Matplotlib has its own defaults, apart from the backend, which figures without a window do not use."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context({key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}):
        yield


def _matplotlib() -> Any:
    """The module; a backend of MPLBACKEND that it does not know, which would stop its import, is left out.

    Raises:
      ImportError: if its settings file cannot be read.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except ValueError as error:
        raise ImportError(
            f"Matplotlib cannot be imported: {error}. Correct its settings file, matplotlibrc."
        ) from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # as its import does
    return matplotlib


def save_figure(path: pathlib.Path, figure: "Figure") -> None:
    """Writes a figure of Matplotlib as a PNG, atomically, whatever a user's settings of Matplotlib are."""
    with files.replacing(path) as partial, _default_settings():
        figure.savefig(partial, dpi=120, bbox_inches="tight", format="png")


def save_trajectory(path: pathlib.Path, frames: np.ndarray) -> None:
    """Writes a sampler's trajectory as a PNG: rows are samples, columns levels (Song & Ermon 2019, Figure 4).

    Args:
      path: the file to write.
      frames: uint8 [levels, N, H, W, C].
    """
    by_sample = np.swapaxes(frames, 0, 1)
    save_grid(path, by_sample.reshape(-1, *frames.shape[2:]), columns=len(frames))


def save_animation(path: pathlib.Path, frames: np.ndarray, milliseconds: int = 250) -> None:
    """Writes a sampler's trajectory as a looping GIF of grids, whose last frame is shown longer.

    Args:
      path: the file to write.
      frames: uint8 [levels, N, H, W, C].
      milliseconds: the duration of each frame; the last is shown eight times as long.
    """
    grids = [Image.fromarray(tile(frame)) for frame in frames]
    durations = [milliseconds] * (len(grids) - 1) + [8 * milliseconds]
    with files.replacing(path) as partial:
        grids[0].save(partial, format="GIF", save_all=True, append_images=grids[1:], duration=durations, loop=0)
