"""Labels match their images: digits, and TFDS datasets prepared here whose labels can be computed from the pixels."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from ncsn_tf.data import images, labels
from tests.support.tiny import random_pixels

CLASSES = 5


def class_from_pixels(pictures):
    """The class that the builder below gives a picture."""
    return pictures.reshape(len(pictures), -1).sum(axis=1, dtype=np.int64) % CLASSES


class TinyLabelled(tfds.core.GeneratorBasedBuilder):
    """Sixty training and nine held-out pictures whose class is the sum of their pixels modulo 5."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(3, 4, 1)), "label": tfds.features.ClassLabel(num_classes=5)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(60), "test": self._generate_examples(9)}

    def _generate_examples(self, count):
        pictures = random_pixels(count, 3, 4, 1, seed=count)
        for i, (picture, label) in enumerate(zip(pictures, class_from_pixels(pictures), strict=True)):
            yield i, {"image": picture, "label": int(label)}


class TinyHalfLabelled(tfds.core.GeneratorBasedBuilder):
    """One picture with a class and one without."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(3, 4, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples([1]), "test": self._generate_examples([1, -1])}

    def _generate_examples(self, classes):
        for i, label in enumerate(classes):
            yield i, {"image": np.zeros((3, 4, 1), np.uint8), "label": label}


class TinyMeasured(tfds.core.GeneratorBasedBuilder):
    """A "label" that is a number, not a class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(3, 4, 1)), "label": np.float32})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": iter([(0, {"image": np.zeros((3, 4, 1), np.uint8), "label": 0.5})])}

    def _generate_examples(self):
        return iter(())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("prepared"))
    # Shards of 20 records: by default, TFDS takes fewer from one shard before it turns to the next.
    TinyLabelled(data_dir=folder).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=3),
    )
    assert TinyLabelled(data_dir=folder).info.splits["train"].num_shards == 3
    for builder in (TinyHalfLabelled, TinyMeasured):
        builder(data_dir=folder).download_and_prepare()
    return folder


@pytest.mark.parametrize("split", ["train", "held_out", "train[10:57]", "held_out[:10%]"])
def test_digits_labels_match_their_images(split):
    from sklearn.datasets import load_digits

    rows, classes = load_digits(return_X_y=True)
    class_of = {
        np.round(row * 255 / 16).astype(np.uint8).tobytes(): label for row, label in zip(rows, classes, strict=True)
    }
    found = labels.load("digits", split)
    assert found.num_classes == 10 and found.values.dtype == np.int32
    expected = [class_of[image.tobytes()] for image in images.load("digits", split).images]
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize(("split", "count"), [("train", 60), ("held_out", 9), ("train[15:45]", 30), ("train[90%:]", 6)])
def test_tfds_labels_match_their_images(prepared, split, count):
    found = labels.load("tiny_labelled", split, data_dir=prepared)
    assert found.num_classes == CLASSES and found.values.dtype == np.int32 and len(found) == count
    pictures = images.load("tiny_labelled", split, data_dir=prepared).images
    np.testing.assert_array_equal(found.values, class_from_pixels(pictures))


def test_tfds_labels_are_downloaded_on_request_and_damage_is_named(tmp_path):
    assert len(labels.load("tiny_labelled", "train", data_dir=str(tmp_path), download=True)) == 60
    (shard,) = tmp_path.glob("tiny_labelled/1.0.0/*train.tfrecord*")
    shard.write_bytes(shard.read_bytes()[:-30])
    with pytest.raises(ValueError, match="prepared data of 'tiny_labelled' in .* are damaged: .* of 60 labels"):
        labels.load("tiny_labelled", "train", data_dir=str(tmp_path))


def test_data_without_labels_is_refused(prepared, tmp_path):
    Image.fromarray(random_pixels(4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"has no labels: 1 of its 1 pictures are in no subfolder of a class"):
        labels.load(str(tmp_path), "train")
    for name in ("no/such.tfrecord", "./pictures"):
        with pytest.raises(ValueError, match="There is no folder or file"):
            labels.load(name, "train")
    with pytest.raises(ValueError, match="'tiny_measured' has no feature 'label' of classes; its features are"):
        labels.load("tiny_measured", "train", data_dir=prepared)
    with pytest.raises(ValueError, match=r"must be in \[0, 2\). Received 1 others, such as -1; -1 stands for"):
        labels.load("tiny_half_labelled", "held_out", data_dir=prepared)
    np.testing.assert_array_equal(labels.load("tiny_half_labelled", "train", data_dir=prepared).values, [1])
    with pytest.raises(ValueError, match="Unknown dataset 'mnisst'.*mnist"):
        labels.load("mnisst", "train", data_dir=prepared)
    with pytest.raises(ValueError, match="split must be 'train' or 'held_out'.*Received: 'test'"):
        labels.load("digits", "test")


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((3, 1), np.int32), np.array([0, 7], np.int32)])
def test_impossible_labels_are_refused(values):
    with pytest.raises(ValueError, match="Received"):
        labels.Labels(values, 7)


@pytest.mark.parametrize("layout", ["{part}/{name}/{i}.png", "{name}/{i}.png", "{name}/deep/{i}.png"])
def test_labels_of_a_folder_are_its_subfolders(tmp_path, layout):
    pixels = {}
    for i in range(40):
        name = ("cat", "Dog", "emu")[i % 3]
        path = tmp_path / layout.format(part="test" if i >= 30 else "Train", name=name, i=i)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = random_pixels(4, 5, seed=i)
        Image.fromarray(picture).save(path)
        pixels[picture.tobytes()] = sorted(("cat", "Dog", "emu")).index(name)
    for part in ("train", "held_out", "train[3:9]"):
        found, pictures = labels.load(str(tmp_path), part), images.load(str(tmp_path), part).images
        assert found.num_classes == 3
        np.testing.assert_array_equal(found.values, [pixels[picture.tobytes()] for picture in pictures])


def test_a_folder_with_one_class_or_with_loose_pictures_has_no_labels(tmp_path):
    for name in ("train/cat/a.png", "test/cat/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_pixels(4, 5)).save(tmp_path / name)
    with pytest.raises(ValueError, match="has only one class, the subfolder 'cat'"):
        labels.load(str(tmp_path), "train")
    Image.fromarray(random_pixels(4, 5)).save(tmp_path / "train" / "loose.png")
    with pytest.raises(ValueError, match="1 of its 3 pictures are in no subfolder .*such as 'train/loose.png'"):
        labels.load(str(tmp_path), "held_out")


def labelled_record(picture, key, label):
    """A record of a raw picture, with a label unless that is None."""
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture.tobytes()])),
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=picture.shape)),
    }
    if label is not None:
        features[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.mark.parametrize("key", ["label", "image/class/label"])
def test_labels_of_tfrecords_match_their_images(tmp_path, key):
    pixels = random_pixels(30, 4, 5, 1)
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for picture, label in zip(pixels, class_from_pixels(pixels), strict=True):
            writer.write(labelled_record(picture, key, label))
    for part in ("train", "held_out"):
        found = labels.load(str(tmp_path), part)
        assert found.num_classes == class_from_pixels(pixels).max() + 1
        np.testing.assert_array_equal(found.values, class_from_pixels(images.load(str(tmp_path), part).images))
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(labelled_record(pixels[0], key, None))
    with pytest.raises(ValueError, match="record 0, has no label"):
        labels.load(str(tmp_path), "train")
