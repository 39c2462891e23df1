"""Layers against their formulae, and the checks that every block must pass."""

import json

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from keras import ops

from ncsn_tf.networks import layers, refinenet

LEVELS = 4
rng = np.random.default_rng(0)


def encoding(batch):
    return ops.one_hot(np.arange(batch) % LEVELS, LEVELS, dtype="float64")


def test_layer_seeds_are_deterministic_and_distinct():
    """No seed repeats within a sequence or between sequences; without a seed, the handed-out seeds are None."""
    sequences = [layers.LayerSeeds(seed) for seed in (0, 1, 2**40)]
    seeds = [sequence() for sequence in sequences for _ in range(100)]
    assert len(set(seeds)) == len(seeds) and all(type(seed) is int and 0 <= seed < 2**30 for seed in seeds)
    again = layers.LayerSeeds(1)
    assert [again() for _ in range(100)] == seeds[100:200]
    assert layers.LayerSeeds(None)() is None


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1"])
def test_an_invalid_seed_is_refused(seed):
    with pytest.raises(ValueError, match="non-negative integer or None. Received"):
        layers.LayerSeeds(seed)


def norm_by_its_formula(x, gamma, alpha, beta):
    """The docstring's formula, op by op in NumPy."""
    mu, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    m, v = mu.mean(-1, keepdims=True), mu.var(-1, ddof=1, keepdims=True)
    return gamma * ((x - mu) / np.sqrt(variance + 1e-5) + alpha * (mu - m) / np.sqrt(v + 1e-5)) + beta


@pytest.mark.parametrize("conditional", [True, False])
def test_instance_norm_plus_plus_matches_its_formula(conditional):
    """In float64; the feature maps have means far from zero."""
    x = rng.normal(2.0, 1.5, (3, 5, 4, 6)) * rng.uniform(0.5, 2.0, 6)
    table = rng.normal(size=(LEVELS, 3, 6))
    if conditional:
        layer = layers.ConditionalInstanceNormPlusPlus(LEVELS, dtype="float64")
        layer.build(x.shape)
        layer.table.assign(table)
        y, rows = layer(x, encoding(3)), table[:3]
    else:
        layer = layers.InstanceNormPlusPlus(dtype="float64")
        layer.build(x.shape)
        layer.gamma.assign(table[0, 0])
        layer.alpha.assign(table[0, 1])
        layer.beta.assign(table[0, 2])
        y, rows = layer(x), table[:1]
    gamma, alpha, beta = np.moveaxis(rows, 1, 0)[:, :, None, None]
    np.testing.assert_allclose(y, norm_by_its_formula(x, gamma, alpha, beta), atol=1e-10)


def test_instance_norm_plus_plus_is_precise_for_nearly_constant_maps():
    """Float32 holds a map of mean 100 and deviation 0.1 to 6e-5 of its deviation; E[x^2] - mu^2 would lose a tenth."""
    x = rng.normal([100.0, -100.0, 50.0], 0.1, (2, 9, 9, 3)).astype("float32")
    expected = norm_by_its_formula(x.astype("float64"), 1.0, 1.0, 0.0)
    ones = ops.ones(3)
    y = layers.instance_norm_plus_plus(ops.convert_to_tensor(x), ones, ones, 0.0 * ones, 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-3)


def test_instance_norm_plus_plus_survives_constant_maps():
    """A flat map has variance zero, and its values are not multiples of what float32 resolves."""
    layer = layers.ConditionalInstanceNormPlusPlus(LEVELS)
    x = np.broadcast_to(np.float32([1000.3, 7.7]), (2, 9, 9, 2))
    assert np.isfinite(layer(x, encoding(2))).all()


def test_instance_norm_plus_plus_refuses_one_map():
    for norm in (layers.ConditionalInstanceNormPlusPlus(LEVELS), layers.InstanceNormPlusPlus()):
        with pytest.raises(ValueError, match="2 or more"):
            norm.build((None, 4, 4, 1))


def test_the_unconditional_norm_is_initialised_as_the_official_one():
    layer = layers.InstanceNormPlusPlus(seed=0)
    layer.build((None, 4, 4, 5000))
    for scales in (layer.gamma.numpy(), layer.alpha.numpy()):
        assert abs(scales.mean() - 1.0) < 4 * 0.02 / np.sqrt(scales.size)
        assert abs(scales.std() / 0.02 - 1.0) < 4 / np.sqrt(2 * scales.size)
    assert not np.array_equal(layer.gamma, layer.alpha) and not layer.beta.numpy().any()


def test_the_table_is_initialised_as_the_official_one():
    table = layers.ScaleAndShiftInitializer(0)((200, 3, 50), dtype="float32")
    scales = np.asarray(table)[:, :2]
    assert abs(scales.mean() - 1.0) < 4 * 0.02 / np.sqrt(scales.size)
    assert abs(scales.std() / 0.02 - 1.0) < 4 / np.sqrt(2 * scales.size)
    assert not np.asarray(table)[:, 2].any()


