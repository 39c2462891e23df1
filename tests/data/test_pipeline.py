"""Property tests of the image batches."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.data.value_range import SYMMETRIC, UNIT


def make_source(count, shape=(3, 4, 1), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return ImageSource("random", pixels)


def shape_of(dataset: Any, key):
    return dataset.element_spec[key].shape


def collect(dataset: Any, batches) -> Any:
    elements = list(dataset.take(batches).as_numpy_iterator())
    return {key: np.concatenate([element[key] for element in elements]) for key in elements[0]}


def stream(source, batches, **options):
    chosen: Any = {"global_batch_size": 8, "seed": 3, **options}
    return collect(pipeline.training_batches(source, **chosen), batches)


@pytest.mark.parametrize(("count", "batch"), [(1, 4), (2, 2), (5, 3), (7, 16), (37, 8)])
def test_every_image_is_shown_once_per_epoch(count, batch):
    epochs = 3
    examples = stream(make_source(count), -(-epochs * count // batch), global_batch_size=batch)["example"]
    for epoch in range(epochs):
        shown = np.sort(examples[epoch * count : (epoch + 1) * count])
        np.testing.assert_array_equal(shown, np.arange(epoch * count, (epoch + 1) * count))


def test_orders_differ_between_epochs_and_seeds():
    count, epochs = 32, 600
    orders = stream(make_source(count), epochs, global_batch_size=count)["example"].reshape(epochs, count) % count
    # Keyed by the epoch alone, the shuffle would have only 256 orders.
    assert len(np.unique(orders, axis=0)) == epochs
    # Each image is expected to come first epochs / count = 18.75 times; chi-square with 31 degrees of freedom exceeds
    # 31 + 5 sqrt(62) = 70 about once in 10^5.
    observed = np.bincount(orders[:, 0], minlength=count)
    assert np.sum((observed - epochs / count) ** 2) / (epochs / count) < 70
    other = stream(make_source(count), 1, global_batch_size=count, seed=4)["example"]
    assert (other != orders[0]).any()


def test_a_seed_fixes_the_stream():
    source = make_source(20)
    once, again = (stream(source, 6, random_flip=True) for _ in range(2))
    for key in ("image", "example", "position"):
        np.testing.assert_array_equal(once[key], again[key])


def test_replicas_and_pipelines_share_one_stream():
    source, steps, batch = make_source(19), 6, 8
    whole = stream(source, steps, random_flip=True)
    halves = stream(source, 2 * steps, random_flip=True, num_replicas=2)
    pipes = [
        stream(source, 2 * steps, random_flip=True, num_replicas=4, num_pipelines=2, pipeline_id=k) for k in range(2)
    ]
    for key, expected in whole.items():
        np.testing.assert_array_equal(halves[key], expected)
        # Each pipeline gives half a global batch per step, its two replicas in turn.
        parts = [pipe[key].reshape(steps, batch // 2, *expected.shape[1:]) for pipe in pipes]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1).reshape(expected.shape), expected)


@pytest.mark.parametrize("replicas", [1, 2])
def test_starting_late_equals_skipping(replicas):
    source = make_source(11)
    whole = stream(source, 9 * replicas, num_replicas=replicas, random_flip=True)
    late = stream(source, 4 * replicas, num_replicas=replicas, random_flip=True, start_step=5)
    for key in whole:
        np.testing.assert_array_equal(late[key], whole[key][5 * 8 :])


def test_a_far_step_is_exact_and_wraps_the_presentation_number():
    count, step = 10, 2**40
    examples = stream(make_source(count), 5, start_step=step)["example"].astype(np.int64)
    first = step * 8  # a multiple of neither count nor 2^31 by accident: compare as numbers
    epoch_starts = (np.arange(first, first + 40) // count) * count
    indices = (examples - epoch_starts) % 2**31
    assert indices.max() < count
    whole_epoch = indices[(-first) % count :][:count]
    np.testing.assert_array_equal(np.sort(whole_epoch), np.arange(count))


def test_dequantised_pixels_stay_in_their_cell():
    source = ImageSource("white", np.full((40, 64, 64, 3), 255, np.uint8))
    image = stream(source, 10)["image"]
    assert image.dtype == np.float32
    assert image.min() >= 255 / 256 and image.max() < 1.0
    # Uniform in the cell: the mean of n draws has standard error 1 / sqrt(12 n).
    noise = image.astype(np.float64) * 256 - 255
    assert abs(noise.mean() - 0.5) < 5 / np.sqrt(12 * noise.size)
    assert abs(noise.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / noise.size)


def test_dequantisation_inverts_and_belongs_to_the_presentation():
    source = make_source(12)
    small, large = stream(source, 12, global_batch_size=4), stream(source, 2, global_batch_size=24)
    np.testing.assert_array_equal(small["example"], large["example"])
    np.testing.assert_array_equal(small["image"], large["image"])
    np.testing.assert_array_equal(pipeline.to_uint8(small["image"]), source.images[small["example"] % 12])
    # The next epoch draws new noise.
    by_number = small["image"][np.argsort(small["example"])]
    assert (by_number[:12] != by_number[12:24]).mean() > 0.9


def test_without_dequantisation_pixels_are_the_middles_of_their_intervals():
    source = make_source(8)
    batch = stream(source, 1, dequantize=False)
    np.testing.assert_array_equal(batch["image"], (source.images[batch["example"]].astype(np.float32) + 0.5) / 256)


def test_flips_mirror_about_half_of_the_presentations():
    source, epochs = make_source(50, (2, 5, 3)), 20
    shown = stream(source, epochs, global_batch_size=50, random_flip=True)
    pixels, originals = pipeline.to_uint8(shown["image"]), source.images[shown["example"] % 50]
    same = (pixels == originals).all((1, 2, 3))
    mirrored = (pixels[:, :, ::-1] == originals).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(50 * epochs)


def test_training_shapes_are_static():
    dataset = pipeline.training_batches(make_source(5, (6, 4, 2)), global_batch_size=6, seed=0, num_replicas=3)
    assert shape_of(dataset, "image") == (2, 6, 4, 2)
    assert shape_of(dataset, "example") == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_batch_size": 0}, "global_batch_size must be a positive integer. Received: 0"),
        ({"global_batch_size": 2.5}, "global_batch_size must be a positive integer"),
        ({"num_replicas": -1}, "num_replicas must be a positive integer"),
        ({"num_pipelines": 0}, "num_pipelines must be a positive integer"),
        ({"start_step": -1}, "start_step must be at least 0"),
        ({"num_replicas": 3}, "global_batch_size=8 for 3 replicas; use a multiple of 3"),
        ({"num_replicas": 4, "num_pipelines": 3}, "number of pipelines that divides 4"),
        ({"num_replicas": 2, "num_pipelines": 2, "pipeline_id": 2}, r"pipeline_id must be in \[0, num_pipelines=2\)"),
        ({"pipeline_id": -1}, "Received: -1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_training_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        stream(make_source(4), 1, **options)


@pytest.mark.parametrize(("limit", "expected"), [(None, 11), (7, 7), (8, 8), (100, 11)])
def test_evaluation_covers_the_images_in_order(limit, expected):
    source = make_source(11)
    dataset = pipeline.evaluation_batches(source, batch_size=4, limit=limit)
    assert shape_of(dataset, "image") == (4, 3, 4, 1)
    found = collect(dataset, -1)
    assert len(found["weight"]) == -(-expected // 4) * 4
    weighted = found["weight"] == 1
    np.testing.assert_array_equal(found["example"][weighted], np.arange(expected))
    np.testing.assert_array_equal(found["image"][weighted], (source.images[:expected].astype(np.float32) + 0.5) / 256)
    assert (found["weight"][~weighted] == 0).all() and (found["example"][~weighted] == 0).all()


def test_evaluation_refuses():
    with pytest.raises(ValueError, match="batch_size must be a positive integer. Received: 0"):
        pipeline.evaluation_batches(make_source(4), batch_size=0)
    with pytest.raises(ValueError, match="limit must be a positive integer. Received: 0"):
        pipeline.evaluation_batches(make_source(4), batch_size=2, limit=0)


def test_to_uint8_quantises_and_clips():
    levels = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(pipeline.to_uint8(levels / 256), np.arange(256))
    np.testing.assert_array_equal(pipeline.to_uint8(np.nextafter((levels + 1) / 256, 0, dtype=np.float32)), levels)
    np.testing.assert_array_equal(pipeline.to_uint8([-np.inf, -0.1, 0.0, 1.0, 7.0, np.inf]), [0, 0, 0, 255, 255, 255])
    assert pipeline.to_uint8(np.zeros((2, 3), np.float32)).dtype == np.uint8


def test_to_uint8_refuses():
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        pipeline.to_uint8([0.5, np.nan])
    with pytest.raises(ValueError, match="Received dtype uint8"):
        pipeline.to_uint8(np.zeros(3, np.uint8))


def test_image_sources_are_checked():
    source = make_source(5, (4, 6, 2))
    assert len(source) == 5 and source.shape == (4, 6, 2)
    for images in (np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3, 1), np.float32), np.zeros((0, 3, 3, 1), np.uint8)):
        with pytest.raises(ValueError, match=r"uint8 of shape \[N, H, W, C\]"):
            ImageSource("bad", images)


@pytest.mark.parametrize("replicas, pipelines", [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (4, 4)])
def test_evaluation_shards_make_up_the_whole_for_any_number_of_replicas_and_workers(replicas, pipelines):
    """Element i of a pipeline belongs to batch i // R and replica i % R, as in training; 11 of 13 images."""
    source = make_source(13)
    whole = collect(pipeline.evaluation_batches(source, batch_size=4, limit=11), 3)
    local, share = replicas // pipelines, 4 // replicas
    batches = []
    for worker in range(pipelines):
        options = {"num_replicas": replicas, "pipeline_id": worker, "num_pipelines": pipelines}
        dataset = pipeline.evaluation_batches(source, batch_size=4, limit=11, **options)
        assert int(dataset.cardinality()) == 3 * local
        parts = collect(dataset, 3 * local)
        batches.append({key: value.reshape(3, local * share, *value.shape[1:]) for key, value in parts.items()})
    for key, expected in whole.items():
        together = np.concatenate([batch[key] for batch in batches], axis=1)
        np.testing.assert_array_equal(together.reshape(expected.shape), expected)
    assert whole["weight"].sum() == 11


