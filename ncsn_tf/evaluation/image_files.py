"""Reads images written by any program, and checks them before anything is measured."""

import pathlib
import zlib

import numpy as np

from ncsn_tf.data import folder
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.evaluation import EvaluationError

_NAMES = ("samples", "images", "arr_0")
"""The names of the array of images in an `.npz`, in order of preference; a single array may have any name."""
_ROUNDING = 1e-3


class ImagesError(EvaluationError):
    """Images from which no meaningful metric can be computed."""


def read(path: str | pathlib.Path, fit: tuple[int, int, int] | None = None) -> np.ndarray:
    """Reads images from a folder (every image file in it and its subfolders), a picture, an `.npz` or an `.npy`.

    Args:
      path: the folder or file. Arrays are [N, H, W, C], C 1 or 3, or grey [N, H, W]: bytes, or floats from 0 to 1.
      fit: (H, W, C) to which the pictures of a folder or file are cropped, resized and converted; None leaves them
        unchanged, and all must have one size. Arrays are always left unchanged.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      ImagesError: if the path does not exist, an array has another shape, or its values are in another range; the
        message says what was received.
      ValueError: if images cannot be decoded or differ in size.
    """
    path = pathlib.Path(path).expanduser()
    preparation = Preparation() if fit is None else Preparation(image_size=fit[:2], channels=fit[2])
    if path.is_dir():
        return folder.read_all(str(path), preparation)
    if not path.is_file():
        raise ImagesError(
            f"There are no images at {path}: neither a folder of images nor a picture, .npz or .npy file."
        )
    if path.suffix.lower() in folder.SUFFIXES:
        return folder.read_files([str(path)], preparation, str(path))
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else _chosen(loaded, path)
    except ImagesError:
        raise
    except Exception as error:  # a damaged archive raises whatever zipfile, zlib or NumPy raise
        raise ImagesError(f"{path} cannot be read as .npz or .npy ({type(error).__name__}: {error}).") from error
    return as_bytes(array)


def _chosen(archive, path: pathlib.Path) -> np.ndarray:
    with archive:
        names = [name for name in _NAMES if name in archive.files] or archive.files
        if len(names) > 1 and names[0] not in _NAMES or not names:
            raise ImagesError(f"{path} holds {archive.files}; name the images one of {', '.join(_NAMES)}.")
        return archive[names[0]]


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Images as uint8 [N, H, W, C]; floats from 0 to 1 are rounded to the nearest of 256 levels.

    Raises:
      ImagesError: for other shapes and for values in another range, which is never guessed.
    """
    if images.ndim == 3 and {images.shape[0], images.shape[-1]} & {1, 3}:
        raise ImagesError(
            f"An array {images.shape} may be one image or many grey images. Give [N, H, W, C], with N or C equal to 1."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.size == 0:
        raise ImagesError(f"Images must be [N, H, W, C], no dimension 0. Received: {images.dtype} {images.shape}.")
    if images.shape[-1] not in (1, 3):
        hint = " They look like [N, C, H, W]: transpose them." if images.shape[1] in (1, 3) else ""
        raise ImagesError(f"Images must have 1 or 3 channels, as the last axis. Received: {images.shape}.{hint}")
    if images.dtype.kind == "f":
        return _floats_as_bytes(images)
    if images.dtype.kind not in "iu":
        raise ImagesError(f"Images must be bytes, or floats from 0 to 1. Received: {images.dtype}.")
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255:
        raise ImagesError(f"Whole numbers must be bytes, 0 to 255. Received: values from {low} to {high}.")
    if high == 1:
        raise ImagesError("The images are whole numbers 0 and 1. Scale them to 0 and 255, or give floats from 0 to 1.")
    return images.astype(np.uint8)


def _floats_as_bytes(images: np.ndarray) -> np.ndarray:
    broken = images.size - int(np.isfinite(images).sum())
    if broken:
        raise ImagesError(f"{broken} of {images.size} values are NaN or infinite. Find out why they diverged.")
    low, high = float(images.min()), float(images.max())
    if low < -_ROUNDING or high > 1.0 + _ROUNDING:
        if low >= -1.0 - _ROUNDING and high <= 1.0 + _ROUNDING:
            hint = "they look like -1 to 1: give (x + 1) / 2"
        elif low >= -_ROUNDING and high <= 255.5:
            hint = "they look like 0 to 255: give them as uint8"
        else:
            hint = "clip them to 0 to 1 if the program that made them does so"
        raise ImagesError(f"Floats must be from 0 to 1. Received: values from {low:.4g} to {high:.4g}; {hint}.")
    return np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def check(images: np.ndarray) -> list[str]:
    """Checks images, uint8 [N, H, W, C], for faults that make every metric meaningless.

    Returns:
      One line per lesser fault, which only makes the metrics worse.

    Raises:
      ImagesError: for a single image, for images that are all the same, and for images that are each of one colour.
    """
    count = len(images)
    if count < 2:
        raise ImagesError(f"A distribution cannot be estimated from {count} image. Give many.")
    rows = images.reshape(count, -1, images.shape[-1])
    constant = int((rows == rows[:, :1]).all(axis=(1, 2)).sum())
    distinct = len({zlib.crc32(np.ascontiguousarray(image).data) for image in images})
    if distinct == 1:
        raise ImagesError(f"All {count} images are the same. Their model has collapsed, or they were read wrongly.")
    if constant == count:
        raise ImagesError(
            f"All {count} images are of one colour each. Their model has diverged, or they were read wrongly."
        )
    found = []
    if (largest := int(images.max())) < 128:
        found.append(f"no value is above {largest} of 255: were the images scaled twice, or not at all?")
    if constant:
        found.append(f"{constant} of {count} images are of one colour each")
    if distinct < 0.99 * count:
        found.append(f"of {count} images only {distinct} are distinct")
    return found
