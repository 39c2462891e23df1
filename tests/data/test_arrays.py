"""Images and labels in NumPy's files."""

import numpy as np
import pytest

from ncsn_tf.data import images, labels, splits
from tests.support.tiny import random_pixels

PIXELS = random_pixels(30, 4, 5, 3)
CLASSES = np.arange(30) % 3


def expected(keys, part):
    return splits.by_hash(keys, part)


@pytest.mark.parametrize("name", ["images", "samples", "arr_0", "anything"])
@pytest.mark.parametrize("kind", ["bytes", "floats", "grey"])
def test_one_file_is_divided_by_the_hash_of_its_rows(tmp_path, name, kind):
    values = {"bytes": PIXELS, "floats": (PIXELS / 255).astype(np.float32), "grey": PIXELS[..., 0]}[kind]
    np.savez(tmp_path / "data.npz", **{name: values, "labels": CLASSES[:, None]})
    path = str(tmp_path / "data.npz")
    keys = [f"data.npz/{name}#{row}" for row in range(30)]
    pixels = PIXELS[..., :1] if kind == "grey" else PIXELS
    for part in ("train", "held_out"):
        rows = expected(keys, part)
        np.testing.assert_array_equal(images.load(path, part).images, pixels[rows])
        found = labels.load(path, part)
        np.testing.assert_array_equal(found.values, CLASSES[rows])
        assert found.num_classes == 3
    assert images.load(path, "train[:4]", image_size=(2, 3), channels=1).images.shape == (4, 2, 3, 1)


def test_an_npy_and_a_folder_of_them(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    keys = [f"a.npy#{row}" for row in range(30)]
    for name in (str(tmp_path / "a.npy"), str(tmp_path)):
        np.testing.assert_array_equal(images.load(name, "train").images, PIXELS[expected(keys, "train")])


@pytest.mark.parametrize("layout", ["keras", "medmnist", "files", "dotted", "npy", "folders"])
def test_parts_are_told_by_names_of_arrays_and_files(tmp_path, layout):
    first, last = (PIXELS[:20], CLASSES[:20]), (PIXELS[20:], CLASSES[20:])
    path = tmp_path / "set.npz"
    if layout == "keras":
        np.savez(path, x_test=last[0], y_test=last[1], x_train=first[0], y_train=first[1])
    elif layout == "medmnist":
        arrays = {"train_images": first[0], "train_labels": first[1], "val_images": last[0], "val_labels": last[1]}
        np.savez(path, **arrays)
    elif layout == "files":
        path = tmp_path
        np.savez(path / "train.npz", images=first[0], labels=first[1])
        np.savez(path / "Test.npz", images=last[0], labels=last[1])
    elif layout == "dotted":
        path = tmp_path
        np.savez(path / "set.v1.train.npz", images=first[0], labels=first[1], mean_train=np.zeros(3))
        np.savez(path / "set.v1.val.npz", images=last[0], labels=last[1])
    elif layout == "folders":
        path = tmp_path
        for part, (pixels, classes) in (("train", first), ("test", last)):
            (path / part).mkdir()
            np.save(path / part / "images.npy", pixels)
            np.save(path / part / "labels.npy", classes)
    else:
        path = tmp_path
        for name, array in (("x_train", first[0]), ("y_train", first[1]), ("x_val", last[0]), ("y_val", last[1])):
            np.save(path / f"{name}.npy", array)
    for part, (pixels, classes) in (("train", first), ("held_out", last)):
        np.testing.assert_array_equal(images.load(str(path), part).images, pixels)
        np.testing.assert_array_equal(labels.load(str(path), part).values, classes)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": PIXELS, "b": PIXELS}, r"holds \['a', 'b'\]; name the images one of samples, images, arr_0"),
        ({"images": np.moveaxis(PIXELS, -1, 1)}, r"set.npz, images: .*They look like \[N, C, H, W\]"),
        ({"images": PIXELS / 127.5 - 1}, "look like -1 to 1"),
        ({"images": PIXELS.astype(np.float32)}, "look like 0 to 255"),
        ({"images": np.array([[[{"a": 1}]]])}, "cannot be read as .npz or .npy"),
        ({"labels": CLASSES}, "none of which are images"),
        ({"images": np.float32(3.0)}, r"set.npz, images: images must be \[N, H, W, C\]. Received: \(\)"),
    ],
)
def test_ambiguous_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        images.load(str(tmp_path / "set.npz"), "train")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.eye(3)[CLASSES], r"one whole number per image, \[30\]. Received: float64 \(30, 3\). Take the argmax"),
        (CLASSES[:29], r"Received: int64 \(29,\)"),
        (CLASSES - 1, "count the classes from 0. Received: -1 to 1"),
        (CLASSES + 0.5, "Received: float64"),
        (None, "has no labels beside the images 'set images'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, values, message):
    np.savez(tmp_path / "set.npz", images=PIXELS, **({} if values is None else {"labels": values}))
    with pytest.raises(ValueError, match=message):
        labels.load(str(tmp_path / "set.npz"), "train")


def test_the_memory_limit_is_checked_before_an_array_is_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "set.npz", images=PIXELS)
    monkeypatch.setattr("ncsn_tf.data.arrays.Entry.load", lambda entry: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="limit is 1e-09 GiB"):
        images.load(str(tmp_path / "set.npz"), "train", memory_limit_gib=1e-9)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"There is no folder or file '.*absent.npz'"):
        images.load(str(tmp_path / "absent.npz"), "train")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match="cut.npz cannot be read as .npz or .npy"):
        images.load(str(tmp_path / "cut.npz"), "train")
