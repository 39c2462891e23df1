"""Log-likelihoods and bits per dimension of images under the probability flow of a score function."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files, flow, ode, random
from ncsn_tf.data.value_range import ValueRange
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE

OFFSET = 256
"""The number of values of a byte: k is dequantized as (k + u) / 256."""

RESULTS = "likelihood.json"
_ARRAYS = "likelihood.npz"


@dataclasses.dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods of dequantized images.

    Attributes:
      nats: float64 [N, R, K], by image, dequantization and probe, in the SDE's data range.
      evaluations: int [N, R], of the score.
      shape: of one image.
      data_range: (low, high) of the SDE's data.
    """

    nats: np.ndarray
    evaluations: np.ndarray
    shape: tuple[int, ...]
    data_range: tuple[float, float]

    @property
    def bits(self) -> np.ndarray:
        """Bits per dimension of the bytes, float64 [N, R, K]; see `flow.bits_per_dimension`."""
        return np.asarray(flow.bits_per_dimension(self.nats, self.shape, self.data_range))

    def summary(self) -> dict[str, Any]:
        """The means of nats and bits per dimension, and what they are uncertain by.

        The standard error is that over images, in which the other two are contained; `by_probe` and
        `by_dequantization` are the standard deviations of one image's value over its probes and dequantizations, None
        with a single one.
        """
        return {
            "nats": _statistics(self.nats),
            "bits_per_dimension": _statistics(self.bits),
            "images": len(self.nats),
            "dequantizations": self.nats.shape[1],
            "probes": self.nats.shape[2],
            "score_evaluations_per_image": float(self.evaluations.sum(axis=1).mean()),
            "offset_bits": math.log2(OFFSET / (self.data_range[1] - self.data_range[0])),
        }

    def save(self, directory: str | os.PathLike, about: Mapping[str, Any]) -> dict[str, Any]:
        """Writes likelihood.npz, the arrays, and then likelihood.json: the summary, and `about`, plain values.

        Returns:
          The content of likelihood.json.
        """
        directory = files.local_path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        content = {**self.summary(), **about}
        arrays = {"nats": self.nats, "bits_per_dimension": self.bits, "evaluations": self.evaluations}
        # Without the summary, arrays of a program that was killed here are nobody's.
        (directory / RESULTS).unlink(missing_ok=True)
        files.write_npz_arrays(directory / _ARRAYS, arrays)
        files.write_json(directory / RESULTS, content)
        return content


def saved(directory: str | os.PathLike, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray] | None:
    """Reads what `Likelihoods.save` has written into a folder: (its content, the bits per dimension [N, R, K]).

    None if there is nothing, or nothing that can be read, or if its content has another value for a key of `wanted`.
    """
    directory = files.local_path(directory)
    try:
        content = json.loads((directory / RESULTS).read_text(encoding="utf-8"))
        if any(content.get(key) != value for key, value in wanted.items()):
            return None
        with np.load(directory / _ARRAYS) as archive:
            return content, archive["bits_per_dimension"]
    except Exception:  # a damaged archive raises whatever zipfile, zlib or NumPy raise
        return None


def _statistics(values: np.ndarray) -> dict[str, float | None]:
    """The mean of values [N, R, K], its standard error over images, and the deviations within an image."""
    images, dequantizations, probes = values.shape
    means = values.mean(axis=(1, 2))
    within = np.sqrt(values.var(axis=2, ddof=1).mean()) if probes > 1 else None
    between = np.sqrt(values.mean(axis=2).var(axis=1, ddof=1).mean()) if dequantizations > 1 else None
    error = means.std(ddof=1) / math.sqrt(images) if images > 1 else None
    found = {"mean": means.mean(), "standard_error": error, "by_probe": within, "by_dequantization": between}
    return {name: None if value is None else float(value) for name, value in found.items()}


def image_seeds(run_seed: int, numbers: tf.Tensor, repeat: int | tf.Tensor = 0) -> tf.Tensor:
    """The seeds int32 [B, 2] of images, by their numbers int32 [B], in one of their dequantizations."""
    base = random.stream_seed(run_seed, random.Stream.LIKELIHOOD)
    return random.fold_each(random.per_example(base, numbers), repeat)


def dequantized(pixels: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Bytes k, uint8 [B, ...], as (k + u) / 256, float32, with u uniform on [0, 1) by the seeds int32 [B, 2]."""
    u = random.uniform(random.fold_each(seeds, random.Stream.DEQUANTIZATION), pixels.shape[1:])
    return (tf.cast(pixels, tf.float32) + u) / float(OFFSET)


def _check(images: np.ndarray, batch_size: int, dequantizations: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(
            "The likelihood is measured of bytes, uint8 [N, H, W, C], which are dequantized here. "
            f"Received: {images.dtype}, {images.shape}."
        )
    if batch_size < 1 or dequantizations < 1:
        raise ValueError(
            "The batch and the dequantizations are 1 or more. "
            f"Received: batch_size={batch_size}, dequantizations={dequantizations}."
        )


def measure(
    score_fn: ScoreFunction,
    sde: SDE,
    images: np.ndarray,
    value_range: ValueRange,
    *,
    run_seed: int,
    batch_size: int,
    dequantizations: int = 1,
    options: Mapping[str, Any] | None = None,
    jit_compile: bool = False,
    on_images: Callable[[int], object] = lambda rows: None,
) -> Likelihoods:
    """Measures the log-likelihood of each image under several dequantizations.

    A byte k becomes (k + u) / 256 with u uniform on [0, 1), and is mapped to the value range. The noise and the probes
    of dequantization r of image i depend on (run seed, i, r) alone.

    Args:
      score_fn: the score function.
      sde: the SDE.
      images: uint8 [N, H, W, C].
      value_range: the range of the SDE's data.
      run_seed: an integer in [0, 2^31).
      batch_size: images at a time; bounds the memory.
      dequantizations: R, at least 1.
      options: of `flow.log_prob`, without `seeds`.
      jit_compile: whether XLA compiles the solver.
      on_images: called with the number of images that were just measured under one dequantization.

    Raises:
      ValueError: for images that are not bytes, none of them, or a number out of range.
      NotConvergedError: if the solver does not converge for an image; the message names it.
    """
    images, given = np.asarray(images), dict(options or {})
    _check(images, batch_size, dequantizations)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def of_batch(pixels, numbers, repeat):
        seeds = image_seeds(run_seed, numbers, repeat)
        x = value_range.encode(dequantized(pixels, seeds))
        found = flow.log_prob(score_fn, sde, x, seeds=seeds, **given)
        return found.by_probe, found.evaluations, found.converged

    size = min(batch_size, len(images))
    nats, evaluations = [], []
    for first in range(0, len(images), size):
        # The last batch is filled up with its own images: another shape would be compiled anew.
        numbers = np.minimum(np.arange(first, first + size), len(images) - 1)
        rows = min(size, len(images) - first)
        parts = []
        for repeat in range(dequantizations):
            by_probe, counted, converged = of_batch(
                tf.constant(images[numbers]), tf.constant(numbers, tf.int32), tf.constant(repeat)
            )
            ode.check_converged("The flow of image", numbers[:rows], converged.numpy()[:rows])
            parts.append((by_probe.numpy()[:rows], counted.numpy()[:rows]))
            on_images(rows)
        nats.append(np.stack([part for part, _ in parts], axis=1))
        evaluations.append(np.stack([part for _, part in parts], axis=1))
    return Likelihoods(
        np.concatenate(nats).astype(np.float64),
        np.concatenate(evaluations),
        images.shape[1:],
        (value_range.low, value_range.high),
    )
