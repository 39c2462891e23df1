"""The classifier of noisy images: sizes, what each output depends on, gradients, saving its arguments."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.networks.noisy_classifier import NoisyClassifier


def built(shape, num_classes=3, filters=4, seed=0):
    network = NoisyClassifier(num_classes, filters, seed=seed)
    network.build((None, *shape), (None,))
    return network


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((8, 8, 1), [4, 8, 8]),
        ((28, 28, 3), [4, 8, 16, 16]),
        ((5, 7, 1), [4, 4]),
        ((8, 12, 1), [4, 8, 8]),
        ((64, 64, 1), [4, 8, 16, 16, 16, 16]),
    ],
)
def test_images_are_halved_while_they_are_large_and_even(shape, widths):
    assert [block.filters for block in built(shape).stages] == widths


def test_a_row_depends_on_its_image_and_its_noise_alone():
    network, rng = built((8, 8, 1)), np.random.default_rng(0)
    x, condition = rng.normal(size=(4, 8, 8, 1)).astype(np.float32), np.array([-3.0, 0.0, 2.0, 5.0], np.float32)
    whole = network(x, condition).numpy()
    assert whole.shape == (4, 3)
    for row in range(4):
        np.testing.assert_allclose(network(x[row : row + 1], condition[row : row + 1])[0], whole[row], atol=1e-5)
    assert np.abs(network(x, condition[::-1].copy()).numpy() - whole)[[0, 3]].max(axis=1).min() > 1e-3

    with tf.GradientTape() as tape:
        image = tf.constant(x)
        tape.watch(image)
        logits = network(image, tf.constant(condition))[:, 1]
    gradient = tape.gradient(logits, image).numpy()
    assert np.all(np.abs(gradient).reshape(4, -1).max(axis=1) > 0.0) and np.isfinite(gradient).all()


def test_its_arguments_and_seed_make_it_again():
    network = built((8, 8, 1), seed=5)
    again = NoisyClassifier.from_config(network.get_config())
    again.build((None, 8, 8, 1), (None,))
    for one, two in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.allclose(network.first.kernel, built((8, 8, 1), seed=6).first.kernel)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "`num_classes` to be an integer of at least 2. Received: 1"),
        ({"num_classes": 3, "filters": 6}, "a multiple of 4. Received: 6"),
        ({"num_classes": 3, "filters": True}, "Received: True"),
        ({"num_classes": 3, "seed": -1}, "seed"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NoisyClassifier(**options)
    with pytest.raises(ValueError, match="one image size"):
        NoisyClassifier(3).build((None, None, 8, 1))
