"""Configuration -> objects: the one place that unpacks a configuration.

A configuration is nested dicts of plain values. Each section names the arguments of one constructor, so a key that
nothing reads is refused here, with the nearest known name.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, random, times
from ncsn_tf.config import sections
from ncsn_tf.data import images, pipeline
from ncsn_tf.evaluation.options import EvaluationOptions
from ncsn_tf.guidance import interpolation
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.samplers.options import SamplerOptions
from ncsn_tf.score import ScoreFunction, denoise
from ncsn_tf.sde import VE
from ncsn_tf.training import optimizers
from ncsn_tf.training.loop import Cadence, DrawSamples, HeldOutLoss
from ncsn_tf.training.trainer import Trainer, check_division


@dataclasses.dataclass(frozen=True)
class TrainingOptions(Cadence):
    """The `training` section: the run's cadence, and what goes with it.

    Attributes:
      batch_size: the global batch, over all replicas.
      jit_compile: compile the training step with XLA.
      accumulation: parts that a replica's share of a batch is taken in, one after the other.
      held_out_examples: how many held-out examples the held-out loss reads, the first ones; 0 for none.
      sample_count: how many samples a grid made during training shows.
      keep_checkpoints: how many checkpoints are kept, the newest.
    """

    batch_size: int
    jit_compile: bool
    accumulation: int
    held_out_examples: int
    sample_count: int
    keep_checkpoints: int

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "accumulation", "sample_count", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1. Received: {getattr(self, name)}.")
        if self.held_out_examples < 0:
            raise ValueError(f"training.held_out_examples must not be negative. Received: {self.held_out_examples}.")


_SECTIONS = ("data", "ema", "evaluation", "network", "noise", "objective", "optim", "sampler", "seed", "training")
_NETWORKS: dict[str, Callable[..., keras.Model]] = {"ncsn": NCSN}
_SAMPLERS = ("annealed_langevin", "langevin")
_PRIORS = ("uniform", "normal")
_DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")


class Builder:
    """Makes a run's objects from its configuration.

    Args:
      config: sections `data`, `noise`, `network`, `objective`, `optim`, `ema`, `training`, `sampler`, `evaluation` and
        the number `seed`; `ncsn_tf/defaults.py` shows every key.

    Attributes:
      sde: the SDE that perturbs the data.
      times: float32 [L], the noise levels as a decreasing grid of t.
      sigmas: float32 [L], the same levels as standard deviations.
      training: the `training` section.
      sampler_options: the `sampler` section.
      evaluation: the `evaluation` section.

    Raises:
      ValueError: for a key that nothing reads, one that is missing, or a value that its reader refuses.
    """

    def __init__(self, config: sections.Config):
        sections.check_names("config", config, _SECTIONS, required=_SECTIONS)
        self._config = config
        self.seed: int = config["seed"]
        random.seed(self.seed)  # refuses what is no seed
        self.training: TrainingOptions = sections.call(TrainingOptions, config, "training")
        self.sampler_options: SamplerOptions = sections.call(SamplerOptions, config, "sampler")
        self.evaluation: EvaluationOptions = sections.call(EvaluationOptions, config, "evaluation")
        self.times, self.sde = sections.call(_levels, config, "noise")
        self.sigmas = self.sde.marginal(self.times)[1].numpy()
        self._data = sections.call(_DataOptions, config, "data")
        sections.call(_optimizer, config, "optim")
        sections.check_section(_ema_decay, config, "ema")
        self._network = sections.choose(_NETWORKS, config, "network")
        self._objective, self._draw_slices = sections.choose(_OBJECTIVES, config, "objective")(self.sde)
        sections.one_of(_DTYPES, config["network"].get("dtype", "float32"), "network.dtype")
        if config["network"].get("rematerialise") and config["objective"]["name"] not in _FIRST_ORDER_OBJECTIVES:
            raise ValueError(
                "network.rematerialise=True goes with objectives that take no derivative of the score: "
                f"{', '.join(_FIRST_ORDER_OBJECTIVES)}. Received: objective.name={config['objective']['name']!r}."
            )
        sections.one_of(_SAMPLERS, self.sampler_options.name, "sampler.name")
        sections.one_of(_PRIORS, self.sampler_options.prior, "sampler.prior")
        self.sampler(lambda x, t: x)  # refuses impossible options now, before anything is written

    def load_images(self, split: str) -> images.ImageSource:
        """The `train` or `held_out` images of the `data` section."""
        options = dataclasses.asdict(self._data)
        del options["random_flip"], options["dequantize"]
        return images.load(split=split, **options)

    def batches(self, source: images.ImageSource, strategy: tf.distribute.Strategy, step: int) -> tf.data.Dataset:
        """Distributed training batches from a step on."""

        def shard(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return pipeline.training_batches(
                source,
                global_batch_size=self.training.batch_size,
                seed=self.seed,
                start_step=step,
                random_flip=self._data.random_flip,
                dequantize=self._data.dequantize,
                num_replicas=context.num_replicas_in_sync,
                pipeline_id=context.input_pipeline_id,
                num_pipelines=context.num_input_pipelines,
            )

        return strategy.distribute_datasets_from_function(shard)

    @property
    def preparation(self) -> dict:
        """How the `data` section has images cropped, resized and converted, for the record."""
        options = dataclasses.asdict(self._data)
        return {name: options[name] for name in ("image_size", "center_crop", "channels")}

    @property
    def data_name(self) -> str:
        """The dataset's name or path."""
        return self._data.name

    def forbid_download(self) -> None:
        """Makes `load_images` read what is prepared and nothing else, for a dry run."""
        self._data = dataclasses.replace(self._data, download=False)

    def held_out_loss(self, trainer: Trainer, shape: tuple[int, int, int]) -> HeldOutLoss | None:
        """Measures the held-out loss, over all replicas; None where it is never or on nothing measured.

        Raises:
          ValueError: if the held-out images have another shape than the training images, `shape`.
        """
        if not self.training.held_out_examples or not self.training.evaluate_every:
            return None
        source = self.load_images("held_out")
        if source.shape != shape:
            raise ValueError(
                f"The held-out images have the shape {source.shape}, the training images {shape}. Give data.image_size "
                "or data.channels to make them equal, or set training.held_out_examples=0."
            )
        limit = min(self.training.held_out_examples, len(source))
        number = -(-limit // self.training.batch_size)

        def shard(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = pipeline.evaluation_batches(
                source,
                batch_size=self.training.batch_size,
                limit=limit,
                num_replicas=context.num_replicas_in_sync,
                pipeline_id=context.input_pipeline_id,
                num_pipelines=context.num_input_pipelines,
            )
            return batches.repeat()  # workers would have to agree on the end of a finite one

        def measure() -> tuple[float, np.ndarray]:
            return trainer.held_out_loss(iter(trainer.strategy.distribute_datasets_from_function(shard)), number)

        return measure

    def check_devices(self, strategy: tf.distribute.Strategy) -> None:
        """Raises ValueError if the batch does not divide by the strategy's replicas."""
        check_division(strategy.num_replicas_in_sync, self.training.batch_size, self.training.accumulation)

    def network(self, shape: tuple[int, int, int]) -> keras.Model:
        """A built network for images [H, W, C]; its start is drawn from the run's seed."""
        keras.utils.set_random_seed(self.seed)
        network = self._network(channels=shape[-1], num_levels=len(self.times))
        network.build((None, *shape), (None,))
        return network

    def trainer(self, strategy: tf.distribute.Strategy, shape: tuple[int, int, int]) -> Trainer:
        """A trainer for images [H, W, C] on a strategy."""
        scaled = self._config["network"].get("dtype") == "mixed_float16"
        with strategy.scope():
            network, average = self.network(shape), self.network(shape)
            optimizer = sections.call(_optimizer, self._config, "optim")(
                optimizers.SkippingAdam if scaled else optimizers.ReducedAdam
            )
            loss_scale = optimizers.LossScale() if scaled else None
        return Trainer(
            strategy=strategy,
            network=network,
            average=average,
            sde=self.sde,
            times=self.times,
            objective=self._objective,
            draw_slices=self._draw_slices,
            optimizer=optimizer,
            ema_decay=sections.call(_ema_decay, self._config, "ema"),
            run_seed=self.seed,
            batch_size=self.training.batch_size,
            accumulation=self.training.accumulation,
            loss_scale=loss_scale,
            jit_compile=self.training.jit_compile,
        )

    @property
    def sampler_times(self) -> np.ndarray:
        """The times of the levels that the sampler visits, float32 [L], decreasing."""
        levels = self.sampler_options.num_levels
        return times.subsample(self.times, levels) if levels is not None else self.times

    def sampler(
        self,
        score_fn: ScoreFunction,
        *,
        condition: driver.Condition | None = None,
        draw: langevin.Noise = random.normal,
        first_level: int = 0,
    ) -> driver.Sampler:
        """The compiled sampler of the `sampler` section, in one segment a noise level.

        Args:
          score_fn: the score function.
          condition: what the walk heeds besides the score, as `driver.Sampler` takes it.
          draw: draws the noise of a step.
          first_level: where to begin, an index of `sampler_times`.
        """
        options = self.sampler_options
        times = self.sampler_times[first_level:]
        if options.name == "annealed_langevin":
            step = langevin.Langevin(langevin.annealed(self.sde, options.epsilon, float(self.times[-1])), draw)
            schedule = driver.dwell(times, options.steps_per_level)
        else:
            step = langevin.Langevin(langevin.constant(options.epsilon), draw)
            schedule = driver.dwell(times[-1:], options.steps_per_level * len(times))
        return driver.Sampler(
            step,
            score_fn,
            schedule,
            segments=len(times),
            finish=(lambda score_fn, x, t: denoise(score_fn, self.sde, x, t)) if options.denoise else None,
            condition=condition,
            jit_compile=options.jit_compile,
        )

    def sample_drawer(self, score_fn: ScoreFunction, shape: tuple[int, int, int]) -> DrawSamples:
        """A function that draws `training.sample_count` samples, the same ones each time.

        It calls what it is given after each noise level, and returns uint8 [N, H, W, C], or None where they are not
        finite, as an early score's may be.
        """
        sampler, count = self.sampler(score_fn), self.training.sample_count

        def draw(between_levels: Callable[[], None]) -> np.ndarray | None:
            made = driver.generate(
                sampler,
                self.prior(),
                shape,
                run_seed=self.seed,
                num_samples=count,
                batch_size=count,
                on_frame=lambda *_: between_levels(),
            )
            x = next(made).x.numpy()
            return pipeline.to_uint8(x) if np.isfinite(x).all() else None

        return draw

    def prior(self, points: int | None = None) -> driver.Prior:
        """What a sampler starts from; with `points`, for a path of so many samples (`conditional.interpolation`)."""
        if self.sampler_options.prior == "uniform":
            return driver.uniform_prior if points is None else interpolation.uniform_prior(points)
        return self.sde.prior_sample if points is None else interpolation.normal_prior(self.sde.prior_sample, points)


@dataclasses.dataclass(frozen=True)
class _DataOptions:
    """The `data` section: arguments of `images.load` and of `pipeline.training_batches`."""

    name: str
    data_dir: str | None
    image_size: int | tuple[int, int] | None
    center_crop: int | None
    channels: int | None
    download: bool
    memory_limit_gib: float
    random_flip: bool
    dequantize: bool


def _levels(sigma_max: float, sigma_min: float, num_levels: int) -> tuple[np.ndarray, VE]:
    return times.uniform(num_levels), VE(sigma_max=sigma_max, sigma_min=sigma_min)


def _optimizer(
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    clip_norm: float | None,
    warmup_steps: int,
    decay: str | None,
    decay_steps: int | None,
    final_fraction: float,
) -> Callable[[type[optimizers.ReducedAdam]], optimizers.ReducedAdam]:
    for name, value in (("learning_rate", learning_rate), ("epsilon", epsilon), ("clip_norm", clip_norm)):
        if value is not None and not 0.0 < value < float("inf"):
            raise ValueError(f"optim.{name} must be positive and finite. Received: {value}.")
    for name, value in (("beta_1", beta_1), ("beta_2", beta_2)):
        if not 0.0 <= value < 1.0:
            raise ValueError(f"optim.{name} must lie in [0, 1). Received: {value}.")
    schedule = {"decay": decay, "decay_steps": decay_steps, "final_fraction": final_fraction}
    rate = optimizers.learning_rate(learning_rate, warmup_steps=warmup_steps, **schedule)
    options = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "global_clipnorm": clip_norm}
    return lambda adam: adam(rate, **options)


def _denoising(sde: VE, *, sigma_power: float = 2.0):
    weighting = objectives.sigma_power(sigma_power)
    return lambda score_fn, x, t, z: objectives.annealed_denoising(score_fn, sde, x, t, z, weighting=weighting), None


def _exact(sde: VE, *, sigma_power: float = 2.0, directions_at_once: int | None = None):
    if directions_at_once is not None and directions_at_once < 1:
        raise ValueError(f"objective.directions_at_once must be at least 1. Received: {directions_at_once}.")
    options = {"weighting": objectives.sigma_power(sigma_power), "directions_at_once": directions_at_once}
    return lambda score_fn, x, t, z: objectives.annealed_exact(score_fn, sde, x, t, z, **options), None


def _sliced(
    sde: VE, *, sigma_power: float = 2.0, slices: str = "normal", num_slices: int = 1, variance_reduced: bool = False
):
    draw = _SLICES[sections.one_of(_SLICES, slices, "objective.slices")]
    if num_slices < 1:
        raise ValueError(f"objective.num_slices must be at least 1. Received: {num_slices}.")
    options = {"weighting": objectives.sigma_power(sigma_power), "variance_reduced": variance_reduced}
    return (
        lambda score_fn, x, t, z, v: objectives.annealed_sliced(score_fn, sde, x, t, z, v, **options),
        lambda seeds, shape: draw(seeds, (num_slices, *shape)),
    )


# Each makes (objective, draw_slices), as `Trainer` takes them.
_OBJECTIVES: dict[str, Callable] = {"denoising": _denoising, "exact": _exact, "sliced": _sliced}
_FIRST_ORDER_OBJECTIVES = ("denoising",)
_SLICES: dict[str, Callable[..., tf.Tensor]] = {
    "normal": random.normal,
    "rademacher": random.rademacher,
    "spherical": lambda seeds, shape: random.spherical(seeds, shape, event_rank=len(shape) - 1),
}


def _ema_decay(decay: float) -> float:
    return decay
