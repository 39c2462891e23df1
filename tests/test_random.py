"""Randomness belongs to an example: the generator's words, properties over batches and compilation, distributions."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.random import Stream

COUNT = 4096
EXTREMES = 0, 1, -1, 2**31 - 1, -(2**31)
SEEDS = np.array([(a, b) for a in EXTREMES for b in EXTREMES], np.int32)
SEEDS = np.concatenate([SEEDS, np.random.default_rng(0).integers(-(2**31), 2**31, (15, 2), np.int32)])
DRAWS = random.normal, random.uniform, random.rademacher, random.spherical


@pytest.fixture(scope="module")
def rows():
    return random.per_example(random.seed(11), tf.range(COUNT))


@pytest.mark.parametrize(
    "counter, key, words",
    [
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (  # the digits of pi
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, words):
    """The vectors for `philox4x32 10` in Random123's `kat_vectors`."""
    block = random._philox(*(tf.unstack(tf.constant(value, tf.uint32)) for value in (counter, key)))
    np.testing.assert_array_equal(tf.stack(block), np.array(words, np.uint32))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 64, 1000])
def test_words_are_those_of_tensorflows_generator(count):
    words = tf.bitcast(random._bits(tf.constant(SEEDS), count), tf.int32)
    for row, seed in zip(words, SEEDS, strict=True):
        expected = tf.random.stateless_uniform([count], seed, None, None, dtype=tf.int32, alg="philox")
        np.testing.assert_array_equal(row, expected, err_msg=f"seed {seed}")


def test_words_of_xla_and_of_unknown_batch_sizes_are_the_same():
    eager = random._bits(tf.constant(SEEDS), 30)
    np.testing.assert_array_equal(tf.function(lambda s: random._bits(s, 30), jit_compile=True)(SEEDS), eager)
    unknown = tf.function(
        lambda s: (random._bits(s, 30), random.fold_each(s, 1, 2)), input_signature=[tf.TensorSpec([None, 2], tf.int32)]
    )
    for rows in (SEEDS, SEEDS[:1], SEEDS[:0]):
        words, folded = unknown(rows)
        np.testing.assert_array_equal(words, eager[: len(rows)])
        np.testing.assert_array_equal(folded, random.fold_each(tf.constant(rows), 1, 2))


@pytest.mark.parametrize("value", [0, 7, -1, 2**31 - 1, Stream.MASK, np.int64(2**40 + 5)])
def test_fold_mixes_the_integer_into_the_second_word(value):
    for seed in SEEDS[::7]:
        expected = tf.random.stateless_uniform([2], seed, None, None, dtype=tf.int32, alg="philox").numpy()
        expected[1] ^= np.int64(value).astype(np.int32)
        np.testing.assert_array_equal(random.fold(tf.constant(seed), tf.constant(value)), expected)


def test_fold_of_a_batch_is_the_fold_of_its_members():
    base = random.fold(random.seed(5), Stream.LEVEL, 7)
    batch = random.per_example(base, tf.constant([0, 3, 2**30])).numpy()
    for row, example in zip(batch, (0, 3, 2**30), strict=True):
        np.testing.assert_array_equal(row, random.fold(base, example))
    again = random.fold_each(tf.constant(batch), Stream.PRIOR, 4).numpy()
    for row, folded in zip(batch, again, strict=True):
        np.testing.assert_array_equal(random.fold(tf.constant(row), Stream.PRIOR, 4), folded)


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_do_not_depend_on_the_batch_or_on_xla(rows, draw):
    eager = draw(rows[:6], (5, 3)).numpy()
    np.testing.assert_array_equal(eager[2:4], draw(rows[2:4], (5, 3)))
    # The words agree to the bit; log and cos of XLA and of Eigen differ in the last places.
    tolerance = 2e-6 if draw in (random.normal, random.spherical) else 0.0
    for jit_compile in (False, True):
        compiled = tf.function(lambda r: draw(r, (5, 3)), jit_compile=jit_compile)(rows[:6])
        np.testing.assert_allclose(compiled, eager, atol=tolerance, rtol=tolerance)


