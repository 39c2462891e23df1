"""TFRecords by path."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ncsn_tf.data import images, splits
from tests.support.tiny import random_pixels


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
        "example": ([b"\xff\xff\xff"], "record 0, is not a tf.train.Example"),
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


def test_sharded_tfrecords_are_read_from_any_file_system_that_tensorflow_reaches():
    """TensorFlow's in-memory file system stands for a bucket: only tf.io.gfile can open it."""
    pixels = random_pixels(40, 4, 4, 1)
    for shard in range(4):
        with tf.io.TFRecordWriter(f"ram://bucket/part-{shard}.tfrecord") as writer:
            for image in pixels[shard * 10 : shard * 10 + 10]:
                writer.write(example(image.tobytes(), shape=[4, 4, 1]))
    keys = [f"part-{i // 10}.tfrecord#{i % 10}" for i in range(40)]
    for name in ("ram://bucket/part-*.tfrecord*", "ram://bucket"):
        for part in ("train", "held_out"):
            np.testing.assert_array_equal(images.load(name, part).images, pixels[splits.by_hash(keys, part)])
