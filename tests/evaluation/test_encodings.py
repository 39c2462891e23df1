"""Latent codes of Gaussian data, whose flow has a closed form; the batch, the dequantization, what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import ode
from ncsn_tf.data import pipeline
from ncsn_tf.data.value_range import SYMMETRIC, UNIT
from ncsn_tf.evaluation import encodings
from ncsn_tf.guidance import interpolation
from ncsn_tf.sde import VE, VP, SubVP
from tests.support import laws, tiny

PIXELS = tiny.random_pixels(5, 2, 3, 1)
IMAGES = pipeline.to_float(PIXELS)
CASES = {"ve": (VE(sigma_max=50.0, sigma_min=0.01), UNIT), "vp": (VP(), SYMMETRIC), "subvp": (SubVP(), SYMMETRIC)}
OPTIONS = {"rtol": 1e-5, "atol": 1e-5}


def codec(name="vp", batch_size=2, score_fn=None, **options):
    sde, value_range = CASES[name]
    score_fn = score_fn or laws.exact_score(sde, 0.5)
    return encodings.Codec(score_fn, sde, value_range, batch_size=batch_size, options=OPTIONS, **options)


@pytest.mark.parametrize("name", CASES)
def test_a_code_is_the_image_in_deviations_of_its_time_and_decodes_to_the_image(name):
    """x_1 = x sqrt(V(1) / V(first time)) for data N(0, 0.5^2), in the SDE's data range."""
    sde, value_range = CASES[name]
    seen = []
    made = codec(name, on_rows=lambda activity, rows: seen.append((activity, rows)))
    latents, forth = made.encode(IMAGES)
    ratio = np.sqrt(laws.variance(sde, 0.5, 1.0) / laws.variance(sde, 0.5, sde.first_time))
    np.testing.assert_allclose(latents, value_range.encode(IMAGES) * ratio, rtol=1e-3, atol=1e-3)
    decoded, back = made.decode(latents)
    summary = encodings.summary(IMAGES, decoded, forth, back)
    assert summary["round_trip_error"]["worst"] < 1e-3 and summary["images"] == 5
    np.testing.assert_array_equal(pipeline.to_uint8(decoded), PIXELS)
    assert summary["score_evaluations_per_image"] == {"encoding": forth.mean(), "decoding": back.mean()}
    assert (forth > 10).all() and (back > 10).all()
    assert seen == [
        ("encoding", 2),
        ("encoding", 2),
        ("encoding", 1),
        ("decoding", 2),
        ("decoding", 2),
        ("decoding", 1),
    ]
    rows = made.decode_rows(latents[:4].reshape(2, 2, 2, 3, 1))
    np.testing.assert_allclose(rows.reshape(4, 2, 3, 1), decoded[:4], atol=1e-6)


def test_a_code_does_not_depend_on_its_batch():
    np.testing.assert_allclose(codec(batch_size=1).encode(IMAGES)[0], codec(batch_size=5).encode(IMAGES)[0], atol=1e-6)


def test_a_path_of_codes_ends_in_the_reconstructions_and_temperature_1_gives_them():
    made = codec()
    latents, _ = made.encode(IMAGES)
    decoded, _ = made.decode(latents)
    paths = made.decode_rows(interpolation.spherical(latents[:2], latents[2:4], 3))
    np.testing.assert_allclose(paths[:, 0], decoded[:2], atol=1e-6)
    np.testing.assert_allclose(paths[:, -1], decoded[2:4], atol=1e-6)
    np.testing.assert_allclose(made.decode(1.0 * latents)[0], decoded, atol=1e-6)
    # The flow of centred Gaussian data is linear: half the code is half the image in [-1, 1].
    np.testing.assert_allclose(made.decode(0.5 * latents)[0] - 0.5, 0.5 * (decoded - 0.5), atol=1e-3)


def test_bytes_are_encoded_at_their_middles_or_dequantized_by_their_number():
    np.testing.assert_array_equal(encodings.floats(PIXELS), (PIXELS + 0.5) / 256.0)
    dequantized = encodings.floats(PIXELS, 3)
    np.testing.assert_array_equal(pipeline.to_uint8(dequantized), PIXELS)
    np.testing.assert_array_equal(encodings.floats(PIXELS[:2], 3), dequantized[:2])
    assert (dequantized != encodings.floats(PIXELS, 4)).mean() > 0.9 and np.ptp(256.0 * dequantized - PIXELS) > 0.5


def test_the_error_of_a_round_trip_is_per_dimension():
    images = np.zeros((2, 2, 2, 1))
    wrong = images + np.array([0.1, 0.0])[:, None, None, None]
    wrong[1, 0, 0] = 0.4
    np.testing.assert_allclose(encodings.round_trip_error(images, wrong), [0.1, 0.2])


def test_codes_are_shown_in_deviations_of_the_prior():
    codes = np.array([-150.0, -1000.0, 0.0, 75.0, 149.9]).reshape(5, 1, 1, 1)
    assert encodings.shown(codes, CASES["ve"][0]).ravel().tolist() == [0, 0, 128, 192, 255]


def test_an_image_that_does_not_converge_is_named():
    def score_fn(x, t):
        return tf.where(tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True) > 0.9, np.nan, -x)

    images = np.zeros((5, 2, 2, 1), np.float32)
    images[3] = 1.0
    with pytest.raises(ode.NotConvergedError, match="The encoding of row 3 did not converge"):
        codec(score_fn=score_fn).encode(images)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="batch_size=0"):
        codec(batch_size=0)
    for images in (PIXELS, IMAGES[:0], IMAGES[0]):
        with pytest.raises(ValueError, match=r"Images are floats \[N, H, W, C\], one at least"):
            codec().encode(images)
    for temperatures in ([0.0], [1.0, -1.0], [float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="give positive numbers"):
            encodings.check_temperatures(temperatures)
