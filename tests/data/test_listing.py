"""Files below a folder: every one is read, or counted with its kind."""

import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.data import decoding, images, listing
from tests.support.tiny import random_pixels

FORMATS = {
    "tif": "TIFF", "tiff": "TIFF", "jfif": "JPEG", "jpe": "JPEG", "ppm": "PPM", "avif": "AVIF", "jp2": "JPEG2000",
    "TGA": "TGA", "pcx": "PCX", "ico": "ICO", "sgi": "SGI", "dds": "DDS", "apng": "PNG", "qoi": "QOI",
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_that_pillow_writes_is_read(tmp_path, suffix):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        picture = Image.new("RGB", (16, 16), (200, 100, 50))
        picture.save(tmp_path / part / f"a.{suffix}", format=FORMATS[suffix])
    found = images.load(str(tmp_path), "train")
    assert found.shape == (16, 16, 3) and np.abs(found.images.astype(int) - (200, 100, 50)).max() <= 6
    assert found.formats == {FORMATS[suffix]: 1}


@pytest.mark.parametrize("name", ["photo", "photo.dat", "photo.heic.part", "photo.PNGX", "photo.txt"])
def test_pictures_are_known_by_content_where_the_suffix_does_not_say(tmp_path, name):
    Image.fromarray(random_pixels(4, 5, 3)).save(tmp_path / name, format="PNG")
    assert listing.read(str(tmp_path)).pictures == [name]


def test_what_is_passed_over_is_said_with_its_kind(tmp_path):
    for i in range(4):
        Image.fromarray(random_pixels(4, 5, 3, seed=i)).save(tmp_path / f"{i}.png")
    for name in ("a.heic", "b.heic", "notes.txt", "README", ".hidden.png", "clip.mpg", "stats.npz", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / ".trash").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    os.symlink("itself", tmp_path / "itself")
    with pytest.warns(UserWarning, match="passed over") as caught:
        images.load(str(tmp_path), "train")
    (line,) = {str(warning.message) for warning in caught}
    for count in (
        ".heic: 2",
        ".txt: 1",
        "without a suffix: 1",
        "hidden: 2",
        ".mpg: 1",
        ".npz or .npy: 1",
        "broken links: 2",
    ):
        assert count in line
    assert "pipes, sockets or devices: 1" in listing.read(str(tmp_path)).describe()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.heic").write_bytes(b"?")
    with pytest.raises(ValueError, match=r"has no images that Pillow reads.*have \.heic: 1"):
        images.load(str(tmp_path / "only"), "train")


def test_a_folder_of_pictures_alone_is_read_without_a_word(tmp_path):
    for i in range(4):
        Image.fromarray(random_pixels(4, 5, 3, seed=i)).save(tmp_path / f"{i}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(images.load(str(tmp_path), "train")) == 3


def test_links_to_folders_are_followed_and_loops_are_refused(tmp_path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(random_pixels(4, 5, seed=i)).save(tmp_path / "elsewhere" / "deep" / f"{i}.png")
    data = tmp_path / "data"
    data.mkdir()
    os.symlink(tmp_path / "elsewhere", data / "cats")
    os.symlink(tmp_path / "elsewhere" / "deep", data / "dogs")
    assert len(listing.read(str(data)).pictures) == 8
    os.symlink(tmp_path, tmp_path / "elsewhere" / "up")
    with pytest.raises(ValueError, match="is a link to a folder that contains it"):
        listing.read(str(tmp_path))


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="cannot be listed: Permission denied"):
        listing.read(str(tmp_path))


def test_names_that_are_not_utf_8_are_read_and_printed(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.makedirs(folder + b"/train")
    os.makedirs(folder + b"/test")
    for part in (b"/train", b"/test"):
        Image.fromarray(random_pixels(4, 5)).save(folder + part + b"/\xff\xfe.png")
    name = os.fsdecode(folder)
    np.testing.assert_array_equal(images.load(name, "train").images[0, ..., 0], random_pixels(4, 5))
    with open(folder + b"/train/broken\xe9.png", "wb") as file:
        file.write(b"?")
    with pytest.raises(ValueError, match=r"broken\udce9.png cannot be read"):
        images.load(name, "train")


def test_pictures_beyond_pillows_limit_are_bounded_by_memory_alone(tmp_path, monkeypatch):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        Image.fromarray(random_pixels(40, 30)).save(tmp_path / part / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.load(str(tmp_path), "train", image_size=8).shape == (8, 8, 1)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ValueError, match=r"large.png has 40x30 pixels, which need 1.12e-06 GiB to be decoded"):
        images.load(str(tmp_path), "train", image_size=8, memory_limit_gib=1e-6)


def test_further_frames_give_a_warning(tmp_path):
    for suffix in ("gif", "tif"):
        frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue", "green")]
        folder = tmp_path / suffix
        folder.mkdir()
        frames[0].save(folder / f"a.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.warns(UserWarning, match=rf"1 of 1 pictures have several frames, such as .*a.{suffix} with 3"):
            images.load(str(folder), "train")


def test_suffixes_are_those_that_pillow_can_decode():
    assert {".png", ".tiff", ".jp2", ".avif"} <= decoding.suffixes()
    assert not {".h5", ".mpg", ".pdf", ".txt", ".npz"} & decoding.suffixes()


def test_pictures_load_without_tensorflow(tmp_path):
    Image.fromarray(random_pixels(4, 5)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", random_pixels(9, 4, 5, 1))
    code = (
        f"import sys; from ncsn_tf.data import images; images.load({str(tmp_path)!r}, 'train'); "
        f"images.load({str(tmp_path / 'a.npy')!r}, 'train'); print('tensorflow' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_part_that_holds_nothing_is_refused(tmp_path, content):
    for i in range(4):
        (tmp_path / "train").mkdir(exist_ok=True)
        Image.fromarray(random_pixels(4, 5, seed=i)).save(tmp_path / "train" / f"{i}.png")
    (tmp_path / "test").mkdir()
    if content is not None:
        (tmp_path / "test" / "a.heic").write_bytes(content)
    for part in ("train", "held_out"):
        with pytest.raises(ValueError, match="has a part 'test' without a file that can be read"):
            images.load(str(tmp_path), part)
    (tmp_path / "val").mkdir()
    Image.fromarray(random_pixels(4, 5)).save(tmp_path / "val" / "9.png")
    assert len(images.load(tmp_path, "held_out")) == 1, "another held-out part has files"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pipe.png", "neither a file nor a folder"),
        ("a.zip", "a zip archive: unpack it"),
        ("a.tar", "a tar archive: unpack it"),
        ("a.png", "one picture: give the folder"),
        ("notes", "neither a picture nor an array nor TFRecords"),
    ],
)
def test_a_file_that_is_no_dataset_is_called_what_it_is(tmp_path, name, kind):
    path = tmp_path / name
    if name == "pipe.png":
        os.mkfifo(path)
    elif name == "a.png":
        Image.fromarray(random_pixels(4, 5)).save(path)
    elif name == "notes":
        path.write_text("some words about data")
    else:
        (tmp_path / "inside").mkdir()
        (tmp_path / "inside" / "x.png").touch()
        shutil.make_archive(str(tmp_path / "a"), name.partition(".")[2], tmp_path / "inside")
    with pytest.raises(ValueError, match=f"{name}' is {kind}"):
        images.load(path, "train")


@pytest.mark.parametrize("name", ["", " ", None, 3])
def test_what_is_neither_a_name_nor_a_path_is_refused(name):
    with pytest.raises(ValueError, match="A dataset has a name or a path. Received"):
        images.load(name, "train")
