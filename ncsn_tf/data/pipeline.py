"""Batches of images: an endless, seekable stream for training and a finite, ordered one for evaluation.

The training stream is a pure function of (seed, step). Position p = 0, 1, 2, ... of the stream shows image

    index = permutation[seed, epoch](p mod N),    epoch = p // N,

and global step s takes the positions s B, ..., (s + 1) B - 1. The permutation is computed, not stored, so a run resumes
at any step at once. Noise and flips are drawn per presentation, not per batch, so the pixels do not depend on the
number of replicas and workers or on the batch size.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.data.images import ImageSource
from ncsn_tf.data.value_range import UNIT, ValueRange

_SHUFFLE_PASSES = 2
_KEY_WORDS = 4  # per pass: an offset and three key words


def training_batches(
    source: ImageSource,
    *,
    global_batch_size: int,
    seed: int,
    start_step: int = 0,
    random_flip: bool = False,
    dequantize: bool = True,
    labels: np.ndarray | None = None,
    value_range: ValueRange = UNIT,
    num_replicas: int = 1,
    pipeline_id: int = 0,
    num_pipelines: int = 1,
) -> tf.data.Dataset:
    """Returns the endless training stream, with one element per replica and step.

    Every image is shown exactly once per epoch, in an order determined by (seed, epoch). The elements of step s, over
    all pipelines in order, hold the positions s B to (s + 1) B - 1 for any number of replicas. Element i of one
    pipeline belongs to step `start_step + i // R` and to its replica `i % R`, R = num_replicas / num_pipelines.

    Args:
      source: the images.
      global_batch_size: B, images per step over all replicas; a multiple of `num_replicas`.
      seed: the run's seed, in [0, 2^31).
      start_step: the first step to serve; starting late costs nothing.
      random_flip: mirror each presentation left to right with probability 1/2.
      dequantize: give pixel x the value (x + u) / 256 with u uniform on [0, 1); otherwise its middle, (x + 0.5) / 256.
      labels: int [N], the classes of the images; None for none.
      value_range: the range of the images that are served.
      num_replicas: replicas over all pipelines.
      pipeline_id: which pipeline (input worker) this is, in [0, num_pipelines).
      num_pipelines: input pipelines, one per worker; a divisor of `num_replicas`.

    Returns:
      A dataset of dictionaries with b = global_batch_size / num_replicas: `image`, float32 [b, H, W, C] in
      `value_range`; `example`, int32 [b], the presentation's number `epoch * N + index` modulo 2^31; `position`, int32
      [b], its place in the stream, likewise; and with `labels` `label`, int32 [b]. A number recurs only after 2^31
      presentations, and its draws then repeat.

    Raises:
      ValueError: if a size is not positive, a division leaves a remainder, or `start_step`, `pipeline_id` or `seed` is
        out of range.
    """
    _check_layout(global_batch_size, start_step, num_replicas, pipeline_id, num_pipelines)
    batch_size = global_batch_size // num_replicas
    local_replicas = num_replicas // num_pipelines
    count = len(source)
    # The images stay in host memory, captured by the map function as an argument of the dataset: as a graph constant
    # they would hit the 2 GiB limit of a serialised graph, and on an accelerator they would fill its memory.
    images = source.tensor
    classes = _checked_labels(labels, count)
    with tf.init_scope(), tf.device("CPU:0"):
        root = random.seed(seed)
        order_seed = random.fold(root, random.Stream.DATA_ORDER)
        noise_seed = random.fold(root, random.Stream.DEQUANTIZATION)
        flip_seed = random.fold(root, random.Stream.FLIP)

    def batch(element: tf.Tensor) -> dict[str, tf.Tensor]:
        replica = pipeline_id * local_replicas + tf.math.floormod(element, local_replicas)
        first = element // local_replicas * global_batch_size + replica * batch_size
        positions = first + tf.range(batch_size, dtype=tf.int64)
        epochs = positions // count
        indices = _permute(tf.math.floormod(positions, count), random.per_example(order_seed, epochs), count)
        example = tf.cast(tf.math.floormod(epochs * count + indices, 2**31), tf.int32)
        pixels = tf.gather(images, indices)
        if random_flip:
            mirrored = random.uniform(random.per_example(flip_seed, example)) < 0.5
            pixels = tf.where(mirrored[:, None, None, None], tf.reverse(pixels, [2]), pixels)
        if dequantize:
            image = _dequantized(pixels, random.per_example(noise_seed, example), source.shape)
        else:
            image = _centred(pixels)
        image = value_range.encode(tf.ensure_shape(image, (batch_size, *source.shape)))
        position = tf.cast(tf.math.floormod(positions, 2**31), tf.int32)
        return {"image": image, "example": example, "position": position} | _labelled(classes, indices)

    elements = tf.data.Dataset.counter(start=start_step * local_replicas, dtype=tf.int64)
    batches = elements.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    source: ImageSource,
    *,
    batch_size: int,
    limit: int | None = None,
    labels: np.ndarray | None = None,
    value_range: ValueRange = UNIT,
    num_replicas: int = 1,
    pipeline_id: int = 0,
    num_pipelines: int = 1,
) -> tf.data.Dataset:
    """Returns the images once, in order, in batches of one static shape.

    Batch k holds the images k B to (k + 1) B - 1 over all replicas; it is divided among elements and pipelines as in
    `training_batches`.

    Args:
      source: the images.
      batch_size: B, images per batch over all replicas; a multiple of `num_replicas`.
      limit: take only the first `limit` images; all of them if None or larger than their number.
      labels: int [N], the classes of the images; None for none.
      value_range: the range of the images that are served.
      num_replicas: replicas over all pipelines.
      pipeline_id: which pipeline (input worker) this is, in [0, num_pipelines).
      num_pipelines: input pipelines, one per worker; a divisor of `num_replicas`.

    Returns:
      A dataset of dictionaries with b = batch_size / num_replicas: `image`, float32 [b, H, W, C], the middles
      (x + 0.5) / 256 in `value_range`; `example`, int32 [b], the image's index; `weight`, float32 [b], 1 for an image
      and 0 for padding; and with `labels` `label`, int32 [b].
      The last batch is padded with the first image.

    Raises:
      ValueError: if a size or `limit` is not positive, a division leaves a remainder, or `pipeline_id` is out of range.
    """
    _check_layout(batch_size, 0, num_replicas, pipeline_id, num_pipelines)
    if limit is not None:
        _require_positive(limit=limit)
    share, local_replicas = batch_size // num_replicas, num_replicas // num_pipelines
    count = len(source) if limit is None else min(limit, len(source))
    images = source.tensor
    classes = _checked_labels(labels, len(source))

    def batch(element: tf.Tensor) -> dict[str, tf.Tensor]:
        replica = pipeline_id * local_replicas + tf.math.floormod(element, local_replicas)
        first = element // local_replicas * batch_size + replica * share
        positions = first + tf.range(share, dtype=tf.int64)
        is_image = positions < count
        indices = tf.where(is_image, positions, 0)
        image = value_range.encode(tf.ensure_shape(_centred(tf.gather(images, indices)), (share, *source.shape)))
        found = {"image": image, "example": tf.cast(indices, tf.int32), "weight": tf.cast(is_image, tf.float32)}
        return found | _labelled(classes, indices)

    elements = tf.data.Dataset.range(-(-count // batch_size) * local_replicas)
    return elements.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def distributed_training_batches(
    source: ImageSource, strategy: tf.distribute.Strategy, *, global_batch_size: int, **options: Any
) -> tf.distribute.DistributedDataset:
    """`training_batches` over the replicas of a strategy; `options` are its other arguments except the layout."""

    def shard(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return training_batches(source, global_batch_size=global_batch_size, **options, **_layout(context))

    return strategy.distribute_datasets_from_function(shard)


def distributed_evaluation_batches(
    source: ImageSource, strategy: tf.distribute.Strategy, *, batch_size: int, limit: int, **options: Any
) -> tuple[tf.distribute.DistributedDataset, int]:
    """`evaluation_batches` over the replicas of a strategy, and their number.

    The dataset repeats, since the workers of a cluster would have to agree on the end of a finite one: take only the
    returned number of batches.
    """

    def shard(context: tf.distribute.InputContext) -> tf.data.Dataset:
        found = evaluation_batches(source, batch_size=batch_size, limit=limit, **options, **_layout(context))
        return found.repeat()

    return strategy.distribute_datasets_from_function(shard), -(-min(limit, len(source)) // batch_size)


def _layout(context: tf.distribute.InputContext) -> dict[str, Any]:
    return {
        "num_replicas": context.num_replicas_in_sync,
        "pipeline_id": context.input_pipeline_id,
        "num_pipelines": context.num_input_pipelines,
    }


def _checked_labels(labels: np.ndarray | None, count: int) -> tf.Tensor | None:
    """The labels as an eager int32 tensor in host memory; raises ValueError if they are not one per image."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(f"{count} images need integer labels [{count}]. Received: {labels.dtype} {labels.shape}.")
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(labels, tf.int32)


