"""Denoising images whose noise level is known: by one step to the posterior mean, or by annealing to a sample."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import Given
from ncsn_tf.score import ScoreFunction, denoise, expand
from ncsn_tf.sde import SDE


@dataclasses.dataclass(frozen=True)
class OneStep:
    """The step that replaces x by the mean of the clean image given it, by Tweedie's formula at time t.

    Attributes:
      sde: gives alpha and sigma.
    """

    sde: SDE

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): nothing is kept from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step; see `driver.Step`. No noise is drawn and `t_next` is not used."""
        del t_next, seeds
        mean = denoise(score_fn, self.sde, x, t)
        return mean, mean, state


def start(
    numbers: tf.Tensor, time: tf.Tensor, images: np.ndarray, sde: SDE, *, run_seed: int
) -> tuple[tf.Tensor, tf.Tensor, Given]:
    """Adds the noise of one time to images; the noise of image i depends only on (run_seed, time, i).

    Args:
      numbers: int32 [B], the numbers of the images; larger numbers repeat the last image.
      time: float32 scalar.
      images: float32 [N, H, W, C], in the SDE's data range.
      sde: gives alpha and sigma.
      run_seed: an integer in [0, 2^31).

    Returns:
      (seeds, x, ()): int32 [B, 2], for the walk, and alpha image + sigma z, float32 [B, H, W, C].
    """
    numbers = tf.minimum(numbers, len(images) - 1)
    seeds = random.per_example(random.stream_seed(run_seed, random.Stream.PERTURBATION), numbers)
    seeds = random.fold_each(seeds, tf.bitcast(time, tf.int32))
    clean = tf.gather(tf.constant(images, tf.float32), numbers)
    alpha, sigma = sde.marginal(tf.fill([numbers.shape[0] or tf.shape(numbers)[0]], time))
    return seeds, expand(alpha, clean) * clean + expand(sigma, clean) * random.normal(seeds, images.shape[1:]), ()


def signal_to_noise(images: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The peak signal-to-noise ratio, -10 log10 of the mean square error, of images that are clipped to [0, 1].

    Args:
      images: floats [N, H, W, C].
      original: floats of the same shape.

    Returns:
      float64 [N], in dB; infinite for equal images.
    """
    error = np.square(np.clip(images, 0.0, 1.0) - original, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error.reshape(len(error), -1).mean(axis=1))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of two or more values and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
