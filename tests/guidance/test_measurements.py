"""Measurements against what they are by definition, and their decompositions against dense matrices."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.guidance import measurements, restoring
from tests.support import affine

CASES = {
    "mask:left": (4, 4, 3),
    "grey": (2, 3, 3),
    "downsample:2": (4, 6, 2),
    "blur:0.7": (5, 4, 1),
    "box:3": (5, 4, 2),
    "fourier:0.4": (5, 4, 2),
}


def images_of(shape, count=2):
    return np.random.default_rng(0).normal(size=(count, *shape))


def blurred(x, kernel):
    radius = len(kernel) // 2
    for axis in (1, 2):
        width = [(radius, radius) if number == axis else (0, 0) for number in range(4)]
        padded = np.pad(x, width, mode="symmetric")
        size = x.shape[axis]
        x = sum(w * np.take(padded, range(k, k + size), axis) for k, w in enumerate(kernel))
    return x


def by_definition(name, x):
    if name == "mask:left":
        return np.where(np.arange(4)[None, None, :, None] < 2, x, 0.0)
    if name == "grey":
        return x.mean(axis=-1, keepdims=True)
    if name == "downsample:2":
        count, height, width, channels = x.shape
        return x.reshape(count, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
    if name == "box:3":
        return blurred(x, np.full(3, 1 / 3))
    offsets = np.arange(-3, 4)
    weights = np.exp(-0.5 * (offsets / 0.7) ** 2)
    return blurred(x, weights / weights.sum())


@pytest.mark.parametrize("name", [name for name in CASES if name != "fourier:0.4"])
def test_a_measurement_is_what_its_name_says(name):
    x = images_of(CASES[name])
    y = restoring.measurement(name, CASES[name]).forward(tf.constant(x))
    np.testing.assert_allclose(y, by_definition(name, x), atol=1e-12)


def test_fourier_sampling_keeps_whole_frequencies():
    """What is left of an image is its discrete Fourier transform at the kept frequencies of both signs."""
    shape = (6, 5, 2)
    kept = measurements.frequencies(shape, 0.4, run_seed=1)
    assert kept[0, 0] and 1 < kept.sum() < kept.size
    measurement = measurements.fourier(shape, kept)
    x = images_of(shape)
    rows, columns = (np.minimum(np.arange(side), side - np.arange(side)) for side in shape[:2])
    chosen = kept[rows[:, None], columns][None, :, :, None]
    expected = np.fft.ifft2(np.fft.fft2(x, axes=(1, 2)) * chosen, axes=(1, 2)).real
    np.testing.assert_allclose(measurement.pseudo_inverse(measurement.forward(tf.constant(x))), expected, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_decomposition_is_that_of_the_dense_matrix(name):
    measurement = restoring.measurement(name, CASES[name])
    size = int(np.prod(CASES[name]))
    unit = tf.constant(np.eye(size).reshape(size, *CASES[name]))
    basis = measurement.image(unit).numpy().reshape(size, size)
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-12)
    matrix = affine.dense(measurement)
    assert len(matrix) == measurement.count
    values = np.linalg.svd(matrix, compute_uv=False)
    own = np.sort(measurement.singular_values.ravel())[::-1]
    np.testing.assert_allclose(own[: len(values)], values, atol=1e-12)
    np.testing.assert_array_equal(own[len(values) :], 0.0)
    x = tf.constant(images_of(CASES[name]))
    y = measurement.forward(x)
    np.testing.assert_allclose(
        measurement.measured_spectrum(y), measurement.singular_values * measurement.spectrum(x), atol=1e-12
    )
    numbers = y.numpy().reshape(2, -1)[:, measurement.present.ravel() > 0.0]
    inverse = (numbers @ np.linalg.pinv(matrix).T).reshape(x.shape)
    np.testing.assert_allclose(measurement.pseudo_inverse(y), inverse, atol=1e-9)
    other = tf.constant(images_of(CASES[name])[::-1].copy())
    nearest = other + measurement.pseudo_inverse(y - measurement.forward(other))
    np.testing.assert_allclose(measurement.put_back(other, y), nearest, atol=1e-9)


def test_directions_that_a_blur_all_but_removes_do_not_count_as_measured():
    measurement = restoring.measurement("blur:2", (8, 8, 1))
    values = measurement.singular_values
    assert 0 < np.sum(values > 0.0) < 64 and values[values > 0.0].min() >= measurements.LEAST * values.max()
    x = tf.constant(images_of((8, 8, 1)))
    assert np.abs(measurement.pseudo_inverse(measurement.forward(x))).max() < 10.0


@pytest.mark.parametrize("name", ["grey", "fourier:0.4"])
def test_noise_is_that_of_the_numbers_that_are_measured(name):
    measurement, count = restoring.measurement(name, CASES[name]), 2_000
    x = tf.zeros([count, *CASES[name]])
    seeds = random.per_example(random.seed(0), tf.range(count))
    noise = measurement.noisy(x, 0.2, seeds).numpy()[:, measurement.present > 0.0]
    assert abs(noise.std() / 0.2 - 1.0) < 4.0 / np.sqrt(2.0 * noise.size)
    np.testing.assert_array_equal(measurement.noisy(x, 0.2, seeds).numpy()[:, measurement.present == 0.0], 0.0)
    few = measurement.noisy(x[:2], 0.2, seeds[:2])
    np.testing.assert_allclose(few, measurement.noisy(x, 0.2, seeds)[:2], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("sharpen", (8, 8, 1), "one of mask, grey, downsample, blur, box, fourier.*Received: 'sharpen'"),
        ("downsample", (8, 8, 1), "downsample needs a value, as in blur:1.5"),
        ("grey:2", (8, 8, 3), "grey takes no value. Received: 'grey:2'"),
        ("grey", (8, 8, 1), r"3 channels: take a run on colour images. Received: \(8, 8, 1\)"),
        ("downsample:3", (8, 8, 1), r"divides the images' \(8, 8\).*Received: downsample:3"),
        ("downsample:1", (8, 8, 1), "2 or more.*Received: downsample:1"),
        ("downsample:two", (8, 8, 1), "value of downsample must be an integer. Received: 'two'"),
        ("blur:0", (8, 8, 1), "positive, finite width in pixels. Received: 0"),
        ("blur:nan", (8, 8, 1), "value of blur must be .*Received"),
        ("box:4", (8, 8, 1), "odd side, in pixels, .* Received: box:4"),
        ("fourier:1.5", (8, 8, 1), r"in \(0, 1\]. Received: 1.5"),
        ("mask:half", (8, 8, 1), "A mask must be one of left, .*Received: 'half'"),
    ],
)
def test_impossible_measurements_are_refused(text, shape, message):
    with pytest.raises(ValueError, match=message):
        restoring.measurement(text, shape)


def test_what_does_not_fit_a_measurement_is_refused():
    measurement = restoring.measurement("downsample:2", (4, 4, 1))
    with pytest.raises(ValueError, match=r"downsample:2 takes images \[B, 4, 4, 1\].*Received: \(2, 8, 8, 1\)"):
        measurement.forward(tf.zeros([2, 8, 8, 1]))
    with pytest.raises(ValueError, match=r"takes measurements \[B, 2, 2, 1\]; make one for yours"):
        measurement.coefficients(tf.zeros([2, 4, 4, 1]))
    with pytest.raises(ValueError, match="keeps nothing"):
        measurements.mask(np.zeros([4, 4, 1], bool), 1)
    with pytest.raises(ValueError, match=r"bool \(H, W, 1\) or \(H, W, 3\). Received: float64"):
        measurements.mask(np.zeros([4, 4, 1]), 3)
    with pytest.raises(ValueError, match="odd number of finite weights"):
        measurements.blur((4, 4, 1), np.ones(2))
    with pytest.raises(ValueError, match=r"bool \(3, 3\). Received: bool \(4, 4\)"):
        measurements.fourier((4, 4, 1), np.ones([4, 4], bool))