def _labelled(classes: tf.Tensor | None, indices: tf.Tensor) -> dict[str, tf.Tensor]:
    return {} if classes is None else {"label": tf.gather(classes, indices)}


def to_uint8(images: Any) -> np.ndarray:
    """Quantises images to bytes, the inverse of dequantisation: floor(256 x), clipped to 0..255.

    Args:
      images: floats of any shape, nominally in [0, 1]; a tensor or an array.

    Returns:
      uint8 of the same shape.

    Raises:
      ValueError: if the images are not floats, or one of them is NaN.
    """
    array = np.asarray(images)
    if array.dtype.kind in "biuOSU":
        raise ValueError(f"to_uint8 takes float images in [0, 1]. Received dtype {array.dtype}; pass floats.")
    array = array.astype(np.float32)
    if np.isnan(array).any():
        raise ValueError(
            f"Expected images without NaN, but {int(np.isnan(array).sum())} of {array.size} values are NaN: the "
            "sampler or the model has diverged; lower the step size or inspect the checkpoint."
        )
    # Clipped first: the cast of a float beyond a byte's range is undefined.
    return np.minimum(np.floor(np.clip(array, 0.0, 1.0) * 256.0), 255.0).astype(np.uint8)


def quantise(images: tf.Tensor) -> tf.Tensor:
    """`to_uint8` within a graph, of finite floats of any shape."""
    return tf.cast(tf.minimum(tf.floor(tf.clip_by_value(images, 0.0, 1.0) * 256.0), 255.0), tf.uint8)


