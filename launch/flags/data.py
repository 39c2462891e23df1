"""The flags that name images apart from a run."""

import dataclasses
from typing import TYPE_CHECKING, Any

from absl import flags

from . import paths, size

if TYPE_CHECKING:
    from ncsn_tf.data.images import ImageSource


@dataclasses.dataclass(frozen=True)
class Images:
    """The flags of images, defined."""

    name: flags.FlagHolder
    data_dir: flags.FlagHolder
    download: flags.FlagHolder
    image_size: flags.FlagHolder
    center_crop: flags.FlagHolder
    channels: flags.FlagHolder

    def preparation(self) -> dict[str, Any]:
        """The cropping, resizing and conversion of images, as keyword arguments of `images.load`."""
        return {
            "image_size": self.image_size.value,
            "center_crop": self.center_crop.value,
            "channels": self.channels.value,
        }

    def location(self) -> dict[str, Any]:
        """The place of datasets and whether they may be downloaded, as keyword arguments of `images.load`."""
        return {"data_dir": self.data_dir.value, "download": self.download.value}

    def load(self, split: str) -> "ImageSource":
        """A split of the flags' images; raises ValueError as `images.load` does."""
        from ncsn_tf.data import images

        return images.load(str(self.name.value), split, **self.location(), **self.preparation())

    def refuse_without_name(self) -> None:
        """Raises ValueError if flags that belong to --data_name are given without it."""
        given = [name for name, value in (self.preparation() | self.location()).items() if value]
        if self.name.value is None and given:
            named = ", ".join(f"--{name}" for name in given)
            raise ValueError(
                f"Without --data_name there is nothing that {named} could apply to: a run has its own data."
            )


def define(*, required: bool = False) -> Images:
    """Defines --data_name, --data_dir, --download, --image_size, --center_crop and --channels."""
    return Images(
        name=paths.define_dataset(
            "data_name", "'digits', a TFDS dataset, or a path to images, TFRecords or arrays.", required=required
        ),
        data_dir=paths.define("data_dir", None, "Where TFDS datasets are prepared.", remote=True),
        download=flags.DEFINE_bool("download", False, "Let TFDS download and prepare what is missing."),
        image_size=size.define("image_size", "Resize the images."),
        center_crop=flags.DEFINE_integer("center_crop", None, "Side of a square cut out before resizing.", 1),
        channels=flags.DEFINE_integer("channels", None, "1 or 3 converts between grey and colour.", 1, 3),
    )
