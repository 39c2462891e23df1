"""Encoded pictures of every format that Pillow reads, and the common shape of a dataset of them."""

import contextlib
import dataclasses
import functools
import io
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ncsn_tf.data import levels
from ncsn_tf.data.preparation import Preparation

_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_EXIF_ORIENTATION = 0x0112
_STUBS = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow only identifies, or reads through a program of the system."""
_SIGNED = ("AVIF", "BMP", "DDS", "GIF", "ICNS", "JPEG", "JPEG2000", "PNG", "PPM", "PSD", "QOI", "SGI", "TIFF", "WEBP")
"""Formats whose content identifies them without a suffix."""
_WITH_FRAMES = ("AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP")


class _LevelsError(ValueError):
    """The levels of an intact picture are in a range that is not known."""


@dataclasses.dataclass(frozen=True)
class Header:
    """A picture's properties before decoding.

    Attributes:
      where: names the picture in messages.
      height: in pixels, after the camera's orientation is applied.
      width: likewise.
      channels: 1 for grey, 3 for colour.
      format: Pillow's name of the format, such as "JPEG"; "" for raw bytes.
      frames: the number of frames or pages.
    """

    where: str
    height: int
    width: int
    channels: int
    format: str = ""
    frames: int = 1


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of the formats that Pillow can read here, such as ".png", in lower case."""
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in _STUBS
    )


def recognises(path: str) -> bool:
    """Returns whether the content of a file, whatever its suffix, is a picture of a common format."""
    try:
        with any_size(), Image.open(path, formats=_SIGNED):
            return True
    except Exception:  # as in `inspect`
        return False


@contextlib.contextmanager
def any_size() -> Iterator[None]:
    """Lifts Pillow's limit of 179 million pixels: the memory limit of a dataset's `Preparation` takes its place.

    The limit is an option of the whole process; it is put back at the end.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


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
            name = image.format or ""
            frames = getattr(image, "n_frames", 1) if name in _WITH_FRAMES else 1
            return Header(where, height, width, 1 if is_grey else 3, name, frames)
    except Exception as error:  # decoders raise whatever a damaged file provokes: OSError, SyntaxError, struct.error
        raise _damaged(where, error) from error


def decode(encoded: str | bytes, channels: int, where: str) -> np.ndarray:
    """Decodes a picture, or the first frame of an animation.

    Every format becomes 8-bit grey or RGB: 16-bit levels are divided by 257, floats from 0 to 1 rounded, palettes
    looked up, CMYK converted, transparent parts shown on white, and the camera's orientation applied.

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
    except _LevelsError as error:
        raise ValueError(f"{where}: {error}") from error
    except Exception as error:  # as above
        raise _damaged(where, error) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def common_shape(headers: Sequence[Header], preparation: Preparation) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) at which all pictures are stored, and warns of pictures with several frames.

    Raises:
      ValueError: if the prepared pictures differ in size, if one is smaller than the crop or too large to be decoded,
        or if their channels cannot be converted into each other.
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
        needed = header.height * header.width * header.channels / 2**30
        if needed > preparation.memory_limit_gib:
            raise ValueError(
                f"{header.where} has {header.height}x{header.width} pixels, which need {needed:.3g} GiB to be decoded; "
                f"the limit is {preparation.memory_limit_gib:g} GiB. Scale it down, or raise memory_limit_gib."
            )
    several = [header for header in headers if header.frames > 1]
    if several:
        warnings.warn(
            f"{len(several)} of {len(headers)} pictures have several frames, such as {several[0].where} with "
            f"{several[0].frames}; only the first of each is read. Save the others as pictures of their own if they "
            "belong to the data.",
            stacklevel=3,
        )
    return (*size, preparation.channels or max(channels))


def _prepared_size(header: Header, preparation: Preparation) -> tuple[int, int]:
    try:
        return preparation.output_size(header.height, header.width)
    except ValueError as error:
        raise ValueError(f"{header.where}: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    found = np.asarray(image)
    if image.mode == "F":
        try:
            return Image.fromarray(levels.floats_as_bytes(found))
        except ValueError as error:
            raise _LevelsError(str(error)) from error
    if found.min() < 0 or found.max() > 65535:
        raise _LevelsError(
            f"Levels must be of 16 bits at most. Received: values from {found.min()} to {found.max()}. Save the image "
            "with 8 or 16 bits per channel."
        )
    return Image.fromarray(((found.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _stream(encoded: str | bytes) -> str | io.BytesIO:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded


def _damaged(where: str, error: Exception) -> ValueError:
    if isinstance(error, UnidentifiedImageError):
        return ValueError(
            f"{where} cannot be read as an image (its content is of no format that Pillow reads). Replace or remove it."
        )
    if isinstance(error, OSError) and error.strerror:
        return ValueError(f"{where} cannot be opened ({error.strerror}). Give access to it, replace or remove it.")
    return ValueError(f"{where} cannot be read as an image ({type(error).__name__}: {error}). Replace or remove it.")
