"""Images of TensorFlow Datasets, read offline from prepared data or, on request, downloaded."""

import re
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ncsn_tf.data import parts
from ncsn_tf.data.names import DIGITS, unknown_name
from ncsn_tf.data.preparation import Preparation
from ncsn_tf.data.readers import Loaded
from ncsn_tf.data.splits import Split

_BATCH = 512


def read(name: str, split: Split, preparation: Preparation, *, data_dir: str | None, download: bool) -> Loaded:
    """Reads one split of a TFDS dataset, in the order of its records.

    "train" is the TFDS split "train"; "held_out" is "test", or where there is none "validation" or another split whose
    name says so (`parts.role`).

    Args:
      name: a TFDS name, with configuration and version if wanted: "mnist", "lsun/church", "cifar10:3.0.2".
      split: which part.
      preparation: crop, size, channels, memory limit.
      data_dir: the folder of prepared datasets; TFDS's default if None.
      download: whether to download and prepare a missing dataset.

    Raises:
      ValueError: if the dataset is unknown, not prepared, cannot be downloaded, or has no uint8 "image" feature.
    """
    builder = prepared_builder(name, data_dir, download)
    shape = _image_shape(builder, name)
    part, start, stop = bounds(builder, split, name)
    height, width, depth = shape
    array = None
    is_static = False
    if height is not None and width is not None and depth is not None:
        is_static = True
        # Known sizes are checked before anything is decoded.
        stored = (*preparation.output_size(height, width), preparation.channels or depth)
        array = preparation.allocate(stop - start, stored, name)
    elif preparation.image_size is None and preparation.center_crop is None:
        raise ValueError(f"The images of {name!r} have different sizes; give image_size, such as image_size=32.")
    decoding = tfds.decode.PartialDecoding({"image": True}, decoders={"image": _AccurateDecoder()})
    dataset = records(builder, part, start, stop, decoding)
    row, problem = 0, ""
    try:
        for batch in tfds.as_numpy(dataset.batch(_BATCH if is_static else 1).prefetch(2)):
            prepared = _prepare(batch["image"], preparation)
            if array is None:
                array = preparation.allocate(stop - start, prepared.shape[1:], name)
            array[row : row + len(prepared)] = prepared
            row += len(prepared)
    except tf.errors.OpError as error:
        problem = f" ({error.message})"
    if array is None or row != stop - start:
        raise damaged(builder, name, f"{row} of {stop - start} images could be read{problem}")
    return Loaded(array, {_format(builder, part, start): len(array)})


def _format(builder: Any, part: str, number: int) -> str:
    """The format of one record, which stands for all: TFDS encodes arrays as PNG, and keeps files as they were."""
    skipping = tfds.decode.PartialDecoding({"image": True}, decoders={"image": tfds.decode.SkipDecoding()})
    (record,) = tfds.as_numpy(records(builder, part, number, number + 1, skipping))
    return "JPEG" if record["image"].startswith(b"\xff\xd8") else "PNG"


def records(builder: Any, part: str, start: int, stop: int, decoding: tfds.decode.PartialDecoding) -> tf.data.Dataset:
    """The records [start, stop) of a TFDS split in a fixed order, whatever the number of shards and cores."""
    return builder.as_dataset(
        split=tfds.core.ReadInstruction(part, from_=start, to=stop, unit="abs"),
        shuffle_files=False,
        decoders=decoding,
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def bounds(builder: Any, split: Split, name: str) -> tuple[str, int, int]:
    """The TFDS split that serves as `split`, and the range [start, stop) of its records; raises ValueError."""
    part = _tfds_split(builder, split.part, name)
    return part, *split.bounds(builder.info.splits[part].num_examples)


def damaged(builder: Any, name: str, what: str) -> ValueError:
    """Returns the error for prepared data that cannot be read completely."""
    return ValueError(
        f"The prepared data of {name!r} in {builder.data_path} are damaged: {what}. Delete that folder and prepare "
        "the dataset again."
    )


class _AccurateDecoder(tfds.decode.Decoder):
    """Decodes as TFDS does, but JPEG by the accurate inverse DCT: TensorFlow's fast default is up to 4 levels off."""

    def decode_example(self, serialized_example: tf.Tensor) -> tf.Tensor:
        shape = self.feature.shape
        channels = shape[-1] or 0
        image = tf.cond(
            tf.io.is_jpeg(serialized_example),
            lambda: tf.io.decode_jpeg(serialized_example, channels=channels, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(serialized_example, channels=channels, expand_animations=False),
        )
        return tf.ensure_shape(image, shape)


def _prepare(pictures: np.ndarray, preparation: Preparation) -> np.ndarray:
    if preparation.output_size(*pictures.shape[1:3]) == pictures.shape[1:3] and preparation.channels is None:
        return pictures
    return np.stack([preparation.apply(picture) for picture in pictures])


def prepared_builder(name: str, data_dir: str | None, download: bool) -> Any:
    """Returns the builder of a dataset that is already prepared, or is downloaded and prepared now.

    Raises:
      ValueError: if the dataset is unknown, not prepared, or cannot be downloaded.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS refuses a wrong name, configuration or version with several types of error
        known = tfds.list_builders(with_community_datasets=False)
        if isinstance(error, tfds.core.DatasetNotFoundError) or re.split("[/:]", name)[0] not in known:
            raise unknown_name(name, known) from error
        raise ValueError(f"TensorFlow Datasets cannot open {name!r}: {error}") from error
    where = data_dir or "the default TFDS folder"
    if builder.is_prepared():
        return builder
    if not download:
        base = re.split("[/:]", name)[0]
        raise ValueError(
            f"The dataset {name!r} is not prepared in {where}. Prepare it with `tfds build {base}"
            f"{f' --data_dir={data_dir}' if data_dir else ''}`, or allow the download (download=True, "
            "`--config.data.download=True`), or point data_dir (`--config.data.data_dir`) to where it is prepared. "
            f"The dataset '{DIGITS}' needs neither."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # network, disk and moved files raise different errors, with the same remedy
        raise ValueError(
            f"Downloading {name!r} into {where} failed: {type(error).__name__}: {error}. Check the network, or prepare "
            f"it elsewhere with `tfds build` and point data_dir (`--config.data.data_dir`) to it; the dataset "
            f"'{DIGITS}' needs no network."
        ) from error
    return builder


def _image_shape(builder: Any, name: str) -> tuple[int | None, int | None, int | None]:
    features = builder.info.features
    image = features["image"] if "image" in features else None
    if image is None or len(image.shape or ()) != 3 or np.dtype(image.np_dtype) != np.uint8:
        found = {key: str(value) for key, value in features.items()}
        raise ValueError(f"{name!r} has no feature 'image' of uint8 [H, W, C]; its features are {found}.")
    return image.shape


def _tfds_split(builder: Any, part: str, name: str) -> str:
    roles = {split: found for split in builder.info.splits if (found := parts.role(split)) is not None}
    candidates = [(not found.exact, found.rank, split) for split, found in roles.items() if found.part == part]
    if candidates:
        return min(candidates)[2]
    wanted = ("train",) if part == "train" else ("test", "validation")
    raise ValueError(
        f"{name!r} has no split {' or '.join(map(repr, wanted))} to serve as {part!r}; it has "
        f"{sorted(builder.info.splits)}. Without held-out images, set training.held_out_examples=0."
    )
