"""Labels of image datasets, in the order in which `ncsn_tf.data.images` reads the images.

Evaluation needs them, to train a classifier whose activations are used to compare samples; networks with classes are
trained with them.
"""

import dataclasses
import os
import warnings
from typing import Any

import numpy as np

from ncsn_tf.data import images
from ncsn_tf.data.names import DIGITS, checked_name, is_path
from ncsn_tf.data.splits import Split

_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class Labels:
    """The classes of a dataset's images.

    Attributes:
      values: int32 [N] in [0, num_classes). Must not be modified.
      num_classes: number of classes, whether or not all of them occur.
    """

    values: np.ndarray
    num_classes: int

    def __post_init__(self):
        if self.values.dtype != np.int32 or self.values.ndim != 1:
            raise ValueError(f"Labels must be int32 [N]. Received: {self.values.dtype} {self.values.shape}.")
        wrong = self.values[(self.values < 0) | (self.values >= self.num_classes)]
        if wrong.size:
            raise ValueError(
                f"Labels must be in [0, {self.num_classes}). Received {wrong.size} others, such as {wrong[0]}; -1 "
                "stands for an unknown class, so use a split whose classes are known."
            )

    def __len__(self) -> int:
        return len(self.values)


def load(name: str | os.PathLike, split: str, *, data_dir: str | None = None, download: bool = False) -> Labels:
    """Reads the labels of a dataset; label i is that of image i of `images.load` for the same name and split.

    Args:
      name: "digits"; a dataset of TensorFlow Datasets with a feature "label" of classes; or a path to a folder of
        images with a subfolder per class, to TFRecords with a feature "label", or to arrays with one named "labels".
      split: "train" or "held_out", or a slice of one: "train[:50000]", "held_out[:10%]".
      data_dir: the folder of prepared TFDS datasets; TFDS's own default if None.
      download: let TFDS download and prepare what `data_dir` lacks.

    Raises:
      ValueError: for an unknown name or split, a dataset that is not there or damaged, or one without labels.
    """
    name = checked_name(name)
    parsed = Split.parse(split)
    found = _load(name, parsed, data_dir, download)
    missing = found.num_classes - len(np.unique(found.values))
    if missing and parsed == Split(parsed.part):
        warnings.warn(
            f"{missing} of the {found.num_classes} classes of {name} have no image in the part {parsed.part!r}.",
            stacklevel=2,
        )
    return found


def _load(name: str, parsed: Split, data_dir: str | None, download: bool) -> Labels:
    if name == DIGITS:
        return _load_digits(parsed)
    if is_path(name):
        from ncsn_tf.data import paths  # here: reading files needs Pillow

        return Labels(*paths.open_path(name).labels(parsed))
    return _load_tfds(name, parsed, data_dir, download)


def _load_digits(split: Split) -> Labels:
    from sklearn import datasets  # here: importing scikit-learn costs a second

    _, classes = datasets.load_digits(return_X_y=True)
    values = classes[images.held_out_digits(classes) == (split.part == "held_out")]
    start, stop = split.bounds(len(values))
    return Labels(values[start:stop].astype(np.int32), 10)


def _load_tfds(name: str, split: Split, data_dir: str | None, download: bool) -> Labels:
    import tensorflow as tf  # here: importing TensorFlow and TFDS costs seconds
    import tensorflow_datasets as tfds

    from ncsn_tf.data import tfds_images

    builder = tfds_images.prepared_builder(name, data_dir, download)
    features = builder.info.features
    label: Any = features["label"] if "label" in features else None
    if not isinstance(label, tfds.features.ClassLabel):
        found = {key: str(value) for key, value in features.items()}
        raise ValueError(f"{name!r} has no feature 'label' of classes; its features are {found}.")
    part, start, stop = tfds_images.bounds(builder, split, name)
    dataset = tfds_images.records(builder, part, start, stop, tfds.decode.PartialDecoding({"label": True}))
    values, problem = [], ""
    try:
        values = [batch["label"] for batch in tfds.as_numpy(dataset.batch(_BATCH))]
    except tf.errors.OpError as error:
        problem = f" ({error.message})"
    count = sum(map(len, values))
    if count != stop - start:
        raise tfds_images.damaged(builder, name, f"{count} of {stop - start} labels could be read{problem}")
    return Labels(np.concatenate(values).astype(np.int32), label.num_classes)
