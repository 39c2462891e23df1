"""Samples of chosen classes, by a classifier of noisy images or by a network that was trained with classes.

Both have a scale w with one meaning. 0 leaves the score without a class, 1 gives the score of the class, and more than
1 goes beyond it: fewer samples at the edge of the class, less variety. (The w of Ho & Salimans is this one minus 1.)
"""

import dataclasses
import math
import numbers as kinds
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.guidance.classifiers import NoiseConditional
from ncsn_tf.samplers import blocks
from ncsn_tf.samplers.counting import Counted
from ncsn_tf.samplers.driver import NO_GUIDANCE, Given, Guidance, Prior
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE

KEYS = ("labels", "guidance_scale", "classifier")
"""The keys of `Chosen.key`; samples without classes have none, those of a network with classes no classifier."""
Logits = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""logits_fn(x: [B, ...], t: [B]) -> [B, K]: log p(y | x_t) of each class y, up to a number per row."""


@dataclasses.dataclass(frozen=True)
class ClassifierFree(Guidance):
    """Follows the score of a class, taken from a network with classes (Ho & Salimans 2022, equation 6).

        score = s(x, t) + w (s(x, t | y) - s(x, t))

    Both scores come from one evaluation of twice the rows, which counts as two. With w = 1, plain class-conditional
    sampling, and with w = 0, there is one score and one evaluation.

    The given tensor is the labels y, int32 [B]; rows of the label `no_class` are of no class.

    Attributes:
      no_class: the label of no class: K for a network with K classes.
      scale: w.

    Raises:
      ValueError: unless the scale is finite and at least 0.
    """

    no_class: int
    scale: float = 1.0

    def __post_init__(self):
        check_scale(self.scale)

    def score(self, score_fn: Counted, sde: SDE, given: Given) -> ScoreFunction:
        """The guided score; see `Guidance.score`."""
        (labels,) = given
        if self.scale == 0.0:
            return score_fn
        if self.scale == 1.0:
            return lambda x, t: score_fn.under(x, t, labels)[0]

        def guided(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            without, of_class = score_fn.under(x, t, tf.zeros_like(labels) + self.no_class, labels)
            return without + self.scale * (of_class - without)

        return guided


@dataclasses.dataclass(frozen=True)
class ByClassifier(Guidance):
    """Adds the gradient of a classifier of noisy images to the score (Song et al. 2021, section 5).

        score = s(x, t) + w grad_x log p(y | x_t)

    With w = 1 and an exact classifier this is the score of the class, by Bayes' rule. Song et al. have no w; Dhariwal &
    Nichol 2021 have it as s. A step costs one evaluation of the score, and one of the classifier with its gradient,
    which is not counted.

    The given tensor is the labels y, int32 [B]; rows of the label K are of no class.

    Attributes:
      logits_fn: the classifier.
      scale: w.

    Raises:
      ValueError: unless the scale is finite and at least 0.
    """

    logits_fn: Logits
    scale: float = 1.0

    def __post_init__(self):
        check_scale(self.scale)

    def score(self, score_fn: Counted, sde: SDE, given: Given) -> ScoreFunction:
        """The guided score; see `Guidance.score`."""
        (labels,) = given
        if self.scale == 0.0:
            return score_fn

        def guided(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                log_probabilities = tf.nn.log_softmax(self.logits_fn(x, t))
                # A product with the one-hot label has a dense gradient, of a static shape.
                of_class = tf.one_hot(labels, log_probabilities.shape[-1], dtype=log_probabilities.dtype)
                chosen = log_probabilities * of_class
            gradient: Any = tape.gradient(chosen, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return score_fn(x, t) + self.scale * gradient

        return guided


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The classes of a run's samples: sample i is of the class labels[i modulo their number].

    So the class of a sample does not depend on how many are drawn.

    Attributes:
      labels: the classes; none for samples without classes.
      guidance: what leads to them.
      key: plain values that determine the samples, besides those of samples without classes.
    """

    labels: tuple[int, ...] = ()
    guidance: Guidance = NO_GUIDANCE
    key: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def start(
        self, numbers: tf.Tensor, prior: Prior, shape: random.Shape, *, run_seed: int
    ) -> tuple[tf.Tensor, tf.Tensor, Given]:
        """The start of samples; seeds and starts are those of samples without classes, `blocks.start_samples`.

        Args:
          numbers: int32 [B], the numbers of the samples.
          prior: draws where they start.
          shape: the shape of one sample.
          run_seed: an integer in [0, 2^31).

        Returns:
          (seeds, x, (labels,)): int32 [B, 2], float32 [B, *shape] and int32 [B]; without classes (seeds, x, ()).
        """
        seeds, x, given = blocks.start_samples(numbers, prior, shape, run_seed=run_seed)
        if self.labels:
            turn = tf.math.floormod(numbers, len(self.labels))
            given = (tf.gather(tf.constant(self.labels, tf.int32), turn),)
        return seeds, x, given

    def of_rows(self, count: int) -> np.ndarray | None:
        """The classes of the first `count` samples, int32 [count]; None without classes."""
        return np.resize(np.array(self.labels, np.int32), count) if self.labels else None


