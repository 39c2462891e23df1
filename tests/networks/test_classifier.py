"""The classifier: comparison with a derivation in NumPy, sizes, frozen statistics, saving."""

import keras
import numpy as np
import pytest

from ncsn_tf.networks.classifier import Classifier


def built(shape, num_classes=3, filters=4, seed=0):
    """A classifier whose variables are all random, including those that start as 0 and 1."""
    network = Classifier(num_classes, filters)
    network.build((None, *shape))
    rng = np.random.default_rng(seed)
    for norm in network.norms:
        width = norm.gamma.shape[0]
        norm.set_weights([rng.uniform(0.5, 2.0, width), *rng.normal(size=(2, width)), rng.uniform(0.5, 2.0, width)])
    network.head.set_weights([rng.normal(size=weights.shape) for weights in network.head.get_weights()])
    return network


def pictures(*shape, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def convolved(x, kernel):
    """The 3x3 correlation of [B, H, W, C] with zeros around, tap by tap."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def halved(x):
    """The largest of each 2x2 block; an odd side keeps its last row or column."""
    padded = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), constant_values=-np.inf)
    return np.maximum.reduce([padded[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def derived(network, x, halvings):
    """(pool_3, logits) in float64: `halvings` poolings, one before each convolution but the first and the last."""
    h = x.astype(np.float64)
    assert len(network.convolutions) == halvings + 2
    for number, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        if 1 <= number <= halvings:
            h = halved(h)
        gamma, beta, mean, variance = norm.get_weights()
        h = convolved(h, convolution.get_weights()[0])
        h = np.maximum(gamma * (h - mean) / np.sqrt(variance + 1e-5) + beta, 0)
    pooled = h.mean(axis=(1, 2))
    kernel, bias = network.head.get_weights()
    return pooled, pooled @ kernel + bias


@pytest.mark.parametrize(
    ("shape", "halvings"), [((8, 8, 1), 1), ((9, 11, 2), 1), ((5, 7, 1), 0), ((13, 30, 3), 1), ((17, 18, 3), 2)]
)
def test_outputs_match_a_derivation_in_numpy(shape, halvings):
    network, x = built(shape), pictures(3, *shape)
    outputs = network(x)
    pooled, logits = derived(network, x, halvings)
    assert set(outputs) == {"pool_3", "logits"}
    np.testing.assert_allclose(outputs["pool_3"], pooled, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(outputs["logits"], logits, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "length"), [((8, 8, 1), 64), ((28, 28, 1), 128), ((32, 32, 3), 128), ((5, 7, 1), 32), ((1, 1, 1), 32)]
)
def test_length_of_the_features_follows_the_rule(shape, length):
    network = Classifier(10)
    outputs = network(pictures(2, *shape))
    assert outputs["pool_3"].shape == (2, length) and outputs["logits"].shape == (2, 10)
    assert network.image_shape == shape
    assert np.isfinite(outputs["logits"]).all()


def test_features_of_an_image_do_not_depend_on_its_batch():
    network, x = built((8, 8, 1)), pictures(5, 8, 8, 1)
    together = network(x)["pool_3"]
    for i in range(5):
        np.testing.assert_allclose(network(x[i : i + 1])["pool_3"][0], together[i], rtol=1e-5, atol=1e-6)


def test_training_normalises_by_the_batch_and_moves_the_statistics_a_tenth_of_the_way():
    network, x = built((5, 7, 1), filters=2), pictures(6, 5, 7, 1)
    before = [norm.get_weights() for norm in network.norms]
    h = convolved(x.astype(np.float64), network.convolutions[0].get_weights()[0])
    outputs = network(x, training=True)
    for row, moment in ((2, h.mean(axis=(0, 1, 2))), (3, h.var(axis=(0, 1, 2)))):
        expected = 0.9 * before[0][row] + 0.1 * moment
        np.testing.assert_allclose(network.norms[0].get_weights()[row], expected, rtol=1e-4)
    # Normalised by the batch's own moments, the first map has mean beta and deviation gamma; with the frozen ones not.
    gamma, beta = before[0][:2]
    first = np.maximum(gamma * (h - h.mean(axis=(0, 1, 2))) / np.sqrt(h.var(axis=(0, 1, 2)) + 1e-5) + beta, 0)
    h = convolved(first, network.convolutions[1].get_weights()[0])
    gamma, beta = before[1][:2]
    last = np.maximum(gamma * (h - h.mean(axis=(0, 1, 2))) / np.sqrt(h.var(axis=(0, 1, 2)) + 1e-5) + beta, 0)
    np.testing.assert_allclose(outputs["pool_3"], last.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs["pool_3"], network(x)["pool_3"])


def test_save_and_load(tmp_path):
    network, x = built((9, 11, 2)), pictures(2, 9, 11, 2)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    for name, values in network(x).items():
        np.testing.assert_allclose(loaded(x)[name], values, rtol=1e-6)
    assert loaded.get_config() == network.get_config() and loaded.filters == 4


def test_equal_seeds_give_equal_weights_and_others_do_not(assert_seeded):
    assert_seeded(Classifier, (3, 4), (None, 8, 8, 1))


@pytest.mark.parametrize("sizes", [(1,), (2, 0), (2.0,), (True,), (3, "32"), (3, 4, -1)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="Received"):
        Classifier(*sizes)


def test_an_unknown_image_size_is_refused():
    with pytest.raises(ValueError, match=r"one image size.*Received: \(None, None, 8, 1\)"):
        Classifier(2).build((None, None, 8, 1))
