"""Denoising score matching against closed forms on Gaussian data."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import objectives, seeds
from ncsn_tf.sde import VE
from tests.oracles import Gaussian

SDE = VE(1.0, 0.01)
DATA = Gaussian(0.4, 0.3)


def sigma_of(t):
    return SDE.marginal(t)[1]


def draws(count, shape, seed=0):
    rows = seeds.per_example(seeds.seed(seed), tf.range(count))
    return seeds.normal(seeds.fold_each(rows, 1), shape), seeds.normal(seeds.fold_each(rows, 2), shape)


@pytest.mark.parametrize("t", [1.0, 0.5, 0.0])
def test_the_loss_at_the_true_score_is_its_minimum(t):
    count, shape = 40_000, (2, 1, 3)
    u, z = draws(count, shape)
    times = tf.fill([count], t)
    losses = objectives.denoising(DATA.score_fn(sigma_of), SDE, DATA.mean + DATA.deviation * u, times, z).numpy()
    sigma = float(sigma_of(tf.constant([t]))[0])
    expected = 6 * DATA.denoising_loss(sigma)
    assert abs(losses.mean() - expected) < 4 * losses.std() / np.sqrt(count)


def test_it_is_the_weighted_distance_to_the_kernels_score():
    """Against the definition, 1/2 sigma^p || s + (x~ - x)/sigma^2 ||^2, in float64."""
    u, z = draws(8, (3, 2))
    t = tf.linspace(0.0, 1.0, 8)
    sigma = sigma_of(t).numpy().astype(np.float64)[:, None, None]
    noisy = u.numpy() + sigma * z.numpy()
    for power in (0.0, 1.0, 2.0):
        loss = objectives.denoising(lambda x, t: tf.sin(x), SDE, u, t, z, sigma_power=power)
        residual = np.sin(noisy) + (noisy - u.numpy()) / sigma**2
        expected = 0.5 * sigma[:, 0, 0] ** power * (residual**2).sum((1, 2))
        np.testing.assert_allclose(loss, expected, rtol=2e-3 if power < 1 else 2e-4)


def test_the_gradient_leads_to_the_gaussians_parameters():
    """The minimiser of a linear score -(x - a) b over the data of one level is a = m, b = 1 / (s^2 + sigma^2)."""
    count = 200_000
    u, z = draws(count, (1,), seed=3)
    t = tf.fill([count], 0.6)
    x = DATA.mean + DATA.deviation * u
    v = DATA.variance(float(sigma_of(tf.constant([0.6]))[0]))
    slope, centre = tf.constant(1.0 / v, tf.float32), tf.constant(DATA.mean)
    with tf.GradientTape() as tape:
        tape.watch([slope, centre])
        losses = objectives.denoising(lambda x, t: -(x - centre) * slope, SDE, x, t, z)
        loss = tf.reduce_mean(losses)
    for gradient, scale in zip(tape.gradient(loss, [slope, centre]), (v, 1.0 / np.sqrt(v)), strict=True):
        assert abs(float(gradient)) < 6 * scale / np.sqrt(count)


def test_examples_do_not_mix():
    u, z = draws(5, (4,))
    t = tf.linspace(0.1, 0.9, 5)
    score_fn = DATA.score_fn(sigma_of)
    whole = objectives.denoising(score_fn, SDE, u, t, z)
    parts = [objectives.denoising(score_fn, SDE, u[i : i + 1], t[i : i + 1], z[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(whole, parts, rtol=1e-6)
