"""Jobs on runs: evaluating and measuring a trained run, and one in training; training a classifier that guides it."""

import json
import os
import pathlib
import time
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files, sde
from ncsn_tf.cluster import strategies
from ncsn_tf.config.build import Builder
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.data.labels import Labels
from ncsn_tf.evaluation import classifier, measure, names, noisy_training, report, score_error
from ncsn_tf.evaluation.evaluator import Evaluator, Progress
from ncsn_tf.evaluation.image_files import ImagesError
from ncsn_tf.guidance import classifiers
from ncsn_tf.runs import OPTIONAL_KEYS, TrainedRun
from ncsn_tf.samplers import blocks, store
from ncsn_tf.training.loop import DrawSamples, MeasureHeldOut
from ncsn_tf.training.run_directory import environment
from ncsn_tf.training.trainer import Trainer

FAILED = "failed"
"""The key in the results of `evaluate_once` that says why samples diverged or cannot be measured."""


def held_out_measure(builder: Builder, trainer: Trainer, shape: tuple[int, int, int]) -> MeasureHeldOut | None:
    """A function that measures the held-out loss, over all replicas; None if the configuration asks for none.

    Raises:
      ValueError: if the held-out images have another shape than the training images, `shape`.
    """
    if not builder.training.held_out_examples or not builder.training.evaluate_every:
        return None
    source = builder.load_images("held_out")
    if source.shape != shape:
        raise ValueError(
            f"The held-out images have the shape {source.shape}, the training images {shape}. Give data.image_size "
            "or data.channels to make them equal, or set training.held_out_examples=0."
        )
    batches, number = builder.held_out_batches(source, trainer.strategy, builder.training.held_out_examples)
    return lambda: trainer.held_out_loss(iter(batches), number)


def sample_drawer(builder: Builder, trainer: Trainer, shape: tuple[int, int, int]) -> DrawSamples:
    """A function that draws `training.sample_count` samples of the averaged weights, the same ones each time.

    They are drawn by this process alone, on the first device. The function calls its argument after each noise level,
    and returns uint8 [N, H, W, C] and the samples' caveats, or None if they are not finite, which may happen early in
    training.
    """
    count, score_fn = builder.training.sample_count, trainer.average_model.score
    sampler = builder.sampler()

    def draw(between_levels: Callable[[], None]) -> tuple[np.ndarray, list[str]] | None:
        numbers = tf.range(count)
        seeds, x, _ = blocks.start_samples(numbers, builder.prior, shape, run_seed=builder.seed)
        x = sampler(score_fn, x, seeds, on_frame=lambda *_: between_levels()).x.numpy()
        if not np.isfinite(x).all():
            return None
        x = builder.value_range.decode(x)
        pixels = pipeline.to_uint8(x)
        return pixels, store.caveats(pixels, pipeline.count_out_of_range(x) / x.size)

    return draw


def train_noisy_classifier(
    builder: Builder,
    training: tuple[ImageSource, Labels],
    testing: tuple[ImageSource, Labels],
    output: str | os.PathLike,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    record: Mapping[str, Any] = types.MappingProxyType({}),
    log: Callable[[int, float], object] = lambda step, loss: None,
) -> noisy_training.ByLevel:
    """Trains a classifier of noisy images for the SDE and the times of a run, measures it and saves it.

    Args:
      builder: the builder of the run's configuration.
      training: images and their labels.
      testing: others, on which the accuracy at each level is measured.
      output: the folder to make; see `guidance.classifiers`.
      seed: the seed of everything random, in [0, 2^31).
      steps: the number of training steps.
      batch_size: images per step.
      record: plain values to add to its `about.json`, such as versions.
      log: called after each step with the number of steps taken and the step's loss in nats.

    Raises:
      ValueError: if a number is out of range, or `output` exists and is not an empty folder.
      NonFiniteLossError: at the first loss that is not finite.
    """
    classifier.check_training(steps, batch_size)
    source, labels = training
    batches = builder.labelled_batches(source, labels.values, batch_size, seed)
    options = {"shape": source.shape, "sde": builder.sde, "draw": builder.draw, "seed": seed, "steps": steps}
    made = noisy_training.train(batches, labels.num_classes, **options, log=log)
    held_out, expected = testing
    levels, value_range = builder.reported_grid, builder.value_range
    found = noisy_training.by_level(made, held_out, expected.values, levels, value_range, seed=seed)
    about = {
        "dataset": source.describe(),
        "held_out_images": found.images,
        "by_level": found.rows(),
        **{"seed": seed, "steps": steps, "batch_size": batch_size},
        **record,
    }
    classifiers.save(made, output, builder.perturbation, about, found.draw(1.0 / labels.num_classes))
    return found