def test_graphs_that_draw_hold_nothing_that_xla_must_compile_and_no_loop():
    """TF Serving's binaries have no compiler; and a loop over rows would be slow."""

    def draw(rows):
        base = random.stream_seed(3, Stream.SAMPLE)
        seeds = random.per_row(random.fold_each(random.per_example(base, rows[:, 0]), 5, 6), rows[:, 1])
        masks = random.keep_mask(seeds, (5, 3), 0.1)
        return [*(law(seeds, (5, 3)) for law in DRAWS), random.integers(seeds, 10), masks]

    compiled = tf.function(draw, autograph=False)
    graph = compiled.get_concrete_function(tf.TensorSpec([None, 2], tf.int32)).graph.as_graph_def()
    functions = graph.library.function
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    assert len(nodes) > 100, "the functions were not found"
    for holder in (*functions, *nodes):
        assert not holder.attr["_XlaMustCompile"].b
    assert not [node.op for node in nodes if "While" in node.op or "Stateless" in node.op and "Call" not in node.op]


def test_cheap_bits_are_the_words_of_splitmix64():
    """The first five words for the seed 1234567 are those of its public-domain C program, `splitmix64.c`."""
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    expected = np.array(words, np.uint64).view(np.uint16)
    for count in (1, 4, 18, 20):
        np.testing.assert_array_equal(random._cheap_bits(tf.constant([[1234567, 0]]), count)[0], expected[:count])
    np.testing.assert_array_equal(random._cheap_bits(tf.constant([[0, 1]]), 4)[0], splitmix64(2**32, 4))


def splitmix64(state, count):
    """In Python's integers: a seed of 64 bits gives `count` numbers of 16 bits, for a count that 4 divides."""
    words = []
    for number in range(1, count // 4 + 1):
        word = (state + number * 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        words.append(word ^ word >> 31)
    return np.array(words, np.uint64).view(np.uint16)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_masks_have_the_rate_and_the_mean_one(rows, rate):
    kept = random.keep_mask(rows, (9, 11), rate).numpy().astype(np.float64)
    exact = round(rate * 2**16) / 2**16
    assert set(np.unique(kept)) == {0.0, float(np.float32(1 / (1 - exact)))}
    dropped = (kept == 0).astype(np.float64)
    error = 4 * np.sqrt(exact * (1 - exact) / kept.size)
    assert abs(dropped.mean() - exact) < error and abs(kept.mean() - 1) < error / (1 - exact)
    # The variance within a mask, and of the means of masks, as if all elements were independent.
    assert abs(dropped.var(axis=(1, 2), ddof=1).mean() / (exact * (1 - exact)) - 1) < 0.01
    means = dropped.mean((1, 2)).var() * 99 / (exact * (1 - exact))
    assert abs(means - 1) < 4 * np.sqrt(2 / COUNT)
    # Neighbours in a mask, also within a word of the generator, and neighbouring examples.
    centred = dropped.reshape(COUNT, -1) - exact
    for one, other in (
        (centred[:, :-1], centred[:, 1:]),
        (centred[:, :-4], centred[:, 4:]),
        (centred[:-1], centred[1:]),
    ):
        assert abs((one * other).mean()) < 4 * exact * (1 - exact) / np.sqrt(one.size)


def test_numbers_of_16_bits_are_uniform(rows):
    numbers = random._cheap_bits(rows, 99).numpy()
    for shift in (0, 8):  # low and high bytes
        counts = np.bincount((numbers.ravel() >> shift) & 255, minlength=256)
        expected = numbers.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 4 * np.sqrt(2 * 255)


def test_dropout_masks_do_not_depend_on_the_batch_or_on_xla(rows):
    eager = random.keep_mask(rows[:6], (5, 3), 0.3).numpy()
    np.testing.assert_array_equal(eager[2:4], random.keep_mask(rows[2:4], (5, 3), 0.3))
    for jit_compile in (False, True):
        compiled = tf.function(lambda r: random.keep_mask(r, (5, 3), 0.3), jit_compile=jit_compile)
        np.testing.assert_array_equal(compiled(rows[:6]), eager)
    masks = random.keep_mask(tf.concat([random.fold_each(rows[:50], layer) for layer in range(20)], 0), (64,), 0.5)
    assert len({mask.tobytes() for mask in masks.numpy()}) == 1000, "two examples or layers have the same mask"


def test_a_rate_of_zero_keeps_everything_and_others_are_refused(rows):
    np.testing.assert_array_equal(random.keep_mask(rows[:3], (4, 4), 0.0), np.ones((3, 4, 4)))
    assert np.isfinite(random.keep_mask(rows[:3], (4, 4), 1.0 - 1e-9)).all()
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"\[0, 1\). Received: {rate}"):
            random.keep_mask(rows[:3], (4, 4), rate)


def test_normal_has_the_moments_and_the_tails_of_a_normal(rows):
    z = random.normal(rows, (7, 9)).numpy().astype(np.float64).ravel()
    n = z.size
    for moment, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**moment).mean() - expected) < 4 * np.sqrt(variance / n), moment
    beyond = (np.abs(z) > 3.0).mean()
    assert abs(beyond - 0.0026998) < 4 * np.sqrt(0.0027 / n)
    pairs = z.reshape(COUNT, -1)
    assert abs((pairs[:, 0] * pairs[:, 32]).mean()) < 4 / np.sqrt(COUNT), "the two halves of Box-Muller are correlated"


