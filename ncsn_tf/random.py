"""Stateless random numbers that belong to an example, never to a device or a batch.

Every draw of the library comes from here, but for the start of a network's weights, which Keras's initializers draw.
A seed is an int32 tensor of shape [2]; a batch of seeds has shape [B, 2] with one row an example. Seeds are made by
folding integers into the run's seed: what the draw is for, the example's number, the step. So the same example gets the
same noise in any batch on any number of replicas.

Two facts shape the code. Left to choose, TensorFlow takes another generator on TPU than on CPU and GPU, so Philox is
named. And `tf.random.stateless_normal` and `stateless_uniform` give other floats under XLA than without it for the same
seed (measured on TensorFlow 2.21), while the generator's integers agree: so only integers are drawn, and the floats are
made from them here. Samples are then the same whether or not XLA compiles them.

The functions that walk over a batch of seeds are compiled by XLA wherever they are called from: TensorFlow has no
batched form of the generator and would run a loop of single draws, 13 ms for 400 examples of 16 numbers against 0.7 ms.
"""

import enum
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

Shape = Sequence[int] | tf.TensorShape
"""A static shape."""


class Stream(enum.IntEnum):
    """What a seed is for. Two purposes never share a stream, so their draws are independent."""

    DATA_ORDER = 1
    DEQUANTIZATION = 2
    FLIP = 3
    LEVEL = 4
    PERTURBATION = 5
    HELD_OUT = 6
    SAMPLE = 7
    PRIOR = 8
    SAMPLER_STEP = 9
    SLICES = 10
    COMPLETION = 11
    REFERENCE = 12
    MASK = 13
    DROPOUT = 14
    INITIAL_WEIGHTS = 15


def seed(run_seed: int) -> tf.Tensor:
    """The root seed of a run.

    Args:
      run_seed: an integer in [0, 2^31), the run's `seed`.

    Returns:
      An int32 tensor of shape [2].

    Raises:
      ValueError: if `run_seed` is outside that range.
    """
    if not 0 <= run_seed < 2**31:
        raise ValueError(f"A seed must be an integer in [0, 2^31). Received: {run_seed}.")
    return tf.constant([run_seed, 0], tf.int32)


def fold(base: tf.Tensor, *data: int | tf.Tensor) -> tf.Tensor:
    """Folds integers into one seed, left to right.

    A fold draws two words from the seed and mixes the integer into the second: all 64 bits of what came before survive.
    (TensorFlow's own `stateless_fold_in` keeps one word: among a million samples a hundred would share their noise.)

    Args:
      base: a seed, int32 of shape [2].
      *data: scalars, each a Python integer or an integer tensor (taken modulo 2^32).

    Returns:
      A seed, int32 of shape [2]; different integers give different seeds.
    """
    for value in data:
        first, second = tf.unstack(_words(base, 2))
        base = tf.stack([first, tf.bitwise.bitwise_xor(second, tf.cast(value, tf.int32))])
    return base


def stream_seed(run_seed: int, stream: Stream) -> tf.Tensor:
    """The seed of one purpose in a run, int32 [2]: `fold(seed(run_seed), stream)`; raises ValueError as `seed`."""
    return fold(seed(run_seed), stream)


