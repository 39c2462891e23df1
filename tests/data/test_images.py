"""Tests of reading image datasets: digits, TFDS, folders, TFRecords. Every file is made here."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.data import images, names, splits
from ncsn_tf.data.preparation import Preparation
from tests.support.tiny import random_pixels

# Digits


def test_digits_are_divided_by_class_and_disjoint():
    from sklearn.datasets import load_digits

    train, held_out = images.load("digits", "train"), images.load("digits", "held_out")
    assert (len(train), len(held_out)) == (1501, 296)
    assert train.shape == (8, 8, 1)
    rows, classes = load_digits(return_X_y=True)
    class_of = {
        np.round(row * 255 / 16).astype(np.uint8).tobytes(): label for row, label in zip(rows, classes, strict=True)
    }
    found = np.bincount([class_of[image.tobytes()] for image in held_out.images], minlength=10)
    np.testing.assert_array_equal(found, np.bincount(classes) // 6)
    both = np.concatenate([train.images, held_out.images])
    assert both.max() == 255 and sorted(set(np.unique(both))) == sorted({round(k * 255 / 16) for k in range(17)})
    np.testing.assert_array_equal(
        np.sort(both.reshape(len(both), -1), axis=0), np.sort(np.round(rows * 255 / 16).astype(np.uint8), axis=0)
    )


def test_digits_load_without_tfds_or_tensorflow():
    code = "import sys; from ncsn_tf.data import images; images.load('digits', 'train'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tensorflow_datasets" not in loaded and "sklearn" in loaded
    assert "tensorflow" not in loaded  # only TFRecords and TFDS need it


def test_slices_sizes_and_channels():
    whole = images.load("digits", "train").images
    np.testing.assert_array_equal(images.load("digits", "train[10:30]").images, whole[10:30])
    assert len(images.load("digits", "held_out[:50%]")) == 148
    colour = images.load("digits", "train[:5]", channels=3, image_size=(4, 2))
    assert colour.shape == (4, 2, 3)
    assert (colour.images == colour.images[..., :1]).all()
    np.testing.assert_array_equal(images.load("digits", "train[:5]", center_crop=4).images, whole[:5, 2:6, 2:6])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("digits", "test"), {}, "split must be 'train' or 'held_out'.*Received: 'test'"),
        (("digits", "train[5:5]"), {}, r"slice \[5:5\] of the 1501 images.*is empty"),
        (("digits", "train"), {"image_size": 0}, "image_size must be positive"),
        (("digits", "train"), {"image_size": (1, 2, 3)}, r"one side or \(height, width\)"),
        (("digits", "train"), {"image_size": "32"}, r"one side or \(height, width\)"),
        (("digits", "train"), {"image_size": 8.5}, r"one side or \(height, width\)"),
        (("digits", "train"), {"center_crop": -1}, "center_crop must be positive"),
        (("digits", "train"), {"center_crop": 9}, "center_crop=9 is larger than an image of 8x8"),
        (("digits", "train"), {"channels": 2}, r"channels must be 1 \(grey\), 3 \(colour\) or None. Received: 2"),
        (("digits", "train"), {"memory_limit_gib": 0}, "memory_limit_gib must be positive"),
        (
            ("digits", "train"),
            {"image_size": 4096},
            "need 23.5 GiB of memory; the limit is 8 GiB. Choose a smaller image",
        ),
    ],
)
def test_load_refuses(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        images.load(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "near"), [("mnisst", "mnist"), ("digit", "digits"), ("nothing/at/all", "Give 'digits'")]
)
def test_unknown_names_list_the_nearest_known_names(tmp_path, name, near):
    with pytest.raises(ValueError, match=f"Unknown dataset '{name}', and there is no folder /.*{name}.*{near}.*path"):
        images.load(name, "train", data_dir=str(tmp_path))


def test_neither_the_digits_nor_a_dataset_are_mistaken_for_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mnist", "cifar10"):
        (tmp_path / name).mkdir()
    (tmp_path / "mnist" / "lock").touch()  # a run that was begun
    assert (names.located("digits"), names.located("mnist")) == ("digits", "mnist")
    assert names.located("cifar10") == str(tmp_path / "cifar10")
    assert len(images.load("digits", "train")) == 1501


# Preparation


def test_resizing_averages_and_keeps_proportions():
    checks = np.indices((16, 16)).sum(0) % 2 * 255
    grey = Preparation((4, 4)).apply(checks[..., None].astype(np.uint8))
    assert np.abs(grey.astype(int) - 127.5).max() < 8  # aliasing would give 0 or 255
    wide = np.zeros((10, 30, 2), np.uint8)
    wide[:, 10:20] = (200, 100)
    middle = Preparation((5, 5)).apply(wide)
    assert (middle[:, 1:4] == (200, 100)).all()
    assert Preparation((3, 7)).apply(random_pixels(45, 30, 5)).shape == (3, 7, 5)


def test_grey_of_colour_is_luma_as_pillow_computes_it():
    colour = random_pixels(9, 7, 3)
    expected = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    assert np.abs(Preparation(channels=1).apply(colour)[..., 0] - expected).max() <= 1
    with pytest.raises(ValueError, match="channels=3 for images with 2 channels"):
        Preparation(channels=3).apply(random_pixels(3, 3, 2))


def test_hash_division_is_stable_and_never_empty():
    names = [f"{i}.png" for i in range(2000)]
    held_out, train = splits.by_hash(names, "held_out"), splits.by_hash(names, "train")
    assert sorted(held_out + train) == list(range(2000))
    assert abs(len(held_out) - 200) < 5 * np.sqrt(2000 * 0.09)
    assert {names[i] for i in held_out if i < 1000} == {names[i] for i in splits.by_hash(names[:1000], "held_out")}
    for count in (2, 3, 5):
        assert splits.by_hash(names[:count], "held_out") and splits.by_hash(names[:count], "train")
    assert splits.by_hash(["only"], "train") == [0] and splits.by_hash(["only"], "held_out") == []