def evaluate(
    run: TrainedRun,
    evaluator: Evaluator | None,
    output: str | os.PathLike,
    *,
    num_samples: int,
    batch_size: int,
    seed: int,
    metrics: Collection[str] = names.METRICS,
    held_out_images: ImageSource | None = None,
    held_out_examples: int = 0,
    progress: Progress = lambda what, rows: None,
) -> report.Report | None:
    """Evaluates samples of the loaded checkpoint and writes the results: see `evaluation.report`.

    Args:
      run: the run, its checkpoint loaded.
      evaluator: measures the samples; None on the workers of a cluster other than the chief.
      output: the folder for samples and results.
      num_samples: the number of samples.
      batch_size: the number of samples that a replica draws at a time.
      seed: sample i depends on (seed, i) alone.
      metrics: the metrics to measure.
      held_out_images: the images on which the loss by level is measured; None to skip it.
      held_out_examples: the number of held-out images to use; 0 to skip the loss.
      progress: called with an activity and the number of images just done.

    Returns:
      The report; None without an evaluator.

    Raises:
      SamplingKeyError: if the folder holds other samples.
      EvaluationError: if the samples cannot be measured.
      DivergedError: if samples are not finite.
    """
    begun = time.perf_counter()
    drawn = run.samples(
        output, num_samples, seed=seed, batch_size=batch_size, on_round=lambda rows: progress("samples", rows)
    )
    sampled = time.perf_counter()
    loss = None
    if held_out_images is not None and held_out_examples:
        progress("held-out loss", 0)
        loss = run.held_out_loss(held_out_images, held_out_examples, seed)
    if evaluator is None or drawn is None:
        return None
    found = evaluator.evaluate(
        drawn.pixels,
        output,
        metrics=metrics,
        held_out=loss,
        caveats=drawn.caveats(),
        labels=run.classes.of_rows(num_samples),
        progress=progress,
    )
    about = {
        "checkpoint": run.checkpoint,
        **run.sampling_key(seed, batch_size),
        "num_samples": num_samples,
        "score_evaluations_per_sample": drawn.evaluations,
        **evaluator.about(),
        "seconds": {"sampling": round(sampled - begun, 1), "everything": round(time.perf_counter() - begun, 1)},
        **environment(strategies.describe(run.strategy)),
    }
    report.write(output, found, about)
    return found


def evaluate_once(
    run: TrainedRun,
    evaluator: Evaluator | None,
    output: str | os.PathLike,
    *,
    metric: str,
    num_samples: int,
    batch_size: int,
    seed: int,
    progress: Progress = lambda what, rows: None,
) -> dict[str, Any] | None:
    """`evaluate` by one metric, unless the folder has its results already: of the same samples and evaluator.

    Samples that diverge, or that cannot be measured, are a result as well: it has the reason under `FAILED`.

    Args:
      run: the run, its checkpoint loaded. In a cluster all workers must call this function, as they do `evaluate`.
      evaluator: measures the samples; None on the workers of a cluster other than the chief.
      output: the folder for samples and results.
      metric: one of `names.METRICS`.
      num_samples: the number of samples.
      batch_size: the number of samples that a replica draws at a time.
      seed: sample i depends on (seed, i) alone.
      progress: called with an activity and the number of images just done.

    Returns:
      The content of the folder's results; None without an evaluator.
    """
    output = files.local_path(output)
    wanted, content = {**run.sampling_key(seed, batch_size), "num_samples": num_samples}, None
    if evaluator is not None:
        wanted |= evaluator.about()
        content = _finished(output, wanted, measure.named(metric, evaluator.kind))
    # The chief has the results, and decides whether all draw.
    done = strategies.from_chief(run.strategy, [np.array([content is not None], np.int32)])
    if int(done[0][0]):
        return content
    try:
        evaluate(
            run,
            evaluator,
            output,
            num_samples=num_samples,
            batch_size=batch_size,
            seed=seed,
            metrics=(metric,),
            progress=progress,
        )
    except (store.DivergedError, ImagesError) as error:
        content = {FAILED: str(error), **wanted, **environment(strategies.describe(run.strategy))}
        if evaluator is not None:
            files.write_json(output / report.RESULTS, content)
        return content
    return _read(output) if evaluator is not None else None


