"""Classifiers of a dataset's own classes: trained, tried on held-out images, and written down as feature networks.

Inception knows photographs of a thousand things; of digits it knows nothing. A network that tells a dataset's classes
apart has, one layer before its decision, activations that say what matters there, and the distances of TF-GAN can be
taken between them as well. Such numbers compare runs on that dataset and nothing else.
"""

import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import files, random
from ncsn_tf.data import images as image_data
from ncsn_tf.data import labels as label_data
from ncsn_tf.data import pipeline
from ncsn_tf.data.names import DIGITS
from ncsn_tf.networks.classifier import Classifier

_LEARNING_RATE = 3e-3
_TRAINING = {DIGITS: {"steps": 400, "batch_size": 64}, "mnist": {"steps": 1_500, "batch_size": 128}}
_OTHER_TRAINING = {"steps": 4_000, "batch_size": 128}
"""How long datasets are learnt by default; what comes of it is told in `launch.train_classifier`."""


class NonFiniteLossError(ArithmeticError):
    """The loss of a step is infinite or no number."""


def scaled(images) -> tf.Tensor:
    """Bytes as a feature network takes them, float32 in [-1, 1): (byte - 128) / 128, as TF-GAN scales them."""
    return (tf.cast(images, tf.float32) - 128.0) / 128.0


def default_training(name: str) -> dict[str, int]:
    """The `steps` and `batch_size` that suit a dataset, by its name."""
    return dict(_TRAINING.get(name.split(":")[0], _OTHER_TRAINING))


