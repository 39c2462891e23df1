"""Embeddings against their formulae."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.networks.embeddings import ClassEmbedding, FourierFeatures, sinusoidal

SIGMAS = np.array([0.01, 0.3, 50.0])


@pytest.mark.parametrize("logarithm", [True, False])
def test_fourier_features_match_their_formula(logarithm):
    layer = FourierFeatures(5, scale=2.0, logarithm=logarithm, seed=3, dtype="float64")
    features = np.asarray(layer(SIGMAS))
    u = np.log(SIGMAS) if logarithm else SIGMAS
    angle = 2 * np.pi * layer.frequencies.numpy() * u[:, None]
    np.testing.assert_allclose(features, np.concatenate([np.sin(angle), np.cos(angle)], axis=1), atol=1e-11)


def test_frequencies_are_normal_fixed_and_follow_the_seed():
    def frequencies(**options):
        layer = FourierFeatures(4000, **options)
        layer.build()
        assert not layer.trainable_variables
        return layer.frequencies.numpy()

    first = frequencies(scale=16.0, seed=1)
    assert abs(first.mean()) < 4 * 16 / np.sqrt(4000) and abs(first.std() / 16 - 1) < 4 / np.sqrt(2 * 4000)
    np.testing.assert_array_equal(frequencies(scale=16.0, seed=1), first)
    assert not np.array_equal(frequencies(scale=16.0, seed=2), first)
    np.testing.assert_allclose(frequencies(scale=2.0, seed=1), first / 8, rtol=1e-6)


@pytest.mark.parametrize("width", [4, 7, 32])
def test_the_sinusoidal_embedding_matches_its_formula(width):
    times = np.array([0.0, 1.0, 999.0])
    half = width // 2
    expected = np.zeros((3, width))
    for row, time in enumerate(times):
        for i in range(half):
            expected[row, i] = np.sin(time / 10000 ** (i / (half - 1)))
            expected[row, half + i] = np.cos(time / 10000 ** (i / (half - 1)))
    np.testing.assert_allclose(sinusoidal(times, width, "float64"), expected, atol=1e-11)
    np.testing.assert_array_equal(sinusoidal(times.astype(int), width), sinusoidal(times, width))
    assert sinusoidal(times, width).dtype == tf.float32


def classes(values=None):
    layer = ClassEmbedding(3, 2)
    layer.build()
    if values is not None:
        layer.table.assign(values)
    return layer


def test_classes_have_vectors_of_their_own_which_are_zero_at_first():
    np.testing.assert_array_equal(classes()(np.array([0, 2, 3])), np.zeros((3, 2)))
    table = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(classes(table)(np.array([3, 0, 1, 1])), table[[3, 0, 1, 1]])


def test_each_class_learns_from_its_examples_alone():
    layer = classes()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(np.array([2, 3, 2])) * tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    gradient = tape.gradient(loss, layer.table.value)
    assert isinstance(gradient, tf.Tensor), "sparse gradients cannot be summed over replicas on every device"
    np.testing.assert_array_equal(gradient, [[0, 0], [0, 0], [6, 8], [3, 4]])


@pytest.mark.parametrize("labels", [[0, 4], [-1, 3]])
def test_labels_out_of_range_are_refused_or_give_nan(labels):
    layer = classes(np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"0 to 2, and 3 for no class. Received: -?\d to \d"):
        layer(np.array(labels))
    possible = np.isin(labels, range(4))
    for jit_compile in (False, True):
        rows = tf.function(layer, jit_compile=jit_compile)(tf.constant(labels))
        np.testing.assert_array_equal(np.isfinite(rows), np.broadcast_to(possible[:, None], (2, 2)))


def test_configurations_rebuild_the_layers():
    for layer in (FourierFeatures(5, 2.0, logarithm=True, seed=3), ClassEmbedding(3, 2)):
        config = json.loads(json.dumps(layer.get_config()))
        twin = type(layer).from_config(config)
        assert twin.get_config() == config
        condition = np.array([1, 2])
        np.testing.assert_array_equal(twin(condition), layer(condition))
