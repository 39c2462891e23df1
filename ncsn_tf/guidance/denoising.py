"""Denoising images whose noise is known: by one step to the mean of what they may have been, or by a walk."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import Sampler
from ncsn_tf.score import ScoreFunction, denoise, expand
from ncsn_tf.sde import VE


@dataclasses.dataclass(frozen=True)
class Denoised:
    """Images under the noise of one level, and what became of them.

    Attributes:
      sigma: the noise's deviation, in data units.
      noisy: float32 [N, H, W, C].
      one_step: by Tweedie's formula, the mean of the clean image given the noisy one: the least mean square error.
      annealed: by the sampler from this level on, a sample near the noisy image.
      psnr: in dB, a mean and its standard error over the images, by "noisy", "one_step", "annealed".
    """

    sigma: float
    noisy: np.ndarray
    one_step: np.ndarray
    annealed: np.ndarray
    psnr: dict[str, tuple[float, float]]


def at_level(
    score_fn: ScoreFunction,
    sde: VE,
    time: float,
    make_sampler: Callable[[], Sampler],
    images: np.ndarray,
    *,
    run_seed: int,
) -> Denoised:
    """Adds the noise of one level to images and takes it away again, by one step and by annealing.

    Args:
      score_fn: the score function.
      sde: gives alpha and sigma.
      time: the level's time.
      make_sampler: makes the sampler that walks from this level to the last.
      images: float32 [N, H, W, C] within [0, 1], N at least 2.
      run_seed: an integer in [0, 2^31); the noise of image i at a level depends on (run_seed, level, i) alone.
    """
    base = random.fold(random.seed(run_seed), random.Stream.PERTURBATION)
    seeds = random.per_example(base, tf.range(len(images)))
    t = tf.fill([len(images)], np.float32(time))
    seeds = random.fold_each(seeds, tf.bitcast(t[0], tf.int32))
    alpha, sigma = sde.marginal(t)
    clean = tf.constant(images, tf.float32)
    noisy = expand(alpha, clean) * clean + expand(sigma, clean) * random.normal(seeds, images.shape[1:])
    one_step = tf.function(lambda x: denoise(score_fn, sde, x, t), autograph=False)(noisy)
    annealed = make_sampler()(noisy, seeds).x
    found = {"noisy": noisy / expand(alpha, clean), "one_step": one_step, "annealed": annealed}
    arrays = {name: value.numpy() for name, value in found.items()}
    psnr = {name: _mean(signal_to_noise(value, images)) for name, value in arrays.items()}
    return Denoised(float(sigma[0]), noisy.numpy(), arrays["one_step"], arrays["annealed"], psnr)


def signal_to_noise(images: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The peak signal-to-noise ratio, -10 log10 of the mean square error, of images within [0, 1], clipped to it.

    Args:
      images: floats [N, H, W, C].
      original: floats of the same shape.

    Returns:
      float64 [N], in dB; infinite where they agree.
    """
    error = np.square(np.clip(images, 0.0, 1.0) - original, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error.reshape(len(error), -1).mean(axis=1))


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
