"""The network as a whole."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock


def built(channels, filters=4, levels=3, **kwargs):
    network = NCSN(channels, levels, filters, seed=1, **kwargs)
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
    assert loaded.get_config() == network.get_config() and loaded.seed == 1


def test_equal_seeds_give_equal_weights_and_others_do_not(assert_seeded):
    assert_seeded(NCSN, (1, 3, 4), (None, 4, 4, 1))


def test_labels_are_refused_and_dropout_seeds_ignored(assert_call_contract):
    assert_call_contract(built(1), images((2, 4, 4, 1)))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_input_is_centred_in_its_own_precision(dtype):
    """Even in bfloat16, 2x - 1 is computed in float32: 0.5 + 2^-12 rounds to 0.5 in bfloat16, 2x - 1 does not to 0."""
    centring, plain = built(1, dtype=dtype), built(1, dtype=dtype, centre_input=False)
    x, level = 0.5 + 2.0**-12 * images((2, 6, 5, 1)), np.array([0, 2])
    np.testing.assert_array_equal(centring(x, level), plain(2.0 * x - 1.0, level))
    assert not np.array_equal(centring(x, level), plain(x, level))
    assert not NCSN.from_config(plain.get_config()).centre_input


def test_bfloat16_stays_near_float32_and_ends_in_float32():
    network, half = built(1), built(1, dtype="mixed_bfloat16")
    half.set_weights(network.get_weights())
    x, level = images((2, 8, 8, 1)), np.array([0, 2])
    y, z = network(x, level), half(x, level)
    assert z.dtype == tf.float32
    assert np.abs(np.asarray(z) - np.asarray(y)).std() < 0.05 * np.asarray(y).std()


def test_second_order_gradients_agree_with_finite_differences():
    """grad_x <u, J(x) u> and its gradient in the weights: a silent None second-order gradient would fail here."""
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


def twins(dtype="float32"):
    """A network and its rematerialised twin with the same weights."""
    plain, rematerialised = built(1, 2, dtype=dtype), built(1, 2, dtype=dtype, rematerialise=True)
    rematerialised.set_weights(plain.get_weights())
    return plain, rematerialised


def squares_and_gradients(network, x, level):
    """The sum of squares of the output, and its gradient in the input and in every weight."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(network(x, level) ** 2)
    return loss, tape.gradient(loss, [x, *(variable.value for variable in network.trainable_variables)])


# The order of sums differs, and bfloat16 carries 8 bits.
@pytest.mark.parametrize(("dtype", "tolerance", "graph"), [("float64", 1e-12, True), ("mixed_bfloat16", 0.03, False)])
def test_rematerialised_gradients_agree(dtype, tolerance, graph):
    plain, rematerialised = twins(dtype)
    x = tf.constant(images((3, 5, 6, 1), dtype=np.float64 if dtype == "float64" else np.float32))
    level = tf.constant([0, 1, 2])
    loss, expected = squares_and_gradients(plain, x, level)
    step = tf.function(squares_and_gradients, autograph=False) if graph else squares_and_gradients
    again, received = step(rematerialised, x, level)
    np.testing.assert_allclose(again, loss, rtol=tolerance)
    largest = max(np.abs(gradient).max() for gradient in expected)
    for one, other in zip(expected, received, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * largest)


def test_rematerialised_blocks_run_again_in_the_backward_pass(monkeypatch):
    runs = []
    for cls in (ResidualBlock, RefineBlock):
        original = cls.call
        monkeypatch.setattr(cls, "call", lambda *args, original=original: runs.append(args[0]) or original(*args))
    for network, times in zip(twins(), (1, 2), strict=True):
        blocks = {id(block) for cascade in network.cascades for block in cascade} | set(map(id, network.refinements))
        runs.clear()
        squares_and_gradients(network, tf.constant(images((1, 4, 4, 1))), tf.constant([1]))
        assert sorted(map(id, runs)) == sorted(list(blocks) * times)


def test_rematerialised_gradients_are_not_differentiated_again():
    """This raises, for the input and for weights; a custom gradient might silently give None or zero."""
    network, x = built(1, 2, rematerialise=True), tf.constant(images((1, 5, 4, 1)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        _, (in_x, *_) = squares_and_gradients(network, x, tf.constant([1]))
        value = tf.reduce_sum(tf.square(in_x))
    for source in (x, network.begin_conv.kernel.value, network.end_conv.kernel.value):
        with pytest.raises(NotImplementedError, match="rematerialised_block"):
            tape.gradient(value, source)


def test_rematerialisation_leaves_weights_and_checkpoints_unchanged(tmp_path):
    plain, rematerialised = built(1, 2), built(1, 2, rematerialise=True)
    names = [[re.sub(r"_\d+", "", weight.path) for weight in network.weights] for network in (plain, rematerialised)]
    assert names[0] == names[1]
    x, level = images((2, 5, 4, 1)), np.array([0, 2])
    for number, (source, target) in enumerate([(plain, rematerialised), (rematerialised, plain)]):
        source.set_weights([weight + 0.1 * (number + 1) for weight in source.get_weights()])
        source.save_weights(tmp_path / f"{number}.weights.h5")
        target.load_weights(tmp_path / f"{number}.weights.h5")
        tf.train.Checkpoint(network=source).write(str(tmp_path / f"{number}"))
        tf.train.Checkpoint(network=target).read(str(tmp_path / f"{number}")).assert_consumed()
        np.testing.assert_array_equal(target(x, level), source(x, level))
    assert NCSN.from_config(rematerialised.get_config()).rematerialise
    assert not NCSN.from_config(plain.get_config()).rematerialise


@pytest.mark.parametrize("arguments", [(0, 10, 8), (1, 0, 8), (1, 10, 1), (1, 10, 8.5), (None, 10, 8)])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        NCSN(*arguments)
