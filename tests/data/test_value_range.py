"""The value range: maps and their inverses, in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.data.value_range import SYMMETRIC, UNIT, ValueRange

IMAGES = np.array([0.0, 0.25, 0.5, 1.0], np.float32)


@pytest.mark.parametrize(
    ("value_range", "expected"),
    [
        (UNIT, [0.0, 0.25, 0.5, 1.0]),
        (SYMMETRIC, [-1.0, -0.5, 0.0, 1.0]),
        (ValueRange(-0.5, 0.5), [-0.5, -0.25, 0.0, 0.5]),
        (ValueRange(2.0, 10.0), [2.0, 4.0, 6.0, 10.0]),
    ],
)
def test_images_are_mapped_and_mapped_back(value_range, expected):
    for images in (IMAGES, tf.constant(IMAGES)):
        encoded = value_range.encode(images)
        np.testing.assert_array_equal(encoded, np.array(expected, np.float32))
        decoded = value_range.decode(encoded)
        assert decoded.dtype == images.dtype
        np.testing.assert_allclose(decoded, IMAGES, atol=1e-7)


def test_the_unit_range_changes_no_bit():
    assert UNIT.encode(IMAGES) is IMAGES and UNIT.decode(IMAGES) is IMAGES


@pytest.mark.parametrize("limits", [(1.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_an_empty_range_is_refused(limits):
    with pytest.raises(ValueError, match=r"needs low < high\. Received: low="):
        ValueRange(*limits)
