"""Reads images written by any program, and checks them before anything is measured."""

import os
import pathlib

import numpy as np

from ncsn_tf import files
from ncsn_tf.data import arrays, decoding, faults, folder, levels, listing
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.readers import Loaded
from ncsn_tf.evaluation import EvaluationError


class ImagesError(EvaluationError):
    """Images from which no meaningful metric can be computed."""


def read(path: str | os.PathLike, fit: tuple[int, int, int] | None = None) -> Loaded:
    """Reads images from a folder (every picture in it and its subfolders), a picture, an `.npz` or an `.npy`.

    Args:
      path: the folder or file. Arrays are [N, H, W, C], C 1 or 3, or grey [N, H, W]: bytes, or floats from 0 to 1.
      fit: (H, W, C) to which the pictures of a folder or file are cropped, resized and converted; None leaves them
        unchanged, and all must have one size. Arrays are always left unchanged.

    Raises:
      ImagesError: if the path does not exist, an array has another shape, or its values are in another range; the
        message says what was received.
      ValueError: if images cannot be decoded or differ in size.
    """
    place = str(files.local_path(path))
    preparation = Preparation() if fit is None else Preparation(image_size=fit[:2], channels=fit[2])
    if os.path.isdir(place):
        return folder.read_all(place, preparation)
    if not os.path.isfile(place):
        raise ImagesError(
            f"There are no images at {place}: neither a folder of images nor a picture, .npz or .npy file."
        )
    suffix = pathlib.Path(place).suffix.lower()
    if suffix in decoding.suffixes() or (suffix not in listing.ARRAYS and decoding.recognises(place)):
        return folder.read_files([place], preparation, place)
    try:
        found = arrays.entries(os.path.dirname(place), os.path.basename(place))
        return Loaded(levels.as_bytes(arrays.images_among(found, place).load()))
    except ValueError as error:
        raise ImagesError(str(error)) from error


def check(images: np.ndarray) -> list[str]:
    """Checks images, uint8 [N, H, W, C], for faults that make every metric meaningless.

    Returns:
      One line per lesser fault, which only makes the metrics worse.

    Raises:
      ImagesError: for a single image, for images that are all the same, and for images that are each of one colour.
    """
    if len(images) < 2:
        raise ImagesError(f"A distribution cannot be estimated from {len(images)} image. Give many.")
    found = faults.find(images)
    if found.total:
        raise ImagesError(
            f"{found.total[0].capitalize()}. Their model has collapsed or diverged, or they were read wrongly."
        )
    return found.partial
