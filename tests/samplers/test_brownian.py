"""Brownian paths: their law in closed form, and that a value depends on its row and its time alone."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.brownian import BrownianPath

ROWS = 4_000


@pytest.fixture(scope="module")
def path():
    return BrownianPath(random.per_example(random.seed(0), tf.range(ROWS)), (4,), tf.float64)


def test_increments_are_independent_and_as_wide_as_their_interval(path):
    """Cov(w(s), w(t)) = min(s, t), of times near and far, on both sides of halvings, within four standard errors."""
    times = np.array([1e-3, 1.02e-3, 0.2, 0.25, 0.2501, 0.6, 0.99, 1.0])
    values = np.stack([path(tf.fill([ROWS], tf.constant(t, tf.float64))).numpy() for t in times]).reshape(
        len(times), -1
    )
    widths = np.diff(times, prepend=0.0)
    scaled = np.diff(values, axis=0, prepend=0.0) / np.sqrt(widths)[:, None]
    count = scaled.shape[1]
    np.testing.assert_allclose(scaled @ scaled.T / count, np.eye(len(times)), atol=4.5 * np.sqrt(2.0 / count))
    # A normal distribution, not just its variance.
    np.testing.assert_allclose(np.mean(scaled**4, axis=1), 3.0, atol=4.5 * np.sqrt(96.0 / count))


def test_each_row_has_its_own_time_and_a_path_is_the_same_whatever_is_asked(path):
    t = tf.constant(np.linspace(1e-5, 1.0, ROWS))
    together = path(t).numpy()
    some = tf.constant([3, 1_000, ROWS - 1])
    alone = BrownianPath(tf.gather(path.seeds, some), (4,), tf.float64)(tf.gather(t, some))
    np.testing.assert_allclose(alone, together[some.numpy()], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(path(t), together)


def test_a_path_begins_at_zero_and_is_continuous(path):
    zeros = tf.zeros([ROWS], tf.float64)
    np.testing.assert_array_equal(path(zeros), 0.0)
    near, nearer = path(zeros + 0.5 - 1e-12).numpy(), path(zeros + 0.5).numpy()
    np.testing.assert_allclose(near, nearer, atol=1e-6)


@pytest.mark.parametrize("t", [0.9, 0.01])
def test_the_shortest_steps_of_the_solver_are_resolved(t):
    """Increments over 2^-16, its smallest step, have at least 0.9 of their variance even in float32."""
    path = BrownianPath(random.per_example(random.seed(0), tf.range(ROWS)), (4,))
    ends = [tf.fill([ROWS], tf.constant(time, tf.float32)) for time in (t, t + 2.0**-16)]
    assert np.var(path(ends[1]) - path(ends[0])) == pytest.approx(2.0**-16, rel=0.1)
