"""Levels of any program's images as bytes: every unambiguous array is read, every other is refused with the reason."""

import numpy as np
import pytest

from ncsn_tf.data import levels
from tests.support.tiny import random_pixels

BYTES = random_pixels(6, 4, 5, 3)
GREY = random_pixels(6, 4, 5, 1, seed=1)


@pytest.mark.parametrize("shape", [(32, 32, 3), (3, 32, 32), (1, 8, 8), (8, 8, 1)])
def test_an_array_that_may_be_one_image_is_refused(shape):
    with pytest.raises(ValueError, match="may be one image or many grey images"):
        levels.as_bytes(random_pixels(*shape))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_rounded_to_the_nearest_level(dtype):
    every = np.arange(256).reshape(1, 16, 16, 1)
    found = levels.as_bytes((every / 255).astype(dtype))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, every)
    for offset in (0.4, -0.4):
        shifted = np.clip((every + offset) / 255, 0.0, 1.0).astype(np.float32)
        np.testing.assert_array_equal(levels.as_bytes(shifted), every)


def test_values_beyond_0_and_1_by_rounding_are_clipped():
    found = levels.as_bytes(np.array([-5e-4, 0.0, 1.0, 1.0005]).reshape(1, 2, 2, 1))
    assert found.ravel().tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint16, np.uint8])
def test_integers_are_bytes(dtype):
    found = levels.as_bytes(BYTES.astype(dtype))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, BYTES)


def test_grey_images_need_no_channel_axis():
    np.testing.assert_array_equal(levels.as_bytes(GREY[..., 0]), GREY)
    np.testing.assert_array_equal(levels.as_bytes(np.zeros((3, 4, 5, 1), np.int64)), np.zeros((3, 4, 5, 1)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (BYTES.astype(np.float32), "from 0 to 25[0-9]; they look like 0 to 255: give them as uint8"),
        (BYTES / 127.5 - 1.0, r"from -1 to 1; they look like -1 to 1: give \(x \+ 1\) / 2"),
        (np.linspace(-3, 3, 60).reshape(1, 4, 5, 3), "from -3 to 3; clip them to 0 to 1"),
        (np.linspace(0, 700, 60).reshape(1, 4, 5, 3), "from 0 to 700; clip"),
        (np.linspace(0, 1.01, 60).reshape(1, 4, 5, 3), "from 0 to 1.01"),
        (np.where(GREY > 250, np.nan, 0.5), f"{np.sum(GREY > 250)} of 120 values are NaN or infinite"),
        (np.where(GREY > 250, np.inf, 0.5), f"{np.sum(GREY > 250)} of 120 values are NaN or infinite"),
        (GREY.astype(np.int64) - 200, "must be bytes, 0 to 255. Received: values from -[0-9]+ to"),
        (GREY.astype(np.int64) + 9, "Received: values from [0-9]+ to 26[0-9]"),
        (GREY // 128, "whole numbers 0 and 1. Scale them"),
        (GREY > 127, "bytes, or floats from 0 to 1. Received: bool"),
        (GREY.astype(complex), "Received: complex128"),
        (GREY.astype(str), "Received: <U"),
        (np.moveaxis(BYTES, -1, 1), r"as the last axis. Received: \(6, 3, 4, 5\). They look like \[N, C, H, W\]"),
        (np.moveaxis(GREY, -1, 1), "They look like"),
        (BYTES[..., :2], r"1 or 3 channels, as the last axis. Received: \(6, 4, 5, 2\).$"),
        (BYTES[0, 0], r"\[N, H, W, C\], no dimension 0. Received: uint8 \(5, 3\)"),
        (BYTES[None], r"Received: uint8 \(1, 6, 4, 5, 3\)"),
        (BYTES[:0], r"Received: uint8 \(0, 4, 5, 3\)"),
    ],
)
def test_ambiguous_arrays_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        levels.as_bytes(images)


@pytest.mark.parametrize(
    "shape", [(3, 16, 16), (1, 8, 9), (3, 5, 2), (2, 16, 16), (16, 3, 16), (4, 16, 16), (16, 16, 12)]
)
def test_raw_shapes_that_look_like_channels_first_are_refused(shape):
    with pytest.raises(ValueError, match=r"the channels may come first"):
        levels.check_channels_last(shape, "the image")


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 1, 1), (3, 16, 3), (16, 16, 4), (5, 4, 2)])
def test_raw_shapes_with_channels_last_are_accepted(shape):
    levels.check_channels_last(shape, "the image")
