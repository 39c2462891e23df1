"""Jobs along the probability flow of a run in continuous time: likelihoods of images, and their latent codes."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ncsn_tf.cluster import strategies
from ncsn_tf.evaluation import likelihood
from ncsn_tf.evaluation.encodings import Codec
from ncsn_tf.evaluation.evaluator import Progress
from ncsn_tf.runs import TrainedRun
from ncsn_tf.training.run_directory import environment


def images(run: TrainedRun, split: str, count: int | None = None) -> np.ndarray:
    """The first images of a split, uint8 [N, H, W, C]; all of them without a count.

    Raises:
      ValueError: if they are not of the run's shape, or if the dataset has no such split.
    """
    found = np.asarray(run.builder.load_images(split).images[:count])
    if found.shape[1:] != run.shape:
        raise ValueError(f"The run is on images {run.shape}, these are {found.shape[1:]}.")
    return found


def codec(
    run: TrainedRun,
    *,
    batch_size: int,
    options: Mapping[str, Any],
    jit_compile: bool = False,
    on_rows: Callable[[str, int], object] = lambda activity, rows: None,
) -> Codec:
    """The codec of a run's score; the arguments are those of `encodings.Codec`."""
    return Codec(
        run.score_fn,
        run.builder.sde,
        run.builder.value_range,
        batch_size=batch_size,
        options=options,
        jit_compile=jit_compile,
        on_rows=on_rows,
    )


def likelihood_caveats(run: TrainedRun) -> list[str]:
    """One line if the run was trained on another distribution than the one whose likelihood is measured."""
    if run.builder.dequantizes:
        return []
    return [
        "This run was trained on images that were not dequantized, and the likelihood is that of dequantized ones; "
        "train with --config.data.dequantize=True for a fair one."
    ]


def measure_likelihood(
    run: TrainedRun,
    pixels: np.ndarray,
    output: str | os.PathLike,
    *,
    about: Mapping[str, Any],
    seed: int,
    batch_size: int,
    dequantizations: int,
    options: Mapping[str, Any],
    jit_compile: bool = False,
    progress: Progress = lambda activity, rows: None,
) -> dict[str, Any]:
    """Measures likelihoods by the loaded checkpoint and writes them; see `likelihood.Likelihoods.save`.

    Args:
      run: the run, its checkpoint loaded.
      pixels: uint8 [N, H, W, C].
      output: the folder for the results.
      about: plain values that are needed to repeat them, apart from the options and the arguments below.
      seed: the seed of the dequantizations and of the probes.
      batch_size: images at a time; bounds the memory.
      dequantizations: how many of each image.
      options: of `flow.log_prob`, plain values.
      jit_compile: whether XLA compiles the solver.
      progress: called with an activity and the number of images just done.

    Returns:
      The content of likelihood.json.

    Raises:
      NotConvergedError: if the solver does not converge for an image; the message names it.
    """
    begun = time.perf_counter()
    found = likelihood.measure(
        run.score_fn,
        run.builder.sde,
        pixels,
        run.builder.value_range,
        run_seed=seed,
        batch_size=batch_size,
        dequantizations=dequantizations,
        options=options,
        jit_compile=jit_compile,
        on_images=lambda rows: progress("likelihoods", rows),
    )
    return found.save(output, {**options, "seconds": round(time.perf_counter() - begun, 1), **about})


def likelihood_once(
    run: TrainedRun,
    split: str,
    pixels: np.ndarray,
    output: str | os.PathLike,
    *,
    seed: int,
    dequantizations: int,
    options: Mapping[str, Any],
    **others: Any,
) -> tuple[dict[str, Any], np.ndarray]:
    """`measure_likelihood`, unless the folder has likelihoods of the same weights, images and options.

    Args:
      run: the run, its checkpoint loaded.
      split: the split whose first images `pixels` are.
      pixels: uint8 [N, H, W, C].
      output: the folder for the results; others that it holds are replaced.
      seed: the seed of the dequantizations and of the probes.
      dequantizations: how many of each image.
      options: of `flow.log_prob`, plain values.
      **others: `batch_size`, `jit_compile` and `progress` of `measure_likelihood`.

    Returns:
      (the content of likelihood.json, the bits per dimension float64 [images, dequantizations, probes]).
    """
    identity = {"split": split, "weights": run.checksum(), "seed": seed}
    wanted = {**identity, **options, "images": len(pixels), "dequantizations": dequantizations}
    found = likelihood.saved(output, wanted)
    if found is None:
        about = {**identity, "checkpoint": run.checkpoint, **environment(strategies.describe(run.strategy))}
        given = {"seed": seed, "dequantizations": dequantizations, "options": options, **others}
        measure_likelihood(run, pixels, output, about=about, **given)
        found = likelihood.saved(output, wanted)
    if found is None:
        raise OSError(f"{output} no longer holds the likelihoods that were written into it. Give another --output.")
    return found