def test_convolutions_are_initialised_with_the_variance_of_pytorch():
    layer = layers.convolution(64, 64, seeds=layers.LayerSeeds(0))
    layer.build((None, 8, 8, 64))
    bound = 1 / np.sqrt(64 * 9)
    kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
    assert np.abs(kernel).max() <= bound and np.abs(bias).max() <= bound and bias.any()
    assert abs(kernel.std() / (bound / np.sqrt(3)) - 1) < 0.02


@pytest.mark.parametrize(("size", "new_size"), [(4, 7), (7, 13), (5, 5), (1, 3), (3, 1), (2, 9)])
def test_resize_is_exact_for_affine_images(size, new_size):
    """Bilinear interpolation with aligned corners reproduces an affine image."""
    ramp = np.linspace(0.0, 1.0, size) if size > 1 else np.ones(1)
    wanted = np.linspace(0.0, 1.0, new_size) if size > 1 and new_size > 1 else np.full(new_size, ramp[0])
    image = (ramp[:, None] + 2.0 * ramp[None, :])[None, :, :, None]
    resized = layers.resize_bilinear(ops.convert_to_tensor(image), new_size, new_size)
    np.testing.assert_allclose(resized[0, :, :, 0], wanted[:, None] + 2.0 * wanted[None, :], atol=1e-12)


def test_resize_agrees_with_interpolation_point_by_point():
    image = rng.normal(size=(2, 4, 6, 3))
    resized = np.asarray(layers.resize_bilinear(ops.convert_to_tensor(image), 9, 11))
    along_height = np.apply_along_axis(lambda v: np.interp(np.linspace(0, 3, 9), np.arange(4), v), 1, image)
    expected = np.apply_along_axis(lambda v: np.interp(np.linspace(0, 5, 11), np.arange(6), v), 2, along_height)
    np.testing.assert_allclose(resized, expected, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(6, 9), (7, 4), (2, 1)])
