"""Masks: the known part in their name, independent rows, and pictures as masks."""

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.guidance import masks


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("left", ["##..", "##..", "##..", "##.."]),
        ("right", ["..##", "..##", "..##", "..##"]),
        ("top", ["####", "####", "....", "...."]),
        ("bottom", ["....", "....", "####", "####"]),
        ("centre", ["####", "#..#", "#..#", "####"]),
    ],
)
def test_fixed_masks_know_the_part_in_their_name(name, rows):
    expected = np.array([[character == "#" for character in row] for row in rows])
    made = masks.make(name, (4, 4, 3), 2)
    assert made.shape == (2, 4, 4, 1) and made.dtype == bool
    for mask in made:
        np.testing.assert_array_equal(mask[..., 0], expected)


def test_halves_of_odd_sides_leave_the_middle_out():
    for name, axis in (("left", 1), ("right", 1), ("top", 0), ("bottom", 0)):
        assert masks.make(name, (5, 5, 1), 1)[0, ..., 0].any(axis=1 - axis).sum() == 2


def test_random_masks_keep_their_share_and_differ():
    made = masks.make("random", (20, 20, 1), 50, share=0.3)
    assert abs(made.mean() - 0.3) < 4.0 * np.sqrt(0.21 / made.size)
    assert len({mask.tobytes() for mask in made}) == 50
    np.testing.assert_array_equal(masks.make("random", (20, 20, 1), 3, share=0.3), made[:3])
    assert not np.array_equal(masks.make("random", (20, 20, 1), 50, share=0.3, run_seed=1), made)
    assert masks.make("random", (2, 2, 1), 300, share=0.01).any(axis=(1, 2, 3)).all(), "no mask knows nothing"
    assert not masks.make("random", (2, 2, 1), 300, share=0.99).all(axis=(1, 2, 3)).any(), "no mask knows everything"


def test_strokes_cross_every_image_and_leave_most_of_it():
    made = masks.make("strokes", (28, 28, 1), 40)
    left_out = 1.0 - made.mean(axis=(1, 2, 3))
    assert left_out.min() > 0.05 and 0.2 < left_out.mean() < 0.7
    assert len({mask.tobytes() for mask in made}) == 40


def test_a_stroke_has_its_documented_width():
    rows, columns = np.mgrid[:9, :9]
    distance = masks._distance_to_lines(rows, columns, np.array([[[0.0, 4.5], [9.0, 4.5]]]))
    np.testing.assert_allclose(distance, np.abs(columns + 0.5 - 4.5), atol=1e-12)


def test_a_picture_is_a_mask(tmp_path):
    values = np.zeros((4, 6), np.uint8)
    values[:, :2] = 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.png", (4, 6, 3), 3)[2, ..., 0], values == 255)
    with pytest.raises(ValueError, match=r"\(6, 4\).*\(4, 6\)"):
        masks.read(tmp_path / "mask.png", (6, 4, 3), 3)
    for name, wrong in (("grey", 128), ("white", 255), ("black", 0)):
        Image.fromarray(np.full((4, 6), wrong, np.uint8)).save(tmp_path / f"{name}.png")
        with pytest.raises(ValueError, match="white where the image is known"):
            masks.read(tmp_path / f"{name}.png", (4, 6, 3), 3)
    (tmp_path / "broken.png").write_text("no picture")
    for name, reason in (("broken.png", "cannot be read"), ("none.png", f"no picture at {tmp_path}/none.png.*left")):
        with pytest.raises(ValueError, match=reason):
            masks.read(tmp_path / name, (4, 6, 3), 3)


def test_invalid_masks_are_refused():
    with pytest.raises(ValueError, match="one of left"):
        masks.make("half", (4, 4, 1), 1)
    for share in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="share"):
            masks.make("random", (4, 4, 1), 1, share=share)
    with pytest.raises(ValueError, match="too small"):
        masks.make("left", (4, 1, 1), 1)
