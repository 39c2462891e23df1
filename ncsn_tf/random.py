"""Stateless random numbers that belong to an example, never to a device or a batch.

Every draw of the library comes from here, except a network's initial weights, which Keras's initializers draw. A seed
is an int32 tensor of shape [2]; a batch of seeds has shape [B, 2], one row per example. Seeds are made by folding
integers into the run's seed: the purpose of the draw, the number of the example, the step. So the same example gets the
same noise in any batch on any number of replicas.

The generator is Philox4x32-10 (Salmon et al. 2011) in plain integer operations, for all rows of a batch at once. Its
words are those of `tf.random.stateless_uniform(..., dtype=tf.int32, alg="philox")`, bit for bit. That function takes
one seed: a loop over 400 examples of 16 numbers takes 13 ms. No function here has to be compiled by XLA, so an exported
graph runs in TF Serving, whose binaries have no compiler. The words are the same in eager mode, in a graph and under
XLA.

`uniform`, `rademacher` and `integers` are exact functions of the words, hence the same everywhere too. `normal` and
`spherical` also take roots, a logarithm, a sine and a cosine. Those run under XLA only where the caller is compiled,
and then differ in the last digits of a float32. (With the same seed, `tf.random.stateless_normal` and
`stateless_uniform` give entirely different floats under XLA and without it: measured with TensorFlow 2.21.)
"""

import enum
import math
from collections.abc import Sequence

import tensorflow as tf

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
"""Philox's constants: the multipliers, and the increments of the key per round; the first is 2^32 / 1.618..."""

_SEED_KEY = 0x3EC8F720, 0x02461E29
"""The key under which TensorFlow turns a seed into a key and a counter."""

Shape = Sequence[int] | tf.TensorShape
"""A static shape."""


class Stream(enum.IntEnum):
    """The purpose of a seed. Two purposes never share a stream, so their draws are independent."""

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
    ACCEPTANCE = 16
    CORRECTOR = 17
    PROBES = 18
    LIKELIHOOD = 19
    BROWNIAN = 20
    LABEL_DROPOUT = 21
    MEASUREMENT = 22


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
    return fold_each(base[None], *data)[0]


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
    return _fold(base[None], tf.cast(examples, tf.int32))


def fold_each(seeds: tf.Tensor, *data: int | tf.Tensor) -> tf.Tensor:
    """Folds the same integers into every seed of a batch.

    Args:
      seeds: int32 of shape [B, 2].
      *data: scalars as for `fold`.

    Returns:
      Seeds, int32 of shape [B, 2]; row b equals `fold(seeds[b], *data)`.
    """
    for value in data:
        seeds = _fold(seeds, tf.cast(value, tf.int32))
    return seeds


