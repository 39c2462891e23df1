"""Classifiers of a dataset's own classes: trained, tested on held-out images, and exported as feature networks.

Inception was trained on photographs of a thousand classes, and its features are not informative about digits. The
activations of a classifier of the dataset's own classes, one layer before its logits, represent what matters there, and
TF-GAN's distances can be computed from them too. Such numbers compare runs on that dataset and nothing else.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import determinism, files, random
from ncsn_tf.data import images, labels, pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.data.names import DIGITS
from ncsn_tf.networks.classifier import Classifier
from ncsn_tf.objectives import NonFiniteLossError

_LEARNING_RATE = 3e-3
_TRAINING = {DIGITS: {"steps": 400, "batch_size": 64}, "mnist": {"steps": 1_500, "batch_size": 128}}
_OTHER_TRAINING = {"steps": 4_000, "batch_size": 128}
"""The default length of training by dataset; `launch.train_classifier` gives the accuracies."""


def scaled(pixels) -> tf.Tensor:
    """Scales bytes for a feature network, float32 in [-1, 1): (byte - 128) / 128, as TF-GAN scales them."""
    return (tf.cast(pixels, tf.float32) - 128.0) / 128.0


def default_training(name: str) -> dict[str, int]:
    """The default `steps` and `batch_size` for a dataset, by its name."""
    return dict(_TRAINING.get(name.split(":")[0], _OTHER_TRAINING))


def train(
    pixels: np.ndarray,
    classes: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    steps: int,
    batch_size: int = 128,
    filters: int = 32,
    log: Callable[[int, float], object] = lambda step, loss: None,
) -> Classifier:
    """Trains a classifier by Adam on the cross-entropy, at a learning rate that decays to 0 along half a cosine.

    Images larger than 8x8 are shifted by whole pixels, up to an eighth of the shorter side in each direction, and their
    borders are repeated; colour images are mirrored left to right half of the time. The same seed gives the same
    classifier on the same machine, bit for bit.

    Args:
      pixels: the images, uint8 [N, H, W, C].
      classes: the labels, int [N] in [0, num_classes).
      num_classes: the number of classes, at least 2.
      seed: the seed of the initial weights, the order and the shifts, in [0, 2^31).
      steps: the number of training steps.
      batch_size: images per step.
      filters: the width of the network's first stage.
      log: called after each step with the number of steps taken and the step's loss in nats.

    Raises:
      ValueError: if the labels do not fit the images, or a number is out of range.
      NonFiniteLossError: at the first loss that is not finite.
    """
    source = ImageSource("classified", np.asarray(pixels))
    classes = checked_labels(classes, len(source), num_classes)
    check_training(steps, batch_size)
    batches = _batches(source, classes, seed, batch_size)
    classifier = Classifier(num_classes, filters, seed=seed)
    classifier.build((None, *source.shape))

    def losses(x: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        logits = classifier(x, training=True)["logits"]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)

    fit(classifier, losses, batches, steps, log)
    return classifier


def fit(
    network: keras.Model,
    losses: Callable[..., tf.Tensor],
    batches: tf.data.Dataset,
    steps: int,
    log: Callable[[int, float], object] = lambda step, loss: None,
) -> None:
    """Trains a network by Adam, at a learning rate that decays to 0 along half a cosine; repeatable bit for bit.

    Args:
      network: a built network.
      losses: the losses of a batch, as the dataset has it, [B].
      batches: an endless dataset.
      steps: the number of training steps.
      log: called after each step with the number of steps taken and the step's mean loss.

    Raises:
      NonFiniteLossError: at the first loss that is not finite.
    """
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps))
    variables = network.trainable_variables
    optimizer.build(variables)

    @tf.function(autograph=False)
    def take_step(*batch: Any) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses(*batch))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    with determinism.repeatable_gradients():
        for step, batch in enumerate(batches.take(steps), start=1):
            loss = float(take_step(*batch) if isinstance(batch, tuple) else take_step(batch))
            if not np.isfinite(loss):
                raise NonFiniteLossError(
                    f"The classifier's loss at step {step} is {loss}. Try another seed or batch size."
                )
            log(step, loss)


def check_training(steps: int, batch_size: int) -> None:
    """Raises ValueError for a length of training that is impossible."""
    if steps < 1 or batch_size < 1 or steps * batch_size >= 2**31:
        raise ValueError(
            "Training takes at least 1 step of at least 1 image, and fewer than 2^31 images in all. Received: "
            f"steps={steps}, batch_size={batch_size}."
        )


def checked_labels(classes: np.ndarray, count: int, num_classes: int) -> np.ndarray:
    """The labels as an int32 array [N]; raises ValueError if they do not fit."""
    classes = np.asarray(classes)
    if classes.shape != (count,) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"{count} images need integer labels [{count}]. Received: {classes.dtype} {classes.shape}.")
    if classes.min() < 0 or classes.max() >= num_classes:
        raise ValueError(
            f"Labels of {num_classes} classes must be in [0, {num_classes}). "
            f"Received: {classes.min()} to {classes.max()}."
        )
    return classes.astype(np.int32)


def _batches(source: ImageSource, classes: np.ndarray, seed: int, batch_size: int) -> tf.data.Dataset:
    """The endless stream of (images float32 [B, H, W, C], scaled, shifted and mirrored; labels int32 [B])."""
    height, width, channels = source.shape
    shift = min(height, width) // 8 if max(height, width) > 8 else 0
    shift_seed = random.stream_seed(seed, random.Stream.PERTURBATION)

    def prepare(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        x = scaled(256.0 * batch["image"] - 0.5)  # the stream represents byte k by (k + 1/2) / 256
        if shift:
            x = _shifted(x, shift, random.per_example(shift_seed, batch["example"]))
        return x, batch["label"]

    stream = pipeline.training_batches(
        source, global_batch_size=batch_size, seed=seed, random_flip=channels > 1, dequantize=False, labels=classes
    )
    return stream.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def _shifted(x: tf.Tensor, most: int, example_seeds: tf.Tensor) -> tf.Tensor:
    """Shifts images [B, H, W, C] by -most..most whole pixels along both sides; the border fills the uncovered part."""
    for axis, size in ((1, tf.shape(x)[1]), (2, tf.shape(x)[2])):
        offsets = random.integers(random.fold_each(example_seeds, axis), 2 * most + 1) - most
        places = tf.clip_by_value(tf.range(size)[None] + offsets[:, None], 0, size - 1)
        x = tf.gather(x, places, axis=axis, batch_dims=1)
    return x


def accuracy(classifier: Classifier, pixels: np.ndarray, classes: np.ndarray, batch_size: int = 500) -> float:
    """The share of images whose largest logit is that of their label.

    Args:
      classifier: a built classifier.
      pixels: the images, uint8 [N, H, W, C].
      classes: the labels, int [N].
      batch_size: images per batch; bounds the memory.

    Raises:
      ValueError: if the labels do not fit the images.
    """
    expected = checked_labels(classes, len(pixels), classifier.num_classes)
    correct = 0
    for start in range(0, len(pixels), batch_size):
        logits = classifier(scaled(pixels[start : start + batch_size]))["logits"]
        correct += int(np.sum(np.argmax(logits, axis=-1) == expected[start : start + batch_size]))
    return correct / len(pixels)


def export(classifier: Classifier, path: str | os.PathLike, about: dict[str, Any]) -> None:
    """Writes a classifier as a self-describing SavedModel, completely or not at all.

    `tf.saved_model.load(path)` gives `module(images) -> {"logits", "pool_3"}`, with images float32 [B, H, W, C] in
    [-1, 1] for any B; the signature "serving_default" is the same. `about.json` in the folder records its origin.

    Args:
      classifier: a built classifier.
      path: the folder to create; an empty folder may exist.
      about: the content of `about.json` besides the kind, the classes, the input and the versions; see `record`.

    Raises:
      ValueError: if `path` exists and is not an empty folder, or if the classifier is not built.
    """
    if classifier.image_shape is None:
        raise ValueError("A classifier is exported for one image size: build it first, with the shape [None, H, W, C].")
    content = {
        "kind": "classifier",
        "classes": classifier.num_classes,
        "input": "float32 in [-1, 1], (byte - 128) / 128 as TF-GAN scales",
        **about,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }
    with files.new_folder(path) as partial:
        spec = tf.TensorSpec([None, *classifier.image_shape], tf.float32, name="images")
        module: Any = tf.Module()
        # The variables alone, not the network, so that loading needs neither Keras nor this library.
        module.weights = [variable.value for variable in classifier.variables]
        module.__call__ = tf.function(lambda images: classifier(images), input_signature=[spec], autograph=False)
        with files.plain_path(partial) as plain:
            tf.saved_model.save(module, plain, signatures={"serving_default": module.__call__})
        files.write_json(partial / "about.json", content)


def record(
    source: ImageSource,
    *,
    held_out_images: int,
    held_out_accuracy: float,
    seed: int,
    steps: int,
    batch_size: int,
) -> dict[str, Any]:
    """The record of a training run in `about.json`: its images, its result, and how to repeat it."""
    return {
        "dataset": source.describe(),
        "held_out_accuracy": held_out_accuracy,
        "held_out_images": held_out_images,
        "seed": seed,
        "steps": steps,
        "batch_size": batch_size,
    }


def ensure_digits(path: str | os.PathLike, environment: Callable[[], Mapping[str, Any]] = dict) -> pathlib.Path:
    """Trains a classifier of the digits, in about ten seconds, unless there is one at `path`; returns the path.

    Several processes may call this at once: each trains the same classifier, and the first to finish writes it.

    Args:
      path: a folder.
      environment: returns plain values to add to its record, such as versions and devices.

    Raises:
      ValueError: if `path` exists and is neither a classifier nor an empty folder.
    """
    path = files.local_path(path)
    if _is_classifier(path):
        return path
    files.check_free(path)
    source, classes = images.load(DIGITS, "train"), labels.load(DIGITS, "train")
    options: dict[str, Any] = {"seed": 0, **default_training(DIGITS)}
    classifier = train(source.images, classes.values, classes.num_classes, **options)
    held_out = images.load(DIGITS, "held_out")
    share = accuracy(classifier, held_out.images, labels.load(DIGITS, "held_out").values)
    about = record(source, held_out_images=len(held_out), held_out_accuracy=share, **options) | dict(environment())
    try:
        export(classifier, path, about)
    except ValueError:
        if not _is_classifier(path):
            raise
    return path


def _is_classifier(path: pathlib.Path) -> bool:
    """Returns whether there is a complete classifier at `path`: the folder is renamed into place as a whole."""
    return (path / "saved_model.pb").is_file() and (path / "about.json").is_file()