def test_bytes_are_the_same_inside_a_graph_and_outside():
    values = np.array([-np.inf, -3.0, -0.001, 0.0, 0.5, 255.5 / 256.0, 0.9999, 1.0, 7.0, np.inf], np.float32)
    np.testing.assert_array_equal(pipeline.to_uint8(values), [0, 0, 0, 0, 128, 255, 255, 255, 255, 255])
    for quantise in (
        pipeline.quantise,
        tf.function(pipeline.quantise),
        tf.function(pipeline.quantise, jit_compile=True),
    ):
        found = quantise(tf.constant(values))
        assert found.dtype == tf.uint8
        np.testing.assert_array_equal(found, pipeline.to_uint8(values))
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(pipeline.quantise(tf.constant(pipeline.to_float(every))), every)


def test_values_far_out_of_range_are_counted():
    assert pipeline.count_out_of_range(np.array([[-1.01, -1.0], [0.5, 2.0], [2.01, 9.0]], np.float32)) == 3


def rows_of(strategy, element):
    """The batch that all replicas of a strategy hold together."""
    parts = {key: strategy.experimental_local_results(value) for key, value in element.items()}
    return {key: np.concatenate([part.numpy() for part in values]) for key, values in parts.items()}


@pytest.mark.parametrize("value_range", [UNIT, SYMMETRIC])
def test_replicas_share_the_batches_of_one(value_range):
    source = make_source(13)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    options: Any = {"global_batch_size": 8, "seed": 3, "start_step": 2, "value_range": value_range}
    whole = pipeline.training_batches(source, **options)
    shared = pipeline.distributed_training_batches(source, strategy, **options)
    for _, ours, expected in zip(range(3), shared, whole.as_numpy_iterator(), strict=False):
        for key, value in rows_of(strategy, ours).items():
            np.testing.assert_array_equal(value, expected[key])


def test_replicas_share_the_evaluation_and_the_number_of_batches_is_returned():
    source = make_source(13)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    expected = collect(pipeline.evaluation_batches(source, batch_size=4, limit=11), 3)
    batches, number = pipeline.distributed_evaluation_batches(source, strategy, batch_size=4, limit=11)
    assert number == 3
    iterator = iter(batches)
    for _ in range(2):  # it repeats
        found = [rows_of(strategy, next(iterator)) for _ in range(number)]
        for key, value in expected.items():
            np.testing.assert_array_equal(np.concatenate([part[key] for part in found]), value)
    assert pipeline.distributed_evaluation_batches(source, strategy, batch_size=4, limit=99)[1] == 4
