"""The noise of what is given: drawn once for a walk, once per level, or once per step."""

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import StepSeeds
from ncsn_tf.samplers.langevin import Noise

REFERENCES = ("walk", "level", "step")


def check(reference: str) -> None:
    """Raises ValueError for a name that is not in `REFERENCES`."""
    if reference not in REFERENCES:
        raise ValueError(f"A noisy reference is drawn once per {', '.join(REFERENCES)}. Received: {reference!r}.")


def draw(reference: str, seeds: StepSeeds, shape: random.Shape, noise: Noise = random.normal) -> tf.Tensor:
    """The noise of a reference, [B, *shape], standard normal.

    Args:
      reference: "walk", "level" or "step". A level is a segment of the sampler's schedule, even if the time changes
        within it.
      seeds: the seeds of the step.
      shape: the shape of one sample.
      noise: draws it, `noise(seeds [B, 2], shape) -> [B, *shape]`.
    """
    if reference == "step":
        own = random.fold_each(seeds.step, random.Stream.REFERENCE)
    elif reference == "level":
        own = random.fold_each(seeds.walk, random.Stream.REFERENCE, seeds.level)
    else:
        own = random.fold_each(seeds.walk, random.Stream.REFERENCE)
    return noise(own, shape)
