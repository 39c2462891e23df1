"""Blocks of the U-Nets against their formulae, and the checks that every block must pass."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from ncsn_tf.networks import unet_layers
from ncsn_tf.networks.layers import LayerSeeds
from ncsn_tf.networks.resampling import double, halve
from ncsn_tf.networks.unet_blocks import Attention, Combine, Resample, UNetBlock
from ncsn_tf.networks.unet_layers import GroupNorm

rng = np.random.default_rng(0)


def maps(*shape, dtype="float64"):
    return rng.normal(size=shape).astype(dtype)


def randomised(layer, *shapes):
    """A built layer with random weights, all of them far from zero."""
    layer.build(*shapes)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def group_norm(x, norm, groups):
    """The docstring's formula, in NumPy, image by image and group by group."""
    y = np.empty_like(x)
    for image, result in zip(x, y, strict=True):
        for members in np.split(np.arange(x.shape[-1]), groups):
            values = image[..., members]
            result[..., members] = (values - values.mean()) / np.sqrt(values.var() + norm.epsilon)
    return norm.gamma.numpy() * y + norm.beta.numpy()


@pytest.mark.parametrize(("groups", "expected"), [(None, 2), (1, 1), (8, 8)])
@pytest.mark.parametrize("offset", [None, maps(2, 8)])
def test_group_norm_matches_its_formula(groups, expected, offset):
    x = maps(2, 5, 3, 8) * rng.uniform(0.5, 2.0, 8) + 3.0
    norm = randomised(GroupNorm(groups, epsilon=0.1, dtype="float64"), x.shape)
    moved = x if offset is None else x + offset[:, None, None, :]
    np.testing.assert_allclose(norm(x, offset), group_norm(moved, norm, expected), atol=1e-12)


