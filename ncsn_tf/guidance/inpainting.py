"""Inpainting: what is not known of an image is sampled, while the known pixels are held to noisy copies of themselves.

Song & Ermon 2019, Algorithm 2, works with any step and any schedule: after every step the known pixels are overwritten
by the given image under the noise of the level. `condition` makes such a step of any other; `complete` draws with it.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import Condition, Prior, Sampler, Samples, Step
from ncsn_tf.score import expand
from ncsn_tf.sde import VE

REFERENCES = ("level", "step")


def condition(sde: VE, reference: str = "level") -> Condition:
    """Holds the known pixels to the image under the noise of the time that a step arrives at (Algorithm 2, line 9).

        y = alpha image + sigma z;   x <- y where the mask is True, x elsewhere.

    The paper draws one y a level (lines 4 and 5), NCSNv2's program a new one each step. With one y a level, the walk at
    that level samples, as its steps get small, the density of the unknown given y; with a new y each step it sees more
    of the noise, and follows none of it.

    Args:
      sde: gives alpha and sigma.
      reference: how often z is drawn, "level" or "step".

    Returns:
      The condition of `driver.Sampler`, whose given tensors are images, float32 [B, ...], and masks of what is known,
      bool, [B, ...] of the same shape or with 1 in place of the channels.

    Raises:
      ValueError: for another `reference`.
    """
    if reference not in REFERENCES:
        raise ValueError(f"A noisy reference is drawn once per {' or '.join(REFERENCES)}. Received: {reference!r}.")

    def conditioned(step: Step, seeds: tf.Tensor, images: tf.Tensor, known: tf.Tensor) -> Step:
        def held(score_fn, x, t, t_next, step_seeds):
            x, mean = step(score_fn, x, t, t_next, step_seeds)
            if reference == "step":
                own = random.fold_each(step_seeds, random.Stream.REFERENCE)
            else:
                # A level is known by the bits of its time, so that no step need know its number.
                own = random.fold_each(seeds, random.Stream.REFERENCE, tf.bitcast(t_next[0], tf.int32))
            alpha, sigma = sde.marginal(t_next)
            clean = expand(alpha, x) * images
            noisy = clean + expand(sigma, x) * random.normal(own, x.shape[1:])
            return tf.where(known, noisy, x), tf.where(known, clean, mean)

        return held

    return conditioned


def complete(
    sampler: Sampler,
    prior: Prior,
    images: np.ndarray,
    known: np.ndarray,
    *,
    run_seed: int,
    completions: int = 1,
    batch_size: int = 100,
    first_image: int = 0,
    on_frame: Callable[[int, int, tf.Tensor], None] | None = None,
) -> Iterator[Samples]:
    """Completes images batch by batch: completion j of image i depends on (run_seed, i, j), image and mask alone.

    The known pixels of the result are the given ones, bit for bit: after the last step, and the final denoising if
    there is one, they are put back (the paper's algorithm ends with their noisy version).

    Args:
      sampler: one that was made with `condition`.
      prior: draws the start, `prior(seeds [B, 2], shape) -> [B, *shape]`.
      images: float32 [N, H, W, C]; what the mask does not know is not looked at.
      known: bool [N, H, W, C] or [N, H, W, 1].
      run_seed: an integer in [0, 2^31).
      completions: how many of each image.
      batch_size: how many at a time; a smaller last batch is filled up and cut, so nothing is traced twice.
      first_image: the number of the first image.
      on_frame: called after each segment with the first row's number, the segment's number and x.

    Yields:
      `Samples` of at most `batch_size` rows; row k of all is completion k % completions of image k // completions.

    Raises:
      ValueError: as `check` does, or if a number is below 1.
    """
    images, known = check(images, known)
    total = len(images) * completions
    if completions < 1 or batch_size < 1:
        raise ValueError(
            "Inpainting needs a positive number of completions and batch size. "
            f"Received: completions={completions}, batch_size={batch_size}."
        )
    batch_size = min(batch_size, total)
    base = random.fold(random.seed(run_seed), random.Stream.COMPLETION)
    for start in range(0, total, batch_size):
        kept = min(batch_size, total - start)
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        number, completion = np.divmod(rows, completions)
        own = random.per_example(base, tf.constant(first_image + number))
        seeds = random.per_row(own, tf.constant(completion))
        x = prior(random.fold_each(seeds, random.Stream.PRIOR), images.shape[1:])
        forward = None
        if on_frame is not None:
            forward = lambda segment, x, start=start, kept=kept: on_frame(start, segment, x[:kept])  # noqa: E731
        given = tf.constant(images[number]), tf.constant(known[number])
        samples = sampler(x, seeds, forward, given)
        yield Samples(tf.where(given[1], given[0], samples.x)[:kept], samples.evaluations)


def check(images: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 and their masks as bool.

    Raises:
      ValueError: for no images, shapes that do not agree, known pixels that are not finite or not within [0, 1], and a
        mask that knows no pixel or all of them in some image.
    """
    images, known = np.asarray(images), np.asarray(known)
    if images.ndim != 4 or not images.size or images.dtype.kind != "f":
        raise ValueError(f"Images are floats [N, H, W, C]. Received: {images.dtype} {images.shape}.")
    if known.dtype != bool or known.shape not in (images.shape, (*images.shape[:-1], 1)):
        raise ValueError(
            f"A mask is bool, of the images' shape {images.shape} or with one channel. "
            f"Received: {known.dtype} {known.shape}."
        )
    seen = images[np.broadcast_to(known, images.shape)]
    if not np.isfinite(seen).all():
        raise ValueError(f"{np.sum(~np.isfinite(seen))} known values are NaN or infinite.")
    if seen.size and (seen.min() < 0.0 or seen.max() > 1.0):
        raise ValueError(f"Images lie within [0, 1]. Received: known values from {seen.min():.4g} to {seen.max():.4g}.")
    share = known.reshape(len(known), -1).mean(axis=1)
    for wrong, what in ((share == 0.0, "knows no pixel: draw samples instead"), (share == 1.0, "knows every pixel")):
        if wrong.any():
            raise ValueError(f"The mask of image {int(np.flatnonzero(wrong)[0])} {what}.")
    return images.astype(np.float32), known
