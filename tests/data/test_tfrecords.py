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
    pixels = random_pixels(5, 5, 4, 2)
    write_records(tmp_path / "y-train.tfrecord", [example(p.tobytes(), shape=[5, 4, 2]) for p in pixels[:3]])
    write_records(tmp_path / "y-test.tfrecord", [example(p.tobytes(), height=5, width=4, depth=2) for p in pixels[3:]])
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
    with pytest.raises(ValueError, match="No file matches"):
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


def stylegan(pixels):
    """A record as StyleGAN's tools write it: raw bytes [C, H, W] in `data`."""
    planes = np.moveaxis(pixels, -1, 0)
    features = {
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=planes.shape)),
        "data": tf.train.Feature(bytes_list=tf.train.BytesList(value=[planes.tobytes()])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_records_of_stylegan_are_read_with_their_channels_first_and_at_their_largest_resolution(tmp_path):
    large, small = random_pixels(12, 8, 8, 3), random_pixels(12, 4, 4, 3)
    write_records(tmp_path / "faces-r02.tfrecords", map(stylegan, small))
    write_records(tmp_path / "faces-r03.tfrecords", map(stylegan, large))
    with pytest.warns(UserWarning, match="only the largest is read: faces-r03.tfrecords"):
        train, held_out = (images.load(str(tmp_path), part).images for part in ("train", "held_out"))
    keys = [f"faces-r03.tfrecords#{i}" for i in range(12)]
    np.testing.assert_array_equal(train, large[splits.by_hash(keys, "train")])
    np.testing.assert_array_equal(held_out, large[splits.by_hash(keys, "held_out")])


def test_shards_that_are_numbered_like_resolutions_are_all_read(tmp_path):
    pixels = random_pixels(30, 4, 4, 1)
    for rank in range(3):
        records = [example(p.tobytes(), shape=[4, 4, 1]) for p in pixels[10 * rank : 10 * rank + 10]]
        write_records(tmp_path / f"x-r0{rank}.tfrecord", records)
    (tmp_path / "x-r00.tfrecord.idx").write_text("0 10")
    found = [images.load(str(tmp_path), part).images for part in ("train", "held_out")]
    assert {row.tobytes() for part in found for row in part} == {row.tobytes() for row in pixels}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            example(bytes(3 * 16 * 16), shape=[3, 16, 16]),
            r"has the shape \[3, 16, 16\].*channels may come first",
        ),
        (
            example(bytes(4 * 48), shape=[4, 4, 3]),
            r"has 192 bytes.*needs 48 bytes.*Are its values of a wider type",
        ),
        (example(bytes(47), shape=[4, 4, 3]), r"has 47 bytes, which are no encoded picture; the shape \[4, 4, 3\]"),
        (example(bytes(47), height=4, width=4), r"has 47 bytes.*the shape \[4, 4, 1\] needs 16"),
        (example(bytes(96), shape=[2, 4, 4, 3]), r"its shape \[2, 4, 4, 3\] is not \[height, width, channels\]"),
        (example(bytes(47), height=4, width=4, channels=3), r"the shape \[4, 4, 3\] needs 48"),
        (example(bytes(48)), "content is of no format that Pillow reads"),
        (stylegan(random_pixels(5, 4, 4)), r"the shape of 'data' must be \[channels, height, width\], with 1 or 3"),
    ],
    ids=["channels_first", "floats", "bytes", "sides", "batch", "channels", "nothing", "stylegan"],
)
def test_a_record_that_does_not_fit_its_shape_is_refused_with_the_reason(tmp_path, record, message):
    path = write_records(tmp_path / "a.tfrecord", [record])
    with pytest.raises(ValueError, match=message) as caught:
        images.load(path, "train")
    assert "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("folder", ["br[1]", "a*b", "what?", "back\\slash", "{a,b}", "new line\n", b"caf\xe9"])
@pytest.mark.parametrize("suffix", ["tfrecord", "tfrecords", "tfrec", "TFRecord-00000-of-00001"])
def test_any_folder_name_is_taken_literally(tmp_path, folder, suffix):
    import os

    place = os.path.join(tmp_path, os.fsdecode(folder))
    os.makedirs(os.path.join(place, "deep"))
    pixels = random_pixels(12, 4, 4, 1)
    source = write_records(tmp_path / "plain", [example(p.tobytes(), shape=[4, 4, 1]) for p in pixels])
    file = os.path.join(place, "deep", f"a.{suffix}")
    os.replace(source, file)
    expected = pixels[splits.by_hash([f"a.{suffix}#{i}" for i in range(12)], "train")]
    for name in (file, os.path.join(place, "deep"), os.path.join(place, "deep", "*.[tT]*")):
        np.testing.assert_array_equal(images.load(name, "train").images, expected)
    both = [images.load(place, part).images for part in ("train", "held_out")]
    assert {row.tobytes() for part in both for row in part} == {row.tobytes() for row in pixels}


def test_pictures_beside_records_are_neither_pooled_nor_lost(tmp_path):
    write_records(tmp_path / "train" / "a.tfrecord", [example(png(random_pixels(4, 4)))])
    (tmp_path / "test").mkdir()
    Image.fromarray(random_pixels(4, 4)).save(tmp_path / "test" / "b.png")
    with pytest.raises(ValueError, match=r"holds both TFRecords and pictures \(pictures: 1, TFRecord files: 1\)"):
        images.load(str(tmp_path), "train")


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB", ""])
@pytest.mark.parametrize("name", ["a.tfrecord", "a.TFRECORD.GZ", "a.tfrecord.gz-00000-of-00001", "noname"])
def test_the_compression_is_known_by_the_content(tmp_path, name, compression):
    pixels = random_pixels(12, 4, 4, 1)
    path = write_records(tmp_path / name, [example(p.tobytes(), shape=[4, 4]) for p in pixels], compression)
    expected = pixels[splits.by_hash([f"{name}#{i}" for i in range(12)], "train")]
    np.testing.assert_array_equal(images.load(path, "train").images, expected)