def test_max_pooling_is_the_maximum_filter(size, shape):
    """All values are negative: zeros around the image would be seen."""
    x = -1.0 - rng.uniform(size=(2, *shape, 3))
    expected = scipy.ndimage.maximum_filter(x, (1, size, size, 1), mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(layers.max_pool(ops.convert_to_tensor(x), size), expected)


def second_derivative(x, u):
    """The gradient of <u, grad_x <u, f(x)^3>>, where f pools twice."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        value = slope_of_pooling(x, u)
    return outer.gradient(value, x)


def slope_of_pooling(x, u):
    with tf.GradientTape() as inner:
        inner.watch(x)
        projected = tf.reduce_sum(layers.max_pool(layers.max_pool(x, 5), 3) ** 3 * u)
    return tf.reduce_sum(inner.gradient(projected, x) * u)


@pytest.mark.parametrize("options", [None, {}, {"jit_compile": True}], ids=["eager", "graph", "XLA"])
def test_max_pooling_has_a_second_order_gradient(options):
    """By finite differences; with TensorFlow's pooling it is zero in a graph, and XLA has none in float64."""
    x, u, d = rng.normal(size=(3, 2, 7, 6, 3))
    function = second_derivative if options is None else tf.function(second_derivative, autograph=False, **options)
    received = np.sum(function(tf.constant(x), tf.constant(u)) * d)
    step = 1e-6
    ahead, behind = (slope_of_pooling(tf.constant(x + sign * step * d), tf.constant(u)) for sign in (1, -1))
    np.testing.assert_allclose(received, (ahead - behind) / (2 * step), rtol=1e-6)


def test_the_width_changes_in_the_second_convolution():
    for options in ({}, {"downsample": True}, {"dilation": 2, "project": True}):
        block = refinenet.ResidualBlock(None, 4, 6, **options)
        block.build((None, 8, 8, 4))
        assert [conv.kernel.shape[2:] for conv in (block.conv1, block.conv2, block.shortcut)] == [
            (4, 4),
            (4, 6),
            (4, 6),
        ]


def test_averaging_before_the_shortcut_equals_averaging_after_it():
    """Averaging commutes with a 1x1 convolution, so our cheaper order must equal the official one."""
    block = refinenet.ResidualBlock(LEVELS, 4, 6, downsample=True, dtype="float64")
    x = ops.convert_to_tensor(rng.normal(size=(2, 6, 8, 4)))
    h = block(x, encoding(2))
    branch = block.conv2(ops.elu(block.norm2(block.conv1(ops.elu(block.norm1(x, encoding(2)))), encoding(2))))
    official = np.asarray(branch + block.shortcut(x)).reshape(2, 3, 2, 4, 2, 6).mean((2, 4))
    np.testing.assert_allclose(h, official, atol=1e-10)


def test_chained_pooling_counts_the_padding():
    """With a norm that gives a constant and a delta kernel, a corner averages over 9 of 25 cells."""
    block = refinenet.ChainedResidualPooling(1, 2, dtype="float64")
    x = np.ones((1, 6, 6, 2))
    block.build(x.shape, (None, 1))
    for norm, conv in zip(block.norms, block.convs, strict=True):
        norm.table.assign(np.stack([np.zeros((1, 2)), np.zeros((1, 2)), np.ones((1, 2))], axis=1))
        delta = np.zeros((3, 3, 2, 2))
        delta[1, 1] = np.eye(2)
        conv.kernel.assign(delta)
    y = np.asarray(block(x, np.ones((1, 1))))[0, :, :, 0]
    assert y[0, 0] == pytest.approx(1 + 9 / 25 + 9 / 25)
    assert y[2, 2] == pytest.approx(1 + 1 + 1)


def test_chained_pooling_by_maxima_without_normalisations():
    """With delta kernels the stages are maxima over 5x5 and 9x9 cells."""
    block = refinenet.ChainedResidualPooling(None, 2, normalise=False, max_pooling=True, dtype="float64")
    x = rng.normal(size=(2, 11, 8, 2))
    block.build(x.shape)
    delta = np.zeros((3, 3, 2, 2))
    delta[1, 1] = np.eye(2)
    for conv in block.convs:
        conv.kernel.assign(delta)
    active = np.where(x > 0, x, np.expm1(x))
    five, nine = (scipy.ndimage.maximum_filter(active, (1, n, n, 1), mode="constant", cval=-np.inf) for n in (5, 9))
    np.testing.assert_allclose(block(x), active + five + nine, atol=1e-12)


BLOCKS = {
    "norm": (layers.ConditionalInstanceNormPlusPlus, {"num_levels": LEVELS}, [4]),
    "residual": (refinenet.ResidualBlock, {"num_levels": LEVELS, "in_filters": 4, "filters": 4}, [4]),
    "down": (refinenet.ResidualBlock, {"num_levels": LEVELS, "in_filters": 4, "filters": 8, "downsample": True}, [4]),
    "dilated": (
        refinenet.ResidualBlock,
        {"num_levels": LEVELS, "in_filters": 4, "filters": 4, "dilation": 2, "project": True},
        [4],
    ),
    "units": (refinenet.ResidualConvolutionUnits, {"num_levels": LEVELS, "filters": 4, "num_units": 2}, [4]),
    "pooling": (refinenet.ChainedResidualPooling, {"num_levels": LEVELS, "filters": 4}, [4]),
    "fusion": (refinenet.MultiResolutionFusion, {"num_levels": LEVELS, "in_filters": [4, 8], "filters": 6}, [4, 8]),
    "refine": (
        refinenet.RefineBlock,
        {"num_levels": LEVELS, "in_filters": [4, 8], "filters": 6, "output_units": 2},
        [4, 8],
    ),
    "unconditional norm": (layers.InstanceNormPlusPlus, {}, [4]),
    "unconditional residual": (
        refinenet.ResidualBlock,
        {"num_levels": None, "in_filters": 4, "filters": 6, "downsample": True},
        [4],
    ),
    "unconditional refine": (refinenet.RefineBlock, {"num_levels": None, "in_filters": [4, 8], "filters": 6}, [4, 8]),
    "plain refine": (
        refinenet.RefineBlock,
        {"num_levels": None, "in_filters": [4, 8], "filters": 6, "normalise": False, "max_pooling": True},
        [4, 8],
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block_contract(name):
    """Its configuration rebuilds it, weights load, bfloat16 stays near float32, and images do not affect each other."""
    cls, arguments, widths = BLOCKS[name]
    inputs = [rng.normal(size=(3, 7 - 3 * i, 6 - 3 * i, width)).astype("float32") for i, width in enumerate(widths)]
    x = inputs if len(widths) > 1 else inputs[0]
    condition = [encoding(3)] if arguments.get("num_levels") else []
    block = cls(**arguments, seed=5)
    y = np.asarray(block(x, *condition))
    assert np.isfinite(y).all()

    twin = cls.from_config(json.loads(json.dumps(block.get_config())))
    np.testing.assert_allclose(twin(x, *condition), y, atol=1e-5)
    other = cls.from_config({**block.get_config(), "seed": 6})
    other(x, *condition)
    for mine, theirs in zip(block.weights, other.weights, strict=True):
        assert mine.path.endswith("/beta") or not np.array_equal(mine, theirs), mine.path
    other.set_weights(block.get_weights())
    np.testing.assert_allclose(other(x, *condition), y, atol=1e-5)

    half = cls(**arguments, dtype="mixed_bfloat16")
    half(x, *condition)
    half.set_weights(block.get_weights())
    result = half(x, *condition)
    assert result.dtype == tf.bfloat16
    assert np.abs(np.asarray(result, "float32") - y).std() < 0.05 * y.std()

    first = [part[:1] for part in inputs]
    alone = block(first if len(widths) > 1 else first[0], *(row[:1] for row in condition))
    np.testing.assert_allclose(alone, y[:1], atol=1e-5)


def test_blocks_are_registered_for_saving():
    for cls, _, _ in BLOCKS.values():
        assert keras.saving.get_registered_name(cls) == f"ncsn_tf>{cls.__name__}"
