"""The place of each image in a grid, a trajectory and an animation."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ncsn_tf import files, pictures


def constant_images(values, shape):
    return np.stack([np.full(shape, value, np.uint8) for value in values])


def test_tiles_go_row_by_row_between_white_lines():
    grid = pictures.tile(constant_images([10, 20, 30, 40, 50], (40, 33, 1)), columns=3)
    assert grid.shape == (2 * 41 + 1, 3 * 34 + 1, 3)
    assert grid[0].min() == 255 and grid[:, 0].min() == 255 and grid[41].min() == 255
    assert [grid[5, 5, 0], grid[5, 40, 0], grid[5, 75, 0], grid[50, 5, 0], grid[50, 40, 0]] == [10, 20, 30, 40, 50]
    assert grid[50, 75, 0] == 255, "an empty place stays white"


def test_small_images_are_enlarged_by_a_whole_factor():
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    grid = pictures.tile(image, border=0)
    assert grid.shape == (32, 32, 3)
    np.testing.assert_array_equal(grid[::4, ::4, 0], image[0, :, :, 0])


def test_colours_are_kept_and_other_channels_are_shown_side_by_side():
    colour = np.zeros((1, 32, 32, 3), np.uint8)
    colour[..., 1] = 200
    assert pictures.tile(colour)[5, 5].tolist() == [0, 200, 0]
    two = np.concatenate([constant_images([7], (32, 32, 1)), constant_images([9], (32, 32, 1))], axis=-1)
    grid = pictures.tile(two, border=0)
    assert grid.shape == (32, 64, 3) and grid[0, 0, 0] == 7 and grid[0, 63, 0] == 9


@pytest.mark.parametrize(
    "images", [np.zeros((0, 8, 8, 1), np.uint8), np.zeros((1, 8, 8, 1)), np.zeros((8, 8), np.uint8)]
)
def test_an_array_that_is_not_a_batch_of_images_is_refused(images):
    with pytest.raises(ValueError, match="Received"):
        pictures.tile(images)


def test_a_trajectory_has_one_row_per_sample_and_one_column_per_level(tmp_path):
    frames = np.stack([constant_images([10 * level, 10 * level + 1], (32, 32, 1)) for level in range(4)])
    pictures.save_trajectory(tmp_path / "t.png", frames)
    grid = np.asarray(Image.open(tmp_path / "t.png"))
    assert grid.shape == (2 * 33 + 1, 4 * 33 + 1, 3)
    assert [[grid[5 + 33 * s, 5 + 33 * level, 0] for level in range(4)] for s in (0, 1)] == [
        [0, 10, 20, 30],
        [1, 11, 21, 31],
    ]


def test_an_animation_shows_every_level_and_holds_the_last(tmp_path):
    frames = np.stack([constant_images([40 * level], (32, 32, 1)) for level in range(3)])
    pictures.save_animation(tmp_path / "t.gif", frames, milliseconds=100)
    with Image.open(tmp_path / "t.gif") as animation:
        assert animation.n_frames == 3 and animation.info["loop"] == 0
        durations = []
        for frame in range(3):
            animation.seek(frame)
            durations.append(animation.info["duration"])
    assert durations == [100, 100, 800]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: pictures.save_grid(path, constant_images([1, 2], (5, 5, 1))),
        lambda path: pictures.save_animation(path, constant_images([1, 2], (5, 5, 1))[None]),
        lambda path: pictures.save_figure(path, Figure()),
    ],
)
def test_an_interrupted_write_leaves_the_old_picture(tmp_path, monkeypatch, write):
    write(tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    Image.open(tmp_path / "x").verify()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "to_disk", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["x"]