def count_out_of_range(images: np.ndarray) -> int:
    """The number of values far outside [0, 1]: beyond [-1, 2]. Samples with many of them have diverged."""
    return int(np.sum(np.abs(images - 0.5) > 1.5))


def to_float(pixels: np.ndarray) -> np.ndarray:
    """The middles of the bytes' intervals, (x + 0.5) / 256, float32 of the same shape; `to_uint8` inverts it."""
    return ((pixels.astype(np.float32) + 0.5) / 256.0).astype(np.float32)


def _permute(index: tf.Tensor, keys: tf.Tensor, count: int) -> tf.Tensor:
    """Maps each index by a pseudo-random permutation of range(count); row b uses the permutation of `keys[b]`.

    A folded seed is (random word, folded number), and the shuffle truncates a seed's words to half its block, 8 bits up
    to 65,536 images: keyed by the epoch's seed it would have only 256 permutations (measured). All three key words are
    therefore drawn, and offsets and a second pass make the number of permutations far larger than any run's epochs.
    """
    draws = random.uniform(keys, (_SHUFFLE_PASSES * _KEY_WORDS,))
    words = tf.cast(draws * 2.0**24, tf.int32)
    for words_of_pass in tf.split(words, _SHUFFLE_PASSES, axis=1):
        offset = tf.cast(words_of_pass[:, 0], tf.int64)
        # The raw op, since its public wrapper takes one seed per call and a batch may span several epochs.
        index = tf.raw_ops.RandomIndexShuffle(
            index=tf.math.floormod(index + offset, count),
            seed=words_of_pass[:, 1:],
            max_index=tf.constant(count - 1, tf.int64),
            rounds=4,
        )
    return index


def _dequantized(pixels: tf.Tensor, keys: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """(x + u) / 256, exactly within [x / 256, (x + 1) / 256)."""
    # With u cut to 16 bits the sum fits the 24 bits of a float32; with more, 255 + u could round up to 256.
    noise = tf.floor(random.uniform(keys, shape) * 2.0**16) * 2.0**-16
    return (tf.cast(pixels, tf.float32) + noise) * (1.0 / 256.0)


def _centred(pixels: tf.Tensor) -> tf.Tensor:
    return (tf.cast(pixels, tf.float32) + 0.5) * (1.0 / 256.0)


def _check_layout(
    global_batch_size: int, start_step: int, num_replicas: int, pipeline_id: int, num_pipelines: int
) -> None:
    _require_positive(global_batch_size=global_batch_size, num_replicas=num_replicas, num_pipelines=num_pipelines)
    if start_step < 0:
        raise ValueError(f"start_step must be at least 0. Received: {start_step}.")
    if global_batch_size % num_replicas:
        raise ValueError(
            f"Every replica must take the same share of a batch. Received global_batch_size={global_batch_size} for "
            f"{num_replicas} replicas; use a multiple of {num_replicas}."
        )
    if num_replicas % num_pipelines:
        raise ValueError(
            f"Every pipeline must feed the same number of replicas. Received num_replicas={num_replicas} for "
            f"{num_pipelines} pipelines; use a number of pipelines that divides {num_replicas}."
        )
    if not 0 <= pipeline_id < num_pipelines:
        raise ValueError(f"pipeline_id must be in [0, num_pipelines={num_pipelines}). Received: {pipeline_id}.")


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{name} must be a positive integer. Received: {size!r}.")