NO_CLASSES = Chosen()


def of_classifier(labels: Sequence[int], scale: float, classifier: NoiseConditional) -> Chosen:
    """The classes of samples that a classifier of noisy images leads to.

    Args:
      labels: the classes, which samples take in turn.
      scale: w of `ByClassifier`.
      classifier: the classifier, of the SDE of the samples.

    Raises:
      ValueError: for labels that it does not know, or an impossible scale.
    """
    guidance, checked = ByClassifier(classifier.logits, scale), check_labels(labels, classifier.network.num_classes)
    key = {"labels": list(checked), "guidance_scale": float(scale), "classifier": classifier.checksum()}
    return Chosen(checked, guidance, key)


def of_network(labels: Sequence[int], scale: float, *, num_classes: int | None, label_dropout: float = 0.1) -> Chosen:
    """The classes of samples of a network that was trained with classes.

    Args:
      labels: the classes, which samples take in turn.
      scale: w of `ClassifierFree`.
      num_classes: the classes of the network; None for one without.
      label_dropout: the rate at which training left out the class.

    Raises:
      ValueError: for a network without classes, labels that it does not have, an impossible scale, or one that needs
        the score without a class where that was not trained.
    """
    if num_classes is None:
        raise ValueError(
            "The run's network has no classes. Give --classifier=DIR, made by launch.train_classifier --noisy "
            "--workdir=RUN, or train a run with network.num_classes."
        )
    guidance, checked = ClassifierFree(num_classes, scale), check_labels(labels, num_classes)
    if label_dropout == 0.0 and scale != 1.0:
        raise ValueError(
            "The run was trained with network.label_dropout=0, so that it has no score without a class: give "
            f"--guidance_scale=1. Received: {scale:g}."
        )
    return Chosen(checked, guidance, {"labels": list(checked), "guidance_scale": float(scale)})


def check_scale(scale: float) -> None:
    """Raises ValueError unless a scale of guidance is a finite number of at least 0."""
    if not isinstance(scale, kinds.Real) or not 0.0 <= scale < math.inf:
        raise ValueError(
            "The scale of class guidance must be finite and at least 0: 0 for no class, 1 for the class, more to go "
            f"beyond it. Received: {scale}."
        )


def check_labels(labels: Sequence[int], num_classes: int) -> tuple[int, ...]:
    """The labels as plain integers.

    Raises:
      ValueError: if there are none, or one is no integer in [0, num_classes).
    """
    values = np.asarray(labels)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iu":
        raise ValueError(f"Labels must be one or more integers, such as [0, 1, 2]. Received: {labels}.")
    wrong = values[(values < 0) | (values >= num_classes)]
    if wrong.size:
        raise ValueError(f"There are {num_classes} classes: give labels 0 to {num_classes - 1}. Received: {wrong[0]}.")
    return tuple(int(value) for value in values)
