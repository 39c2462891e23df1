"""Tests of reading image datasets: digits, TFDS, folders, TFRecords. Every file is made here."""

import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from ncsn_tf.data import images, splits
from ncsn_tf.data.preparation import Preparation


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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


def test_digits_start_without_tfds():
    code = "import sys; from ncsn_tf.data import images; images.load('digits', 'train'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tensorflow_datasets" not in loaded and "sklearn" in loaded
    assert "tensorflow" not in loaded  # nothing of the images needs it until TFRecords or TFDS are read


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
def test_unknown_names_are_answered_with_near_ones(tmp_path, name, near):
    with pytest.raises(ValueError, match=f"Unknown dataset '{name}', and no such path exists.*{near}.*path"):
        images.load(name, "train", data_dir=str(tmp_path))


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


# Folders


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "gif", "webp"])
def test_folder_formats(tmp_path, suffix):
    for name in ("train/a", "test/b"):
        save(tmp_path / f"{name}.{suffix}", np.full((8, 8, 3), (200, 100, 50), np.uint8))
    image = images.load(str(tmp_path), "train").images[0].astype(int)
    assert np.abs(image - (200, 100, 50)).max() <= 4  # JPEG and WebP are lossy


def make_mode(mode):
    """A 2x2 picture of a mode and what its top left and bottom right pixels should become."""
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


def test_folder_takes_the_first_frame_and_the_orientation(tmp_path):
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.load(str(tmp_path), "train").images, np.full((1, 2, 4, 3), (255, 0, 0)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
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
    with pytest.raises(ValueError, match="There is no folder '.*absent'. Check the path"):
        images.load(str(tmp_path / "absent"), "train")
    with pytest.raises(ValueError, match="has no images; looked for .png"):
        images.load(str(tmp_path), "train")
    save(tmp_path / "a.png", random_pixels(2, 2))
    with pytest.raises(ValueError, match="has 1 image, too few to hold any out"):
        images.load(str(tmp_path), "held_out")


# TFRecords


def example(image, **sides):
    features = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
    for name, value in sides.items():
        features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=np.atleast_1d(value)))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path, records, options=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_tfrecords_encoded_by_file_glob_and_folder(tmp_path):
    pixels = random_pixels(40, 6, 5, 3)
    for shard in range(2):
        write_records(tmp_path / f"x.tfrecord-{shard}", [example(png(p)) for p in pixels[shard * 20 : shard * 20 + 20]])
    keys = [f"x.tfrecord-{i // 20}#{i % 20}" for i in range(40)]
    for name in (str(tmp_path), f"{tmp_path}/*.tfrecord*"):
        for part in ("train", "held_out"):
            np.testing.assert_array_equal(images.load(name, part).images, pixels[splits.by_hash(keys, part)])
    single = images.load(f"{tmp_path}/x.tfrecord-1", "train")
    np.testing.assert_array_equal(single.images, pixels[20:][splits.by_hash(keys[20:], "train")])
    assert images.load(str(tmp_path), "train[:3]", image_size=4, channels=1).images.shape == (3, 4, 4, 1)


def test_tfrecords_raw_of_two_channels_in_parts_by_name(tmp_path):
    pixels = random_pixels(5, 3, 4, 2)
    write_records(tmp_path / "y-train.tfrecord", [example(p.tobytes(), shape=[3, 4, 2]) for p in pixels[:3]])
    write_records(tmp_path / "y-test.tfrecord", [example(p.tobytes(), height=3, width=4, depth=2) for p in pixels[3:]])
    np.testing.assert_array_equal(images.load(str(tmp_path), "train").images, pixels[:3])
    np.testing.assert_array_equal(images.load(str(tmp_path), "held_out").images, pixels[3:])


def test_tfrecords_compressed_in_subfolders(tmp_path):
    pixels = random_pixels(2, 3, 3)
    for name, image in zip(("train", "validation"), pixels, strict=True):
        write_records(tmp_path / name / "z.tfrecord.gz", [example(image.tobytes(), height=3, width=3)], "GZIP")
    np.testing.assert_array_equal(images.load(str(tmp_path), "train").images[0, ..., 0], pixels[0])
    np.testing.assert_array_equal(images.load(str(tmp_path), "held_out").images[0, ..., 0], pixels[1])