def test_uniform_is_uniform_on_the_half_open_interval(rows):
    u = random.uniform(rows, (50,)).numpy().astype(np.float64)
    assert u.min() >= 0.0 and u.max() < 1.0
    counts = np.histogram(u, bins=64, range=(0, 1))[0]
    expected = u.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 4 * np.sqrt(2 * 63)


def test_slices_have_the_identity_for_covariance_and_their_own_lengths(rows):
    """E[v v'] = I is what sliced score matching asks for; 4 standard errors."""
    for draw, variance in ((random.normal, 2.0), (random.rademacher, 1.0), (random.spherical, 1.0)):
        v = draw(rows, (3,)).numpy().astype(np.float64)
        assert np.abs(v.mean(0)).max() < 4 / np.sqrt(COUNT)
        assert np.abs(v.T @ v / COUNT - np.eye(3)).max() < 4 * np.sqrt(variance / COUNT), draw.__name__
    assert set(np.unique(random.rademacher(rows, (5,)))) == {-1.0, 1.0}
    pairs = random.spherical(rows, (2, 3, 4), event_rank=2).numpy()
    np.testing.assert_allclose((pairs**2).sum((2, 3)), 12.0, rtol=1e-5)
    u = random.spherical(rows, (3,)).numpy()[:, 0] / np.sqrt(3.0)  # on a sphere in space each coordinate is uniform
    counts = np.histogram(u, bins=16, range=(-1, 1))[0]
    assert ((counts - COUNT / 16) ** 2 / (COUNT / 16)).sum() < 15 + 4 * np.sqrt(2 * 15)


def test_the_largest_words_still_give_a_direction(monkeypatch):
    """A uniform number that rounds to 1 would make a vector of zeros and a direction of NaN, once in 2^25 draws."""
    words = lambda seeds, count: tf.fill([1, count], tf.constant(2**32 - 1, tf.uint32))  # noqa: E731
    monkeypatch.setattr(random, "_bits", words)
    assert np.isfinite(random.normal(None, (2,))).all()
    np.testing.assert_allclose(tf.reduce_sum(random.spherical(None, (2,)) ** 2), 2.0, rtol=1e-5)


@pytest.mark.parametrize("bound", [1, 2, 10, 232])
def test_integers_cover_their_range_evenly(rows, bound):
    counts = np.bincount(random.integers(rows, bound).numpy(), minlength=bound)
    assert len(counts) == bound
    expected = COUNT / bound
    assert ((counts - expected) ** 2 / expected).sum() <= (bound - 1) + 4 * np.sqrt(2 * bound)


def test_a_million_samples_have_a_million_seeds_for_every_step():
    """Words of 32 bits would collide a hundred times; seeds of 64 bits do so once in 4e7 tries."""
    samples = random.per_example(random.fold(random.seed(1), Stream.SAMPLE), tf.range(1_000_000))
    steps = random.fold_each(samples, Stream.SAMPLER_STEP, 3).numpy()
    assert len(np.unique(steps.view(np.int64))) == 1_000_000


def test_streams_and_seeds_are_distinct():
    drawn = [random.fold(random.seed(run), stream).numpy() for run in range(5) for stream in Stream]
    assert len({tuple(row) for row in drawn}) == len(drawn)


@pytest.mark.parametrize("run_seed", [-1, 2**31])
def test_seed_out_of_range_is_refused(run_seed):
    with pytest.raises(ValueError, match=r"\[0, 2\^31\)"):
        random.seed(run_seed)
