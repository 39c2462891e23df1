"""Training of classifiers of noisy images, and their accuracy by level against that of the exact classifier."""

import math
from typing import Any, cast

import numpy as np
import tensorflow as tf

from ncsn_tf import time_draws
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.data.value_range import SYMMETRIC
from ncsn_tf.evaluation import noisy_training
from ncsn_tf.guidance.classifiers import NoiseConditional
from ncsn_tf.sde import VP

COUNT = 600
CLASSES = (np.arange(COUNT) % 2).astype(np.int32)
TONES = SYMMETRIC.encode((np.array([112, 144]) + 0.5) / 256.0)
PIXELS = np.array([112, 144], np.uint8)[CLASSES]
SOURCE = ImageSource("two tones", np.tile(PIXELS[:, None, None, None], (1, 4, 4, 1)))
TIMES = np.array([0.9, 0.3, 0.1, 0.02], np.float32)


def exact_accuracy(t):
    """Phi(alpha d / (2 sigma)), where d is the distance of the two clean images."""
    alpha, sigma = (float(part[0]) for part in VP().marginal(tf.constant([t])))
    distance = 4.0 * (TONES[1] - TONES[0])
    return 0.5 * math.erfc(-alpha * distance / (2.0 * sigma) / math.sqrt(2.0))


def test_the_exact_classifier_has_its_accuracy_at_each_level():
    class Exact:
        """Logits up to a number per row: the mean against the middle of the two tones under alpha."""

        num_classes = 2

        def __call__(self, x, condition):
            alpha = tf.math.rsqrt(1.0 + tf.exp(condition) ** 2)  # VP: alpha^2 + sigma^2 = 1
            evidence = tf.reduce_mean(x, axis=[1, 2, 3]) - alpha * TONES.mean()
            return tf.stack([tf.zeros_like(evidence), evidence], axis=1)

    exact = NoiseConditional(cast(Any, Exact()), VP())
    found = noisy_training.by_level(exact, SOURCE, CLASSES, TIMES, SYMMETRIC, seed=0, batch_size=256)
    for t, share in zip(TIMES, found.accuracies, strict=True):
        expected = exact_accuracy(t)
        assert abs(share - expected) < 4.0 * math.sqrt(expected * (1.0 - expected) / COUNT) + 1e-9, t
    assert found.images == COUNT and np.all(np.diff(found.accuracies) > 0.0)
    assert [set(row) for row in found.rows()] == [{"time", "noise_ratio", "accuracy", "cross_entropy"}] * 4
    assert len(found.lines()) == 5


def test_training_approaches_the_exact_classifier_and_depends_on_the_seed_alone():
    def trained(seed, steps):
        batches = pipeline.training_batches(
            SOURCE, global_batch_size=32, seed=seed, labels=CLASSES, value_range=SYMMETRIC, random_flip=False
        )
        told = []
        options = {"shape": (4, 4, 1), "sde": VP(), "draw": time_draws.Uniform(1e-3), "filters": 4}
        made = noisy_training.train(batches, 2, seed=seed, steps=steps, log=lambda *line: told.append(line), **options)
        return made, told

    made, told = trained(0, 120)
    assert [step for step, _ in told] == list(range(1, 121))
    found = noisy_training.by_level(made, SOURCE, CLASSES, TIMES, SYMMETRIC, seed=0)
    expected = np.array([exact_accuracy(t) for t in TIMES])
    assert found.accuracies[-1] > 0.97 and found.accuracies[-2] > expected[-2] - 0.05
    assert np.all(found.accuracies < expected + 4.0 * np.sqrt(expected * (1.0 - expected) / COUNT) + 1e-9)
    (first, one), (same, two), (other, _) = trained(3, 2), trained(3, 2), trained(4, 2)
    assert one == two
    for a, b in zip(first.network.get_weights(), same.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.checksum() != other.checksum()