def value_of(content: Mapping[str, Any], name: str) -> tuple[float | None, float | None, str]:
    """A metric in the content of results.json.

    Args:
      content: as `evaluate_once` returns it.
      name: the metric's name in it; see `measure.named`.

    Returns:
      (value, standard error, remark): None where a number is unknown, and the reason why there is no value, or what
      weakens it; "" for nothing.
    """
    entry = content.get("metrics", {}).get(name, {})
    remarks = [content[FAILED]] if FAILED in content else content.get("warnings", [])
    if "value" not in entry and content.get("not_measured"):
        remarks = content["not_measured"]
    return entry.get("value"), entry.get("standard_error"), "; ".join(remarks)


def _read(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / report.RESULTS).read_text(encoding="utf-8"))


def _finished(folder: pathlib.Path, wanted: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The results in a folder, if they exist, of the same samples and evaluator, and have the metric."""
    try:
        content = _read(folder)
    except (OSError, ValueError):
        return None
    expected = json.loads(json.dumps(wanted))
    # Guided samples have keys that others lack: a key that only the folder has is a difference too.
    same = all(content.get(key) == expected.get(key) for key in {*expected, *OPTIONAL_KEYS})
    return content if same and (FAILED in content or name in content.get("metrics", {})) else None


def held_out_points(run: TrainedRun) -> np.ndarray:
    """All held-out images of a run, float32 [N, H, W, C] in its SDE's data range, each byte at its middle.

    Raises:
      ValueError: if there are none, or they have another shape than the training images.
    """
    images = run.builder.load_images("held_out").images
    if images.shape[1:] != run.shape:
        raise ValueError(f"The run is on images {run.shape}, the held-out ones are {images.shape[1:]}.")
    return run.builder.value_range.encode(pipeline.to_float(images))


def measure_score(
    run: TrainedRun,
    unseen: np.ndarray,
    *,
    num_images: int,
    batch_size: int,
    seed: int,
    progress: Progress = lambda what, rows: None,
) -> score_error.ScoreError:
    """Compares the score of the loaded checkpoint with the exact score of the run's training images.

    Args:
      run: the run, its checkpoint loaded.
      unseen: the held-out images, as `held_out_points` returns them.
      num_images: how many training and how many held-out images are taken.
      batch_size: images that a replica takes at a time.
      seed: the noise depends on (seed, split, image, level) alone.
      progress: called with a split and the number of its images just done.
    """
    meter = score_error.Meter(
        run.score_fn,
        run.builder.sde,
        run.builder.reported_grid,
        run.training_density(),
        run_seed=seed,
        batch_size=batch_size,
        strategy=run.strategy,
        workers=run.workers,
        on_images=progress,
    )
    return meter.measure(unseen, num_images)


def dequantization_caveats(run: TrainedRun) -> list[str]:
    """One line if the noise of dequantization, which the exact score lacks, is not small beside that of a level."""
    builder = run.builder
    smallest = float(np.min(sde.noise_ratio(builder.sde, tf.constant(builder.reported_grid))))
    width = (builder.value_range.high - builder.value_range.low) / 256.0
    if not builder.dequantizes or smallest >= width:
        return []
    return [
        f"training dequantized bytes, uniformly over {width:.2g}, and at the smallest level sigma / alpha is "
        f"{smallest:.2g}: the exact score is that of the middles, and too certain there"
    ]
