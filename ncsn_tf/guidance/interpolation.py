"""Interpolation between samples: the noise of walks is mixed, not their final images.

As in the program of NCSNv2 (Song & Ermon 2020), each step of annealed Langevin dynamics draws two noises, and the k-th
point of a path gets cos(a_k) z + sin(a_k) z', with a_k from 0 to pi/2. That is standard normal: each point is a sample,
and neighbours have nearly the same noise. Here the start is mixed as well, and the ends of a path are equal to the
samples that their seeds give without interpolation.

Codes of the probability flow are mixed on great circles between them: `spherical`.
"""

import math

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import Given, Prior, uniform_prior
from ncsn_tf.samplers.langevin import Noise


def noise(points: int) -> Noise:
    """Noise for paths of `points` rows each: row k is cos(a_k) of the path's first row plus sin(a_k) of its last.

    Raises:
      ValueError: if `points` is below 2.
    """
    _check(points)
    return lambda seeds, shape: _mixed(random.normal(seeds, shape), points)


def mixed_prior(prior: Prior, points: int) -> Prior:
    """A prior that is mixed like the noise, so that each row keeps the prior's distribution.

    Args:
      prior: `driver.uniform_prior`, which is mixed through normal quantiles, or a normal distribution with mean 0.
      points: the samples per path.

    Raises:
      ValueError: if `points` is below 2.
    """
    _check(points)
    if prior is uniform_prior:
        return lambda seeds, shape: _mixed_uniform(seeds, shape, points)
    return lambda seeds, shape: _mixed(prior(seeds, shape), points)


def start(
    numbers: tf.Tensor, prior: Prior, shape: tuple[int, ...], *, run_seed: int, points: int
) -> tuple[tf.Tensor, tf.Tensor, Given]:
    """The start of paths: point k of path p is row p * points + k; the ends of path p are the samples 2 p and 2 p + 1.

    Args:
      numbers: int32 [B], the numbers of the rows; B is a multiple of `points`, and so is the first number.
      prior: made by `mixed_prior` for the same number of points.
      shape: the shape of one sample.
      run_seed: an integer in [0, 2^31).
      points: the samples per path, both ends included.

    Returns:
      (seeds, x, ()): int32 [B, 2] and float32 [B, *shape].
    """
    path, point = numbers // points, tf.math.floormod(numbers, points)
    sample = 2 * path + tf.cast(point == points - 1, tf.int32)
    seeds = random.per_example(random.stream_seed(run_seed, random.Stream.SAMPLE), sample)
    return seeds, prior(random.fold_each(seeds, random.Stream.PRIOR), shape), ()


def spherical(first: np.ndarray, last: np.ndarray, points: int) -> np.ndarray:
    """Paths between latent codes along great circles, so that codes of a normal prior keep its typical length.

        path_k = (sin((1 - w) a) first + sin(w a) last) / sin(a),   w = k / (points - 1),

    where a is the angle between the two. Parallel codes, where sin(a) = 0, are mixed linearly.

    Args:
      first: floats [P, ...], where the paths begin.
      last: of the same shape, where they end.
      points: the codes per path, both ends included.

    Returns:
      float32 [P, points, ...], whose ends are equal to the codes given.

    Raises:
      ValueError: if `points` is below 2.

    Reference:
      Shoemake 1985; Song, Meng & Ermon 2021, equation 67.
    """
    _check(points)
    a, b = (np.asarray(codes, np.float64).reshape(len(codes), -1) for codes in (first, last))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.sum(a * b, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))[:, None]
    share = np.linspace(0.0, 1.0, points)
    sine = np.sin(angle)
    parallel = sine < 1e-6
    divisor = np.where(parallel, 1.0, sine)
    begun = np.where(parallel, 1.0 - share, np.sin((1.0 - share) * angle) / divisor)
    ended = np.where(parallel, share, np.sin(share * angle) / divisor)
    paths = begun[:, :, None] * a[:, None] + ended[:, :, None] * b[:, None]
    return paths.reshape(len(a), points, *first.shape[1:]).astype(np.float32)


def _mixed_uniform(seeds: tf.Tensor, shape: random.Shape, points: int) -> tf.Tensor:
    u = uniform_prior(seeds, shape)
    normal = tf.math.ndtri(tf.clip_by_value(u, 2.0**-25, 1.0 - 2.0**-24))
    mixed = 0.5 * tf.math.erfc(-_mixed(normal, points) / math.sqrt(2.0))
    row = tf.range(tf.shape(u)[0]) % points
    end = tf.reshape((row == 0) | (row == points - 1), [-1] + [1] * len(shape))
    return tf.where(end, u, tf.minimum(mixed, 1.0 - 2.0**-24))


def _mixed(z: tf.Tensor, points: int) -> tf.Tensor:
    """cos(a_k) of the first row plus sin(a_k) of the last, for each group of `points` rows."""
    angles = np.linspace(0.0, math.pi / 2.0, points)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    cosines[-1] = 0.0  # not 6e-17: the last row must be bit-for-bit the last sample's noise
    grouped = tf.reshape(z, [-1, points, *z.shape[1:]])
    column = [1, points] + [1] * (len(z.shape) - 1)
    mixed = tf.reshape(cosines, column) * grouped[:, :1] + tf.reshape(sines, column) * grouped[:, -1:]
    return tf.reshape(mixed, tf.shape(z))


def _check(points: int) -> None:
    if points < 2:
        raise ValueError(f"A path needs 2 or more points, both ends included. Received: points={points}.")
