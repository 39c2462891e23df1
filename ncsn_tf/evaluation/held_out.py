"""The denoising loss of a score function on held-out images, each image at every noise level."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, random
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE


@dataclasses.dataclass(frozen=True)
class HeldOutLoss:
    """The denoising loss of a score function on images that it was not trained on.

    Attributes:
      sigmas: float [L], the noise levels.
      means: float64 [L], the mean loss per image, weighted by sigma^2, with the factor 1/2 (Song & Ermon 2019,
        equation 5).
      standard_errors: float64 [L], the standard errors of the means.
      images: the number of images.
    """

    sigmas: np.ndarray
    means: np.ndarray
    standard_errors: np.ndarray
    images: int

    @property
    def mean(self) -> float:
        """The mean over the levels (Song & Ermon 2019, equation 6)."""
        return float(self.means.mean())


def denoising_loss(
    score_fn: ScoreFunction,
    sde: SDE,
    times: np.ndarray,
    batches: Iterator,
    number: int,
    *,
    run_seed: int,
    strategy: tf.distribute.Strategy,
) -> HeldOutLoss:
    """Measures 1/2 sigma^2 |s(x + sigma z, sigma) + z / sigma|^2 on every image at every level.

    Training draws one level per image, so its held-out loss is a noisier estimate of the same mean. The noise depends
    on (run seed, image, level) alone.

    Args:
      score_fn: the score function.
      sde: the SDE that perturbs the data.
      times: float32 [L], the times of the levels.
      batches: distributed batches of `image`, `example` and `weight`, as `data.pipeline.evaluation_batches` makes them.
      number: the number of batches to take.
      run_seed: an integer in [0, 2^31).
      strategy: the strategy over which the batches are distributed.
    """
    base = random.stream_seed(run_seed, random.Stream.HELD_OUT)

    @tf.function(autograph=False)
    def measure(batch):
        sums = strategy.run(lambda batch: sums_by_level(score_fn, sde, times, base, batch), args=(batch,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    sums = np.sum([measure(next(batches)).numpy().astype(np.float64) for _ in range(number)], axis=0)
    count, means = sums[:, 0], sums[:, 1] / sums[:, 0]
    variances = np.maximum(sums[:, 2] / count - means**2, 0.0) * count / np.maximum(count - 1.0, 1.0)
    sigmas = sde.marginal(tf.constant(times))[1].numpy()
    return HeldOutLoss(sigmas, means, np.sqrt(variances / count), int(count[0]))


def sums_by_level(
    score_fn: ScoreFunction, sde: SDE, times: np.ndarray, base: tf.Tensor, batch: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Sums over a replica's images of 1, the loss and its square at each level, float32 [L, 3]; padding is left out.

    Args:
      score_fn: the score function.
      sde: the SDE that perturbs the data.
      times: float32 [L], the times of the levels.
      base: int32 [2], the seed of all noise.
      batch: `image` [B, H, W, C], `example` [B] and `weight` [B].
    """
    x, weight = batch["image"], batch["weight"]
    shape: Any = x.shape[1:].as_list()

    def at_level(level: tf.Tensor) -> tf.Tensor:
        t = tf.fill([x.shape[0]], tf.gather(tf.constant(times), level))
        losses = objectives.annealed_denoising(score_fn, sde, x, t, noise(base, batch["example"], level, shape))
        return tf.stack([tf.reduce_sum(weight), tf.reduce_sum(weight * losses), tf.reduce_sum(weight * losses**2)])

    return tf.map_fn(at_level, tf.range(len(times)), fn_output_signature=tf.TensorSpec([3], tf.float32))


def noise(base: tf.Tensor, examples: tf.Tensor, level: int | tf.Tensor, shape: random.Shape) -> tf.Tensor:
    """The normal noise of images at one level, [B, *shape], by a seed int32 [2] and their numbers int32 [B]."""
    return random.normal(random.fold_each(random.per_example(base, examples), random.Stream.LEVEL, level), shape)