def per_row(seeds: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Folds a number of its own into each seed of a batch.

    Args:
      seeds: int32 of shape [B, 2].
      numbers: integer tensor of shape [B].

    Returns:
      Seeds, int32 of shape [B, 2]; row b equals `fold(seeds[b], numbers[b])`.
    """
    return _fold(seeds, tf.cast(numbers, tf.int32))


@tf.function(autograph=False)
def _fold(seeds: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Seeds [B, 2] (or [1, 2]) with a number, int32 scalar or [B], folded into each; int32 [B, 2]."""
    numbers = tf.bitcast(numbers, tf.uint32)
    mask = tf.stack([tf.zeros_like(numbers), numbers], axis=-1)
    return tf.bitcast(tf.bitwise.bitwise_xor(_bits(seeds, 2), mask), tf.int32)


@tf.function(autograph=False)
def _bits(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """`count` words of 32 random bits per example, uint32 of shape [B, count].

    As in TensorFlow, one block of Philox turns a seed into a key, its first two words, and the upper half of a counter,
    its last two; the lower half counts the blocks from 0. So the counter never carries into its upper half.
    """
    # Sign-extended to 64 bits, a seed's two integers are the counter of that block, low words first.
    counter = tf.reshape(tf.bitcast(tf.cast(seeds, tf.int64), tf.uint32), [-1, 4])
    scrambled = _philox([counter[:, word : word + 1] for word in range(4)], _SEED_KEY)
    blocks = -(-count // 4)
    number = tf.cast(tf.range(blocks, dtype=tf.int64), tf.uint64)[None]
    words = _philox([number, tf.zeros_like(number), *scrambled[2:]], scrambled[:2])
    if blocks == 1:
        return tf.concat(words, axis=1)[:, :count]
    return tf.reshape(tf.stack(words, axis=2), [-1, 4 * blocks])[:, :count]


def _philox(counter: Sequence[tf.Tensor], key: Sequence[int | tf.Tensor]) -> list[tf.Tensor]:
    """Philox4x32-10, Salmon et al. 2011, section 3.3: a block of four random words per counter.

    A round multiplies the words 0 and 2 to 64 bits each. The low halves are the new words 3 and 1; the high halves are
    combined with the old words and the key by XOR. All words are kept in uint64; those that are not multiplied in the
    next round keep their high bits.

    Args:
      counter: four words, integer tensors whose shapes broadcast, values below 2^32, low words first.
      key: two words, likewise.

    Returns:
      Four words, uint32, of the broadcast shape.
    """
    xor, low = tf.bitwise.bitwise_xor, tf.constant(2**32 - 1, tf.uint64)
    c0, c1, c2, c3 = (tf.cast(word, tf.uint64) for word in counter)
    key0, key1 = (tf.cast(word, tf.uint64) for word in key)
    for number in range(10):
        product0, product2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, high2 = (tf.bitwise.right_shift(product, tf.constant(32, tf.uint64)) for product in (product0, product2))
        round_key0, round_key1 = key0 + number * _WEYL[0], key1 + number * _WEYL[1]
        c0 = tf.bitwise.bitwise_and(xor(high2, xor(c1, round_key0)), low)
        c2 = tf.bitwise.bitwise_and(xor(high0, xor(c3, round_key1)), low)
        c1, c3 = product2, product0
    return [tf.cast(word, tf.uint32) for word in (c0, c1, c2, c3)]


def _size(shape: Shape) -> int:
    return int(tf.TensorShape(shape).num_elements())


def normal(seeds: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Standard normal noise, one independent draw per example, by the Box-Muller transform.

    Args:
      seeds: int32 of shape [B, 2].
      shape: the shape of one example.

    Returns:
      float32 of shape [B, *shape]; row b depends on `seeds[b]` alone. No draw exceeds 6.8 in magnitude.
    """
    size = _size(shape)
    pairs = (size + 1) // 2
    bits = _bits(seeds, 2 * pairs)
    # The largest words round to 1, whose logarithm is 0; a vector of zeros would have no direction.
    u = tf.minimum((tf.cast(bits[:, :pairs], tf.float32) + 0.5) * 2.0**-32, 1.0 - 2.0**-24)
    radius = tf.sqrt(-2.0 * tf.math.log(u))
    angle = tf.cast(bits[:, pairs:], tf.float32) * (2.0 * math.pi * 2.0**-32)
    flat = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)[:, :size]
    return tf.reshape(flat, [-1, *shape])


def uniform(seeds: tf.Tensor, shape: Shape = ()) -> tf.Tensor:
    """Uniform noise on [0, 1), one independent draw per example.

    Args:
      seeds: int32 of shape [B, 2].
      shape: the shape of one example; a scalar by default.

    Returns:
      float32 of shape [B, *shape], multiples of 2^-24.
    """
    high_bits = tf.bitwise.right_shift(_bits(seeds, _size(shape)), tf.constant(8, tf.uint32))
    return tf.reshape(tf.cast(high_bits, tf.float32) * 2.0**-24, [-1, *shape])


def spread(numbers: tf.Tensor, offset: float) -> tf.Tensor:
    """Points of a low-discrepancy sequence: frac(offset + n / 1.618...), the golden ratio's additive sequence.

    N consecutive points leave gaps of order 1 / N in [0, 1), and N independent draws gaps of order log(N) / N. Each
    point depends on its number alone.

    Args:
      numbers: int32 of shape [B], the n, at least 0.
      offset: in [0, 1).

    Returns:
      float32 of shape [B] in [0, 1), multiples of 2^-24.
    """
    words = tf.cast(numbers, tf.uint64) * _WEYL[0] + int(offset * 2**32)
    high_bits = tf.bitwise.right_shift(tf.cast(words, tf.uint32), tf.constant(8, tf.uint32))
    return tf.cast(high_bits, tf.float32) * 2.0**-24


def rademacher(seeds: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Random signs, one independent draw per example.

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
    """A uniform integer per example.

    Args:
      seeds: int32 of shape [B, 2].
      bound: the exclusive upper bound, at least 1 and far below 2^24, the number of values of a uniform draw.

    Returns:
      int32 of shape [B], values in [0, bound).
    """
    return tf.cast(uniform(seeds) * float(bound), tf.int32)


def keep_mask(seeds: tf.Tensor, shape: Shape, rate: float) -> tf.Tensor:
    """Masks for dropout: elements are 0 with probability `rate`, and else what makes their mean 1.

    Training draws millions of these numbers in each step, so their bits are cheap ones, four numbers from each word of
    SplitMix64, whose state starts as the seed: for 16 masks of 32x32x128 in a third of the time that Philox takes. With
    16 bits per number, the probability is `rate` rounded to a multiple of 2^-16.

    Args:
      seeds: int32 of shape [B, 2], made by a fold, which scatters them.
      shape: the shape of one example.
      rate: the probability of a zero, in [0, 1).

    Returns:
      float32 of shape [B, *shape], values 0 and 1 / (1 - rate), with the rounded rate.

    Raises:
      ValueError: if `rate` is outside that range.

    Reference:
      Steele, Lea & Flood, Fast splittable pseudorandom number generators, 2014.
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"A dropout rate must be in [0, 1). Received: {rate}.")
    threshold = min(round(rate * 2**16), 2**16 - 1)
    numbers = _cheap_bits(seeds, _size(shape))
    kept = tf.where(numbers >= tf.constant(threshold, tf.uint16), 2.0**16 / (2**16 - threshold), 0.0)
    return tf.reshape(kept, [-1, *shape])


@tf.function(autograph=False)
def _cheap_bits(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """`count` numbers of 16 random bits per example, uint16 [B, count]: the words of SplitMix64, each cut in four."""

    def folded(word: tf.Tensor, shift: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, tf.constant(shift, tf.uint64)))

    number = tf.cast(tf.range(1, -(-count // 4) + 1, dtype=tf.int64), tf.uint64)
    word = tf.bitcast(seeds, tf.uint64)[:, None] + number * 0x9E3779B97F4A7C15
    word = folded(word, 30) * 0xBF58476D1CE4E5B9
    word = folded(word, 27) * 0x94D049BB133111EB
    return tf.reshape(tf.bitcast(folded(word, 31), tf.uint16), [-1, 4 * number.shape[0]])[:, :count]
