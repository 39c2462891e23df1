"""The loss by level on held-out images, where its expectation and its standard error are known."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, times
from ncsn_tf.data import pipeline
from ncsn_tf.evaluation.held_out import HeldOutLoss, denoising_loss
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian
from tests.support.tiny import SHAPE, SOURCE

SDE = VE(sigma_max=2.0, sigma_min=0.1)
TIMES = times.uniform(5)
SIGMAS = 2.0 * (0.1 / 2.0) ** (np.arange(5) / 4)
DATA = Gaussian(mean=0.3, deviation=0.5)
COUNT, DIMENSIONS = 2400, 16


def one_device():
    return tf.distribute.get_strategy()


def two_replicas():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def sigma_of(t):
    return SDE.marginal(t)[1]


def measured(strategy, make_dataset, number, *, run_seed=3, score_fn=None):
    """The loss over the batches of `make_dataset(number of replicas)`."""
    batches = iter(
        strategy.distribute_datasets_from_function(lambda context: make_dataset(context.num_replicas_in_sync))
    )
    score_fn = score_fn or DATA.score_fn(sigma_of)
    return denoising_loss(score_fn, SDE, TIMES, batches, number, run_seed=run_seed, strategy=strategy)


@pytest.fixture(scope="module")
def of_gaussian_data():
    """Six batches of 410 rows: 400 images from the data's distribution, and 10 rows of padding with the value 100."""
    shape = (COUNT // 400, 400, *SHAPE)
    images = DATA.mean + DATA.deviation * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    padding = ((0, 0), (0, 10))
    rows = {
        "image": np.pad(images, padding + ((0, 0),) * 3, constant_values=100.0),
        "example": np.pad(np.arange(COUNT, dtype=np.int32).reshape(shape[:2]), padding),
        "weight": np.pad(np.ones(shape[:2], np.float32), padding),
    }
    return measured(one_device(), lambda replicas: tf.data.Dataset.from_tensor_slices(rows), len(images))


def test_the_loss_of_the_exact_score_has_its_closed_form(of_gaussian_data):
    """1/2 s^2 / (s^2 + sigma^2) per dimension, at each level."""
    found = of_gaussian_data
    assert isinstance(found, HeldOutLoss) and found.images == COUNT
    np.testing.assert_allclose(found.sigmas, SIGMAS, rtol=1e-5)
    expected = DIMENSIONS * DATA.denoising_loss(SIGMAS)
    assert found.means.dtype == np.float64
    assert (np.abs(found.means - expected) < 4 * found.standard_errors).all()
    assert found.mean == pytest.approx(found.means.mean(), rel=1e-12)
    # The noise of the levels is independent, but the images are the same: at worst the errors add up.
    assert abs(found.mean - expected.mean()) < 4 * found.standard_errors.mean()


def test_the_standard_errors_are_those_of_a_sum_of_squares(of_gaussian_data):
    """sigma (s(x) + z / sigma) is N(0, s^2 / v), so half the sum of D squares has the variance D / 2 (s^2 / v)^2."""
    ratio = DATA.deviation**2 / DATA.variance(SIGMAS)
    expected = np.sqrt(DIMENSIONS / 2 / COUNT) * ratio
    # The relative standard error of a deviation is sqrt((kurtosis - 1) / 4 N), with the kurtosis 3 + 12 / D.
    tolerance = 4 * np.sqrt((2 + 12 / DIMENSIONS) / (4 * COUNT))
    np.testing.assert_allclose(of_gaussian_data.standard_errors, expected, rtol=tolerance)


def losses_by_hand(count, run_seed=3):
    """The losses of `SOURCE`'s images at each level from NumPy, float64 [count, L], with the library's noise."""
    x = (SOURCE.images[:count].astype(np.float64) + 0.5) / 256
    base = random.stream_seed(run_seed, random.Stream.HELD_OUT)
    columns = []
    images = random.per_example(base, tf.range(count))
    for level, sigma in enumerate(SIGMAS):
        z = random.normal(random.fold_each(images, random.Stream.LEVEL, level), SHAPE).numpy().astype(np.float64)
        score = -(x + sigma * z - DATA.mean) / DATA.variance(sigma)
        columns.append(0.5 * sigma**2 * ((score + z / sigma) ** 2).sum(axis=(1, 2, 3)))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("make_strategy", [one_device, two_replicas])
def test_each_image_counts_once_on_any_number_of_replicas(make_strategy):
    """37 images in three batches of 16, in which 11 rows are padding; the noise depends on the image alone."""

    def make(replicas):
        return pipeline.evaluation_batches(SOURCE, batch_size=16, limit=37, num_replicas=replicas)

    found = measured(make_strategy(), make, 3)
    losses = losses_by_hand(37)
    assert found.images == 37
    np.testing.assert_allclose(found.means, losses.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.standard_errors, losses.std(axis=0, ddof=1) / np.sqrt(37), rtol=1e-4)


def test_each_seed_and_each_level_has_its_own_noise():
    def make(replicas):
        return pipeline.evaluation_batches(SOURCE, batch_size=40, num_replicas=replicas)

    # With the score 0, the loss is 1/2 |z|^2: with one noise for all levels the means would be equal.
    found = measured(one_device(), make, 1, run_seed=4, score_fn=lambda x, t: tf.zeros_like(x))
    assert len(set(found.means)) == len(TIMES)
    assert (np.abs(found.means - DIMENSIONS / 2) < 4 * found.standard_errors).all()
    base = random.stream_seed(4, random.Stream.HELD_OUT)
    of_level_0 = random.fold_each(random.per_example(base, tf.range(40)), random.Stream.LEVEL, 0)
    squares = np.square(random.normal(of_level_0, SHAPE).numpy(), dtype=np.float64).sum(axis=(1, 2, 3))
    assert found.means[0] == pytest.approx(0.5 * squares.mean(), rel=1e-5)
