"""Small TensorFlow Datasets, prepared here and read offline."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ncsn_tf.data import images
from tests.support.tiny import random_pixels


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
    """Four colour pictures of different sizes, JPEG, with a validation split and no test split."""

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
