"""A trained run, opened for use: its configuration, its averaged weights, its sampler, its samples."""

import contextlib
import functools
import os
import pathlib
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import calibration, files
from ncsn_tf.cluster import strategies
from ncsn_tf.config import build, sections
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.densities.empirical import Empirical
from ncsn_tf.evaluation import held_out
from ncsn_tf.guidance import classes, classifiers
from ncsn_tf.samplers import blocks, store
from ncsn_tf.score import ScoreFunction
from ncsn_tf.serving import export
from ncsn_tf.training import checkpoints
from ncsn_tf.training.run_directory import RunDirectory

OPTIONAL_KEYS = ("score", *classes.KEYS)
"""The keys of a sampling key that samples along the network's own score and without classes do not have."""


class TrainedRun:
    """A run's network on the devices of a strategy, with weights once `load` is called.

    Args:
      directory: the run's directory.
      strategy: where it computes; by default TensorFlow's default strategy.
      sampler: values that replace those of the configuration's `sampler` section.

    Attributes:
      directory: as given.
      strategy: as given.
      builder: the builder of the run's configuration, with the sampler's values replaced.
      shape: (H, W, C) of the run's images.
      network: the network.
      score_fn: its score function.
      sampler: the sampler, compiled at its first use.
      classes: the classes of its samples; none but for a run made by `of_classes`.
      checkpoint: the path of the loaded checkpoint, "" before `load`.

    Raises:
      ValueError: if there is no run, or if a value is invalid.
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
        self.score_fn = self.builder.score_model(self.network).score
        self.sampler = self.builder.sampler(self.strategy)
        self.classes = classes.NO_CLASSES
        self.checkpoint = ""
        self._score: dict[str, Any] = {}

    def _built(self, sampler: Mapping[str, Any] | None) -> build.Builder:
        config = self.directory.config()
        changed = sections.with_sampler(config["sampler"], sampler or {})
        config["sampler"] = calibration.resolved(self.directory.path, changed)
        return build.Builder(config)

    def with_sampler(self, sampler: Mapping[str, Any]) -> "TrainedRun":
        """The same run and weights with another sampler: the run's own, with these values of its section replaced."""
        builder = self._built(sampler)
        return self._with(builder=builder, sampler=builder.sampler(self.strategy))

    def of_classes(
        self, labels: Sequence[int], scale: float = 1.0, classifier: str | os.PathLike | None = None
    ) -> "TrainedRun":
        """The same run and weights, whose samples are of classes.

        Args:
          labels: the classes, which samples take in turn.
          scale: the scale of the guidance: 1 for the class as it is, more to go beyond it; see `guidance.classes`.
          classifier: the folder of a classifier of noisy images, trained for this run's SDE, times and images; None for
            a network with classes.

        Raises:
          ValueError: for labels that there are not, an impossible scale, or a classifier that does not fit.
        """
        if classifier is not None:
            with self.strategy.scope():
                found = classifiers.load(classifier, self.builder.perturbation, self.shape, self.builder.sde)
            return self._with(classes=classes.of_classifier(labels, scale, found))
        network = {"num_classes": self.builder.num_classes, "label_dropout": self.builder.label_dropout}
        return self._with(classes=classes.of_network(labels, scale, **network))

    def _with(self, **attributes: Any) -> "TrainedRun":
        other = object.__new__(TrainedRun)
        other.__dict__ = {**self.__dict__, **attributes}
        return other

    def with_score(self, score_fn: ScoreFunction, about: Mapping[str, Any]) -> "TrainedRun":
        """The same run with another score function; `about`, plain values that tell which, is in its sampling key."""
        return self._with(score_fn=score_fn, _score=dict(about))

    @property
    def step(self) -> int:
        """The training step of the loaded checkpoint."""
        return checkpoints.step_of(self.checkpoint)

    @property
    def is_chief(self) -> bool:
        """True if this process is the chief, which writes."""
        return strategies.is_chief(self.strategy)

    @property
    def workers(self) -> int:
        """The number of processes of the strategy."""
        return strategies.place(self.strategy)[1]

    def load(self, step: int | None = None) -> str:
        """Loads the averaged weights of a checkpoint, by default the newest intact one, and returns its path.

        In a cluster all workers must call it, and see the same directory; the chief decides which checkpoint.

        Raises:
          CheckpointError: if there is none, or it is damaged or does not fit.
        """
        if self.workers > 1 and step is None:
            mine = checkpoints.step_of(checkpoints.find(self.directory.checkpoints))
            step = self._from_chief(mine)
        self.checkpoint = checkpoints.load_newest_average(self.directory.checkpoints, self.network, step)
        for caveat in calibration.caveats(self.directory.path, self.builder.sampler_key, self.step):
            warnings.warn(caveat, stacklevel=2)
        return self.checkpoint

    def _from_chief(self, number: int) -> int:
        return int(strategies.from_chief(self.strategy, [np.array([number], np.int32)])[0][0])

    def new_checkpoints(self, patience: float, interval: float = 2.0) -> Iterator[int]:
        """Yields the step of the newest checkpoint, then of each newer one, until the run's last step.

        Checkpoints that are written and deleted while the caller is busy are skipped. In a cluster all workers must
        iterate.

        Args:
          patience: seconds to wait for the next checkpoint.
          interval: seconds between two checks.

        Raises:
          CheckpointError: if the run is not complete and no new checkpoint appears in time.
        """
        last, final = -1, self.builder.training.steps
        while last < final:
            newest = last
            if self.is_chief:
                deadline = time.monotonic() + patience
                while (newest := self._newest_step()) <= last and time.monotonic() < deadline:
                    time.sleep(interval)
            newest = self._from_chief(newest)
            if newest <= last:
                stands = f"is at step {last} of {final}" if last >= 0 else "has no checkpoint"
                raise checkpoints.CheckpointError(
                    f"The run {stands}, and no new checkpoint appeared for {patience:g} s. Is it being trained?"
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
        """The images that the run was trained on; raises ValueError if the dataset now has other images."""
        source = self.builder.load_images("train")
        self.directory.check_images(source.describe())
        return source

    def training_density(self) -> Empirical:
        """The images that the run was trained on, in its SDE's data range, each as probable as the others.

        An image is the middles of its bytes, without the noise of dequantization; if training mirrors images, their
        mirrored images are points too. Raises ValueError as `training_images`.
        """
        images = self.training_images().images
        if self.builder.flips:
            images = np.concatenate([images, images[:, :, ::-1]])
        return Empirical(self.builder.value_range.encode(pipeline.to_float(images)))

    def checksum(self) -> int:
        """A CRC-32 of the loaded weights: two trainings may leave checkpoints of the same name in one directory."""
        value = 0
        for variable in self.network.weights:
            value = zlib.crc32(np.ascontiguousarray(variable.numpy()).data, value)
        return value

    def sampling_key(self, seed: int, batch_size: int) -> dict[str, Any]:
        """The plain values that determine the bits of the run's samples; those of `OPTIONAL_KEYS` may be absent."""
        return {
            "step": self.step,
            "weights": self.checksum(),
            "seed": seed,
            "batch_size": batch_size,
            "sampler": self.builder.sampler_key,
            **({"score": self._score} if self._score else {}),
            **self.classes.key,
        }

    # Drawing

    def block_sampler(
        self, start: blocks.Start, block: int, *, sampler: Any = None, **options: Any
    ) -> blocks.BlockSampler:
        """A `BlockSampler` that draws on every replica, by default with the run's sampler.

        Args:
          start: the start of the rows; see `blocks.BlockSampler`.
          block: the number of rows that a replica draws at a time.
          sampler: another sampler, made for the run's strategy.
          **options: `guidance` and `end` of `blocks.BlockSampler`.
        """
        return blocks.BlockSampler(
            sampler or self.sampler,
            self.score_fn,
            start,
            block=block,
            strategy=self.strategy,
            workers=self.workers,
            **options,
        )

    def start_samples(self, seed: int) -> blocks.Start:
        """The start of samples from the run's prior; sample i depends on (seed, i) and its class alone."""
        return lambda numbers: self.classes.start(numbers, self.builder.prior, self.shape, run_seed=seed)

    def sample_drawer(self, seed: int, block: int) -> blocks.BlockSampler:
        """A `BlockSampler` of samples, of the run's classes if it has some; `block` as for `block_sampler`."""
        return self.block_sampler(self.start_samples(seed), block, guidance=self.classes.guidance)

    @contextlib.contextmanager
    def stored(
        self, output: str | os.PathLike, key: Mapping[str, Any], *, floats: bool
    ) -> Iterator[store.SampleStore | None]:
        """Yields the rows of a folder, which is locked for this process; None on workers other than the chief.

        Args:
          output: the folder.
          key: the sampling key.
          floats: whether the rows are also kept as float32.

        Raises:
          SamplingKeyError: if the folder holds other rows, or another process draws into it.
        """
        if not self.is_chief:
            yield None
            return
        output = files.local_path(output)
        output.mkdir(parents=True, exist_ok=True)
        with files.locked(output / "lock", lambda holder: _occupied(output, holder)):
            yield store.SampleStore(output, key, self.shape, floats=floats, labels=self.classes.labels)

    def fill(
        self,
        rows: store.SampleStore | None,
        drawn_by: blocks.BlockSampler,
        count: int,
        *,
        first: int = 0,
        arguments: tuple = (),
        on_round: Callable[[int], object] = lambda rows: None,
        **options: Any,
    ) -> None:
        """Draws those of the rows `first` to `first + count - 1` that a store lacks; all workers must call it.

        Args:
          rows: the store; None on a worker that only computes.
          drawn_by: draws the rows; its row 0 is row `first` of the store.
          count: the number of rows.
          first: the number of the first row in the store.
          arguments: passed to the start.
          on_round: called with the number of rows that exist already, and then with the number of new ones.
          **options: `on_frame`, and the options of the sampler.

        Raises:
          DivergedError: if a row is not finite.
        """
        done = self._from_chief(rows.done if rows is not None else 0)
        done = min(max(done - first, 0), count)
        on_round(done)
        decode = self.builder.value_range.decode

        def quantise(x: np.ndarray) -> tuple[np.ndarray, int]:
            return pipeline.to_uint8(x), pipeline.count_out_of_range(x)

        def draw(first_block: int) -> dict[str, np.ndarray]:
            drawn = drawn_by.draw(first_block, *arguments, **options)
            return {**drawn, "x": decode(drawn["x"])}

        layout = {"block": drawn_by.block, "replicas": drawn_by.replicas}
        store.fill(draw, rows, done, count, **layout, quantise=quantise, on_round=on_round)

    def samples(
        self,
        output: str | os.PathLike,
        num_samples: int,
        *,
        seed: int,
        batch_size: int,
        floats: bool = False,
        on_round: Callable[[int], object] = lambda rows: None,
        on_frame: blocks.OnFrame | None = None,
    ) -> store.Drawn | None:
        """Draws samples on every replica; those that a folder contains already are not drawn again.

        Args:
          output: the folder, for `samples.npz` and what precedes it.
          num_samples: the number of samples.
          seed: sample i depends on (seed, i) alone.
          batch_size: the number of samples that a replica draws at a time.
          floats: whether `samples.npz` also holds the floats.
          on_round: called with the number of samples that exist already, and then with the number of new ones.
          on_frame: called with each frame of new samples, in the SDE's data range.

        Returns:
          The samples; None on the workers of a cluster other than the chief, which writes.

        Raises:
          SamplingKeyError: if the folder holds other samples, or another process draws into it.
          DivergedError: if samples are not finite.
        """
        with self.stored(output, self.sampling_key(seed, batch_size), floats=floats) as rows:
            self.fill(rows, self.sample_drawer(seed, batch_size), num_samples, on_round=on_round, on_frame=on_frame)
            return None if rows is None else rows.finish(num_samples)

    def served_model(self, dtype: str = "float32") -> export.ServedModel:
        """The loaded weights and the sampler as functions of tensors, for export; `dtype` is that of the weights."""
        builder = self.builder
        return export.ServedModel(
            self.network,
            builder.score_model,
            sampler=functools.partial(builder.sampler, jit_compile=False),
            tunable=builder.tunable,
            prior=builder.prior,
            sde=builder.sde,
            grid=builder.grid,
            value_range=builder.value_range,
            shape=self.shape,
            dtype=dtype,
        )

    def held_out_loss(self, source: ImageSource, limit: int, seed: int = 0) -> held_out.HeldOutLoss:
        """The denoising loss on the first `limit` held-out images, at the times of `reported_grid`, on all replicas."""
        replicas, limit = self.strategy.num_replicas_in_sync, min(limit, len(source))
        batch_size = replicas * max(1, min(self.builder.training.batch_size, limit) // replicas)
        batches, number = self.builder.held_out_batches(source, self.strategy, limit, batch_size)
        return held_out.denoising_loss(
            self.score_fn,
            self.builder.sde,
            self.builder.reported_grid,
            iter(batches),
            number,
            run_seed=seed,
            strategy=self.strategy,
        )


def _occupied(output: pathlib.Path, holder: str) -> store.SamplingKeyError:
    return store.SamplingKeyError(f"Another process draws into {output} ({holder}). Wait, or give another --output.")