def test_tfrecords_name_the_damaged_record(tmp_path):
    good = example(png(random_pixels(4, 4)))
    unnamed = tf.train.Example().SerializeToString()
    cases = {
        "missing": ([good, unnamed], "record 1, has no bytes feature 'image'"),
        "image": ([good, good, example(b"no picture")], "record 2 cannot be read as an image"),
        "example": ([b"\xff\xff\xff"], "record 0, is no tf.train.Example"),
        "sizes": ([good, example(png(random_pixels(5, 4)))], "record 0 has 4x4 pixels, .*record 1 5x4"),
        "depths": ([good, example(bytes(32), shape=[4, 4, 2])], "record 0 has 1, .*record 1 2. Only 1 and 3"),
        "none": ([], "hold no records"),
    }
    for name, (records, message) in cases.items():
        write_records(tmp_path / name / "test.tfrecord", [good] if records else [])
        write_records(tmp_path / name / "train.tfrecord", records)
        with pytest.raises(ValueError, match=message):
            images.load(str(tmp_path / name), "train")
    path = write_records(tmp_path / "cut.tfrecord", [good, good])
    content = open(path, "rb").read()
    for damaged in (content[:-5], content[:-20] + b"?" + content[-19:]):
        open(path, "wb").write(damaged)
        with pytest.raises(ValueError, match="cut.tfrecord, record 1, cannot be read"):
            images.load(path, "train")
    with pytest.raises(ValueError, match="No TFRecord file matches"):
        images.load(str(tmp_path / "absent*.tfrecord"), "train")


# TensorFlow Datasets


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Twelve training and eight held-out grey pictures of 6x5."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(num_classes=3)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(6, 5, 1)), "label": label}),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "test": self._generate_examples(8)}

    def _generate_examples(self, count):
        for i, pixels in enumerate(random_pixels(count, 6, 5, 1, seed=count)):
            yield i, {"image": pixels, "label": i % 3}


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """Four colour pictures of different sizes, JPEG, with a validation split and none for tests."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "validation": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": np.full((20 + i, 30, 3), (200, 100, 50), np.uint8)}


class TinySounds(tfds.core.GeneratorBasedBuilder):
    """A dataset without images and without a held-out split."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"level": np.float32}))

    def _split_generators(self, dl_manager):
        return {"train": iter([(0, {"level": 1.0})])}

    def _generate_examples(self):
        return iter(())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("prepared"))
    for builder in (TinyPictures, TinyPhotos, TinySounds):
        builder(data_dir=folder).download_and_prepare()
    return folder


def as_set(pictures):
    return {picture.tobytes() for picture in pictures}


def test_tfds_reads_prepared_data_offline(prepared):
    train = images.load("tiny_pictures", "train", data_dir=prepared)
    held_out = images.load("tiny_pictures", "held_out", data_dir=prepared)
    assert train.shape == (6, 5, 1) and (len(train), len(held_out)) == (12, 8)
    assert as_set(train.images) == as_set(random_pixels(12, 6, 5, 1, seed=12))
    assert as_set(held_out.images) == as_set(random_pixels(8, 6, 5, 1, seed=8))
    part = images.load("tiny_pictures:1.0.0", "train[3:7]", data_dir=prepared)
    np.testing.assert_array_equal(part.images, train.images[3:7])
    assert images.load("tiny_pictures", "train", data_dir=prepared, image_size=(3, 2), channels=3).shape == (3, 2, 3)
    with pytest.raises(ValueError, match="tiny_pictures has 12 images of shape .* the limit is 1e-09 GiB"):
        images.load("tiny_pictures", "train", data_dir=prepared, memory_limit_gib=1e-9)


def test_tfds_of_mixed_sizes(prepared):
    with pytest.raises(ValueError, match="images of 'tiny_photos' have different sizes; give image_size"):
        images.load("tiny_photos", "train", data_dir=prepared)
    for size, shape in ((8, (8, 8, 3)), (None, (16, 16, 3))):
        photos = images.load("tiny_photos", "train", data_dir=prepared, image_size=size, center_crop=16)
        assert photos.images.shape == (4, *shape)
        assert np.abs(photos.images.astype(int) - (200, 100, 50)).max() <= 3
    assert len(images.load("tiny_photos", "held_out", data_dir=prepared, image_size=8)) == 2


def test_tfds_refuses(prepared, tmp_path):
    with pytest.raises(ValueError, match="'tiny_sounds' has no feature 'image'"):
        images.load("tiny_sounds", "train", data_dir=prepared)
    with pytest.raises(ValueError, match="not prepared in .*tfds build mnist --data_dir=.*config.data.download=True"):
        images.load("mnist", "train", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="cannot open 'tiny_pictures:9.9.9'"):
        images.load("tiny_pictures:9.9.9", "train", data_dir=prepared)


def test_tfds_failed_download_is_explained(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(TinyPictures, "download_and_prepare", fail)
    with pytest.raises(
        ValueError, match="Downloading 'tiny_pictures' .* failed: ConnectionError: no route.*Check the net"
    ):
        images.load("tiny_pictures", "train", data_dir=str(tmp_path), download=True)


def test_tfds_downloads_on_request_and_names_damaged_data(tmp_path):
    assert len(images.load("tiny_pictures", "train", data_dir=str(tmp_path), download=True)) == 12
    (shard,) = tmp_path.glob("tiny_pictures/1.0.0/*train.tfrecord*")
    content = shard.read_bytes()
    shard.write_bytes(content[:-30])
    with pytest.raises(ValueError, match="prepared data of 'tiny_pictures' in .* are damaged: .* of 12 images"):
        images.load("tiny_pictures", "train", data_dir=str(tmp_path))
