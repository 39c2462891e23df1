"""Interpolation between samples: the noise of a walk is mixed, not the pictures that it ends in.

As in the program of NCSNv2 (Song & Ermon 2020), each step of annealed Langevin dynamics draws two noises, and the k-th
point of a path gets cos(a_k) z + sin(a_k) z', with a_k from 0 to pi/2. That is standard normal: each point is a sample,
and neighbours have nearly the same noise. Here the start is mixed as well, and the ends of a path are the very samples
that their seeds have by themselves.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers import driver
from ncsn_tf.samplers.driver import Prior, Sampler, Samples
from ncsn_tf.samplers.langevin import Noise


def noise(points: int) -> Noise:
    """Noise for a batch of paths, `points` rows each: row k has cos(a_k) of its path's first and sin(a_k) of its last.

    Raises:
      ValueError: if `points` is below 2.
    """
    _check(points)
    return lambda seeds, shape: _mixed(random.normal(seeds, shape), points)


def normal_prior(prior: Prior, points: int) -> Prior:
    """A prior of a normal law with mean 0, mixed as the noise is; raises ValueError as `noise`."""
    _check(points)
    return lambda seeds, shape: _mixed(prior(seeds, shape), points)


def uniform_prior(points: int) -> Prior:
    """`driver.uniform_prior`, mixed as the noise is, by way of normal quantiles: each row stays uniform on [0, 1).

    Raises:
      ValueError: as `noise`.
    """
    _check(points)

    def prior(seeds: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        u = driver.uniform_prior(seeds, shape)
        normal = tf.math.ndtri(tf.clip_by_value(u, 2.0**-25, 1.0 - 2.0**-24))
        mixed = 0.5 * tf.math.erfc(-_mixed(normal, points) / math.sqrt(2.0))
        row = tf.range(tf.shape(u)[0]) % points
        end = tf.reshape((row == 0) | (row == points - 1), [-1] + [1] * len(shape))
        return tf.where(end, u, tf.minimum(mixed, 1.0 - 2.0**-24))

    return prior


def paths(
    sampler: Sampler,
    prior: Prior,
    shape: tuple[int, ...],
    *,
    run_seed: int,
    ends: Sequence[tuple[int, int]],
    points: int,
) -> Iterator[Samples]:
    """Paths between samples, one a batch.

    Args:
      sampler: one whose step draws from `noise(points)`.
      prior: one of this module's, of as many points.
      shape: the shape of one sample.
      run_seed: an integer in [0, 2^31).
      ends: the numbers of the two samples of each path, as `driver.generate` counts them.
      points: samples a path, both ends with it.

    Yields:
      `Samples` of `points` rows; the first and the last are the samples that `driver.generate` makes of these numbers.

    Raises:
      ValueError: if `points` is below 2.
    """
    _check(points)
    base = driver.base_seed(run_seed)
    for first, last in ends:
        seeds, x = driver.begin(base, tf.constant([first] * (points - 1) + [last]), prior, shape)
        yield sampler(x, seeds)


def _mixed(z: tf.Tensor, points: int) -> tf.Tensor:
    """cos(a_k) of the first row and sin(a_k) of the last, of each group of `points` rows."""
    angles = np.linspace(0.0, math.pi / 2.0, points)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    cosines[-1] = 0.0  # not 6e-17, and so the last row is the last sample's noise to the bit
    grouped = tf.reshape(z, [-1, points, *z.shape[1:]])
    column = [1, points] + [1] * (len(z.shape) - 1)
    mixed = tf.reshape(cosines, column) * grouped[:, :1] + tf.reshape(sines, column) * grouped[:, -1:]
    return tf.reshape(mixed, tf.shape(z))


def _check(points: int) -> None:
    if points < 2:
        raise ValueError(f"A path has two ends or more points. Received: points={points}.")
