"""The sections of a configuration: one frozen dataclass per section, or per choice that a section offers.

The defaults are NCSN's as Song & Ermon 2019 train it on CIFAR-10 and CelebA (section 5 and appendix A): 10 levels from
1 to 0.01, Adam at 0.001, batches of 128, 200,000 steps, 128 filters, T = 100, epsilon = 2e-5, a uniform start. The
moving average of the weights is an addition; samples come from it.

A section that offers a choice has the key `name` and the keys of the chosen item, and no others.
"""

import dataclasses
import math

from ncsn_tf.config import checks, networks, objectives, samplers

_MOST_LEVELS = 100_000


@dataclasses.dataclass(frozen=True)
class Data:
    """The images: arguments of `data.images.load` and of `data.pipeline.training_batches`.

    Attributes:
      name: "digits", a TFDS dataset, or a path to images, TFRecords or arrays.
      data_dir: where TFDS datasets are prepared; None for TFDS's own default.
      download: whether TFDS may download and prepare.
      image_size: a side in pixels, or (height, width); None keeps the dataset's.
      center_crop: the side of the central square that is cropped before resizing; None for no crop.
      channels: 1 or 3 converts to grey or RGB; None keeps the dataset's.
      memory_limit_gib: a dataset that needs more memory is refused.
      random_flip: mirror each presentation left to right with probability 1/2.
      dequantize: add uniform noise within the width of a byte.
    """

    name: str = "cifar10"
    data_dir: str | None = None
    download: bool = False
    image_size: int | tuple[int, int] | None = None
    center_crop: int | None = None
    channels: int | None = None
    memory_limit_gib: float = 8.0
    random_flip: bool = False
    dequantize: bool = True

    def __post_init__(self):
        checks.sides("data", image_size=self.image_size)
        if self.center_crop is not None:
            checks.at_least("data", 1, center_crop=self.center_crop)
        if self.channels not in (None, 1, 3):
            raise ValueError(f"config.data.channels must be 1 (grey), 3 (colour) or None. Received: {self.channels!r}.")
        checks.positive("data", memory_limit_gib=self.memory_limit_gib)


@dataclasses.dataclass(frozen=True)
class VE:
    """The variance-exploding SDE, `sde.VE`."""

    sigma_max: float = 1.0
    sigma_min: float = 0.01


@dataclasses.dataclass(frozen=True)
class VP:
    """The variance-preserving SDE, `sde.VP`, or the sub-VP SDE, `sde.SubVP`."""

    beta_min: float = 0.1
    beta_max: float = 20.0


@dataclasses.dataclass(frozen=True)
class Levels:
    """Training draws one of `num_levels` equally spaced times: on the VE SDE, geometric noise levels.

    Attributes:
      num_levels: the number of levels.
      low_discrepancy: spread the levels of each batch evenly, rather than draw them independently.
    """

    num_levels: int = 10
    low_discrepancy: bool = False

    def __post_init__(self):
        checks.at_least("times", 2, _MOST_LEVELS, num_levels=self.num_levels)


@dataclasses.dataclass(frozen=True)
class DDPMLevels(Levels):
    """Training draws one of the levels of DDPM with `num_levels` steps, as times of the VP SDE, `times.ddpm`."""

    num_levels: int = 1_000


@dataclasses.dataclass(frozen=True)
class UniformTimes:
    """Training draws times uniformly in [sde.first_time, 1), or uniformly in log(alpha / sigma) ("log_snr").

    Attributes:
      num_bins: equal bins of time, each of which has a loss curve; the held-out loss is measured at as many times.
      low_discrepancy: spread the times of each batch evenly, rather than draw them independently.
    """

    num_bins: int = 10
    low_discrepancy: bool = False

    def __post_init__(self):
        checks.at_least("times", 2, 1_000, num_bins=self.num_bins)


@dataclasses.dataclass(frozen=True)
class LogNormalTimes:
    """Training draws log-normal noise ratios sigma / alpha, as Karras et al. 2022 do.

    Attributes:
      mean: the mean of log(sigma / alpha).
      deviation: its standard deviation.
      num_bins: equal bins of time, each of which has a loss curve; the held-out loss is measured at as many times.
      low_discrepancy: spread the times of each batch evenly, rather than draw them independently.
    """

    mean: float = -1.2
    deviation: float = 1.2
    num_bins: int = 10
    low_discrepancy: bool = False

    def __post_init__(self):
        checks.positive("times", deviation=self.deviation)
        checks.at_least("times", 2, 1_000, num_bins=self.num_bins)


@dataclasses.dataclass(frozen=True)
class NoKeys:
    """A choice that has no keys."""


@dataclasses.dataclass(frozen=True)
class EDM:
    """The preconditioning of Karras et al. 2022; `sigma_data` is the standard deviation of the data."""

    sigma_data: float = 0.5

    def __post_init__(self):
        checks.positive("output", sigma_data=self.sigma_data)


