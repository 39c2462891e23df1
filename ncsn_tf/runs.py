"""A trained run, opened for use: its configuration, its averaged weights, its sampler, its samples."""

import contextlib
import dataclasses
import math
import pathlib
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files
from ncsn_tf.cluster import strategies
from ncsn_tf.config import build
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import generation, held_out, measure, report
from ncsn_tf.evaluation.report import Judge
from ncsn_tf.score import ScoreModel
from ncsn_tf.serving import export
from ncsn_tf.training import checkpoints
from ncsn_tf.training.run_directory import RunDirectory, environment

_WILD = 0.01
"""The share of values outside [-1, 2] from which on a report says so."""


@dataclasses.dataclass(frozen=True)
class DrawnSamples:
    """Samples of a run.

    Attributes:
      pixels: uint8 [N, H, W, C].
      evaluations: of the score that each took.
      wild: the share of all values that lay outside [-1, 2] before they became bytes.
    """

    pixels: np.ndarray
    evaluations: int
    wild: float


class TrainedRun:
    """A run's network on the devices of a strategy, with weights once `load` is called.

    Args:
      directory: the run's directory.
      strategy: where it computes; by default TensorFlow's default strategy.
      sampler: values that replace those of the configuration's `sampler` section.

    Attributes:
      directory: as given.
      strategy: as given.
      builder: of the run's configuration, with the sampler's values replaced.
      shape: (H, W, C) of the run's images.
      network: the network.
      score_fn: its score function.
      sampler: the compiled sampler.
      checkpoint: the path of the loaded checkpoint, "" before `load`.

    Raises:
      ValueError: if there is no run, or a value is refused.
    """

    def __init__(
        self,
        directory: RunDirectory,
        strategy: tf.distribute.Strategy | None = None,
        sampler: Mapping[str, Any] | None = None,
    ):
        self.directory = directory
        self.strategy = strategy or tf.distribute.get_strategy()
        self.builder = self._built(sampler)
        self.shape = directory.shape()
        with self.strategy.scope():
            self.network = self.builder.network(self.shape)
        self.score_fn = ScoreModel(self.network, self.builder.sde, self.builder.times).score
        self.sampler = self.builder.sampler(self.score_fn)
        self.checkpoint = ""

    def _built(self, sampler: Mapping[str, Any] | None) -> build.Builder:
        config = self.directory.config()
        config["sampler"] = {**config["sampler"], **(sampler or {})}
        return build.Builder(config)

    def change_sampler(self, sampler: Mapping[str, Any]) -> None:
        """Takes another sampler: the run's own, with these values of its section replaced. The weights stay."""
        self.builder = self._built(sampler)
        self.sampler = self.builder.sampler(self.score_fn)

    @property
    def step(self) -> int:
        """The training step of the loaded checkpoint."""
        return checkpoints.step_of(self.checkpoint)

    def load(self, step: int | None = None) -> str:
        """Loads a checkpoint's averaged weights, by default the newest whole one's, and returns its path.

        In a cluster all workers must call it, and see the same directory; the chief says which checkpoint.

        Raises:
          CheckpointError: if there is none, or it is damaged or does not fit.
        """
        workers = strategies.place(self.strategy)[1]
        if workers > 1 and step is None:
            mine = checkpoints.step_of(checkpoints.find(self.directory.checkpoints))
            step = int(strategies.from_chief(self.strategy, [np.array([mine], np.int32)])[0][0])
        self.checkpoint = checkpoints.load_newest_average(self.directory.checkpoints, self.network, step)
        return self.checkpoint

    def new_checkpoints(self, patience: float, interval: float = 2.0) -> Iterator[int]:
        """The newest checkpoint's step, and again whenever there is a newer one, until that of the run's last step.

        Those that come and go while the caller is busy are passed over. In a cluster all workers must go along.

        Args:
          patience: seconds to wait for the next one.
          interval: seconds between two looks.

        Raises:
          CheckpointError: if the run is not complete and nothing new comes.
        """
        last, final = -1, self.builder.training.steps
        while last < final:
            newest = last
            if strategies.is_chief(self.strategy):
                deadline = time.monotonic() + patience
                while (newest := self._newest_step()) <= last and time.monotonic() < deadline:
                    time.sleep(interval)
            newest = int(strategies.from_chief(self.strategy, [np.array([newest], np.int32)])[0][0])
            if newest <= last:
                stands = f"stands at step {last} of {final}" if last >= 0 else "has no checkpoint"
                raise checkpoints.CheckpointError(
                    f"The run {stands}, and no new checkpoint came for {patience:g} s. Is it being trained?"
                )
            last = newest
            yield newest

    def _newest_step(self) -> int:
        """The newest checkpoint's step, -1 if there is none yet."""
        try:
            return checkpoints.step_of(checkpoints.find(self.directory.checkpoints))
        except checkpoints.CheckpointError:
            return -1

    def training_images(self) -> ImageSource:
        """The images that it was trained on; raises ValueError if those that are there now are others."""
        source = self.builder.load_images("train")
        self.directory.check_images(source.describe())
        return source

    def checksum(self) -> int:
        """A CRC-32 of the loaded weights: two trainings into one directory may leave equally named checkpoints."""
        value = 0
        for variable in self.network.weights:
            value = zlib.crc32(np.ascontiguousarray(variable.numpy()).data, value)
        return value

    def plan(self, seed: int, batch_size: int) -> dict[str, Any]:
        """What decides the bits of the run's samples, as plain values: all but how many."""
        return {
            "step": self.step,
            "weights": self.checksum(),
            "seed": seed,
            "batch_size": batch_size,
            "sampler": dataclasses.asdict(self.builder.sampler_options),
        }

    def samples(
        self,
        output: pathlib.Path,
        num_samples: int,
        *,
        seed: int,
        batch_size: int,
        on_round: Callable[[int], object] = lambda rows: None,
    ) -> "DrawnSamples | None":
        """Samples, drawn on every replica; what a folder holds of them already is not drawn again.

        Args:
          output: the folder, for `samples.npz` and what is there before it.
          num_samples: how many.
          seed: sample i depends on (seed, i) alone.
          batch_size: how many a replica draws at a time.
          on_round: called with the number of samples, first of those that were there, then of new ones.

        Returns:
          The samples; None on the workers of a cluster other than the chief, which writes.

        Raises:
          PlanError: if the folder holds other samples, or another evaluation draws into it.
          DivergedError: if samples are not finite.
        """
        chief = strategies.is_chief(self.strategy)
        with contextlib.ExitStack() as held:
            if chief:
                output.mkdir(parents=True, exist_ok=True)
                held.enter_context(files.locked(output / "lock", lambda holder: _occupied(output, holder)))
            return self._samples(output, num_samples, seed, batch_size, on_round, chief)

    def _samples(
        self,
        output: pathlib.Path,
        num_samples: int,
        seed: int,
        batch_size: int,
        on_round: Callable[[int], object],
        chief: bool,
    ) -> "DrawnSamples | None":
        store = generation.SampleStore(output, self.plan(seed, batch_size), self.shape) if chief else None
        done = store.done if store is not None else 0
        done = int(strategies.from_chief(self.strategy, [np.array([done], np.int32)])[0][0])
        on_round(min(done, num_samples))
        if done < num_samples:
            blocks = generation.BlockSampler(
                self.strategy,
                self.sampler,
                self.builder.prior(),
                self.shape,
                run_seed=seed,
                block=batch_size,
                workers=strategies.place(self.strategy)[1],
            )
            generation.fill(blocks, store, done, num_samples, _to_uint8, on_round)
        if store is None:
            return None
        values = store.done * math.prod(self.shape)
        return DrawnSamples(store.finish(num_samples), store.evaluations, store.wild / values)

    def served_model(self, dtype: str = "float32") -> export.ServedModel:
        """The loaded weights and the sampler as functions of tensors alone, to be exported; `dtype` is the weights'."""
        return export.ServedModel(
            self.network,
            self.builder.sde,
            self.builder.times,
            sampler=self.builder.sampler_options,
            sampler_times=self.builder.sampler_times,
            prior=self.builder.prior(),
            shape=self.shape,
            dtype=dtype,
        )

    def held_out_loss(self, source: ImageSource, limit: int, seed: int = 0) -> held_out.HeldOutLoss:
        """The denoising loss on the first `limit` held-out images, at every level, over all replicas."""
        replicas, limit = self.strategy.num_replicas_in_sync, min(limit, len(source))
        batch_size = replicas * max(1, min(self.builder.training.batch_size, limit) // replicas)

        def shard(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = pipeline.evaluation_batches(
                source,
                batch_size=batch_size,
                limit=limit,
                num_replicas=context.num_replicas_in_sync,
                pipeline_id=context.input_pipeline_id,
                num_pipelines=context.num_input_pipelines,
            )
            return batches.repeat()  # workers would have to agree on the end of a finite one

        return held_out.denoising_loss(
            self.score_fn,
            self.builder.sde,
            self.builder.times,
            iter(self.strategy.distribute_datasets_from_function(shard)),
            -(-limit // batch_size),
            run_seed=seed,
            strategy=self.strategy,
        )


def _to_uint8(x: np.ndarray) -> tuple[np.ndarray, int]:
    return pipeline.to_uint8(x), int(np.sum(np.abs(x - 0.5) > 1.5))


def _occupied(output: pathlib.Path, holder: str) -> generation.PlanError:
    return generation.PlanError(f"Another evaluation draws into {output} ({holder}). Wait, or give another --output.")


def evaluate(
    run: TrainedRun,
    judge: Judge | None,
    output: pathlib.Path,
    *,
    num_samples: int,
    batch_size: int,
    seed: int,
    metrics: Collection[str] = measure.NAMES,
    held_out_images: ImageSource | None = None,
    held_out_examples: int = 0,
    progress: report.Progress = lambda what, rows: None,
) -> report.Report | None:
    """Judges samples of the loaded checkpoint and writes down everything: see `evaluation.report`.

    Args:
      run: the run, its checkpoint loaded.
      judge: what the samples are held against; None on the workers of a cluster other than the chief.
      output: the folder for samples and results.
      num_samples: how many samples.
      batch_size: how many a replica draws at a time.
      seed: sample i depends on (seed, i) alone.
      metrics: which to measure.
      held_out_images: on which the loss by level is measured; None for none.
      held_out_examples: on how many of them; 0 for none.
      progress: told what is done.

    Returns:
      The report; None without a judge.

    Raises:
      EvaluationError: if the samples, or what lies in the folder, are not fit.
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
    if judge is None or drawn is None:
        return None
    doubts = []
    if drawn.wild > _WILD:
        doubts.append(f"{drawn.wild:.1%} of the samples' values lie outside [-1, 2]: is the step size too large?")
    found = judge.judge(drawn.pixels, output, metrics=metrics, held_out=loss, doubts=doubts, progress=progress)
    about = {
        "checkpoint": run.checkpoint,
        **run.plan(seed, batch_size),
        "num_samples": num_samples,
        "score_evaluations_per_sample": drawn.evaluations,
        **judge.about(),
        "seconds": {
            "sampling": round(sampled - begun, 1),
            "everything": round(time.perf_counter() - begun, 1),
        },
        **environment(strategies.describe(run.strategy)),
    }
    report.write(output, found, about)
    return found
