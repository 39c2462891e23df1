"""The clean image that a score predicts, with its gradient: what posterior sampling is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ncsn_tf.score import ScoreFunction, denoise
from ncsn_tf.sde import SDE


class Predicted(NamedTuple):
    """A prediction at a point x.

    Attributes:
      scores: [B, ...], the score at x.
      clean: [B, ...], the mean of the clean image given x.
      pull: pull(v [B, ...]) -> [B, ...], J' v with the Jacobian J of `clean` in x; to be called once.
    """

    scores: tf.Tensor
    clean: tf.Tensor
    pull: Callable[[tf.Tensor], tf.Tensor]


def predict(score_fn: ScoreFunction, sde: SDE, x: tf.Tensor, t: tf.Tensor) -> Predicted:
    """The prediction at x, [B, ...], at times t, [B]: one evaluation of the score, and one pass back for `pull`."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores = score_fn(x, t)
        clean = denoise(lambda *_: scores, sde, x, t)

    def pull(v: tf.Tensor) -> tf.Tensor:
        pulled: Any = tape.gradient([clean], [x], output_gradients=[v])
        return pulled[0]

    return Predicted(scores, clean, pull)
