"""The results of training steps: losses, norms and times."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class LoopResult:
    """The results of some steps; the sum of two results is the result of their steps together.

    Attributes:
      steps: steps taken.
      loss_sums: float [bins], the sum of the losses of each bin's examples.
      counts: float [bins], the number of examples of each bin.
      norm_sum: the sum over the steps of the global gradient's Euclidean norm, before it is clipped.
      seconds: wall-clock time.
      skipped: steps whose gradient was not finite and was skipped, under a loss scale.
      stopped: whether the loop ended because of a request to stop.
    """

    steps: int
    loss_sums: np.ndarray
    counts: np.ndarray
    norm_sum: float
    seconds: float
    skipped: int = 0
    stopped: bool = False

    @property
    def loss(self) -> float:
        """Mean loss per example."""
        return float(self.loss_sums.sum() / self.counts.sum())

    @property
    def bin_losses(self) -> np.ndarray:
        """float [bins], the mean loss of each bin's examples, NaN where a bin had none."""
        return means(self.loss_sums, self.counts)

    @property
    def gradient_norm(self) -> float:
        """Mean of the global gradient's norm over the steps that were not skipped."""
        return self.norm_sum / max(1, self.steps - self.skipped)

    def __add__(self, other: "LoopResult") -> "LoopResult":
        return LoopResult(
            self.steps + other.steps,
            self.loss_sums + other.loss_sums,
            self.counts + other.counts,
            self.norm_sum + other.norm_sum,
            self.seconds + other.seconds,
            self.skipped + other.skipped,
            self.stopped or other.stopped,
        )


def means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """sums / counts, NaN where a count is 0."""
    with np.errstate(invalid="ignore"):
        return sums / counts


def by_bin(losses: tf.Tensor, bins: tf.Tensor, num_bins: int, weight: tf.Tensor | None = None) -> tf.Tensor:
    """Sums of losses and of weights over the examples of each bin, float32 [2, num_bins].

    Args:
      losses: float32 [B].
      bins: int32 [B], each example's bin.
      num_bins: the number of bins.
      weight: float32 [B], 1 by default.
    """
    weight = tf.ones_like(losses) if weight is None else weight
    encoding = tf.one_hot(bins, num_bins)
    return tf.linalg.matmul(tf.stack([losses * weight, weight]), encoding)
