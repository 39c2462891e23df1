"""Training of classifiers of noisy images, and their accuracy at each level of the noise."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, pictures, random
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.data.value_range import ValueRange
from ncsn_tf.evaluation import classifier
from ncsn_tf.guidance import classifiers
from ncsn_tf.guidance.classifiers import NoiseConditional
from ncsn_tf.sde import SDE, noise_ratio
from ncsn_tf.time_draws import TimeDraw

STEPS, BATCH_SIZE = 1_000, 128
"""The default length of training; `launch.train_classifier` gives what a shorter one reaches."""


def train(
    batches: tf.data.Dataset,
    num_classes: int,
    *,
    shape: tuple[int, int, int],
    sde: SDE,
    draw: TimeDraw,
    seed: int,
    steps: int = STEPS,
    filters: int = 32,
    log: Callable[[int, float], object] = lambda step, loss: None,
) -> NoiseConditional:
    """Trains a classifier on images perturbed to drawn times, on the cross-entropy.

    Time and noise of an example are drawn from (seed, its number in the stream). The same seed gives the same
    classifier on the same machine, bit for bit.

    Args:
      batches: an endless dataset of `image` [B, H, W, C] in the SDE's data range, `example`, `position` and `label`,
        int32 [B], as `pipeline.training_batches` makes them.
      num_classes: the number of classes, K, at least 2.
      shape: (H, W, C).
      sde: the SDE that perturbs the images.
      draw: draws their times.
      seed: the seed of the initial weights, the times and the noise, in [0, 2^31).
      steps: the number of training steps.
      filters: the width of the network's first stage.
      log: called after each step with the number of steps taken and the step's loss in nats.

    Raises:
      ValueError: if a number is out of range.
      NonFiniteLossError: at the first loss that is not finite.
    """
    made = classifiers.make(num_classes, filters, shape, sde, seed=seed)
    level_seed, noise_seed = (
        random.stream_seed(seed, stream) for stream in (random.Stream.LEVEL, random.Stream.PERTURBATION)
    )

    def losses(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        t, _ = draw(random.per_example(level_seed, batch["example"]), batch["position"])
        x = _perturbed(batch["image"], t, sde, random.per_example(noise_seed, batch["example"]))
        return tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], made.logits(x, t))

    classifier.fit(made.network, losses, batches, steps, log)
    return made


def _perturbed(x: tf.Tensor, t: tf.Tensor, sde: SDE, seeds: tf.Tensor) -> tf.Tensor:
    """Images perturbed to times t, [B, ...], with noise of the seeds, int32 [B, 2]."""
    shape: Any = x.shape[1:].as_list()
    return objectives.perturb(sde, x, t, random.normal(seeds, shape))


@dataclasses.dataclass(frozen=True)
class ByLevel:
    """The accuracy of a classifier of noisy images by noise level.

    Attributes:
      times: float [L], the times of the levels.
      noise_ratios: float [L], sigma / alpha at them.
      accuracies: float [L], the share of images whose largest logit is that of their label.
      losses: float [L], the mean cross-entropy in nats; log K for a classifier that knows nothing.
      images: the number of images.
    """

    times: np.ndarray
    noise_ratios: np.ndarray
    accuracies: np.ndarray
    losses: np.ndarray
    images: int

    def lines(self) -> list[str]:
        """A table, one line per level."""
        rows = zip(self.times, self.noise_ratios, self.accuracies, self.losses, strict=True)
        return [
            "   time  sigma/alpha  accuracy  cross-entropy",
            *(f"{t:7.3f}  {ratio:11.4g}  {share:8.1%}  {loss:13.3f}" for t, ratio, share, loss in rows),
        ]

    def rows(self) -> list[dict[str, float]]:
        """The same as plain values."""
        names = ("time", "noise_ratio", "accuracy", "cross_entropy")
        values = zip(self.times, self.noise_ratios, self.accuracies, self.losses, strict=True)
        return [dict(zip(names, map(float, row), strict=True)) for row in values]

    def draw(self, guess: float) -> "pictures.Figure":
        """Draws the accuracies over sigma / alpha, and that of a guess."""
        with pictures.drawn(5.0, 3.5) as figure:
            axes = figure.subplots()
            axes.plot(self.noise_ratios, self.accuracies, marker="o", label="held-out images")
            axes.axhline(guess, color="grey", linestyle=":", label="a guess")
            axes.set_xscale("log")
            axes.set_ylim(0.0, 1.02)
            axes.set_xlabel("sigma / alpha")
            axes.set_ylabel("accuracy")
            axes.legend()
        return figure


def by_level(
    made: NoiseConditional,
    source: ImageSource,
    classes: np.ndarray,
    times: np.ndarray,
    value_range: ValueRange,
    *,
    seed: int,
    batch_size: int = 500,
) -> ByLevel:
    """Measures a classifier on images at levels of the noise; the noise depends on (seed, image, level) alone.

    Args:
      made: the classifier.
      source: the images, N.
      classes: their labels, int [N].
      times: float32 [L], the times of the levels.
      value_range: the SDE's data range.
      seed: in [0, 2^31).
      batch_size: images per batch; bounds the memory.

    Raises:
      ValueError: if the labels do not fit the images.
    """
    expected = classifier.checked_labels(classes, len(source), made.network.num_classes)
    base = random.stream_seed(seed, random.Stream.HELD_OUT)

    @tf.function(autograph=False)
    def measure(batch: Mapping[str, tf.Tensor], level: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        t = tf.fill([batch["image"].shape[0]], time)
        x = _perturbed(batch["image"], t, made.sde, random.fold_each(random.per_example(base, batch["example"]), level))
        logits = made.logits(x, t)
        right = tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == batch["label"], tf.float32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        return tf.reduce_sum(batch["weight"] * tf.stack([right, loss]), axis=1)

    size = min(batch_size, len(source))
    batches = pipeline.evaluation_batches(source, batch_size=size, labels=expected, value_range=value_range)
    sums = np.zeros([len(times), 2])
    for batch in batches:
        for level, time in enumerate(times):
            sums[level] += measure(batch, tf.constant(level), tf.constant(time, tf.float32)).numpy()
    accuracies, losses = (sums / len(source)).T
    ratios = noise_ratio(made.sde, tf.constant(times, tf.float32)).numpy()
    return ByLevel(np.asarray(times), ratios, accuracies, losses, len(source))
