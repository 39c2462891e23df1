"""The filter [1, 3, 3, 1] against loops over pixels, and what halving and doubling leave as it is."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.networks import resampling
from ncsn_tf.networks.resampling import blur, double, halve

SHAPE = (2, 8, 12, 3)
KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def images(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def filtered(x, padding):
    """Pads maps [H, W, C] by (before, after) zeros, and sums over the 4x4 window from each pixel on."""
    padded = np.pad(x, (padding, padding, (0, 0)))
    height, width, channels = padded.shape
    y = np.zeros((height - 3, width - 3, channels))
    for row in range(height - 3):
        for column in range(width - 3):
            window = padded[row : row + 4, column : column + 4]
            y[row, column] = (KERNEL[:, :, None] * window).sum((0, 1))
    return y


def halved(x):
    return filtered(x, (1, 1))[::2, ::2]


def doubled(x):
    """With zeros between the pixels, four in each cell of 2x2 for one that was there."""
    spread = np.zeros((2 * x.shape[0], 2 * x.shape[1], x.shape[2]))
    spread[::2, ::2] = 4 * x
    return filtered(spread, (2, 1))


ORACLES = {
    "halve": (lambda x: halve(x, "fir"), halved),
    "double": (lambda x: double(x, "fir"), doubled),
    "blur by 1": (lambda x: blur(x, 1), lambda x: filtered(x, (1, 1))),
    "blur by 2": (lambda x: blur(x, 2), lambda x: filtered(x, (2, 2))),
}


@pytest.mark.parametrize("name", ORACLES)
def test_the_filter_agrees_with_loops_over_pixels(name):
    ours, oracle = ORACLES[name]
    for shape in (SHAPE, (1, 2, 2, 1), (1, 6, 4, 1)):
        x = images(shape)
        np.testing.assert_allclose(ours(tf.constant(x)), [oracle(image) for image in x], atol=1e-14)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("name", ["halve", "double"])
def test_tiles_give_the_same(monkeypatch, name, tile):
    ours, oracle = ORACLES[name]
    products = []
    multiply = resampling._multiply
    monkeypatch.setattr(resampling, "_multiply", lambda *args: products.append(args[0].shape) or multiply(*args))
    monkeypatch.setattr(resampling, "_LONGEST", tile)
    monkeypatch.setattr(resampling, "_TILE", tile)
    x = images()
    np.testing.assert_allclose(ours(tf.constant(x)), [oracle(image) for image in x], atol=1e-14)
    assert {shape[1] for shape in products} == {2, tile}, "no tiles"


@pytest.mark.parametrize("side", [96, 256, 320])
def test_sides_of_any_length_are_halved_and_doubled(side):
    ramp = np.arange(side, dtype=np.float64)
    x = tf.constant(np.broadcast_to(ramp[None, :, None, None], (1, side, 2, 1)).copy())
    # The filter is symmetric, so inside it keeps a ramp; its width of 2 halves everything along the other axis.
    rows = np.asarray(halve(x, "fir"))[0, 1:-1, 0, 0]
    np.testing.assert_allclose(rows, 0.75 * (2.0 * np.arange(side // 2) + 0.5)[1:-1], rtol=1e-12)
    rows = np.asarray(double(x, "fir"))[0, 1:-1, 1, 0]
    np.testing.assert_allclose(rows, (0.5 * np.arange(2 * side) - 0.25)[1:-1], rtol=1e-12)


def test_an_impulse_becomes_the_kernel():
    x = np.zeros((1, 6, 6, 1))
    x[0, 2, 3] = 1.0
    expected = np.zeros((12, 12))
    expected[3:7, 5:9] = 4 * KERNEL
    np.testing.assert_allclose(np.asarray(double(tf.constant(x), "fir"))[0, :, :, 0], expected, atol=1e-15)
    # Of the 4x4 kernel around a pixel, halving takes every second row and column.
    expected = np.zeros((3, 3))
    expected[0:2, 1:3] = [[KERNEL[3, 2], KERNEL[3, 0]], [KERNEL[1, 2], KERNEL[1, 0]]]
    np.testing.assert_allclose(np.asarray(halve(tf.constant(x), "fir"))[0, :, :, 0], expected, atol=1e-15)


@pytest.mark.parametrize("change", [halve, double])
def test_a_constant_stays_constant_but_for_the_border(change):
    y = np.asarray(change(tf.ones((1, 8, 8, 1), tf.float64), "fir"))[0, :, :, 0]
    np.testing.assert_allclose(y[1:-1, 1:-1], 1.0, atol=1e-15)
    lost = 1 / 8 if change is halve else 1 / 4  # the share of the taps that fall outside
    np.testing.assert_allclose(y[0, 1:-1], 1.0 - lost, atol=1e-15)
    np.testing.assert_allclose(y[0, 0], (1.0 - lost) ** 2, atol=1e-15)


@pytest.mark.parametrize("method", resampling.METHODS)
def test_doubling_is_four_times_the_adjoint_of_halving(method):
    x, y = images(), images((2, 4, 6, 3), 1)
    inner = np.sum(np.asarray(double(tf.constant(y), method)) * x)
    np.testing.assert_allclose(inner, 4.0 * np.sum(y * np.asarray(halve(tf.constant(x), method))), rtol=1e-12)


def test_plain_resampling_takes_means_of_cells_and_repeats_pixels():
    x = images()
    means = x.reshape(2, 4, 2, 6, 2, 3).mean((2, 4))
    np.testing.assert_allclose(halve(tf.constant(x), "plain"), means, atol=1e-15)
    np.testing.assert_array_equal(double(tf.constant(x), "plain"), x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("method", resampling.METHODS)
def test_xla_and_unknown_batch_sizes_give_the_same(method):
    x = tf.constant(images().astype("float32"))

    def both(x):
        return halve(x, method), double(x, method)

    compiled = tf.function(both, jit_compile=True)(x)
    unknown = tf.function(both, input_signature=[tf.TensorSpec((None, *SHAPE[1:]))])(x)
    for expected, *others in zip(both(x), compiled, unknown, strict=True):
        for other in others:
            np.testing.assert_allclose(other, expected, atol=1e-6)


@pytest.mark.parametrize("method", resampling.METHODS)
def test_second_order_gradients_agree_with_finite_differences(method):
    """Of a function that is not linear: the derivative along u of the derivative along v."""

    def value(x):
        return tf.reduce_sum(tf.tanh(double(tf.tanh(halve(tf.tanh(x), method)), method)) ** 2)

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = value(x)
        return tf.reduce_sum(tape.gradient(y, x) * v)

    x, u, v = (tf.constant(images(seed=seed)) for seed in (1, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = slope(x)
    step = 1e-5
    numeric = (slope(x + step * u) - slope(x - step * u)) / (2 * step)
    np.testing.assert_allclose(np.vdot(tape.gradient(y, x), u), numeric, rtol=1e-6)
