"""The network as a whole."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.networks.ncsn import NCSN


def built(channels, filters=4, levels=3, **kwargs):
    keras.utils.set_random_seed(1)
    network = NCSN(channels, levels, filters, **kwargs)
    network.build((None, None, None, channels), (None,))
    return network


def images(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_parameter_count_of_the_papers_network():
    network = NCSN(channels=1, num_levels=10, filters=64)
    network.build((None, 28, 28, 1), (None,))
    assert network.count_params() == 7_638_657


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 8, 1), (45, 30, 2), (5, 3, 1)])
def test_any_size_and_any_channels(shape):
    network = built(shape[-1])
    x, level = images((3, *shape)), np.array([0, 1, 2])
    y = np.asarray(network(x, level))
    assert y.shape == x.shape and y.dtype == np.float32 and np.isfinite(y).all()
    np.testing.assert_allclose(network(x[1:2], level[1:2]), y[1:2], atol=1e-5)
    other = np.asarray(network(x, np.array([2, 2, 2])))
    assert not np.allclose(other[0], y[0]) and np.allclose(other[2], y[2], atol=1e-5)


def test_save_and_load(tmp_path):
    network = built(2)
    x, level = images((2, 9, 7, 2)), np.array([0, 2])
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_allclose(loaded(x, level), network(x, level), atol=1e-6)


def test_bfloat16_stays_near_float32_and_ends_in_float32():
    network, half = built(1), built(1, dtype="mixed_bfloat16")
    half.set_weights(network.get_weights())
    x, level = images((2, 8, 8, 1)), np.array([0, 2])
    y, z = network(x, level), half(x, level)
    assert z.dtype == tf.float32
    assert np.abs(np.asarray(z) - np.asarray(y)).std() < 0.05 * np.asarray(y).std()


def test_second_order_gradients_agree_with_finite_differences():
    """grad_x <u, J(x) u> and its gradient in the weights: where a silent None second-order gradient would show."""
    network = built(2, dtype="float64")
    x, u, d = (images((1, 9, 7, 2), seed, np.float64) for seed in (1, 2, 3))
    level = np.array([1])

    def slope(x):
        with tf.GradientTape() as inner:
            inner.watch(x)
            projected = tf.reduce_sum(network(x, level) * u)
        return tf.reduce_sum(inner.gradient(projected, x) * u)

    point = tf.constant(x)
    weight = network.refinements[1].fusion.convs[1].kernel
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = slope(point)
    in_x, in_weight = tape.gradient(value, [point, weight.value])
    step = 1e-5
    numeric = (slope(point + step * d) - slope(point - step * d)) / (2 * step)
    np.testing.assert_allclose(np.sum(in_x * d), numeric, rtol=1e-6)

    direction, start = images(weight.shape, 4, np.float64), weight.numpy()
    values = []
    for sign in (1, -1):
        weight.assign(start + sign * step * direction)
        values.append(slope(point))
    np.testing.assert_allclose(np.sum(in_weight * direction), (values[0] - values[1]) / (2 * step), rtol=1e-5)


def test_every_weight_receives_a_gradient():
    network = built(1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(images((3, 8, 8, 1)), np.arange(3)) ** 2)
    gradients = tape.gradient(loss, network.trainable_variables)
    for gradient, variable in zip(gradients, network.trainable_variables, strict=True):
        assert isinstance(gradient, tf.Tensor) and np.abs(gradient).max() > 0, variable.path


@pytest.mark.parametrize("arguments", [(0, 10, 8), (1, 0, 8), (1, 10, 1), (1, 10, 8.5), (None, 10, 8)])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        NCSN(*arguments)
