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
    np.testing.assert_array_equal(image_files.read(tmp_path), images)


@pytest.mark.parametrize(
    "names", [("samples", "images", "arr_0", "z"), ("images", "arr_0", "z"), ("arr_0", "z"), ("z",)]
)
def test_an_npz_is_read_under_its_first_known_name_or_its_only_name(tmp_path, names):
    arrays = {name: np.roll(BYTES, shift, axis=0) for shift, name in enumerate(names)}
    np.savez(tmp_path / "samples.npz", **dict(reversed(arrays.items())))
    np.testing.assert_array_equal(image_files.read(str(tmp_path / "samples.npz")), BYTES)


def test_an_npy_is_read_from_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "samples.npy", GREY[..., 0])
    np.testing.assert_array_equal(image_files.read("~/samples.npy"), GREY)


def test_one_picture_is_read_and_cropped_to_fit(tmp_path):
    Image.fromarray(np.full((20, 30, 3), 77, np.uint8)).save(tmp_path / "picture.PNG")
    assert image_files.read(tmp_path / "picture.PNG").shape == (1, 20, 30, 3)
    for path in (tmp_path, tmp_path / "picture.PNG"):
        found = image_files.read(path, fit=(4, 5, 1))
        assert found.shape == (1, 4, 5, 1) and (found == 77).all()


@pytest.mark.parametrize("shape", [(32, 32, 3), (3, 32, 32), (1, 8, 8), (8, 8, 1)])
def test_an_array_that_may_be_one_image_is_refused(shape):
    with pytest.raises(ImagesError, match="may be one image or many grey images"):
        image_files.as_bytes(random_pixels(*shape))


def test_values_in_a_small_part_of_their_range_are_reported():
    dark = random_pixels(40, 8, 8, 1) // 16
    assert image_files.check(dark) == ["no value is above 15 of 255: were the images scaled twice, or not at all?"]
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
    with pytest.raises(ImagesError, match="cannot be read.*allow_pickle"):
        image_files.read(path)
    assert not capsys.readouterr().out


# Values


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_rounded_to_the_nearest_level(dtype):
    levels = np.arange(256).reshape(1, 16, 16, 1)
    found = image_files.as_bytes((levels / 255).astype(dtype))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, levels)
    for offset in (0.4, -0.4):
        shifted = np.clip((levels + offset) / 255, 0.0, 1.0).astype(np.float32)
        np.testing.assert_array_equal(image_files.as_bytes(shifted), levels)


def test_values_beyond_0_and_1_by_rounding_are_clipped():
    found = image_files.as_bytes(np.array([-5e-4, 0.0, 1.0, 1.0005]).reshape(1, 2, 2, 1))
    assert found.ravel().tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint16, np.uint8])
def test_integers_are_bytes(dtype):
    found = image_files.as_bytes(BYTES.astype(dtype))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, BYTES)


def test_grey_images_need_no_channel_axis():
    np.testing.assert_array_equal(image_files.as_bytes(GREY[..., 0]), GREY)
    np.testing.assert_array_equal(image_files.as_bytes(np.zeros((3, 4, 5, 1), np.int64)), np.zeros((3, 4, 5, 1)))


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
    with pytest.raises(ImagesError, match=message):
        image_files.as_bytes(images)


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