def per_example(base: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
    """Folds an example number into a seed, for a whole batch.

    Args:
      base: a seed, int32 of shape [2].
      examples: integer tensor of shape [B].

    Returns:
      Seeds, int32 of shape [B, 2]; row b equals `fold(base, examples[b])`.
    """
    return _fold_rows(tf.repeat(base[None], tf.size(examples), axis=0), tf.cast(examples, tf.int32)[:, None])


def fold_each(seeds: tf.Tensor, *data: int | tf.Tensor) -> tf.Tensor:
    """Folds the same integers into every seed of a batch.

    Args:
      seeds: int32 of shape [B, 2].
      *data: scalars as for `fold`.

    Returns:
      Seeds, int32 of shape [B, 2]; row b equals `fold(seeds[b], *data)`.
    """
    values = tf.stack([tf.cast(value, tf.int32) for value in data])
    return _fold_rows(seeds, tf.repeat(values[None], tf.shape(seeds)[0], axis=0))


def per_row(seeds: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Folds a number of its own into each seed of a batch.

    Args:
      seeds: int32 of shape [B, 2].
      numbers: integer tensor of shape [B].

    Returns:
      Seeds, int32 of shape [B, 2]; row b equals `fold(seeds[b], numbers[b])`.
    """
    return _fold_rows(seeds, tf.cast(numbers, tf.int32)[:, None])


@tf.function(jit_compile=True, autograph=False)
def _fold_rows(seeds: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Row b is seeds[b] with the integers data[b], [K], folded in."""
    return tf.vectorized_map(lambda row: fold(row[0], *tf.unstack(row[1])), (seeds, data), warn=False)


def _size(shape: Shape) -> int:
    return int(tf.TensorShape(shape).num_elements())


def _words(seed: tf.Tensor, count: int) -> tf.Tensor:
    """`count` words of 32 random bits from one seed, int32 of shape [count]."""
    anything: Any = None  # no bounds: every integer is as likely
    return tf.random.stateless_uniform((count,), seed, anything, anything, dtype=tf.int32, alg="philox")


@tf.function(jit_compile=True, autograph=False)
def _bits(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """`count` words of 32 random bits an example, uint32 of shape [B, count]."""
    return tf.bitcast(tf.vectorized_map(lambda row: _words(row, count), seeds, warn=False), tf.uint32)


def normal(seeds: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Standard normal noise, one independent draw an example, by the Box-Muller transform.

    Args:
      seeds: int32 of shape [B, 2].
      shape: the shape of one example.

    Returns:
      float32 of shape [B, *shape]; row b depends on `seeds[b]` alone. No draw exceeds 6.8 in magnitude.
    """
    size = _size(shape)
    pairs = (size + 1) // 2
    bits = _bits(seeds, 2 * pairs)
    # The largest words round to 1, whose logarithm would make a vector of zeros, of no direction.
    u = tf.minimum((tf.cast(bits[:, :pairs], tf.float32) + 0.5) * 2.0**-32, 1.0 - 2.0**-24)
    radius = tf.sqrt(-2.0 * tf.math.log(u))
    angle = tf.cast(bits[:, pairs:], tf.float32) * (2.0 * math.pi * 2.0**-32)
    flat = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)[:, :size]
    return tf.reshape(flat, [-1, *shape])


def uniform(seeds: tf.Tensor, shape: Shape = ()) -> tf.Tensor:
    """Uniform noise on [0, 1), one independent draw an example.

    Args:
      seeds: int32 of shape [B, 2].
      shape: the shape of one example; a scalar by default.

    Returns:
      float32 of shape [B, *shape], multiples of 2^-24.
    """
    high_bits = tf.bitwise.right_shift(_bits(seeds, _size(shape)), tf.constant(8, tf.uint32))
    return tf.reshape(tf.cast(high_bits, tf.float32) * 2.0**-24, [-1, *shape])


def rademacher(seeds: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Random signs, one independent draw an example.

    Args:
      seeds: int32 of shape [B, 2].
      shape: the shape of one example.

    Returns:
      float32 of shape [B, *shape], values -1 and 1.
    """
    sign_bits = tf.bitwise.right_shift(_bits(seeds, _size(shape)), tf.constant(31, tf.uint32))
    return tf.reshape(2.0 * tf.cast(sign_bits, tf.float32) - 1.0, [-1, *shape])


def spherical(seeds: tf.Tensor, shape: Shape, event_rank: int | None = None) -> tf.Tensor:
    """Directions uniform on the sphere of squared radius D, so that E[v v'] = I as for `normal` and `rademacher`.

    Args:
      seeds: int32 of shape [B, 2].
      shape: the shape of one example's draw, which may be several directions.
      event_rank: how many of the last axes are one direction, of D values together; by default all.

    Returns:
      float32 of shape [B, *shape].
    """
    rank = len(shape) if event_rank is None else event_rank
    directions = normal(seeds, shape)
    axes = tuple(range(-rank, 0))
    mean_square = tf.reduce_mean(directions**2, axis=axes, keepdims=True)
    return directions * tf.math.rsqrt(mean_square)


def integers(seeds: tf.Tensor, bound: int) -> tf.Tensor:
    """A uniform integer an example.

    Args:
      seeds: int32 of shape [B, 2].
      bound: the exclusive upper bound, at least 1 and far below 2^24, the number of values that the uniform draw takes.

    Returns:
      int32 of shape [B], values in [0, bound).
    """
    return tf.cast(uniform(seeds) * float(bound), tf.int32)
