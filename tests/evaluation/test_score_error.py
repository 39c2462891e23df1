"""A score against the exact score of its training images, where expectations are known."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import sde as sdes
from ncsn_tf.data import pipeline
from ncsn_tf.densities.empirical import Empirical
from ncsn_tf.evaluation import held_out, score_error, score_error_report
from ncsn_tf.evaluation.score_error import HELD_OUT, TRAIN, Errors, Meter
from ncsn_tf.score import expand
from tests.support import tiny

VP = sdes.VP(beta_min=0.1, beta_max=20.0)
TIMES = np.array([0.6, 0.25, 0.1], np.float32)
TWO = Empirical(np.array([[-1.0], [1.0]]))
NARROW = 0.5
"""The variance of the data of `wrong_score`; that of the two points is 1."""


def wrong_score(x, t):
    """The score of data N(0.3, NARROW)."""
    alpha, sigma = (expand(part, x) for part in VP.marginal(t))
    return -(x - 0.3 * alpha) / (NARROW * alpha**2 + sigma**2)


def by_quadrature(alpha, sigma):
    """The expectations of the attributes of `Errors` on the two points, whose posterior mean is tanh(alpha x / s^2)."""
    z = np.linspace(-9.0, 9.0, 20_001)
    weight = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    found = np.zeros(4)
    for point in (-1.0, 1.0):
        x = alpha * point + sigma * z
        exact = (alpha * np.tanh(alpha * x / sigma**2) - x) / sigma**2
        wrong = -(x - 0.3 * alpha) / (NARROW * alpha**2 + sigma**2)
        normal = -x / (alpha**2 + sigma**2)
        parts = [sigma * wrong + z, sigma * exact + z, sigma * normal + z, sigma * (wrong - exact)]
        found += [0.5 * 0.5 * np.sum(weight * part**2) for part in parts]
    return found


def meter(score_fn, sde=VP, times=TIMES, training=TWO, **options):
    return Meter(score_fn, sde, times, training, **{"run_seed": 3, "batch_size": 8_000, **options})


def stacked(errors):
    return np.stack([getattr(errors, field.name) for field in dataclasses.fields(Errors)])


def test_losses_and_distances_of_two_points_have_their_expectations():
    """Also the identity, exactly: loss of the score = loss of the exact one + distance."""
    repeated = np.tile(np.asarray(TWO.points, np.float32), (8_000, 1))
    found = stacked(meter(wrong_score).errors(TRAIN, repeated, np.arange(len(repeated))))
    alphas, sigmas = (part.numpy().astype(np.float64) for part in VP.marginal(tf.constant(TIMES)))
    for level, (alpha, sigma) in enumerate(zip(alphas, sigmas, strict=True)):
        expected = by_quadrature(alpha, sigma)
        assert expected[0] == pytest.approx(expected[1] + expected[3], rel=1e-9)
        errors = found[:, :, level].std(axis=1, ddof=1) / np.sqrt(len(repeated))
        assert (errors < 0.03 * expected.max()).all()
        assert (np.abs(found[:, :, level].mean(axis=1) - expected) < 4 * errors).all(), (level, expected)


def network_errors(split=TRAIN, count=40, score_fn=None, **options):
    """The errors of a small network on digits."""
    images = pipeline.to_float(tiny.SOURCE.images)
    score_fn = score_fn or tiny.make().model.score
    measured = meter(score_fn, tiny.SDE, tiny.TIMES, Empirical(images[:count]), **{"batch_size": 16, **options})
    return measured.errors(split, images, np.arange(count))


def test_the_identity_holds_for_a_network_within_standard_errors():
    found = network_errors()
    rest = found.network - found.exact - found.distance
    errors = rest.std(axis=0, ddof=1) / np.sqrt(len(rest))
    assert (np.abs(rest.mean(axis=0)) < 4 * errors + 1e-4 * found.network.mean(axis=0)).all()
    assert (found.distance.mean(axis=0) > 10 * errors).any(), "the distance is not seen"


def test_a_network_that_has_memorised_has_distance_and_share_0():
    training = Empirical(pipeline.to_float(tiny.SOURCE.images[:20]))
    measured = meter(training.score_fn(tiny.SDE), tiny.SDE, tiny.TIMES, training, batch_size=16)
    found = measured.measure(pipeline.to_float(tiny.SOURCE.images[20:40]), 10)
    assert len(found.train.network) == len(found.held_out.network) == 10
    np.testing.assert_array_equal(found.train.network, found.train.exact)
    np.testing.assert_array_equal(found.train.distance, 0.0)
    rows: Any = found.rows()
    assert [row["share"] for row in rows] == [0.0] * len(tiny.TIMES)
    assert rows[-1]["exact_held_out_loss"] > 2.0 * rows[-1]["normal_held_out_loss"] > rows[-1]["exact_train_loss"]
    assert len(score_error_report.lines(found)) == len(tiny.TIMES) + 2
    assert found.mean()["gap"] == pytest.approx(np.mean([row["gap"] for row in rows]))


def test_held_out_images_get_the_noise_of_the_held_out_loss():
    score_fn = tiny.make().model.score
    found = network_errors(HELD_OUT, score_fn=score_fn)
    batches = iter(pipeline.evaluation_batches(tiny.SOURCE, batch_size=40))
    strategy = tf.distribute.get_strategy()
    loss = held_out.denoising_loss(score_fn, tiny.SDE, tiny.TIMES, batches, 1, run_seed=3, strategy=strategy)
    np.testing.assert_allclose(found.network.mean(axis=0), loss.means, rtol=1e-5)
    assert np.abs(network_errors(TRAIN, score_fn=score_fn).network / found.network - 1.0).max() > 0.01


def test_an_image_has_its_errors_in_any_block_and_on_two_replicas():
    whole = stacked(network_errors(batch_size=40))
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    replicated = stacked(network_errors(score_fn=tiny.make(strategy).model.score, batch_size=7, strategy=strategy))
    np.testing.assert_allclose(stacked(network_errors(batch_size=7)), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(replicated, whole, rtol=1e-4, atol=1e-5)


def test_standard_errors_agree_with_the_jackknife():
    """To the order 1/N, in which the two estimates of a ratio's error differ."""
    generator, count = np.random.default_rng(0), 400
    base = 2.0 + generator.gamma(4.0, size=(2, count))
    train = Errors(base[0] + generator.normal(size=count), base[0] / 3, base[0], base[0] - 1.0)
    unseen = Errors(base[1] + 1.0, 9.0 + base[1], base[1] + 2.0, base[1])
    found = score_error.statistics(train, unseen)
    assert found["gap"] == pytest.approx(unseen.network.mean() - train.network.mean())
    assert found["share"] == pytest.approx(train.distance.mean() / (train.distance.mean() + found["gap"]))

    def without(errors, row):
        return Errors(*(np.delete(values, row) for values in stacked(errors)))

    for name in ("gap", "share", "distance", "exact_held_out_loss"):
        variance = 0.0
        for each in (
            [score_error.statistics(without(train, row), unseen)[name] for row in range(count)],
            [score_error.statistics(train, without(unseen, row))[name] for row in range(count)],
        ):
            variance += (count - 1) * np.var(each)
        assert found[f"{name}_error"] == pytest.approx(np.sqrt(variance), rel=10 / count), name


def test_what_is_undefined_is_none():
    one = Errors(*np.ones((4, 1)))
    found = score_error.statistics(one, one)
    assert found["train_loss_error"] is None and found["share_error"] is None and found["share"] == 1.0
    nothing = Errors(*np.zeros((4, 3)))
    assert score_error.statistics(nothing, nothing)["share"] is None


def test_images_are_spread_over_the_set():
    np.testing.assert_array_equal(score_error.evenly_spaced(10, 4), [0, 2, 5, 7])
    np.testing.assert_array_equal(score_error.evenly_spaced(3, 5), [0, 1, 2])
