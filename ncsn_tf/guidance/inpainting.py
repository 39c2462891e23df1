"""Inpainting: the unknown pixels are sampled, while the known ones are set to noisy copies of themselves.

Algorithm 2 of Song & Ermon 2019 works with any step and any schedule: after every step the known pixels are overwritten
by those of the given image, with the noise of the time at the end of the step. A walk from noise to data begins with
them too. The program of Song et al. 2021 begins with the clean image in their place; here the start has the noise of
its time everywhere, and nothing is ever read of a pixel that is not known.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.guidance import references, starts
from ncsn_tf.samplers.driver import Given, Guidance, Prior, StepSeeds
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import expand
from ncsn_tf.sde import SDE


@dataclasses.dataclass(frozen=True)
class Inpainting(Guidance):
    """Sets the known pixels to the image with the noise of the time at the end of a step (Algorithm 2, line 9).

        y = alpha image + sigma z;   x <- y where the mask is True, x elsewhere.

    The paper draws one z per level (lines 4 and 5), NCSNv2's program a new one per step. With one z per level, and in
    the limit of small steps, the walk at that level samples the density of the unknown pixels given y. With a new z per
    step it averages over the noise of the known pixels. A level is a segment of the sampler's schedule, even if the
    time changes within it. With one z for the whole walk the known pixels follow a smooth path, along which methods of
    higher order keep their order; with the others a jump of that path is an error of the first order at least.

    The given tensors are images, float32 [B, ...], and masks of the known pixels, bool, [B, ...] of the same shape or
    with one channel.

    Attributes:
      sde: gives alpha and sigma.
      reference: "walk", "level" or "step": z is drawn once per walk, per level or per step.
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Raises:
      ValueError: for another `reference`.
    """

    sde: SDE
    reference: str = "level"
    noise: Noise = random.normal

    def __post_init__(self):
        references.check(self.reference)

    def project(
        self, x: tf.Tensor, mean: tf.Tensor, t: tf.Tensor, seeds: StepSeeds, given: Given
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Overwrites the known pixels of x and of its mean; see `Guidance.project`."""
        images, known = given
        z = references.draw(self.reference, seeds, x.shape[1:], self.noise)
        alpha, sigma = self.sde.marginal(t)
        clean = expand(alpha, x) * images
        noisy = clean + expand(sigma, x) * z
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
    return starts.completions_of(
        numbers, (images, known), images.shape[1:], prior, run_seed=run_seed, completions=completions
    )


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
