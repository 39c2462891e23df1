"""Images of other programs: every unambiguous layout is read, every other is refused with the reason."""

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.evaluation import EvaluationError, image_files
from ncsn_tf.evaluation.image_files import ImagesError
from tests.support.tiny import random_pixels

BYTES = random_pixels(6, 4, 5, 3)
GREY = random_pixels(6, 4, 5, 1, seed=1)


# Files


@pytest.mark.parametrize("images", [BYTES, GREY], ids=["colour", "grey"])
def test_a_folder_is_read_with_its_subfolders(tmp_path, images):
    # In a dataset's folder, a subfolder of this name would be the held-out part.
    names = ["a.png", "b/one.png", "b/two.PNG", "test/x.png", "train/y.png", "z.png"]
    for name, picture in zip(names, images, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture.squeeze()).save(tmp_path / name, format="png")
    (tmp_path / "notes.txt").write_text("none of them")
    np.testing.assert_array_equal(image_files.read(tmp_path).images, images)


@pytest.mark.parametrize(
    "names", [("samples", "images", "arr_0", "z"), ("images", "arr_0", "z"), ("arr_0", "z"), ("z",)]
)
def test_an_npz_is_read_under_its_first_known_name_or_its_only_name(tmp_path, names):
    arrays = {name: np.roll(BYTES, shift, axis=0) for shift, name in enumerate(names)}
    np.savez(tmp_path / "samples.npz", **dict(reversed(arrays.items())))
    np.testing.assert_array_equal(image_files.read(str(tmp_path / "samples.npz")).images, BYTES)


def test_an_npy_is_read_from_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "samples.npy", GREY[..., 0])
    np.testing.assert_array_equal(image_files.read("~/samples.npy").images, GREY)


def test_one_picture_is_read_and_cropped_to_fit(tmp_path):
    Image.fromarray(np.full((20, 30, 3), 77, np.uint8)).save(tmp_path / "picture.PNG")
    assert image_files.read(tmp_path / "picture.PNG").images.shape == (1, 20, 30, 3)
    for path in (tmp_path, tmp_path / "picture.PNG"):
        found = image_files.read(path, fit=(4, 5, 1)).images
        assert found.shape == (1, 4, 5, 1) and (found == 77).all()


def test_values_in_a_small_part_of_their_range_are_reported():
    dark = random_pixels(40, 8, 8, 1) // 16
    (line,) = image_files.check(dark)
    assert line.startswith("no value is above 15 of 255: were the images scaled twice, or not at all")
    assert image_files.check(random_pixels(40, 8, 8, 1)) == []


def test_unknown_names_are_refused(tmp_path):
    np.savez(tmp_path / "several.npz", x=BYTES, y=BYTES)
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(ImagesError, match=r"holds \['x', 'y'\]; name the images one of samples, images, arr_0"):
        image_files.read(tmp_path / "several.npz")
    with pytest.raises(ImagesError, match=r"holds \[\]; name"):
        image_files.read(tmp_path / "empty.npz")


def test_missing_images_are_refused(tmp_path):
    with pytest.raises(ImagesError, match="neither a folder of images nor a picture, .npz or .npy"):
        image_files.read(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="has no images"):
        image_files.read(tmp_path)
    assert issubclass(ImagesError, EvaluationError) and issubclass(EvaluationError, ValueError)


def test_damaged_files_are_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", samples=BYTES)
    content = (tmp_path / "whole.npz").read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 255
    damaged = {
        "cut": content[: len(content) // 2],
        "flipped": bytes(flipped),
        "empty": b"",
        "text": b"no images at all",
    }
    for name, broken in damaged.items():
        (tmp_path / f"{name}.npz").write_bytes(broken)
        with pytest.raises(ImagesError, match=rf"{name}.npz cannot be read as .npz or .npy \("):
            image_files.read(tmp_path / f"{name}.npz")


class Trap:
    """Prints a line when it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("save", [np.save, lambda path, array: np.savez(path, samples=array)], ids=["npy", "npz"])
def test_pickled_objects_are_not_unpickled(tmp_path, save, capsys):
    save(tmp_path / "objects", np.array([Trap(), Trap()]))
    (path,) = tmp_path.iterdir()
    with pytest.raises(ImagesError, match="cannot be read.*(allow_pickle|Python objects)"):
        image_files.read(path)
    assert not capsys.readouterr().out


# Checks


def test_good_images_have_no_faults():
    assert image_files.check(BYTES) == []
    assert image_files.check(GREY[:2]) == []


def of_colours(*colours):
    return np.array(colours, np.uint8)[:, None, None] * np.ones((4, 5, 1), np.uint8)


def test_images_that_make_every_metric_meaningless_are_refused():
    with pytest.raises(ImagesError, match="estimated from 1 image"):
        image_files.check(BYTES[:1])
    with pytest.raises(ImagesError, match="All 7 images are the same"):
        image_files.check(np.repeat(BYTES[:1], 7, axis=0))
    # The same value in all channels, or another value in each.
    for images in (of_colours([3], [4], [4]), of_colours([3, 4, 5], [9, 8, 7], [0, 0, 0])):
        with pytest.raises(ImagesError, match="All 3 images are of one colour each"):
            image_files.check(images)


def test_lesser_faults_are_reported():
    some = np.concatenate([BYTES, of_colours([1, 2, 3], [7, 7, 7])])
    assert image_files.check(some) == ["2 of 8 images are of one colour each"]
    twice = np.concatenate([BYTES, BYTES[:2]])
    assert image_files.check(twice) == ["of 8 images only 6 are distinct"]
    both = np.concatenate([BYTES, of_colours([1, 2, 3], [1, 2, 3])])
    assert len(image_files.check(both)) == 2


def test_one_image_in_a_hundred_may_be_a_duplicate():
    many = random_pixels(200, 4, 4, 1)
    many[1] = many[0]
    many[3] = many[2]
    assert image_files.check(many) == []
    many[5] = many[4]
    assert image_files.check(many) == ["of 200 images only 197 are distinct"]
