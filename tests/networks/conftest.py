"""Checks that several networks must pass."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf


def _global_draws():
    """One draw from each global generator."""
    return random.random(), np.random.random(), float(keras.random.uniform(())), float(tf.random.uniform(()))


def _weights(cls, arguments, shape, seed):
    network = cls(*arguments, seed=seed)
    network.build(shape)
    return network.get_weights()


@pytest.fixture
def assert_seeded():
    """Checks that initial weights follow the `seed` argument alone and leave the global generators untouched."""

    def check(cls, arguments, shape):
        keras.utils.set_random_seed(3)
        expected = _global_draws()
        keras.utils.set_random_seed(3)
        first = _weights(cls, arguments, shape, seed=7)
        assert _global_draws() == expected
        for one, other in zip(first, _weights(cls, arguments, shape, seed=7), strict=True):
            np.testing.assert_array_equal(one, other)
        drawn = [values for values in first if np.ptp(values) > 0]
        others = [values for values in _weights(cls, arguments, shape, seed=8) if np.ptp(values) > 0]
        for one, other in zip(drawn, others, strict=True):
            assert not np.array_equal(one, other)
        starts = [tuple(values.ravel()[:2] / np.abs(values).max()) for values in drawn]
        assert len(set(starts)) == len(starts), "Two layers have drawn the same numbers."

    return check


@pytest.fixture
def assert_call_contract():
    """Checks the optional arguments of a network with neither classes nor dropout, called on a batch of two."""

    def check(network, x):
        condition = np.array([0, 2])
        expected = network(x, condition)
        with pytest.raises(ValueError, match=r"is not class-conditional.*Received: labels of shape \(2,\)"):
            network(x, condition, labels=np.array([0, 1]))
        with_seeds = network(x, condition, None, dropout_seeds=tf.zeros((2, 2), tf.int32))
        np.testing.assert_array_equal(with_seeds, expected)

    return check