@dataclasses.dataclass(frozen=True)
class LogSigma:
    """The network takes scale log sigma as its condition."""

    scale: float = 1.0

    def __post_init__(self):
        if not math.isfinite(self.scale) or self.scale == 0.0:
            raise ValueError(f"config.condition.scale must be finite and not 0. Received: {self.scale}.")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Adam and its learning rate.

    Attributes:
      learning_rate: the rate, and the peak of a schedule.
      beta_1: decay of the first moment.
      beta_2: decay of the second moment.
      epsilon: added to the root of the second moment.
      clip_norm: the largest Euclidean norm of the global gradient; None for no limit.
      warmup_steps: the rate rises linearly over these steps.
      decay: "cosine", "linear" or "exponential"; None keeps the rate.
      decay_steps: length of the decay, from step 0; None without a decay.
      final_fraction: the rate at the end of the decay, as a fraction of `learning_rate`.
    """

    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float | None = None
    warmup_steps: int = 0
    decay: str | None = None
    decay_steps: int | None = None
    final_fraction: float = 0.0

    def __post_init__(self):
        checks.positive("optim", learning_rate=self.learning_rate, epsilon=self.epsilon, clip_norm=self.clip_norm)
        checks.fraction("optim", beta_1=self.beta_1, beta_2=self.beta_2)


@dataclasses.dataclass(frozen=True)
class MovingAverage:
    """The moving average of the weights; `decay` is the final one, in [0, 1)."""

    decay: float = 0.999

    def __post_init__(self):
        checks.fraction("ema", decay=self.decay)


@dataclasses.dataclass(frozen=True)
class Training:
    """The length of a run, its cadence in steps, and how a step is computed.

    Attributes:
      steps: length of the run.
      batch_size: the global batch, over all replicas.
      steps_per_loop: steps in one call of the compiled loop, and the interval of training curves.
      evaluate_every: interval of the held-out loss; 0 for never.
      held_out_examples: the number of held-out images, the first ones, that the held-out loss uses; 0 for none.
      sample_every: interval of sample grids; 0 for never.
      sample_count: samples per grid.
      checkpoint_every: interval of checkpoints; one is also written at the end.
      keep_checkpoints: the number of checkpoints to keep, the newest ones.
      jit_compile: compile the training step with XLA.
      accumulation: the number of parts in which a replica processes its share of a batch in turn: less memory.
    """

    steps: int = 200_000
    batch_size: int = 128
    steps_per_loop: int = 100
    evaluate_every: int = 1_000
    held_out_examples: int = 1_000
    sample_every: int = 10_000
    sample_count: int = 64
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 3
    jit_compile: bool = False
    accumulation: int = 1

    def __post_init__(self):
        ones = ("steps", "batch_size", "steps_per_loop", "sample_count", "checkpoint_every", "keep_checkpoints")
        checks.at_least("training", 1, **{name: getattr(self, name) for name in (*ones, "accumulation")})
        zeros = ("evaluate_every", "held_out_examples", "sample_every")
        checks.at_least("training", 0, **{name: getattr(self, name) for name in zeros})
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"config.training.batch_size must be a multiple of training.accumulation={self.accumulation}, and of "
                f"the replicas. Received: {self.batch_size}."
            )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of a run's samples.

    Attributes:
      features: the feature network's kind: "inception", or "classifier" for one of the dataset's classes.
      num_samples: the number of samples to draw.
      batch_size: the number of samples that a replica draws at a time.
      held_out_examples: the number of held-out images, the first ones, for the loss by level; 0 for none.
    """

    features: str = "inception"
    num_samples: int = 50_000
    batch_size: int = 100
    held_out_examples: int = 1_000

    def __post_init__(self):
        checks.one_of("evaluation", ("inception", "classifier"), features=self.features)
        checks.at_least("evaluation", 2, num_samples=self.num_samples)
        checks.at_least("evaluation", 1, batch_size=self.batch_size)
        checks.at_least("evaluation", 0, held_out_examples=self.held_out_examples)


CHOICES: dict[str, dict[str, type]] = {
    "sde": {"ve": VE, "vp": VP, "subvp": VP},
    "times": {
        "levels": Levels,
        "ddpm_levels": DDPMLevels,
        "uniform": UniformTimes,
        "log_normal": LogNormalTimes,
        "log_snr": UniformTimes,
    },
    "output": {
        "score": NoKeys,
        "score_over_sigma": NoKeys,
        "noise": NoKeys,
        "clean_image": NoKeys,
        "velocity": NoKeys,
        "edm": EDM,
    },
    "condition": {
        "nearest_level": NoKeys,
        "ddpm_step": NoKeys,
        "sigma": NoKeys,
        "log_sigma": LogSigma,
        "scaled_time": NoKeys,
        "none": NoKeys,
    },
    "network": {"ncsn": networks.NCSN, "ncsnv2": networks.NCSNv2, "unet": networks.UNet},
    "objective": {
        "denoising": objectives.Denoising,
        "sliced": objectives.Sliced,
        "exact": objectives.Exact,
    },
    "sampler": {
        "annealed_langevin": samplers.Langevin,
        "langevin": samplers.Langevin,
        **samplers.WALKS,
        **samplers.ADAPTIVE,
    },
}
"""The sections that offer a choice: name -> the dataclass of its keys. The first is the default."""

FIXED: dict[str, type] = {
    "data": Data,
    "optim": Optimizer,
    "ema": MovingAverage,
    "training": Training,
    "evaluation": Evaluation,
}
"""The sections whose keys are always the same."""

SECTIONS = (*CHOICES, *FIXED)

MAY_CHANGE = {
    "data": ("data_dir", "download", "memory_limit_gib"),
    "network": ("rematerialise",),
    "training": tuple(field.name for field in dataclasses.fields(Training) if field.name != "batch_size"),
    "sampler": (),
    "evaluation": (),
}
"""Keys that do not affect the weights at a step, or only their rounding; () stands for the whole section."""
