"""Folders of image files."""

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.data import folder, images, splits
from ncsn_tf.data.preparation import Preparation
from tests.support.tiny import random_pixels


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def test_folder_of_odd_sizes_with_hash_split(tmp_path):
    pictures = {f"{'ab'[i % 2]}/{i:02}.png": random_pixels(45, 30, 3, seed=i) for i in range(30)}
    for name, pixels in pictures.items():
        save(tmp_path / name, pixels)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._00.png").write_text("no image either")
    train, held_out = images.load(str(tmp_path), "train"), images.load(f"{tmp_path}/", "held_out")
    assert train.shape == (45, 30, 3) and len(train) + len(held_out) == 30
    names = sorted(pictures)
    for source, part in ((train, "train"), (held_out, "held_out")):
        expected = [pictures[names[i]] for i in splits.by_hash(names, part)]
        np.testing.assert_array_equal(source.images, expected)


@pytest.mark.parametrize("held_out", ["test", "held_out", "validation"])
def test_folder_with_subfolders_of_parts(tmp_path, held_out):
    for i in range(3):
        save(tmp_path / "train" / f"{i}.bmp", np.full((4, 5), i, np.uint8))
    save(tmp_path / held_out / "deep" / "9.PNG", np.full((4, 5), 9, np.uint8))
    np.testing.assert_array_equal(images.load(str(tmp_path), "train").images[:, 0, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(images.load(str(tmp_path), "held_out").images[:, 0, 0, 0], [9])
    everything = folder.read_all(str(tmp_path), Preparation()).images
    assert sorted(everything[:, 0, 0, 0]) == [0, 1, 2, 9]


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "gif", "webp"])
def test_folder_formats(tmp_path, suffix):
    for name in ("train/a", "test/b"):
        save(tmp_path / f"{name}.{suffix}", np.full((8, 8, 3), (200, 100, 50), np.uint8))
    image = images.load(str(tmp_path), "train").images[0].astype(int)
    assert np.abs(image - (200, 100, 50)).max() <= 4  # JPEG and WebP are lossy


def make_mode(mode):
    """A 2x2 picture of a mode, and the expected values of its top left and bottom right pixels."""
    if mode == "I;16":
        return Image.fromarray(np.array([[0, 1], [2, 65535]], np.uint16)), (0,), (255,)
    if mode == "1":
        return Image.fromarray(np.array([[0, 1], [0, 1]], bool)), (0,), (255,)
    if mode == "LA":
        return (
            Image.merge("LA", [Image.new("L", (2, 2), 80), Image.fromarray(np.array([[255, 0], [0, 0]], np.uint8))]),
            (80,),
            (255,),
        )
    if mode == "RGBA":
        image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
        image.putpixel((0, 0), (10, 20, 30, 255))
        return image, (10, 20, 30), (255, 255, 255)
    if mode == "P":
        image = Image.new("P", (2, 2), 1)
        image.putpalette([0, 0, 0, 10, 200, 30])
        return image, (10, 200, 30), (10, 200, 30)
    return Image.new("CMYK", (2, 2), (255, 0, 0, 0)), (0, 255, 255), (0, 255, 255)


@pytest.mark.parametrize("mode", ["I;16", "1", "LA", "RGBA", "P", "CMYK"])
def test_folder_colour_modes(tmp_path, mode):
    picture, first, last = make_mode(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    image = images.load(str(tmp_path), "train").images[0].astype(int)
    assert image.shape == (2, 2, len(first))
    np.testing.assert_allclose(image[0, 0], first, atol=2 if mode == "CMYK" else 0)
    np.testing.assert_allclose(image[1, 1], last, atol=2 if mode == "CMYK" else 0)
    assert images.load(str(tmp_path), "train", channels=1).shape == (2, 2, 1)
    assert images.load(str(tmp_path), "train", channels=3).shape == (2, 2, 3)


def test_folder_reads_the_first_frame_and_applies_the_orientation(tmp_path):
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.load(str(tmp_path), "train").images, np.full((1, 2, 4, 3), (255, 0, 0)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    turned = tmp_path / "turned"
    save(turned / "b.png", random_pixels(2, 4, 3), exif=exif)
    np.testing.assert_array_equal(images.load(str(turned), "train").images[0], np.rot90(random_pixels(2, 4, 3), -1))


def test_folder_of_mixed_sizes(tmp_path):
    save(tmp_path / "train" / "a.png", random_pixels(10, 12))
    save(tmp_path / "train" / "b.png", random_pixels(20, 9, 3))
    save(tmp_path / "test" / "c.png", random_pixels(30, 30))
    with pytest.raises(ValueError, match="a.png has 10x12 pixels, .*b.png 20x9. Give image_size"):
        images.load(str(tmp_path), "train")
    assert images.load(str(tmp_path), "train", image_size=6).shape == (6, 6, 3)
    assert images.load(str(tmp_path), "train", center_crop=8, channels=1).shape == (8, 8, 1)
    with pytest.raises(ValueError, match="b.png: center_crop=10 is larger than an image of 20x9 pixels; use at most 9"):
        images.load(str(tmp_path), "train", center_crop=10)
    with pytest.raises(ValueError, match="limit is 1e-09 GiB"):
        images.load(str(tmp_path), "train", image_size=6, memory_limit_gib=1e-9)


def test_folder_names_a_damaged_image(tmp_path):
    save(tmp_path / "train" / "good.png", random_pixels(32, 32, 3))
    save(tmp_path / "test" / "good.png", random_pixels(32, 32, 3))
    whole = (tmp_path / "train" / "good.png").read_bytes()
    for name, content in (("cut.png", whole[: len(whole) // 2]), ("empty.jpg", b""), ("text.gif", b"hello")):
        damaged = tmp_path / "train" / name
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image .* Replace or remove it"):
            images.load(str(tmp_path), "train")
        damaged.unlink()


def test_folder_missing_or_empty(tmp_path):
    with pytest.raises(ValueError, match="There is no folder or file '.*absent'. Check the path"):
        images.load(str(tmp_path / "absent"), "train")
    with pytest.raises(ValueError, match="has no images that Pillow reads, .*it and its subfolders have no files"):
        images.load(str(tmp_path), "train")
    save(tmp_path / "a.png", random_pixels(2, 2))
    with pytest.raises(ValueError, match="has 1 image, too few to hold any out"):
        images.load(str(tmp_path), "held_out")
