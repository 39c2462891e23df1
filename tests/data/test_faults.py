"""Faults of images that were read wrongly are said when they are loaded."""

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.data import faults, images
from tests.support.tiny import random_pixels

MANY = random_pixels(5000, 2, 3, 1)


def test_images_without_faults_have_none():
    assert faults.find(random_pixels(20, 4, 5, 3)) == faults.Faults([], [])
    assert faults.find(random_pixels(1, 4, 5, 3)).total == []


@pytest.mark.parametrize(
    ("pixels", "total", "partial"),
    [
        (np.repeat(random_pixels(1, 4, 5, 3), 9, axis=0), "all 9 images are the same", None),
        (np.zeros((3, 4, 5, 1), np.uint8) + np.uint8([[[[200]]], [[[201]]], [[[202]]]]), "one colour each", None),
        (random_pixels(9, 4, 5, 3) // 17, None, "no value is above 15 of 255"),
        (np.concatenate([random_pixels(9, 4, 5, 1), random_pixels(2, 4, 5, 1) // 17]), None, "2 of 11 images"),
        (np.concatenate([random_pixels(9, 4, 5, 1), np.full((1, 4, 5, 1), 7, np.uint8)]), None, "1 of 10 images"),
        (np.concatenate([MANY, MANY[:100]]), None, "of 5100 images only"),
    ],
)  # fmt: skip
def test_each_fault_is_found(pixels, total, partial):
    found = faults.find(pixels)
    assert bool(found.total) == (total is not None) and (total is None or total in found.total[0])
    assert partial is None or partial in found.partial[0]


@pytest.mark.parametrize(("bits", "largest"), [(12, 16), (8, 1)])
def test_files_of_16_bits_that_hold_fewer_are_said_at_load(tmp_path, bits, largest):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    for i in range(4):
        levels = random_pixels(8, 8, seed=i).astype(np.uint16) * (2**bits // 256)
        levels[0, 0] = 2**bits - 1
        for part in ("train", "test"):
            Image.fromarray(levels).save(tmp_path / part / f"{i}.png")
    for part in ("train", "held_out"):
        with pytest.warns(UserWarning, match=f"{part}: no value is above {largest} of 255.*16 bits"):
            images.load(str(tmp_path), part)
