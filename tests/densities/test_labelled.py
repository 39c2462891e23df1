"""Densities with classes against the mixture that they are, and against finite differences of their logarithms."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.densities import labelled, toy
from ncsn_tf.sde import VP

WEIGHTS, MEANS, DEVIATIONS = np.array([0.3, 0.7]), np.array([[-0.6, 0.2], [0.5, -0.1]]), np.array([0.3, 0.5])
CLASSES = tuple(toy.Mixture(np.ones(1), MEANS[k : k + 1], DEVIATIONS[k]) for k in range(2))
DENSITY = labelled.Labelled(WEIGHTS, CLASSES)
WHOLE = toy.Mixture(WEIGHTS, MEANS, DEVIATIONS)
X = tf.constant(np.random.default_rng(0).normal(size=(6, 2)))
T = tf.constant(np.linspace(0.05, 0.95, 6))


def test_a_density_with_classes_is_the_mixture_of_them():
    alpha, sigma = VP().marginal(T)
    options = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(DENSITY.log_prob(X, alpha, sigma), WHOLE.log_prob(X, alpha, sigma), **options)
    np.testing.assert_allclose(DENSITY.score(X, alpha, sigma), WHOLE.score(X, alpha, sigma), **options)
    posterior = tf.nn.softmax(DENSITY.logits_fn(VP())(X, T))
    np.testing.assert_allclose(posterior, WHOLE.responsibilities(X, alpha, sigma), **options)


def test_the_score_has_the_class_of_each_row():
    score_fn, coefficients = DENSITY.labelled_score_fn(VP()), VP().marginal(T)
    of_class = [density.score(X, *coefficients).numpy() for density in CLASSES]
    labels = tf.constant([0, 1, 2, 1, 0, 2])
    every = [*of_class, WHOLE.score(X, *coefficients).numpy()]
    expected = np.stack([every[label][row] for row, label in enumerate(labels.numpy())])
    np.testing.assert_allclose(score_fn(X, T, labels), expected, rtol=1e-12)
    np.testing.assert_allclose(score_fn(X, T), every[2], rtol=1e-12)
    assert score_fn(tf.cast(X, tf.float32), tf.cast(T, tf.float32), labels).dtype == tf.float32


def test_samples_are_of_the_classes_in_their_shares():
    count = 20_000
    drawn = DENSITY.sample(random.per_example(random.seed(1), tf.range(count))).numpy()
    variance = WEIGHTS @ (DEVIATIONS[:, None] ** 2 + MEANS**2) - (WEIGHTS @ MEANS) ** 2
    assert np.all(np.abs(drawn.mean(axis=0) - WEIGHTS @ MEANS) < 4.0 * np.sqrt(variance / count))
    fourth = np.mean((drawn - drawn.mean(axis=0)) ** 4, axis=0)
    assert np.all(np.abs(drawn.var(axis=0) - variance) < 4.0 * np.sqrt((fourth - variance**2) / count))


@pytest.mark.parametrize(
    ("weights", "classes", "message"),
    [
        ([0.5, 0.5, 0.0], CLASSES, "2 classes need as many positive weights"),
        ([1.0, 0.0], CLASSES, "positive weights"),
        ([0.3, 0.3], CLASSES, "sum to 1"),
        (
            [0.5, 0.5],
            (CLASSES[0], toy.Mixture(np.ones(1), np.zeros([1, 3]))),
            r"one shape. Received: \[\(2,\), \(3,\)\]",
        ),
    ],
)
def test_what_is_no_density_with_classes_is_refused(weights, classes, message):
    with pytest.raises(ValueError, match=message):
        labelled.Labelled(np.array(weights), classes)
