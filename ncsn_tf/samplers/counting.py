"""The model's score as samplers and guidance see it: its evaluations are counted."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass
class Counted:
    """A model's score function that counts its evaluations per sample while a step is traced.

    Attributes:
      score_fn: score_fn(x, t) or, for a model with classes, score_fn(x, t, labels), such as `ScoreModel.score`.
      calls: the evaluations so far.
    """

    score_fn: Callable[..., tf.Tensor]
    calls: int = 0

    def __call__(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        self.calls += 1
        return self.score_fn(x, t)

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
            return [self.score_fn(x, t, labels[0])]
        together = self.score_fn(*(tf.concat(rows, axis=0) for rows in ([x] * count, [t] * count, labels)))
        return tf.split(together, count)