@pytest.mark.parametrize(("features", "groups"), [(4, 1), (40, 10), (128, 32), (384, 32)])
def test_groups_are_a_quarter_of_the_maps_and_32_at_most(features, groups):
    norm = GroupNorm()
    norm.build((None, 4, 4, features))
    assert norm.split == (groups, features // groups) and norm.epsilon == 1e-6


def test_group_norm_survives_constant_maps():
    """A flat group has variance zero, and rounding must not make it negative."""
    y = GroupNorm(2)(np.full((2, 9, 9, 2), 1000.3, "float32"))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("mean", [10.0, 1000.0])
def test_group_norm_keeps_its_digits_at_large_means_and_offsets(mean):
    """float32 holds x + mean to mean 2^-24, and no digit may be lost beyond that: E[x^2] - m^2 would lose them all."""
    x = maps(1, 9, 9, 8).astype("float32")
    norm = GroupNorm(8)
    expected = np.asarray(norm(x))
    np.testing.assert_allclose(norm(x, np.full((1, 8), mean, "float32")), expected, atol=1e-3 * mean / 1000.0 + 1e-5)
    np.testing.assert_allclose(norm(x + np.float32(mean)), expected, atol=1e-3 * mean / 1000.0 + 1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_group_norm_has_its_statistics_in_float32_under_any_policy(dtype):
    x = maps(1, 9, 9, 8).astype("float32")
    y = GroupNorm(2, dtype=dtype)(tf.cast(x, dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(tf.cast(y, tf.float32), GroupNorm(2)(x), atol=0.05)


@pytest.mark.parametrize(("features", "groups"), [(18, None), (3, None), (16, 32), (12, 8)])
def test_groups_of_different_sizes_are_refused(features, groups):
    with pytest.raises(ValueError, match=rf"groups of one size.*Received: {features} feature maps, \d+ groups"):
        GroupNorm(groups).build((None, 4, 4, features))


def convolved(conv, x):
    return tf.nn.conv2d(x, conv.kernel.value, 1, "SAME") + conv.bias.value


def swish(x):
    return x / (1.0 + np.exp(-np.asarray(x)))


@pytest.mark.parametrize("resample", [None, "down", "up"])
@pytest.mark.parametrize("rescale", [True, False])
def test_a_biggan_block_matches_its_formula(resample, rescale):
    x, embedding = maps(2, 4, 6, 8), maps(2, 5)
    block = UNetBlock(8, 12, resample=resample, rescale_skip=rescale, dtype="float64")
    randomised(block, x.shape, embedding.shape)
    change = {None: lambda x: x, "down": lambda x: halve(x, "fir"), "up": lambda x: double(x, "fir")}[resample]
    h = convolved(block.conv1, change(ops.convert_to_tensor(swish(group_norm(x, block.norm1, 2)))))
    h = h + (embedding @ block.dense.kernel.numpy() + block.dense.bias.numpy())[:, None, None]
    h = convolved(block.conv2, swish(group_norm(np.asarray(h), block.norm2, 3)))
    expected = (h + convolved(block.shortcut, change(ops.convert_to_tensor(x)))) / (np.sqrt(2.0) if rescale else 1.0)
    np.testing.assert_allclose(block(x, embedding), expected, atol=1e-10)


@pytest.mark.parametrize("filters", [8, 12])
def test_a_ddpm_block_matches_its_formula(filters):
    """Its shortcut is a matrix along the channels, or nothing; here it has no embedding."""
    x = maps(2, 4, 6, 8)
    block = UNetBlock(8, filters, kind="ddpm", embedded=False, rescale_skip=False, groups=4, dtype="float64")
    randomised(block, x.shape)
    h = np.asarray(convolved(block.conv1, swish(group_norm(x, block.norm1, 4))))
    h = convolved(block.conv2, swish(group_norm(h, block.norm2, 4)))
    skip = x if filters == 8 else x @ block.shortcut.kernel.numpy() + block.shortcut.bias.numpy()
    assert block.dense is None and (block.shortcut is None) == (filters == 8)
    np.testing.assert_allclose(block(x), h + skip, atol=1e-10)


@pytest.mark.parametrize("rescale", [True, False])
def test_attention_matches_its_formula(rescale):
    x = maps(2, 2, 3, 8)
    attention = randomised(Attention(rescale_skip=rescale, dtype="float64"), x.shape)

    def along_channels(layer, h):
        return h @ layer.kernel.numpy() + layer.bias.numpy()

    expected = np.empty_like(x)
    for image, normalised, result in zip(x, group_norm(x, attention.norm, 2), expected, strict=True):
        pixels = normalised.reshape(6, 8)
        q, k, v = (along_channels(layer, pixels) for layer in (attention.query, attention.key, attention.value))
        for i in range(6):
            weights = np.exp([q[i] @ k[j] / np.sqrt(8) for j in range(6)])
            mixture = sum(weights[j] * v[j] for j in range(6)) / weights.sum()
            result[i // 3, i % 3] = image[i // 3, i % 3] + along_channels(attention.out, mixture)
    np.testing.assert_allclose(attention(x), expected / (np.sqrt(2.0) if rescale else 1.0), atol=1e-10)


def correlated(x, kernel, before, after, step):
    """Pads [H, W, C], and sums products with a kernel [K, K, C, F] at every `step`-th pixel: loops in NumPy."""
    x = np.pad(x, ((before, after), (before, after), (0, 0)))
    size = len(kernel)
    rows, columns = ((side - size) // step + 1 for side in x.shape[:2])
    y = np.empty((rows, columns, kernel.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            window = x[step * row : step * row + size, step * column : step * column + size]
            y[row, column] = np.einsum("abc,abcf->f", window, kernel)
    return y


def spread(x):
    """Puts zeros between the pixels."""
    y = np.zeros((2 * x.shape[0] - 1, 2 * x.shape[1] - 1, x.shape[2]))
    y[::2, ::2] = x
    return y


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("method", ["fir", "plain"])
def test_resampling_with_a_convolution_matches_loops(direction, method):
    """With the filter, both kernels make one of 6x6, and padding is outside of it."""
    x = maps(2, 4, 6, 3)
    layer = randomised(Resample(direction, 2, method=method, dtype="float64"), x.shape)
    kernel = layer.conv.kernel.numpy()
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    whole = np.zeros((6, 6, *kernel.shape[2:]))
    for row in range(4):
        for column in range(4):
            whole[row : row + 3, column : column + 3] += taps[row, column] * kernel
    oracle = {
        ("down", "fir"): lambda image: correlated(image, whole, 2, 2, 2),
        ("up", "fir"): lambda image: correlated(spread(image), 4 * whole, 3, 3, 1),
        ("down", "plain"): lambda image: correlated(image, kernel, 0, 1, 2),
        ("up", "plain"): lambda image: correlated(image.repeat(2, 0).repeat(2, 1), kernel, 1, 1, 1),
    }[direction, method]
    np.testing.assert_allclose(layer(x), [oracle(image) + layer.conv.bias.numpy() for image in x], atol=1e-12)


@pytest.mark.parametrize("method", ["fir", "plain"])
def test_resampling_without_a_convolution_has_no_weights(method):
    x = tf.constant(maps(2, 4, 6, 3))
    for direction, change in (("down", halve), ("up", double)):
        layer = Resample(direction, 3, method=method, convolve=False, dtype="float64")
        np.testing.assert_array_equal(layer(x), change(x, method))
        assert not layer.weights


@pytest.mark.parametrize("method", ["sum", "cat"])
def test_combine_brings_in_an_image(method):
    image, h = maps(2, 3, 3, 2), maps(2, 3, 3, 4)
    layer = randomised(Combine(4, method, dtype="float64"), image.shape, h.shape)
    seen = image @ layer.conv.kernel.numpy()[0, 0] + layer.conv.bias.numpy()
    expected = seen + h if method == "sum" else np.concatenate([seen, h], axis=-1)
    np.testing.assert_allclose(layer(image, h), expected, atol=1e-12)


def test_initial_weights_have_the_variance_of_the_authors_programs():
    """Uniform, with variance scale / mean of fan-in and fan-out; 1e-10 for 0."""
    attention, block = Attention(seed=0), UNetBlock(64, 96, kind="ddpm", seed=0)
    attention.build((None, 4, 4, 64))
    block.build((None, 4, 4, 64), (None, 128))
    for layer, variance in (
        (block.conv1, 1 / (9 * 80)),
        (block.conv2, 1e-10 / (9 * 96)),
        (block.dense, 1 / 112),
        (block.shortcut, 0.1 / 80),
        (attention.query, 0.1 / 64),
        (attention.out, 1e-10 / 64),
    ):
        kernel = layer.kernel.numpy()
        # The variance of a uniform number's square is 4/5 of its mean squared.
        assert abs((kernel**2).mean() / variance - 1.0) < 4 * np.sqrt(0.8 / kernel.size)
        assert np.abs(kernel).max() <= np.sqrt(3 * variance) * 1.0001 and not layer.bias.numpy().any()
    ordinary = unet_layers.dense(64, seeds=LayerSeeds(0), scale=0.5)
    ordinary.build((None, 64))
    assert abs((ordinary.kernel.numpy() ** 2).mean() * 64 / 0.5 - 1.0) < 0.1


def test_dropout_masks_belong_to_the_example_and_the_layer():
    seeds = tf.constant([[5, 6], [-7, 8], [5, 9]])
    streams = unet_layers.dropout_streams(seeds, 3)
    h = tf.ones((3, 8, 8, 4))
    masks = np.stack([unet_layers.drop(h, stream, 0.25) for stream in streams])
    assert set(np.unique(masks)) == {0.0, np.float32(1 / 0.75)}
    assert len({mask.tobytes() for row in masks for mask in row}) == 9, "two examples or layers have the same mask"
    alone = unet_layers.dropout_streams(seeds[1:2], 3)
    np.testing.assert_array_equal(unet_layers.drop(h[:1], alone[2], 0.25), masks[2, 1:2])
    for seeds, rate in ((None, 0.25), (streams[0], 0.0)):
        np.testing.assert_array_equal(unet_layers.drop(h, seeds, rate), h)


def test_a_block_drops_what_its_last_convolution_sees(monkeypatch):
    x, seeds = maps(2, 4, 4, 8), tf.constant([[1, 2], [3, 4]])
    block = randomised(UNetBlock(8, 8, dropout=0.5, embedded=False, dtype="float64"), x.shape)
    undropped = np.asarray(block(x))
    np.testing.assert_array_equal(block(x, None, None), undropped)
    assert not np.allclose(block(x, None, seeds), undropped)
    seen = []
    monkeypatch.setattr(block.conv2, "call", lambda h: seen.append(np.asarray(h)) or h)
    block(x)
    block(x, None, seeds)
    mask = seen[1] / seen[0]
    assert set(np.unique(np.round(mask, 6))) == {0.0, 2.0} and 0.3 < (mask > 0).mean() < 0.7


BLOCKS = {
    "norm": (GroupNorm, {"groups": 2}, [(5, 6, 8)]),
    "block": (UNetBlock, {"in_filters": 8, "filters": 8, "embedded": False, "seed": 5}, [(5, 6, 8)]),
    "embedded": (UNetBlock, {"in_filters": 8, "filters": 12, "init_scale": 1.0, "seed": 5}, [(5, 6, 8), (16,)]),
    "down": (UNetBlock, {"in_filters": 8, "filters": 8, "resample": "down", "seed": 5}, [(4, 6, 8), (16,)]),
    "up": (
        UNetBlock,
        {"in_filters": 8, "filters": 8, "resample": "up", "method": "plain", "seed": 5},
        [(4, 6, 8), (16,)],
    ),
    "ddpm": (UNetBlock, {"in_filters": 8, "filters": 12, "kind": "ddpm", "seed": 5}, [(5, 6, 8), (16,)]),
    "attention": (Attention, {"init_scale": 1.0, "groups": 4, "seed": 5}, [(3, 4, 8)]),
    "strided": (Resample, {"direction": "down", "filters": 6, "seed": 5}, [(4, 6, 8)]),
    "transposed": (Resample, {"direction": "up", "filters": 6, "seed": 5}, [(4, 6, 8)]),
    "repeated": (Resample, {"direction": "up", "filters": 6, "method": "plain", "seed": 5}, [(4, 6, 8)]),
    "combine": (Combine, {"filters": 8, "method": "cat", "seed": 5}, [(4, 6, 3), (4, 6, 8)]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block_contract(name):
    """Its configuration rebuilds it, weights load, bfloat16 stays near float32, and images do not affect each other."""
    cls, arguments, shapes = BLOCKS[name]
    inputs = [maps(3, *shape, dtype="float32") for shape in shapes]
    block = cls(**arguments)
    y = np.asarray(block(*inputs))
    assert np.isfinite(y).all() and y.dtype == np.float32

    twin = cls.from_config(json.loads(json.dumps(block.get_config())))
    np.testing.assert_allclose(twin(*inputs), y, atol=1e-5)
    assert {key: block.get_config()[key] for key in arguments} == arguments
    if "seed" in arguments:
        other = cls.from_config({**block.get_config(), "seed": 6})
        other(*inputs)
        for mine, theirs in zip(block.weights, other.weights, strict=True):
            assert len(mine.shape) == 1 or not np.array_equal(mine, theirs), mine.path
        other.set_weights(block.get_weights())
        np.testing.assert_allclose(other(*inputs), y, atol=1e-5)

    half = cls(**arguments, dtype="mixed_bfloat16")
    narrow = [ops.cast(part, "bfloat16") if part.ndim == 4 else part for part in inputs]
    half(*narrow)
    half.set_weights(block.get_weights())
    result = half(*narrow)
    assert result.dtype == tf.bfloat16
    assert np.abs(np.asarray(result, "float32") - y).std() < 0.02 * y.std()

    alone = block(*(part[:1] for part in inputs))
    np.testing.assert_allclose(alone, y[:1], atol=1e-5)


def test_blocks_are_registered_for_saving():
    for cls in {cls for cls, _, _ in BLOCKS.values()}:
        assert keras.saving.get_registered_name(cls) == f"ncsn_tf>{cls.__name__}"
