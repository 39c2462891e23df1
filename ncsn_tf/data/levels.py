"""Bytes from the levels of any program's images; what is ambiguous is refused, never guessed."""

import numpy as np

_ROUNDING = 1e-3
_MOST_CHANNELS = 4


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Returns images as uint8 [N, H, W, C]; floats from 0 to 1 are rounded to the nearest of 256 levels.

    Args:
      images: [N, H, W, C] with C 1 or 3, or grey [N, H, W]: bytes of any integer dtype, or floats from 0 to 1.

    Raises:
      ValueError: for other shapes, and for values in another range.
    """
    images = with_channels(images)
    if images.dtype.kind == "f":
        return floats_as_bytes(images)
    if images.dtype.kind not in "iu":
        raise ValueError(f"Images must be bytes, or floats from 0 to 1. Received: {images.dtype}.")
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255:
        raise ValueError(f"Whole numbers must be bytes, 0 to 255. Received: values from {low} to {high}.")
    if high == 1:
        raise ValueError("The images are whole numbers 0 and 1. Scale them to 0 and 255, or give floats from 0 to 1.")
    return images.astype(np.uint8)


def with_channels(images: np.ndarray) -> np.ndarray:
    """Returns images as [N, H, W, C], C 1 or 3, grey ones [N, H, W] with an axis added; otherwise as `as_bytes`."""
    if images.ndim == 3 and {images.shape[0], images.shape[-1]} & {1, 3}:
        raise ValueError(
            f"An array {images.shape} may be one image or many grey images. Give [N, H, W, C], with N or C equal to 1."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.size == 0:
        raise ValueError(f"Images must be [N, H, W, C], no dimension 0. Received: {images.dtype} {images.shape}.")
    if images.shape[-1] not in (1, 3):
        hint = " They look like [N, C, H, W]: transpose them." if images.shape[1] in (1, 3) else ""
        raise ValueError(f"Images must have 1 or 3 channels, as the last axis. Received: {images.shape}.{hint}")
    return images


def floats_as_bytes(images: np.ndarray) -> np.ndarray:
    """Rounds floats from 0 to 1, of any shape, to the nearest of 256 levels; raises ValueError for other values."""
    broken = images.size - int(np.isfinite(images).sum())
    if broken:
        raise ValueError(f"{broken} of {images.size} values are NaN or infinite. Find out why they diverged.")
    low, high = float(images.min()), float(images.max())
    if low < -_ROUNDING or high > 1.0 + _ROUNDING:
        if low >= -1.0 - _ROUNDING and high <= 1.0 + _ROUNDING:
            hint = "they look like -1 to 1: give (x + 1) / 2"
        elif low >= -_ROUNDING and 2.0 < high <= 255.5:
            hint = "they look like 0 to 255: give them as uint8"
        else:
            hint = "clip them to 0 to 1 if the program that made them does so"
        raise ValueError(f"Floats must be from 0 to 1. Received: values from {low:.4g} to {high:.4g}; {hint}.")
    return np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def check_channels_last(shape: tuple[int, ...], where: str) -> None:
    """Raises ValueError if the shape of one raw image, said to be [H, W, C], may have another order of its sides."""
    if shape[-1] > _MOST_CHANNELS or (shape[-1] not in (1, 3) and shape[0] in (1, 3)):
        raise ValueError(
            f"{where} has the shape {list(shape)}, which must be [height, width, channels] and does not look like it: "
            "the channels may come first. Write the image with its channels last, or give its sides in the features "
            "'height', 'width' and 'depth', which may be any."
        )
