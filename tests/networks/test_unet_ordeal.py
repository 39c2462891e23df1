"""What every network must be able to do, of the U-Net: save, load, seeds, graphs, XLA, 16 bits, second order."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.networks.unet import UNet
from tests.support.unet import DDPMPP, NCSNPP, PYRAMIDS, TINY, built, images

EVERYTHING = {"num_classes": 3, **NCSNPP}


def test_save_and_load(tmp_path):
    network = built(**EVERYTHING, randomised=True)
    x, sigma, labels = images((2, 8, 8, 2)), np.array([0.1, 10.0]), np.array([1, 3])
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_allclose(loaded(x, sigma, labels), network(x, sigma, labels), rtol=1e-5, atol=1e-4)
    assert loaded.get_config() == network.get_config() and loaded.seed == 1
    twin = UNet.from_config(json.loads(json.dumps(network.get_config())))
    assert twin.get_config() == network.get_config()


def test_weights_come_in_the_order_of_the_parts():
    network = built(**EVERYTHING)
    in_order = [id(weight) for part in (*network.parts, network.class_table) for weight in part.weights]
    assert [id(weight) for weight in network.weights] == in_order


def test_equal_seeds_give_equal_weights_and_others_do_not(assert_seeded):
    options = {name: value for name, value in TINY.items() if name != "seed"}
    assert_seeded(functools.partial(UNet, **{**options, **NCSNPP}), (2,), (None, 8, 8, 2))


def test_graphs_xla_and_other_batches_give_the_same(unoptimized_graphs):
    network = built(**EVERYTHING, dropout=0.3, randomised=True)
    x, sigma, labels = images((3, 8, 8, 2)), np.array([0.1, 1.0, 10.0], np.float32), np.array([0, 2, 3])
    arguments = x, sigma, labels, np.array([[1, 2], [3, 4], [5, 6]], np.int32)
    y = np.asarray(network(*arguments))
    tolerance = 1e-4 * y.std((1, 2, 3), keepdims=True)
    assert (np.abs(tf.function(network, jit_compile=True)(*arguments) - y) < tolerance).all()
    signature = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in arguments]
    graph = tf.function(lambda *arguments: network(*arguments), input_signature=signature)
    for rows in (slice(None), slice(1, 2), slice(None, None, -1)):
        assert (np.abs(graph(*(part[rows] for part in arguments)) - y[rows]) < tolerance[rows]).all()
    impossible = graph(x, sigma, labels + 1, arguments[3])
    np.testing.assert_array_equal(np.isnan(impossible).all((1, 2, 3)), [False, False, True])
    no_class = tf.function(lambda x, sigma: network(x, sigma), input_signature=signature[:2])
    assert (np.abs(no_class(x, sigma) - network(x, sigma, np.full(3, 3))) < tolerance).all()


def test_sixteen_bits_stay_near_float32_and_end_in_float32():
    network = built(num_classes=2, **PYRAMIDS, randomised=True)
    x, sigma = images((2, 8, 8, 2)), np.array([0.5, 2.0])
    y = np.asarray(network(x, sigma))
    for dtype, tolerance in (("mixed_bfloat16", 0.05), ("mixed_float16", 0.005)):
        half = built(num_classes=2, **PYRAMIDS, randomised=True, dtype=dtype)
        half.set_weights(network.get_weights())
        z = half(x, sigma)
        assert z.dtype == tf.float32
        assert np.abs(np.asarray(z) - y).std() < tolerance * y.std(), dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_sixteen_bits_work(dtype):
    half = UNet(2, **{**TINY, **NCSNPP}, dtype=dtype)
    half.build((None, 8, 8, 2), (None,))
    y = half(images((2, 8, 8, 2)), np.array([0.5, 2.0]))
    assert y.dtype == tf.float32 and np.isfinite(y).all()


SECOND_ORDER = {
    "DDPM": {**DDPMPP, "block": "ddpm", "rescale_skips": False},
    "DDPM++": DDPMPP,
    "NCSN++": {**NCSNPP, "progressive_output": "residual"},
}


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_order_gradients_agree_with_finite_differences(name):
    """grad_x <u, J(x) u> and its gradient in all weights: a silent None second-order gradient would fail here."""
    network = built(**SECOND_ORDER[name], randomised=True, attention=(), dtype="float64")
    x, u = (tf.constant(images((1, 8, 8, 2), seed, np.float64)) for seed in (1, 2))
    # The input first, then all weights but the last bias, which moves the output alone.
    weights = network.trainable_variables[:-1]
    directions = [images(each.shape, seed, np.float64) for seed, each in enumerate((x, *weights))]

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            projected = tf.reduce_sum(network(x, tf.constant([3.0], tf.float64)) * u)
        return tf.reduce_sum(tape.gradient(projected, x) * u)

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = slope(x)
    gradients = tape.gradient(value, [x, *(weight.value for weight in weights)])
    parts = [np.sum(g * d) for g, d in zip(gradients, directions, strict=True)]

    step, start, values = 1e-5, [weight.numpy() for weight in weights], []
    for sign in (1, -1):
        for weight, value, direction in zip(weights, start, directions[1:], strict=True):
            weight.assign(value + sign * step * direction)
        values.append(slope(x + sign * step * directions[0]))
    np.testing.assert_allclose(sum(parts), (values[0] - values[1]) / (2 * step), rtol=1e-5)
    assert abs(parts[0]) > 1e-2 * abs(sum(parts)), "the input's part would not be seen"
