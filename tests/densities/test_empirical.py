"""The noised empirical density of images and of many points, compared with explicit differences in float64."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from ncsn_tf.densities.empirical import Empirical


def naive(points, x, alpha, sigma):
    """(log p, posterior mean) by differences, float64."""
    points, x = points.reshape(len(points), -1).astype(np.float64), x.reshape(len(x), -1).astype(np.float64)
    logits = -np.stack([((row - alpha * points) ** 2).sum(1) for row in x]) / (2 * sigma**2)
    log_prob = scipy.special.logsumexp(logits, axis=1) - np.log(len(points))
    mean = scipy.special.softmax(logits, axis=1) @ points
    return log_prob - 0.5 * points.shape[1] * np.log(2 * np.pi * sigma**2), mean


def crowded_images():
    """Images in clusters whose members are 2 sigma apart, and perturbed ones: the posterior has to distinguish them."""
    generator, sigma = np.random.default_rng(5), 0.01
    centres = generator.uniform(size=(8, 1, 32, 32, 3))
    members = centres + sigma * 1.4 / np.sqrt(3072) * generator.normal(size=(8, 6, 32, 32, 3))
    points = members.reshape(-1, 32, 32, 3).astype(np.float32)
    x = 0.9 * points[::7] + sigma * generator.normal(size=(7, 32, 32, 3))
    return points, x.astype(np.float32), 0.9, sigma


@pytest.mark.parametrize("jit_compile", [False, True])
def test_squared_distances_do_not_cancel_at_3072_dimensions(jit_compile):
    points, x, alpha, sigma = crowded_images()
    density = Empirical(points)
    log_prob, mean = naive(points, x, alpha, sigma)
    weights = scipy.special.softmax(-((x[:1] - alpha * points) ** 2).sum((1, 2, 3), np.float64) / (2 * sigma**2))
    assert weights.max() < 0.9, "one point has all the weight: the softmax is not tested"

    def all_three(x):
        return (
            density.log_prob(x, alpha, sigma),
            density.posterior_mean(x, alpha, sigma=sigma),
            density.score(x, alpha, sigma),
        )

    got = tf.function(all_three, jit_compile=jit_compile)(x)
    assert got[1].shape == got[2].shape == x.shape
    np.testing.assert_allclose(got[0], log_prob, rtol=2e-7)  # the result's own rounding to float32
    np.testing.assert_allclose(got[1].numpy().reshape(7, -1), mean, atol=1e-7)
    score = (alpha * mean - x.reshape(7, -1)) / sigma**2
    np.testing.assert_allclose(got[2].numpy().reshape(7, -1), score, rtol=1e-6, atol=1e-5)
    exact = density.log_prob(x.astype(np.float64), alpha, sigma)
    # Distances of 1e3 keep 1e-13 (some roundings of 1e-16 each) and are divided by 2 sigma^2 = 2e-4.
    np.testing.assert_allclose(exact, log_prob, atol=5e-8)


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 10_000])
def test_chunks_count_every_point_once(count):
    """Chunks of 4,096 points in the plane; the last chunk overlaps with the one before."""
    points = np.random.default_rng(count).normal(size=(count, 2))
    x = np.array([[0.0, 0.0], [3.0, -3.0], [50.0, 1.0]])
    log_prob, mean = naive(points, x, 0.8, 0.5)
    density = Empirical(points)
    np.testing.assert_allclose(density.log_prob(x, 0.8, 0.5), log_prob, rtol=1e-10)
    np.testing.assert_allclose(density.posterior_mean(x, 0.8, sigma=0.5), mean, rtol=1e-9, atol=1e-12)
