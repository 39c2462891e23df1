"""Encoded pictures (PNG, JPEG, BMP, GIF, WebP), read with Pillow, and the common shape of a dataset of them."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from ncsn_tf.data.preparation import Preparation

_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_EXIF_ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True)
class Header:
    """A picture's properties before decoding: its location (for messages), height, width and channels."""

    where: str
    height: int
    width: int
    channels: int


def inspect(encoded: str | bytes, where: str) -> Header:
    """Reads a picture's size, after its EXIF orientation, and its channels: 1 if its format is grey, 3 otherwise.

    Args:
      encoded: a file's path, or its bytes.
      where: names the picture in messages.

    Raises:
      ValueError: if it cannot be read as a picture.
    """
    try:
        with Image.open(_stream(encoded)) as image:
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS:
                width, height = height, width
            is_grey = image.mode in _GREY_MODES or image.mode.startswith("I;")
            return Header(where, height, width, 1 if is_grey else 3)
    except Exception as error:  # decoders raise whatever a damaged file provokes: OSError, SyntaxError, struct.error
        raise _damaged(where, error) from error


def decode(encoded: str | bytes, channels: int, where: str) -> np.ndarray:
    """Decodes a picture, or the first frame of an animation.

    Every format becomes 8-bit grey or RGB: 16-bit levels are divided by 257, palettes looked up, CMYK converted,
    transparent parts shown on white, and the camera's orientation applied.

    Args:
      encoded: a file's path, or its bytes.
      channels: 1 for grey, 3 for RGB.
      where: names the picture in messages.

    Returns:
      uint8 [H, W, channels].

    Raises:
      ValueError: if the picture is damaged, or its levels exceed 16 bits.
    """
    try:
        with Image.open(_stream(encoded)) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
            if image.mode.startswith("I") or image.mode == "F":
                image = _eight_bits(image)
            elif image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # as above
        raise _damaged(where, error) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def common_shape(headers: Sequence[Header], preparation: Preparation) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) at which all pictures are stored.

    Raises:
      ValueError: if the prepared pictures differ in size, if one is smaller than the crop, or if their channels cannot
        be converted into each other.
    """
    first = headers[0]
    size = _prepared_size(first, preparation)
    channels = {header.channels for header in headers}
    for header in headers:
        if _prepared_size(header, preparation) != size:
            raise ValueError(
                f"The images have different sizes: {first.where} has {first.height}x{first.width} pixels, "
                f"{header.where} {header.height}x{header.width}. Give image_size (to resize) or center_crop (to cut) "
                "to make them equal."
            )
        if header.channels != first.channels and not channels <= {1, 3}:
            raise ValueError(
                f"The images have different numbers of channels: {first.where} has {first.channels}, {header.where} "
                f"{header.channels}. Only 1 and 3 can be converted into each other."
            )
    return (*size, preparation.channels or max(channels))


def _prepared_size(header: Header, preparation: Preparation) -> tuple[int, int]:
    try:
        return preparation.output_size(header.height, header.width)
    except ValueError as error:
        raise ValueError(f"{header.where}: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"levels of mode {image.mode} exceed 16 bits; save the image with 8 or 16 bits per channel")
    return Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _stream(encoded: str | bytes) -> str | io.BytesIO:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded


def _damaged(where: str, error: Exception) -> ValueError:
    return ValueError(f"{where} cannot be read as an image ({type(error).__name__}: {error}). Replace or remove it.")
