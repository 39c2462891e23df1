"""The flags that name images apart from a run; import it to have them."""

from typing import Any

from absl import flags

NAME = flags.DEFINE_string("data_name", None, "'digits', a TFDS dataset, a folder of images, or TFRecords.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS datasets are prepared.")
_DOWNLOAD = flags.DEFINE_bool("download", False, "Let TFDS download and prepare what is not there.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Resize the images to this side.", 1)
_CENTER_CROP = flags.DEFINE_integer("center_crop", None, "Side of a square cut out before resizing.", 1)
_CHANNELS = flags.DEFINE_integer("channels", None, "1 or 3 converts between grey and colour.", 1, 3)


def preparation() -> dict[str, Any]:
    """How images are cropped, resized and converted, as `images.load` takes it."""
    return {"image_size": _IMAGE_SIZE.value, "center_crop": _CENTER_CROP.value, "channels": _CHANNELS.value}


def location() -> dict[str, Any]:
    """Where datasets lie and whether they may be downloaded, as `images.load` takes it."""
    return {"data_dir": _DATA_DIR.value, "download": _DOWNLOAD.value}


def load(split: str):
    """A split of the flags' images; raises ValueError as `images.load` does."""
    from ncsn_tf.data import images

    return images.load(str(NAME.value), split, **location(), **preparation())


def refuse_without_name() -> None:
    """Raises ValueError if flags say more of a dataset that is not named."""
    given = [name for name, value in (preparation() | location()).items() if value]
    if NAME.value is None and given:
        raise ValueError(f"{', '.join(f'--{name}' for name in given)} say more of --data_name, which is not given.")
