"""Configuration -> objects: the one place that unpacks a configuration."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, random, score, sde, times
from ncsn_tf.config import checks, schema, sections
from ncsn_tf.data import images, pipeline
from ncsn_tf.data.value_range import ValueRange
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.score import ScoreModel
from ncsn_tf.training import optimizers
from ncsn_tf.training.loop import Cadence
from ncsn_tf.training.trainer import Trainer, check_division

if TYPE_CHECKING:
    import keras

# The choices of each section, by name. Each function takes the section's dataclass and further arguments if needed.

_SDES: dict[str, Callable[[Any], sde.SDE]] = {
    "ve": lambda keys: sde.VE(sigma_max=keys.sigma_max, sigma_min=keys.sigma_min),
}
_NETWORKS: "dict[str, Callable[..., keras.Model]]" = {"ncsn": NCSN}
_OUTPUTS: dict[str, Callable[[Any], score.Output]] = {
    "score": lambda keys: score.score,
    "score_over_sigma": lambda keys: score.score_over_sigma,
    "noise": lambda keys: score.noise,
    "clean_image": lambda keys: score.clean_image,
    "velocity": lambda keys: score.velocity,
    "edm": lambda keys: score.edm(keys.sigma_data),
}
_CONDITIONS: dict[str, Callable[[Any, np.ndarray], score.Condition]] = {
    "nearest_level": lambda keys, grid: score.nearest_level(grid),
    "log_sigma": lambda keys, grid: score.log_sigma(keys.scale),
    "scaled_time": lambda keys, grid: score.scaled_time,
    "none": lambda keys, grid: score.unconditional,
}
_SLICES: dict[str, Callable[..., tf.Tensor]] = {
    "normal": random.normal,
    "rademacher": random.rademacher,
    "spherical": lambda seeds, shape: random.spherical(seeds, shape, event_rank=len(shape) - 1),
}
_FIRST_ORDER_OBJECTIVES = ("denoising",)


def _denoising(keys: schema.Denoising, process: sde.SDE):
    weighting = objectives.sigma_power(keys.sigma_power)
    return (
        lambda score_fn, x, t, z: objectives.annealed_denoising(score_fn, process, x, t, z, weighting=weighting)
    ), None


def _exact(keys: schema.Exact, process: sde.SDE):
    options = {
        "weighting": objectives.sigma_power(keys.sigma_power),
        "directions_at_once": keys.directions_at_once,
    }
    return (lambda score_fn, x, t, z: objectives.annealed_exact(score_fn, process, x, t, z, **options)), None


def _sliced(keys: schema.Sliced, process: sde.SDE):
    draw = _SLICES[keys.slices]
    options = {
        "weighting": objectives.sigma_power(keys.sigma_power),
        "variance_reduced": keys.variance_reduced,
    }
    return (
        lambda score_fn, x, t, z, v: objectives.annealed_sliced(score_fn, process, x, t, z, v, **options),
        lambda seeds, shape: draw(seeds, (keys.num_slices, *shape)),
    )


# Each returns (objective, draw_slices), as `Trainer` takes them.
_OBJECTIVES: dict[str, Callable] = {"denoising": _denoising, "exact": _exact, "sliced": _sliced}


def _annealed_langevin(process: sde.SDE, grid: np.ndarray, epsilon, noise: langevin.Noise):
    return langevin.Langevin(langevin.annealed(process, epsilon, float(grid[-1])), noise), grid


def _langevin(process: sde.SDE, grid: np.ndarray, epsilon, noise: langevin.Noise):
    return langevin.Langevin(langevin.constant(epsilon), noise), np.repeat(grid[-1:], len(grid))


# Each returns a step, and the times at which it takes `steps_per_level` steps.
_SAMPLERS: dict[str, Callable] = {"annealed_langevin": _annealed_langevin, "langevin": _langevin}


def _check_composition(names: Mapping[str, str], process: sde.SDE) -> None:
    """Raises ValueError for choices that exclude each other."""
    if names["network"] == "ncsn" and names["condition"] != "nearest_level":
        raise ValueError(
            "The network ncsn is conditioned on the index of a noise level: give condition.name=nearest_level. "
            f"Received: condition.name={names['condition']}."
        )
    alpha, sigma = (float(part[0]) for part in process.marginal(tf.constant([1.0])))
    if names["output"] == "velocity" and abs(alpha**2 + sigma**2 - 1.0) > 1e-2:
        raise ValueError(
            "output.name=velocity needs an SDE with alpha^2 + sigma^2 = 1, a variance-preserving one. "
            f"Received: sde.name={names['sde']}, with alpha={alpha:.4g}, sigma={sigma:.4g} at t=1."
        )


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
      grid: float32 [L], the noise levels as a decreasing grid of times.
      sigmas: float32 [L], the same levels as standard deviations.
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
        self.sampler_options: schema.Langevin = values["sampler"]
        self.evaluation: schema.Evaluation = values["evaluation"]
        self.sde = _SDES[names["sde"]](values["sde"])
        self.value_range = ValueRange(*self.sde.data_range)
        _check_composition(names, self.sde)
        self.grid = times.uniform(values["times"].num_levels)
        self.sigmas = self.sde.marginal(tf.constant(self.grid))[1].numpy()
        self.draw: times.TimeDraw = times.Levels(
            self.grid, tuple(f"level_{index:03d}_sigma_{sigma:.4g}" for index, sigma in enumerate(self.sigmas))
        )
        self._data: schema.Data = values["data"]
        self._objective, self._draw_slices = _OBJECTIVES[names["objective"]](values["objective"], self.sde)
        if values["network"].rematerialise and names["objective"] not in _FIRST_ORDER_OBJECTIVES:
            raise ValueError(
                "network.rematerialise=True works only with objectives that take no derivative of the score: "
                f"{', '.join(_FIRST_ORDER_OBJECTIVES)}. Received: objective.name={names['objective']!r}."
            )
        # Impossible values raise an error now, before anything is written.
        checks.levels(self.sigmas, getattr(values["objective"], "sigma_power", 0.0))
        self.sampler()
        options, smallest = self.sampler_options, self._smallest_sigma
        _warn(langevin.check_stability(options.epsilon, smallest, options.steps_per_level * len(self.sampler_grid)))
        self.score_model(lambda x, condition: x)
        self._learning_rate()

    @property
    def sampler_key(self) -> dict[str, Any]:
        """The `sampler` section as plain values."""
        return {"name": self._sections.names["sampler"], **dataclasses.asdict(self.sampler_options)}

    # Data

    def load_images(self, split: str) -> images.ImageSource:
        """The `train` or `held_out` images of the `data` section."""
        options = dataclasses.asdict(self._data)
        del options["random_flip"], options["dequantize"]
        return images.load(split=split, **options)

    def batches(self, source: images.ImageSource, strategy: tf.distribute.Strategy, step: int):
        """Distributed training batches from a step on, in the SDE's data range."""
        return pipeline.distributed_training_batches(
            source,
            strategy,
            global_batch_size=self.training.batch_size,
            seed=self.seed,
            start_step=step,
            random_flip=self._data.random_flip,
            dequantize=self._data.dequantize,
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
        keys = dataclasses.asdict(self._sections.values["network"])
        make = _NETWORKS[self._sections.names["network"]]
        network = make(channels=shape[-1], num_levels=len(self.grid), seed=self.seed, **keys)
        network.build((None, *shape), (None,))
        return network

    def score_model(self, network: Callable) -> ScoreModel:
        """The network, or a function in its place, as a score function."""
        names, values = self._sections.names, self._sections.values
        return ScoreModel(
            network,
            self.sde,
            _OUTPUTS[names["output"]](values["output"]),
            _CONDITIONS[names["condition"]](values["condition"], self.grid),
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
            optimizer=optimizer,
            ema_decay=self._sections.values["ema"].decay,
            run_seed=self.seed,
            batch_size=self.training.batch_size,
            accumulation=self.training.accumulation,
            loss_scale=loss_scale,
            jit_compile=self.training.jit_compile,
        )

    # Sampling

    @property
    def sampler_grid(self) -> np.ndarray:
        """The times of the levels that the sampler visits, float32 [K], decreasing."""
        levels = self.sampler_options.num_levels
        if levels is not None and levels > len(self.grid):
            raise ValueError(
                f"sampler.num_levels must be at most times.num_levels={len(self.grid)}. Received: {levels}."
            )
        return times.subsample(self.grid, levels) if levels is not None else self.grid

    @property
    def _smallest_sigma(self) -> float:
        """The noise of the last level that the sampler visits, on which its step size depends."""
        return float(self.sde.marginal(tf.constant(self.sampler_grid[-1:]))[1][0])

    def sampler(
        self,
        strategy: tf.distribute.Strategy | None = None,
        *,
        noise: langevin.Noise = random.normal,
        epsilon: float | tf.Tensor | None = None,
        steps_per_level: int | tf.Tensor | None = None,
        jit_compile: bool | None = None,
    ) -> driver.FixedSteps:
        """The sampler of the `sampler` section, one segment per noise level.

        Args:
          strategy: the strategy to run on, as `driver.FixedSteps` takes it.
          noise: draws the noise of a step.
          epsilon: replaces the section's value; a tensor in a graph, which the graph must check.
          steps_per_level: likewise.
          jit_compile: likewise.

        Raises:
          UnstableStepError: a ValueError, if the dynamics diverges with this step size.
        """
        options = self.sampler_options
        chosen = options.epsilon if epsilon is None else epsilon
        if not tf.is_tensor(chosen):
            langevin.check_stability(float(chosen), self._smallest_sigma)
        step, grid = _SAMPLERS[self._sections.names["sampler"]](self.sde, self.sampler_grid, chosen, noise)
        return driver.FixedSteps(
            self.sde,
            step,
            times.repeat_times(grid, options.steps_per_level if steps_per_level is None else steps_per_level),
            segments=len(grid),
            finish=score.denoise if options.denoise else None,
            jit_compile=options.jit_compile if jit_compile is None else jit_compile,
            strategy=strategy,
        )

    @property
    def prior(self) -> driver.Prior:
        """The prior, which draws the start of samples."""
        return driver.uniform_prior if self.sampler_options.prior == "uniform" else self.sde.prior_sample
