"""Configuration -> objects: the one place that unpacks a configuration."""

import dataclasses
import types
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ncsn_tf import random, score
from ncsn_tf.config import checks, choices, schema, sections, walks
from ncsn_tf.data import images, labels, pipeline
from ncsn_tf.data.value_range import UNIT, ValueRange
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.score import ScoreModel
from ncsn_tf.training import optimizers
from ncsn_tf.training.loop import Cadence
from ncsn_tf.training.trainer import Trainer, check_division

if TYPE_CHECKING:
    import keras


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        warnings.warn(line, stacklevel=3)


class Builder:
    """Makes a run's objects from its configuration.

    Args:
      config: the sections of `config.schema`, as plain values.

    Attributes:
      seed: the run's seed.
      sde: the SDE that perturbs the data.
      value_range: the range of the SDE's data.
      grid: float32 [L], the noise levels as a decreasing grid of times; in continuous time, those that are reported.
      sigmas: float32 [L], the standard deviations of the noise at these times.
      draw: the times that training draws.
      training: the `training` section.
      sampler_options: the `sampler` section.
      evaluation: the `evaluation` section.

    Raises:
      ValueError: for an unknown key, a missing key, an invalid value, or values that cannot work together. Values that
        only look wrong are a warning, those that concern training once a trainer is made.
    """

    def __init__(self, config: sections.Config):
        self._sections = sections.read(config)
        names, values = self._sections.names, self._sections.values
        self.seed: int = self._sections.seed
        random.seed(self.seed)  # raises an error if the number is not a valid seed
        self.training: schema.Training = values["training"]
        self.sampler_options: Any = values["sampler"]
        self.evaluation: schema.Evaluation = values["evaluation"]
        self.sde = choices.SDES[names["sde"]](values["sde"])
        self.value_range = ValueRange(*self.sde.data_range)
        choices.check_composition(names, values, self.sde)
        self._times = choices.TIMES[names["times"]](values["times"], self.sde, self._offset(values["times"]))
        self.grid, self.draw = self._times.grid, self._times.draw
        self.sigmas = self.sde.marginal(tf.constant(self.grid))[1].numpy()
        self._data: schema.Data = values["data"]
        self._labels: dict[str, np.ndarray] = {}
        self._output = choices.OUTPUTS[names["output"]](values["output"])
        objective = choices.OBJECTIVES[names["objective"]]
        self._objective, self._draw_slices = objective(values["objective"], self.sde, self._output)
        rematerialise = getattr(values["network"], "rematerialise", False)
        if rematerialise and names["objective"] not in choices.FIRST_ORDER_OBJECTIVES:
            raise ValueError(
                "network.rematerialise=True works only with objectives that take no derivative of the score: "
                f"{', '.join(choices.FIRST_ORDER_OBJECTIVES)}. Received: objective.name={names['objective']!r}."
            )
        # Impossible values raise an error now, before anything is written.
        checks.levels(self.sigmas, getattr(values["objective"], "sigma_power", 0.0))
        self._own_walk = self._walk()
        _warn(self._own_walk.caveats)
        self.score_model(lambda x, condition: x)
        self._learning_rate()

    def _offset(self, keys: Any) -> float | None:
        """Where the low-discrepancy sequence of the run's times starts, if it has one."""
        if not keys.low_discrepancy:
            return None
        return float(random.uniform(random.stream_seed(self.seed, random.Stream.LEVEL)[None])[0])

    @property
    def sampler_key(self) -> dict[str, Any]:
        """The `sampler` section as plain values."""
        return {"name": self._sections.names["sampler"], **dataclasses.asdict(self.sampler_options)}

    @property
    def perturbation(self) -> dict[str, Any]:
        """The SDE and the times that training draws, as plain values by key: the noise that a network learns."""
        values, names = self._sections.values, self._sections.names
        keys = {
            section: {"name": names[section], **dataclasses.asdict(values[section])} for section in ("sde", "times")
        }
        for name in ("num_bins", "low_discrepancy"):  # of curves, and of batches
            keys["times"].pop(name, None)
        return {f"{section}.{name}": value for section, found in keys.items() for name, value in found.items()}

    @property
    def continuous(self) -> bool:
        """Whether training draws times between noise levels."""
        return self._times.continuous

    @property
    def dequantizes(self) -> bool:
        """Whether training adds uniform noise to the bytes of images."""
        return self._data.dequantize

    @property
    def flips(self) -> bool:
        """Whether training mirrors half of the images."""
        return self._data.random_flip

    @property
    def reported_grid(self) -> np.ndarray:
        """The times at which the held-out loss is measured, float32 [K]: all levels, or 20 of more."""
        return self._times.reported

    # Data

    def load_images(self, split: str) -> images.ImageSource:
        """The `train` or `held_out` images of the `data` section."""
        options = dataclasses.asdict(self._data)
        del options["random_flip"], options["dequantize"]
        return images.load(split=split, **options)

    def load_labels(self, split: str) -> np.ndarray | None:
        """The classes of the `train` or `held_out` images, int32 [N], for a network with classes; None for another.

        Raises:
          ValueError: if the data have no labels, or another number of classes than the network.
        """
        count = self.num_classes
        if count is None or split in self._labels:
            return self._labels.get(split)
        found = self.data_labels(split)
        if found.num_classes != count:
            raise ValueError(
                f"{self._data.name} has {found.num_classes} classes: give network.num_classes={found.num_classes}. "
                f"Received: {count}."
            )
        self._labels[split] = found.values
        return found.values

    def data_labels(self, split: str) -> labels.Labels:
        """The classes of the `train` or `held_out` images, whether or not the network has classes.

        Raises:
          ValueError: if the data have no labels.
        """
        return labels.load(self._data.name, split, data_dir=self._data.data_dir, download=self._data.download)

    def labelled_batches(self, source: images.ImageSource, classes: np.ndarray, batch_size: int, seed: int):
        """Training batches of images with classes, int32 [N], for a classifier; prepared as those of `batches`."""
        return pipeline.training_batches(
            source,
            global_batch_size=batch_size,
            seed=seed,
            random_flip=self._data.random_flip,
            dequantize=self._data.dequantize,
            labels=classes,
            value_range=self.value_range,
        )

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the network; None for one without."""
        return getattr(self._sections.values["network"], "num_classes", None)

    @property
    def label_dropout(self) -> float:
        """The rate at which training leaves out the class of an example."""
        return getattr(self._sections.values["network"], "label_dropout", 0.0)

    def batches(self, source: images.ImageSource, strategy: tf.distribute.Strategy, step: int):
        """Distributed training batches from a step on, in the SDE's data range, with the labels of `load_labels`."""
        return pipeline.distributed_training_batches(
            source,
            strategy,
            global_batch_size=self.training.batch_size,
            seed=self.seed,
            start_step=step,
            random_flip=self._data.random_flip,
            dequantize=self._data.dequantize,
            labels=self.load_labels("train"),
            value_range=self.value_range,
        )

    def held_out_batches(
        self, source: images.ImageSource, strategy: tf.distribute.Strategy, limit: int, batch_size: int | None = None
    ):
        """(batches, number): distributed batches of the first `limit` held-out images, and their number."""
        return pipeline.distributed_evaluation_batches(
            source,
            strategy,
            batch_size=self.training.batch_size if batch_size is None else batch_size,
            limit=limit,
            labels=self.load_labels("held_out"),
            value_range=self.value_range,
        )

    @property
    def preparation(self) -> dict[str, Any]:
        """The cropping, resizing and conversion of images in the `data` section, for the record."""
        options = dataclasses.asdict(self._data)
        return {name: options[name] for name in ("image_size", "center_crop", "channels")}

    @property
    def data_name(self) -> str:
        """The dataset's name or path."""
        return self._data.name

    def forbid_download(self) -> None:
        """Makes `load_images` read only data that are prepared already, for a dry run."""
        self._data = dataclasses.replace(self._data, download=False)

    # Training

    @property
    def cadence(self) -> Cadence:
        """The length of the run and its intervals."""
        return Cadence(**{field.name: getattr(self.training, field.name) for field in dataclasses.fields(Cadence)})

    def check_devices(self, strategy: tf.distribute.Strategy) -> None:
        """Raises ValueError if the batch is not a multiple of the strategy's replicas."""
        check_division(strategy.num_replicas_in_sync, self.training.batch_size, self.training.accumulation)

    def network(self, shape: tuple[int, int, int]) -> "keras.Model":
        """A built network for images [H, W, C]; its initial weights are drawn from the run's seed."""
        make = choices.NETWORKS[self._sections.names["network"]]
        network = make(
            self._sections.values["network"],
            channels=shape[-1],
            seed=self.seed,
            centre_input=self.value_range == UNIT,
            levels=(float(self.sigmas[0]), float(self.sigmas[-1]), len(self.grid)),
        )
        network.build((None, *shape), (None,))
        return network

    def score_model(self, network: Callable) -> ScoreModel:
        """The network, or a function in its place, as a score function."""
        names, values = self._sections.names, self._sections.values
        return ScoreModel(
            network,
            self.sde,
            self._output,
            choices.CONDITIONS[names["condition"]](values["condition"], self.grid),
        )

    def _learning_rate(self):
        keys: schema.Optimizer = self._sections.values["optim"]
        return optimizers.learning_rate(
            keys.learning_rate,
            warmup_steps=keys.warmup_steps,
            decay=keys.decay,
            decay_steps=keys.decay_steps,
            final_fraction=keys.final_fraction,
        )

    def trainer(self, strategy: tf.distribute.Strategy, shape: tuple[int, int, int]) -> Trainer:
        """A trainer for images [H, W, C] on a strategy."""
        _warn(checks.schedule_caveats(self._sections.values["optim"], self.training.steps))
        _warn(checks.data_caveats(self._data))
        _warn(checks.class_caveats(self._sections.values["network"]))
        scaled = self._sections.values["network"].dtype == "mixed_float16"
        keys: schema.Optimizer = self._sections.values["optim"]
        with strategy.scope():
            network, average = self.network(shape), self.network(shape)
            adam = optimizers.SkippingAdam if scaled else optimizers.ReducedAdam
            optimizer = adam(
                self._learning_rate(),
                beta_1=keys.beta_1,
                beta_2=keys.beta_2,
                epsilon=keys.epsilon,
                global_clipnorm=keys.clip_norm,
            )
            loss_scale = optimizers.LossScale() if scaled else None
        return Trainer(
            strategy=strategy,
            model=self.score_model(network),
            average_model=self.score_model(average),
            draw=self.draw,
            objective=self._objective,
            draw_slices=self._draw_slices,
            label_dropout=self.label_dropout,
            no_class=self.num_classes or 0,
            optimizer=optimizer,
            ema_decay=self._sections.values["ema"].decay,
            run_seed=self.seed,
            batch_size=self.training.batch_size,
            accumulation=self.training.accumulation,
            loss_scale=loss_scale,
            jit_compile=self.training.jit_compile,
        )

    # Sampling

    def _walk(self, noise: langevin.Noise = random.normal, **changes: Any) -> walks.Walk | walks.AdaptiveWalk:
        """The step and the schedule of the `sampler` section, some of whose values are replaced."""
        keys = types.SimpleNamespace(**{**dataclasses.asdict(self.sampler_options), **changes})
        return walks.SAMPLERS[self._sections.names["sampler"]](keys, self.sde, self._times, noise)

    @property
    def sampler_grid(self) -> np.ndarray:
        """The times at which the segments of the sampler's walk start, float32 [K]: its noise levels if it has any."""
        return self._own_walk.starts

    @property
    def tunable(self) -> dict[str, float | int]:
        """The values of the `sampler` section that may be tensors of a graph, as `sampler` takes them."""
        options = dataclasses.asdict(self.sampler_options)
        return {name: options[name] for name in ("steps_per_level", "epsilon") if name in options}

    def sampler(
        self,
        strategy: tf.distribute.Strategy | None = None,
        *,
        noise: langevin.Noise = random.normal,
        **changes: Any,
    ) -> driver.Sampler:
        """The sampler of the `sampler` section, one segment per noise level if it has levels.

        Args:
          strategy: the strategy to run on, as `driver.FixedSteps` takes it.
          noise: draws the noise of a step.
          **changes: values that replace those of the section: `jit_compile`, and those of `tunable`, which may be
            tensors in a graph, which the graph must check.

        Raises:
          UnstableStepError: a ValueError, if the dynamics diverges with this step size.
        """
        walk, options = self._walk(noise, **changes), self.sampler_options
        return walk.sampler(
            self.sde,
            finish=score.denoise if options.denoise else None,
            jit_compile=changes.get("jit_compile", options.jit_compile),
            strategy=strategy,
        )

    @property
    def prior(self) -> driver.Prior:
        """The prior, which draws the start of samples."""
        return self._own_walk.prior
