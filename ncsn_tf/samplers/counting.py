"""The model's score as samplers and guidance see it: its evaluations are counted."""

import dataclasses
from collections.abc import Callable
from typing import cast

import tensorflow as tf


@dataclasses.dataclass
class Counted:
    """A model's score function that counts its evaluations per sample while a step is traced.

    A gradient through it counts as one more: the pass back costs at least as much as the pass forward.

    Attributes:
      score_fn: score_fn(x, t) or, for a model with classes, score_fn(x, t, labels), such as `ScoreModel.score`.
      calls: the evaluations so far.
    """

    score_fn: Callable[..., tf.Tensor]
    calls: int = 0

    def __call__(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        self.calls += 1
        return self._passed(self.score_fn(x, t), 1)

    def under(self, x: tf.Tensor, t: tf.Tensor, *labels: tf.Tensor) -> list[tf.Tensor]:
        """The scores at x under each of several labels, by one evaluation of all rows together.

        It counts as one evaluation per label: a batch of N labels has N times the rows.

        Args:
          x: [B, ...].
          t: [B].
          *labels: int32 [B] each.

        Returns:
          As many scores, [B, ...] each.
        """
        count = len(labels)
        self.calls += count
        if count == 1:
            return [self._passed(self.score_fn(x, t, labels[0]), 1)]
        together = self.score_fn(*(tf.concat(rows, axis=0) for rows in ([x] * count, [t] * count, labels)))
        return tf.split(self._passed(together, count), count)

    def _passed(self, scores: tf.Tensor, count: int) -> tf.Tensor:
        """The scores; a gradient that passes back through them is counted."""

        @tf.custom_gradient
        def identity(scores: tf.Tensor):
            def back(upstream: tf.Tensor) -> tf.Tensor:
                self.calls += count
                return upstream

            return tf.identity(scores), back

        return cast(tf.Tensor, identity(scores))
