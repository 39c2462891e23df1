"""Checks of a U-Net's arguments, each of which raises ValueError."""

from collections.abc import Mapping, Sequence
from typing import Any

CHOICES = {
    "block": ("biggan", "ddpm"),
    "resampling": ("fir", "plain"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_output": ("none", "output_skip", "residual"),
    "combiner": ("sum", "cat"),
    "embedding": ("log_fourier", "fourier", "positional", "none"),
}
"""The names that arguments of `unet.UNet` may have."""

# Fewer than 4 filters have no group of the default normalisation, and no positional embedding.
_SMALLEST = {"channels": 1, "filters": 4, "blocks": 1}
_SMALLEST_IF_GIVEN = {"groups": 1, "num_classes": 1}


def _is_integer(value: Any, smallest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Checks all arguments but those that depend on the image's size, by name."""
    for name, names in CHOICES.items():
        if arguments[name] not in names:
            raise ValueError(f"UNet needs `{name}` to be one of {', '.join(names)}. Received: {arguments[name]!r}.")
    for name, smallest in {**_SMALLEST, **_SMALLEST_IF_GIVEN}.items():
        value = arguments[name]
        if not (_is_integer(value, smallest) or (value is None and name in _SMALLEST_IF_GIVEN)):
            raise ValueError(f"UNet needs `{name}` to be an integer of at least {smallest}. Received: {value!r}.")
    for name in ("multipliers", "attention"):
        values = arguments[name]
        if not isinstance(values, tuple) or not all(_is_integer(value, 1) for value in values):
            raise ValueError(f"UNet needs `{name}` to be positive integers. Received: {values!r}.")
    if not arguments["multipliers"]:
        raise ValueError("UNet needs a multiplier of the width for each resolution, one at least. Received: ().")
    dropout, init_scale, fourier_scale = (arguments[name] for name in ("dropout", "init_scale", "fourier_scale"))
    if not (_is_number(dropout) and 0 <= dropout < 1):
        raise ValueError(f"UNet needs `dropout` to be in [0, 1), 0 for none. Received: {dropout!r}.")
    if not (_is_number(init_scale) and init_scale >= 0 and _is_number(fourier_scale) and fourier_scale > 0):
        raise ValueError(
            f"UNet needs `init_scale` of at least 0 and `fourier_scale` above 0. Received: {init_scale!r}, "
            f"{fourier_scale!r}."
        )
    _check_output_sigmas(arguments["output_sigmas"])


def _check_output_sigmas(sigmas: Any) -> None:
    if sigmas is None or sigmas == "condition":
        return
    if isinstance(sigmas, tuple) and len(sigmas) == 3:
        largest, smallest, count = sigmas
        if _is_number(largest) and _is_number(smallest) and largest >= smallest > 0 and _is_integer(count, 1):
            return
    raise ValueError(
        "UNet needs `output_sigmas` to be None, 'condition', or the largest and the smallest sigma and the number of "
        f"levels. Received: {sigmas!r}."
    )


def check_image(image_shape: Sequence[int | None], channels: int, levels: int, attention: Sequence[int]) -> None:
    """Checks an image's size.

    Args:
      image_shape: height, width and channels that a network is to be built for.
      channels: those that it was made for.
      levels: its number of resolutions.
      attention: the sides at which it has attention.
    """
    if len(image_shape) != 3 or None in image_shape or image_shape[-1] != channels:
        raise ValueError(
            f"UNet is built for images [B, H, W, {channels}] of one size. Received: (None, "
            f"{', '.join(map(str, image_shape))})."
        )
    height, width = (int(side or 0) for side in image_shape[:2])
    factor = 2 ** (levels - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"UNet halves the image {levels - 1} times, so {factor} must divide height and width: pad the images, or "
            f"leave out multipliers. Received: {height}x{width}."
        )
    sides = [min(height, width) >> level for level in range(levels)]
    missing = [side for side in attention if side not in sides]
    if missing:
        raise ValueError(
            f"UNet has feature maps whose shorter sides are {', '.join(map(str, sides))}: choose `attention` among "
            f"them. Received: {', '.join(map(str, attention))}."
        )
