"""Likelihoods of bytes: the dequantization, its errors, and a closed form on Gaussian scores."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import ode
from ncsn_tf.data.value_range import SYMMETRIC, UNIT
from ncsn_tf.evaluation import likelihood
from ncsn_tf.sde import VE, VP
from tests.support import laws

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1), dtype=np.uint8)
CASES = {"ve": (VE(sigma_max=5000.0, sigma_min=0.01), UNIT), "vp": (VP(), SYMMETRIC)}


@pytest.mark.parametrize("name", CASES)
def test_bits_are_those_of_the_gaussian_that_the_score_belongs_to(name):
    """Within the cell of a byte the density of N(0, 0.5^2) is nearly flat: its value in the middle decides."""
    sde, value_range = CASES[name]
    found = likelihood.measure(
        laws.exact_score(sde, 0.5), sde, IMAGES, value_range, run_seed=0, batch_size=2, options={"probes": 2}
    )
    x = value_range.encode((IMAGES + 0.5) / 256.0)
    v = laws.variance(sde, 0.5, sde.first_time)[0]
    nats = (-0.5 * x**2 / v - 0.5 * np.log(2.0 * np.pi * v)).reshape(5, -1).sum(axis=1)
    assert found.nats.shape == (5, 1, 2) and found.evaluations.shape == (5, 1)
    np.testing.assert_allclose(found.nats.mean(axis=(1, 2)), nats, atol=0.04)  # u moves x by 1/512, slopes are below 4
    width = value_range.high - value_range.low
    expected = -nats.mean() / (4 * math.log(2.0)) + math.log2(256.0 / width)
    summary = found.summary()
    assert summary["bits_per_dimension"]["mean"] == pytest.approx(expected, abs=0.01)
    assert summary["offset_bits"] == {"ve": 8.0, "vp": 7.0}[name]
    assert summary["bits_per_dimension"]["by_probe"] == pytest.approx(0.0, abs=1e-4)
    assert summary["bits_per_dimension"]["by_dequantization"] is None


def test_an_image_depends_on_its_number_alone():
    sde, value_range = CASES["vp"]

    def nats(images, batch_size):
        options = {"rtol": 1e-3, "atol": 1e-3}
        given = {"run_seed": 3, "batch_size": batch_size, "dequantizations": 2, "options": options}
        return likelihood.measure(laws.exact_score(sde, 0.5), sde, images, value_range, **given).nats

    whole = nats(IMAGES, 5)
    np.testing.assert_allclose(nats(IMAGES[:3], 2), whole[:3], rtol=1e-5)
    assert np.ptp(whole, axis=1).min() > 0.0, "two dequantizations are equal"


def test_the_errors_are_those_of_the_mean():
    values = np.random.default_rng(1).normal(size=(50, 3, 2))
    found = likelihood.Likelihoods(values, np.ones((50, 3), int), (1, 1, 1), (0.0, 1.0)).summary()["nats"]
    means = values.mean(axis=(1, 2))
    assert found["mean"] == pytest.approx(means.mean())
    assert found["standard_error"] == pytest.approx(means.std(ddof=1) / np.sqrt(50))
    assert found["by_probe"] == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * 150))
    assert found["by_dequantization"] == pytest.approx(np.sqrt(0.5), abs=4.0 * np.sqrt(0.5) / np.sqrt(2 * 100))


def test_an_image_that_does_not_converge_is_named():
    def score_fn(x, t):
        return tf.where(tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True) > 0.9, np.nan, -x)

    images = np.zeros((5, 2, 2, 1), np.uint8)
    images[3] = 255
    options = {"rtol": 1e-2, "atol": 1e-2}
    with pytest.raises(ode.NotConvergedError, match="The flow of image 3 did not converge"):
        likelihood.measure(score_fn, VP(), images, SYMMETRIC, run_seed=0, batch_size=2, options=options)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES / 255.0, {}, r"of bytes, uint8 \[N, H, W, C\].*Received: float64"),
        (IMAGES[:0], {}, r"Received: uint8, \(0, 2, 2, 1\)"),
        (IMAGES, {"batch_size": 0}, "batch_size=0"),
        (IMAGES, {"dequantizations": 0}, "dequantizations=0"),
    ],
)
def test_impossible_measurements_are_refused(images, options, message):
    with pytest.raises(ValueError, match=message):
        likelihood.measure(lambda x, t: -x, VP(), images, SYMMETRIC, **{"run_seed": 0, "batch_size": 2, **options})


def test_saved_likelihoods_are_found_by_what_they_were_made_with(tmp_path):
    nats = np.random.default_rng(1).normal(size=(5, 2, 3))
    found = likelihood.Likelihoods(nats, np.full((5, 2), 20), (2, 2, 1), (-1.0, 1.0))
    assert likelihood.saved(tmp_path, {}) is None
    content = found.save(tmp_path / "new", {"weights": 7, "rtol": 1e-5, "first_time": None})
    assert content["bits_per_dimension"]["mean"] == pytest.approx(found.bits.mean())
    again, bits = likelihood.saved(tmp_path / "new", {"weights": 7, "first_time": None, "images": 5}) or ({}, None)
    assert again == content
    np.testing.assert_array_equal(bits, found.bits)
    assert likelihood.saved(tmp_path / "new", {"weights": 8}) is None
    (tmp_path / "new" / "likelihood.npz").write_bytes(b"damaged")
    assert likelihood.saved(tmp_path / "new", {"weights": 7}) is None
