"""The network as a whole, against outputs of the official PyTorch program (ermongroup/ncsnv2) in tests/official too."""

import functools
import math
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from ncsn_tf.networks.ncsnv2 import NCSNv2
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock

OFFICIAL = pathlib.Path(__file__).parents[1] / "official"
# In the order of execution: the official names of the cascades, and of the refinement blocks, by number of cascades.
CASCADES = {4: "1 2 3 4", 5: "1 2 3 4 5", 6: "1 2 3 31 4 5"}
REFINEMENTS = {4: "1 2 3 4", 5: "1 2 3 4 5", 6: "1 2 31 3 4 5"}


def built(channels, filters=2, **kwargs):
    network = NCSNv2(channels, filters, seed=1, **kwargs)
    network.build((None, None, None, channels))
    return network


shared = functools.cache(built)
"""A network for tests that leave its weights as they are."""


def images(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize(("cascades", "count"), [(4, 29_694_083), (5, 83_445_379), (6, 94_132_611)])
def test_parameter_counts_of_the_published_networks(cascades, count, monkeypatch):
    """Counted when the layers ask for their weights, so that none is made."""
    shapes = []
    monkeypatch.setattr(keras.layers.Layer, "add_weight", lambda layer, shape, **options: shapes.append(shape))
    NCSNv2(channels=3, cascades=cascades).build((None, None, None, 3))
    assert sum(map(math.prod, shapes)) == count


def official_variables(network):
    """Yields the network's variables with their official names."""

    def convolution(name, layer):
        yield f"{name}.weight", layer.kernel
        if layer.use_bias:
            yield f"{name}.bias", layer.bias

    def norm(name, layer):
        yield from ((f"{name}.{key}", getattr(layer, key)) for key in ("alpha", "gamma", "beta"))

    yield from convolution("begin_conv", network.begin_conv)
    for number, cascade in zip(CASCADES[network.cascades].split(), network.stages, strict=True):
        for index, block in enumerate(cascade):
            name, inner = f"res{number}.{index}", ".conv" if block.downsample else ""
            yield from norm(f"{name}.normalize1", block.norm1)
            yield from convolution(f"{name}.conv1", block.conv1)
            yield from norm(f"{name}.normalize2", block.norm2)
            yield from convolution(f"{name}.conv2{inner}", block.conv2)
            if block.shortcut is not None:
                yield from convolution(f"{name}.shortcut{inner}", block.shortcut)
    for number, block in zip(REFINEMENTS[network.cascades].split(), network.refinements, strict=True):
        name = f"refine{number}"
        units = {f"adapt_convs.{index}": adapter for index, adapter in enumerate(block.adapters)}
        for part, layer in {**units, "output_convs": block.output_convs}.items():
            for stage, conv in enumerate(layer.convs):
                yield from convolution(f"{name}.{part}.{stage // 2 + 1}_{stage % 2 + 1}_conv", conv)
        for part, layer in (("msf", block.fusion), ("crp", block.pooling)):
            for index, conv in enumerate(layer.convs if layer is not None else []):
                yield from convolution(f"{name}.{part}.convs.{index}", conv)
    yield from norm("normalizer", network.norm)
    yield from convolution("end_conv", network.end_conv)


@pytest.mark.parametrize(
    ("name", "cascades", "filters"),
    [("ncsnv2_32x32x3", 4, 8), ("ncsnv2_deeper_64x64x3", 5, 4), ("ncsnv2_deepest_64x64x3", 6, 4)],
)
def test_the_score_agrees_with_the_official_program(name, cascades, filters):
    """Each image to 1e-4 of the deviation of its score, as all levels together would only show the last ones."""
    # The program writes a list; its first entry is the state dict.
    state = torch.load(OFFICIAL / f"{name}.pth", weights_only=True)[0]
    tensors = {key.removeprefix("module."): value.numpy() for key, value in state.items()}
    network = built(3, filters, cascades=cascades)
    variables = dict(official_variables(network))
    assert {*variables, "sigmas"} == tensors.keys() and len(variables) == len(network.weights)
    for key, variable in variables.items():
        value = tensors[key]
        variable.assign(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)

    reference = np.load(OFFICIAL / f"{name}.npz")
    sigma = reference["sigmas"][reference["level"]][:, None, None, None]
    expected = reference["score"]
    difference = np.asarray(network(reference["x"], reference["level"])) / sigma - expected
    assert (np.abs(difference).max((1, 2, 3)) < 1e-4 * expected.std((1, 2, 3))).all()


@pytest.mark.parametrize(("shape", "cascades"), [((33, 20, 1), 4), ((5, 3, 1), 5), ((28, 31, 2), 6)])
def test_any_size_and_any_channels(shape, cascades):
    network = shared(shape[-1], cascades=cascades)
    x = images((3, *shape))
    y = np.asarray(network(x))
    assert y.shape == x.shape and y.dtype == np.float32 and np.isfinite(y).all() and y.std() > 0
    np.testing.assert_allclose(network(x[1:2]), y[1:2], atol=1e-5)


def test_the_condition_is_ignored():
    network, x = shared(1), images((2, 5, 4, 1))
    np.testing.assert_array_equal(network(x, np.array([0.5, 50.0])), network(x))


def test_labels_are_refused_and_dropout_seeds_ignored(assert_call_contract):
    assert_call_contract(shared(1), images((2, 4, 4, 1)))


def test_save_and_load(tmp_path):
    network = shared(1, cascades=5)
    x = images((2, 9, 7, 1))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_allclose(loaded(x), network(x), atol=1e-6)
    assert loaded.get_config() == network.get_config() and (loaded.cascades, loaded.seed) == (5, 1)


def test_equal_seeds_give_equal_weights_and_others_do_not(assert_seeded):
    assert_seeded(NCSNv2, (1, 3), (None, 4, 4, 1))


def test_the_input_is_centred_in_its_own_precision():
    """Even in bfloat16, 2x - 1 is computed in float32: 0.5 + 2^-12 rounds to 0.5 in bfloat16, 2x - 1 does not to 0."""
    centring, plain = (shared(1, dtype="mixed_bfloat16", centre_input=centre) for centre in (True, False))
    x = 0.5 + 2.0**-12 * images((2, 6, 5, 1))
    np.testing.assert_array_equal(centring(x), plain(2.0 * x - 1.0))
    assert not np.array_equal(centring(x), plain(x))
    assert not NCSNv2.from_config(plain.get_config()).centre_input


def test_bfloat16_stays_near_float32_and_ends_in_float32():
    network, half = shared(1), shared(1, dtype="mixed_bfloat16", centre_input=True)
    x = images((2, 8, 8, 1))
    y, z = network(x), half(x)
    assert z.dtype == tf.float32
    assert np.abs(np.asarray(z) - np.asarray(y)).std() < 0.05 * np.asarray(y).std()


def test_second_order_gradients_agree_with_finite_differences():
    """grad_x <u, J(x) u> and its gradient in a weight between max poolings, and in one of a normalisation."""
    network = built(2, dtype="float64")
    x, u, d = (images((1, 9, 7, 2), seed, np.float64) for seed in (1, 2, 3))
    weights = [network.refinements[1].pooling.convs[0].kernel, network.stages[2][0].norm1.alpha]

    def slope(x):
        with tf.GradientTape() as inner:
            inner.watch(x)
            projected = tf.reduce_sum(network(x) * u)
        return tf.reduce_sum(inner.gradient(projected, x) * u)

    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = slope(point)
    in_x, *in_weights = tape.gradient(value, [point, *(weight.value for weight in weights)])
    step = 1e-5
    numeric = (slope(point + step * d) - slope(point - step * d)) / (2 * step)
    np.testing.assert_allclose(np.sum(in_x * d), numeric, rtol=1e-6)

    for weight, in_weight in zip(weights, in_weights, strict=True):
        direction, start = images(weight.shape, 4, np.float64), weight.numpy()
        values = []
        for sign in (1, -1):
            weight.assign(start + sign * step * direction)
            values.append(slope(point))
        weight.assign(start)
        np.testing.assert_allclose(np.sum(in_weight * direction), (values[0] - values[1]) / (2 * step), rtol=1e-5)


def squares_and_gradients(network, x):
    """The sum of squares of the output, and its gradient in the input and in every weight."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(network(x) ** 2)
    return loss, tape.gradient(loss, [x, *(variable.value for variable in network.trainable_variables)])


def test_every_weight_receives_a_gradient():
    network = shared(1)
    _, gradients = squares_and_gradients(network, tf.constant(images((3, 8, 6, 1))))
    paths = ["input", *(variable.path for variable in network.trainable_variables)]
    for path, gradient in zip(paths, gradients, strict=True):
        assert isinstance(gradient, tf.Tensor) and np.abs(gradient).max() > 0, path


def test_xla_agrees():
    network, x = shared(1), images((2, 8, 6, 1))
    compiled = tf.function(network, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(x), network(x), rtol=0, atol=1e-5)


def test_rematerialised_gradients_agree_and_are_not_differentiated_again():
    plain, rematerialised = shared(1, dtype="float64"), shared(1, dtype="float64", rematerialise=True)
    x = tf.constant(images((2, 5, 6, 1), dtype=np.float64))
    loss, expected = squares_and_gradients(plain, x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        again, received = squares_and_gradients(rematerialised, x)
        value = tf.reduce_sum(tf.square(received[0]))
    np.testing.assert_allclose(again, loss, rtol=1e-12)
    largest = max(np.abs(gradient).max() for gradient in expected)
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12 * largest)
    with pytest.raises(NotImplementedError, match="rematerialised_block"):
        tape.gradient(value, x)


def test_rematerialised_blocks_run_again_in_the_backward_pass(monkeypatch):
    runs = []
    for cls in (ResidualBlock, RefineBlock):
        original = cls.call
        monkeypatch.setattr(cls, "call", lambda *args, original=original: runs.append(args[0]) or original(*args))
    for network, times in ((shared(1), 1), (shared(1, rematerialise=True), 2)):
        blocks = [block for cascade in network.stages for block in cascade] + list(network.refinements)
        runs.clear()
        squares_and_gradients(network, tf.constant(images((1, 4, 4, 1))))
        assert sorted(map(id, runs)) == sorted(list(map(id, blocks)) * times)


def test_rematerialisation_leaves_weights_and_checkpoints_unchanged(tmp_path):
    plain, rematerialised = shared(1), shared(1, rematerialise=True)
    names = [[re.sub(r"_\d+", "", weight.path) for weight in network.weights] for network in (plain, rematerialised)]
    assert names[0] == names[1]
    rematerialised.set_weights([weight + 0.1 for weight in rematerialised.get_weights()])
    plain.save_weights(tmp_path / "plain.weights.h5")
    rematerialised.load_weights(tmp_path / "plain.weights.h5")
    x = images((2, 5, 4, 1))
    np.testing.assert_array_equal(rematerialised(x), plain(x))
    assert NCSNv2.from_config(rematerialised.get_config()).rematerialise


@pytest.mark.parametrize("arguments", [(0, 8), (1, 1), (1, 8.5), (None, 8), (True, 8)])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        NCSNv2(*arguments)


@pytest.mark.parametrize("cascades", [3, 7, 4.0, None])
def test_other_numbers_of_cascades_are_refused(cascades):
    with pytest.raises(ValueError, match="to be 4, 5 or 6. Received"):
        NCSNv2(1, 8, cascades=cascades)
