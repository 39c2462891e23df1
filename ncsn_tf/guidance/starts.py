"""The start of several samples for each of some given things: completions of images, restorations of measurements."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import Given, Prior


def completions_of(
    numbers: tf.Tensor,
    given: Sequence[np.ndarray],
    shape: tuple[int, ...],
    prior: Prior,
    *,
    run_seed: int,
    completions: int,
) -> tuple[tf.Tensor, tf.Tensor, Given]:
    """The start of completions: completion j of image i depends only on (run_seed, i, j) and what is given of image i.

    Args:
      numbers: int32 [B], the numbers of the completions, i * completions + j; larger numbers repeat the last one.
      given: arrays [N, ...] of what is given.
      shape: the shape of one sample.
      prior: draws the start of the walks.
      run_seed: an integer in [0, 2^31).
      completions: the number of completions per image.

    Returns:
      (seeds, x, given): int32 [B, 2], float32 [B, *shape], and the tensors for the guidance, [B, ...] each.
    """
    numbers = tf.minimum(numbers, len(given[0]) * completions - 1)
    image = numbers // completions
    own = random.per_example(random.stream_seed(run_seed, random.Stream.COMPLETION), image)
    seeds = random.per_row(own, tf.math.floormod(numbers, completions))
    x = prior(random.fold_each(seeds, random.Stream.PRIOR), shape)
    return seeds, x, tuple(tf.gather(tf.constant(part), image) for part in given)
