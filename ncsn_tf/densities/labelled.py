"""Densities with classes, whose class-conditional scores and class probabilities are known at every noise level."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.densities.density import Coefficient, Density, Perturbation


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled(Density):
    """A mixture of densities, each of which is a class: p(x) = sum_y p(y) p(x | y).

    Attributes:
      weights: p(y), [K], positive, summing to 1.
      classes: p(x | y), K densities of one shape.

    Raises:
      ValueError: if the weights are no probabilities of these classes, or shapes differ.
    """

    weights: np.ndarray
    classes: tuple[Density, ...]

    def __post_init__(self):
        weights = np.asarray(self.weights, np.float64)
        object.__setattr__(self, "weights", weights)
        if weights.shape != (len(self.classes),) or not np.all(weights > 0.0) or abs(weights.sum() - 1.0) > 1e-6:
            raise ValueError(
                f"{len(self.classes)} classes need as many positive weights, which sum to 1. Received: {weights}."
            )
        shapes = {density.shape for density in self.classes}
        if len(shapes) != 1:
            raise ValueError(f"Classes must have examples of one shape. Received: {sorted(shapes)}.")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.classes[0].shape

    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        """Draws clean examples, float32 [B, *shape]; see `Density.sample`."""
        u = random.uniform(random.fold_each(seeds, 0))
        chosen = tf.searchsorted(tf.constant(np.cumsum(self.weights)[:-1], tf.float32), u, side="right")
        each = tf.stack([density.sample(random.fold_each(seeds, 1)) for density in self.classes], axis=1)
        return tf.gather(each, chosen, axis=1, batch_dims=1)

    def logits(self, x: tf.Tensor, alpha: Coefficient = 1.0, sigma: Coefficient = 0.0) -> tf.Tensor:
        """log p(x, y) of each class, [B, K] of x's type; arguments and errors of `log_prob`."""
        x = tf.convert_to_tensor(x)
        return tf.cast(self._logits(*self._inputs(x, alpha, sigma, False)), x.dtype)

    def logits_fn(self, sde: Perturbation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """`logits` of the data perturbed by an SDE, (x [B, *shape], t [B]) -> [B, K]: the exact noisy classifier."""
        return lambda x, t: self.logits(x, *sde.marginal(t))

    def labelled_score_fn(self, sde: Perturbation) -> Callable[..., tf.Tensor]:
        """The score of the data perturbed by an SDE, as a network with classes gives it.

        It maps x [B, *shape], t [B] and labels, int [B] or None, to [B, *shape]. Labels are 0 to K - 1; None and K
        stand for no class.
        """

        def score_fn(x: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
            flat = self._inputs(x, *sde.marginal(t), True)
            shares = tf.nn.softmax(self._logits(*flat))
            if labels is not None:
                of_class = tf.one_hot(labels, len(self.classes), dtype=shares.dtype)
                shares = tf.where((labels == len(self.classes))[:, None], shares, of_class)
            return tf.cast(tf.reshape(self._mixed(shares, *flat), tf.shape(x)), x.dtype)

        return score_fn

    def _log_prob(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        return tf.reduce_logsumexp(self._logits(x, alpha, sigma), axis=1)

    def _score(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        return self._mixed(tf.nn.softmax(self._logits(x, alpha, sigma)), x, alpha, sigma)

    def _logits(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        pairs = zip(self.weights, self.classes, strict=True)
        return tf.stack([np.log(weight) + density._log_prob(x, alpha, sigma) for weight, density in pairs], axis=1)

    def _mixed(self, shares: tf.Tensor, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        """The sum of the classes' scores with the weights `shares`, [B, K]."""
        scores = tf.stack([density._score(x, alpha, sigma) for density in self.classes], axis=1)
        return tf.reduce_sum(shares[:, :, None] * scores, axis=1)
