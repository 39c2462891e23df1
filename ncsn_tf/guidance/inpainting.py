"""Inpainting: the unknown pixels are sampled, while the known ones are set to noisy copies of themselves.

Algorithm 2 of Song & Ermon 2019 works with any step and any schedule: after every step the known pixels are overwritten
by those of the given image, with the noise of the time at the end of the step.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import Given, Guidance, Prior, StepSeeds
from ncsn_tf.score import expand
from ncsn_tf.sde import SDE

REFERENCES = ("level", "step")


@dataclasses.dataclass(frozen=True)
class Inpainting(Guidance):
    """Sets the known pixels to the image with the noise of the time at the end of a step (Algorithm 2, line 9).

        y = alpha image + sigma z;   x <- y where the mask is True, x elsewhere.

    The paper draws one z per level (lines 4 and 5), NCSNv2's program a new one per step. With one z per level, and in
    the limit of small steps, the walk at that level samples the density of the unknown pixels given y. With a new z per
    step it averages over the noise of the known pixels. A level is a segment of the sampler's schedule, even if the
    time changes within it.

    The given tensors are images, float32 [B, ...], and masks of the known pixels, bool, [B, ...] of the same shape or
    with one channel.

    Attributes:
      sde: gives alpha and sigma.
      reference: "level" or "step": z is drawn once per level or once per step.

    Raises:
      ValueError: for another `reference`.
    """

    sde: SDE
    reference: str = "level"

    def __post_init__(self):
        if self.reference not in REFERENCES:
            raise ValueError(
                f"A noisy reference is drawn once per {' or '.join(REFERENCES)}. Received: {self.reference!r}."
            )

    def project(
        self, x: tf.Tensor, mean: tf.Tensor, t: tf.Tensor, seeds: StepSeeds, given: Given
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Overwrites the known pixels of x and of its mean; see `Guidance.project`."""
        images, known = given
        if self.reference == "step":
            own = random.fold_each(seeds.step, random.Stream.REFERENCE)
        else:
            own = random.fold_each(seeds.walk, random.Stream.REFERENCE, seeds.level)
        alpha, sigma = self.sde.marginal(t)
        clean = expand(alpha, x) * images
        noisy = clean + expand(sigma, x) * random.normal(own, x.shape[1:])
        return tf.where(known, noisy, x), tf.where(known, clean, mean)


def start(
    numbers: tf.Tensor, images: np.ndarray, known: np.ndarray, prior: Prior, *, run_seed: int, completions: int
) -> tuple[tf.Tensor, tf.Tensor, Given]:
    """The start of completions: completion j of image i depends only on (run_seed, i, j), the image and its mask.

    Args:
      numbers: int32 [B], the numbers of the completions, i * completions + j; larger numbers repeat the last one.
      images: float32 [N, H, W, C], in the SDE's data range.
      known: bool [N, H, W, C] or [N, H, W, 1].
      prior: draws the start of the walks.
      run_seed: an integer in [0, 2^31).
      completions: the number of completions per image.

    Returns:
      (seeds, x, given): int32 [B, 2], float32 [B, H, W, C], and the tensors for `Inpainting`.
    """
    numbers = tf.minimum(numbers, len(images) * completions - 1)
    image = numbers // completions
    own = random.per_example(random.stream_seed(run_seed, random.Stream.COMPLETION), image)
    seeds = random.per_row(own, tf.math.floormod(numbers, completions))
    x = prior(random.fold_each(seeds, random.Stream.PRIOR), images.shape[1:])
    return seeds, x, (tf.gather(tf.constant(images), image), tf.gather(tf.constant(known), image))


def put_back(x: tf.Tensor, given: Given) -> tf.Tensor:
    """The completions x with the known pixels of the images, bit for bit (Algorithm 2 ends with noisy ones)."""
    images, known = given
    return tf.where(known, images, x)


def check(images: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 and their masks as bool.

    Raises:
      ValueError: if there are no images, if shapes do not agree, if known pixels are not finite or not in [0, 1], or if
        the mask of an image has no known or no unknown pixel.
    """
    images, known = np.asarray(images), np.asarray(known)
    if images.ndim != 4 or not images.size or images.dtype.kind != "f":
        raise ValueError(f"Images must be floats [N, H, W, C]. Received: {images.dtype} {images.shape}.")
    if known.dtype != bool or known.shape not in (images.shape, (*images.shape[:-1], 1)):
        raise ValueError(
            f"A mask must be bool, of the images' shape {images.shape} or with one channel. "
            f"Received: {known.dtype} {known.shape}."
        )
    seen = images[np.broadcast_to(known, images.shape)]
    if not np.isfinite(seen).all():
        raise ValueError(f"{np.sum(~np.isfinite(seen))} known values are NaN or infinite.")
    if seen.size and (seen.min() < 0.0 or seen.max() > 1.0):
        raise ValueError(f"Images must be in [0, 1]. Received: known values from {seen.min():.4g} to {seen.max():.4g}.")
    share = known.reshape(len(known), -1).mean(axis=1)
    for wrong, what in (
        (share == 0.0, "has no known pixel: draw samples instead"),
        (share == 1.0, "has no unknown pixel"),
    ):
        if wrong.any():
            raise ValueError(f"The mask of image {int(np.flatnonzero(wrong)[0])} {what}.")
    return images.astype(np.float32), known
