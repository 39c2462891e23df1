"""Randomness belongs to an example: properties over batches, compilation and purpose, and the right distributions."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.random import Stream

COUNT = 4096


@pytest.fixture(scope="module")
def rows():
    return random.per_example(random.seed(11), tf.range(COUNT))


def test_fold_of_a_batch_is_the_fold_of_its_members():
    base = random.fold(random.seed(5), Stream.LEVEL, 7)
    batch = random.per_example(base, tf.constant([0, 3, 2**30])).numpy()
    for row, example in zip(batch, (0, 3, 2**30), strict=True):
        np.testing.assert_array_equal(row, random.fold(base, example))
    again = random.fold_each(tf.constant(batch), Stream.PRIOR, 4).numpy()
    for row, folded in zip(batch, again, strict=True):
        np.testing.assert_array_equal(random.fold(tf.constant(row), Stream.PRIOR, 4), folded)


@pytest.mark.parametrize("draw", [random.normal, random.uniform, random.rademacher, random.spherical])
def test_draws_do_not_depend_on_the_batch_or_on_xla(rows, draw):
    eager = draw(rows[:6], (5, 3)).numpy()
    np.testing.assert_array_equal(eager[2:4], draw(rows[2:4], (5, 3)))
    for jit_compile in (False, True):
        compiled = tf.function(lambda r: draw(r, (5, 3)), jit_compile=jit_compile)(rows[:6])  # noqa: B023
        # Philox's integers agree to the bit; log and cos of XLA and of Eigen differ in the last places.
        np.testing.assert_allclose(compiled, eager, atol=2e-6, rtol=2e-6)


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
