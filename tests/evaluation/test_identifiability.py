"""Codes of two models: equal ones, unrelated ones, and those of two solutions of one flow."""

import math

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.data.value_range import SYMMETRIC
from ncsn_tf.evaluation import encodings, identifiability
from ncsn_tf.sde import VP
from tests.support import laws, tiny

CODES = np.random.default_rng(0).normal(size=(6, 20, 20, 1))


def test_models_of_one_score_give_codes_that_correlate_fully_and_others_do_not():
    images = np.random.default_rng(1).uniform(size=(6, 20, 20, 1))
    score_fn = laws.exact_score(VP(), 0.5)
    codes = [
        encodings.Codec(score_fn, VP(), SYMMETRIC, batch_size=6, options={"rtol": tolerance, "atol": tolerance}).encode(
            images
        )[0]
        for tolerance in (1e-4, 1e-5)
    ]
    found = identifiability.compare(*codes)
    np.testing.assert_allclose(found.correlation, 1.0, atol=1e-6)
    assert found.distance.max() < 1e-3
    assert np.abs(found.control).max() < 5.0 / math.sqrt(400)
    np.testing.assert_allclose(found.control_distance, math.sqrt(2.0), atol=5.0 / math.sqrt(2 * 400))


def test_correlation_and_distance_are_those_of_numpy():
    noisy = CODES + 0.5 * np.random.default_rng(2).normal(size=CODES.shape) + 3.0
    found = identifiability.compare(CODES, noisy)
    a, b = CODES.reshape(6, -1), noisy.reshape(6, -1)
    assert found.correlation[2] == pytest.approx(np.corrcoef(a[2], b[2])[0, 1])
    length = math.sqrt((np.sum(a[2] ** 2) + np.sum(b[2] ** 2)) / 2.0)
    assert found.distance[2] == pytest.approx(np.linalg.norm(a[2] - b[2]) / length)
    assert found.control.shape == found.control_distance.shape == (30,)
    assert found.control[0] == pytest.approx(np.corrcoef(a[0], b[1])[0, 1])
    summary = found.summary()["correlation"]
    assert summary["minimum"] == found.correlation.min() and summary["mean"] == pytest.approx(found.correlation.mean())


def test_the_picture_is_written(tmp_path):
    identifiability.save(tmp_path / "i.png", [tiny.random_pixels(6, 20, 20, 1)] * 3, CODES, CODES + 0.1)
    with Image.open(tmp_path / "i.png") as picture:
        assert picture.size[0] > 800


@pytest.mark.parametrize("second", [CODES[:3], CODES[..., :10, :]], ids=["fewer", "smaller"])
def test_codes_of_other_images_are_refused(second):
    with pytest.raises(ValueError, match="two images or more"):
        identifiability.compare(CODES, second)
    with pytest.raises(ValueError, match="two images or more"):
        identifiability.compare(CODES[:1], CODES[:1])