def train(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    steps: int,
    batch_size: int = 128,
    filters: int = 32,
    log: Callable[[int, float], object] = lambda step, loss: None,
) -> Classifier:
    """Trains a classifier by Adam on the cross-entropy, at a rate that falls to 0 along half a cosine.

    Images larger than 8x8 are shifted by whole pixels, up to an eighth of the shorter side in each direction, and
    their borders repeated; colour images are mirrored left to right half of the time. The same seed gives the same
    classifier on the same machine, whatever else it does.

    Args:
      images: uint8 [N, H, W, C].
      labels: int [N] in [0, num_classes).
      num_classes: number of classes, at least 2.
      seed: of the start, the order and the shifts, in [0, 2^31).
      steps: training steps.
      batch_size: images a step.
      filters: width of the network's first stage.
      log: called after each step with the steps taken and the step's loss in nats.

    Raises:
      ValueError: if the labels do not fit the images, or a number is out of range.
      NonFiniteLossError: at the first loss that is not finite.
    """
    source = image_data.ImageSource("classified", np.asarray(images))
    targets = _checked(labels, len(source), num_classes)
    if steps < 1 or batch_size < 1 or steps * batch_size >= 2**31:
        raise ValueError(
            "Training takes one step and one image a step or more, and in all fewer than 2^31 images. Received: "
            f"steps={steps}, batch_size={batch_size}."
        )
    batches = _batches(source, targets, seed, batch_size)
    keras.utils.set_random_seed(seed)
    classifier = Classifier(num_classes, filters)
    classifier.build((None, *source.shape))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps))
    variables = classifier.trainable_variables
    optimizer.build(variables)

    @tf.function(autograph=False)
    def take_step(x: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = classifier(x, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    for step, (x, label) in enumerate(batches.take(steps), start=1):
        loss = float(take_step(x, label))
        if not np.isfinite(loss):
            raise NonFiniteLossError(f"The classifier's loss at step {step} is {loss}. Try another seed or batch size.")
        log(step, loss)
    return classifier


def _checked(labels: np.ndarray, count: int, num_classes: int) -> tf.Tensor:
    """The labels as an int32 tensor [N]; raises ValueError if they do not fit."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{count} images have integer labels [{count}]. Received: {labels.dtype} {labels.shape}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Labels of {num_classes} classes lie in [0, {num_classes}). Received: {labels.min()} to {labels.max()}."
        )
    return tf.constant(labels, tf.int32)


def _batches(source: image_data.ImageSource, targets: tf.Tensor, seed: int, batch_size: int) -> tf.data.Dataset:
    """The endless stream of (images float32 [B, H, W, C], scaled, shifted and mirrored; labels int32 [B])."""
    height, width, channels = source.shape
    shift = min(height, width) // 8 if max(height, width) > 8 else 0
    shift_seed = random.fold(random.seed(seed), random.Stream.PERTURBATION)

    def prepare(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        x = scaled(256.0 * batch["image"] - 0.5)  # the stream has byte k as (k + 1/2) / 256
        if shift:
            x = _shifted(x, shift, random.per_example(shift_seed, batch["example"]))
        return x, tf.gather(targets, tf.math.floormod(batch["example"], len(source)))

    stream = pipeline.training_batches(
        source, global_batch_size=batch_size, seed=seed, random_flip=channels > 1, dequantize=False
    )
    return stream.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def _shifted(x: tf.Tensor, most: int, example_seeds: tf.Tensor) -> tf.Tensor:
    """Images [B, H, W, C], each moved by -most..most whole pixels along both sides; the border fills what is bared."""
    for axis, size in ((1, tf.shape(x)[1]), (2, tf.shape(x)[2])):
        offsets = random.integers(random.fold_each(example_seeds, axis), 2 * most + 1) - most
        places = tf.clip_by_value(tf.range(size)[None] + offsets[:, None], 0, size - 1)
        x = tf.gather(x, places, axis=axis, batch_dims=1)
    return x


def accuracy(classifier: Classifier, images: np.ndarray, labels: np.ndarray, batch_size: int = 500) -> float:
    """The share of images whose largest logit is that of their label.

    Args:
      classifier: a built classifier.
      images: uint8 [N, H, W, C].
      labels: int [N].
      batch_size: images at a time; bounds the memory.

    Raises:
      ValueError: if the labels do not fit the images.
    """
    expected = _checked(labels, len(images), classifier.num_classes).numpy()
    correct = 0
    for start in range(0, len(images), batch_size):
        logits = classifier(scaled(images[start : start + batch_size]))["logits"]
        correct += int(np.sum(np.argmax(logits, axis=-1) == expected[start : start + batch_size]))
    return correct / len(images)


def export(classifier: Classifier, path: str | os.PathLike, about: dict[str, Any]) -> None:
    """Writes a classifier as a SavedModel that explains itself, the whole of it or nothing.

    `tf.saved_model.load(path)` gives `module(images) -> {"logits", "pool_3"}`, images float32 [B, H, W, C] in [-1, 1],
    B any number; the signature "serving_default" is the same. `about.json` in it says where it comes from.

    Args:
      classifier: a built classifier.
      path: the folder to make; an empty one may be there.
      about: what `about.json` is to say besides the kind, the classes, the input and the versions; `record` makes it.

    Raises:
      ValueError: if there is something at `path`, or the classifier is not built.
    """
    if classifier.image_shape is None:
        raise ValueError("A classifier is written for one image size: build it first, with the shape [None, H, W, C].")
    path = pathlib.Path(path)
    check_free(path)
    content = {
        "kind": "classifier",
        "classes": classifier.num_classes,
        "input": "float32 in [-1, 1], (byte - 128) / 128 as TF-GAN scales",
        **about,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".partial") as spare:
        partial = pathlib.Path(spare) / "classifier"
        spec = tf.TensorSpec([None, *classifier.image_shape], tf.float32, name="images")
        module: Any = tf.Module()
        # The variables alone, not the network: what is written then needs nothing of Keras or of this library.
        module.weights = [variable.value for variable in classifier.variables]
        module.__call__ = tf.function(lambda images: classifier(images), input_signature=[spec], autograph=False)
        tf.saved_model.save(module, str(partial), signatures={"serving_default": module.__call__})
        files.write_text(partial / "about.json", json.dumps(content, indent=2) + "\n")
        for written in partial.rglob("*"):
            files.to_disk(written)
        try:
            os.rename(partial, path)  # over an empty folder too, and over nothing else
        except OSError:
            check_free(path)  # another process was first
            raise
    files.to_disk(path.parent)


def check_free(path: str | os.PathLike) -> None:
    """Raises ValueError if there is a file or a folder at `path` that is not empty."""
    path = pathlib.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists and is not an empty folder. Give another, or remove it.")


def record(
    source: image_data.ImageSource,
    *,
    held_out_images: int,
    held_out_accuracy: float,
    seed: int,
    steps: int,
    batch_size: int,
) -> dict[str, Any]:
    """What `about.json` says of a training: the images it saw, what came of it, and how to do it again."""
    return {
        "dataset": source.describe(),
        "held_out_accuracy": held_out_accuracy,
        "held_out_images": held_out_images,
        "seed": seed,
        "steps": steps,
        "batch_size": batch_size,
    }


def ensure_digits(path: str | os.PathLike) -> pathlib.Path:
    """A classifier of the digits at `path`: the one that is there, or one that is trained now, in about ten seconds.

    Several processes may ask at once: each trains the same one, and the first to finish writes it.

    Raises:
      ValueError: if there is something else at `path`.
    """
    path = pathlib.Path(path)
    if _is_classifier(path):
        return path
    check_free(path)
    source, labels = image_data.load(DIGITS, "train"), label_data.load(DIGITS, "train")
    options: dict[str, Any] = {"seed": 0, **default_training(DIGITS)}
    classifier = train(source.images, labels.values, labels.num_classes, **options)
    held_out = image_data.load(DIGITS, "held_out")
    share = accuracy(classifier, held_out.images, label_data.load(DIGITS, "held_out").values)
    about = record(source, held_out_images=len(held_out), held_out_accuracy=share, **options)
    try:
        export(classifier, path, about)
    except ValueError:
        if not _is_classifier(path):
            raise
    return path


def _is_classifier(path: pathlib.Path) -> bool:
    """Whether a whole classifier lies at `path`; of a folder that is renamed into place, one file proves all."""
    return (path / "saved_model.pb").is_file() and (path / "about.json").is_file()
