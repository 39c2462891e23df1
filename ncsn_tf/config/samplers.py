"""The keys of the `sampler` section, one frozen dataclass per kind of sampler."""

import dataclasses

from ncsn_tf.config import checks

MOST_STEPS_PER_LEVEL = 100_000
"""The most steps per level, also in an exported model: the schedule of a walk is held in memory."""


@dataclasses.dataclass(frozen=True)
class Langevin:
    """Langevin dynamics, annealed or plain.

    Attributes:
      epsilon: the step size at the smallest level, in squared data units, as Algorithm 1 writes it.
      steps_per_level: T. Plain dynamics takes T steps per level too, all at the smallest.
      num_levels: the number of levels to visit, evenly spread from the first to the last; None for all. A run in
        continuous time has as many as are given here, evenly spread in time; None is its number of bins.
      prior: "uniform" on [0, 1), as in the paper, or "normal", the SDE's prior.
      denoise: end with one denoising step by Tweedie's formula; the paper of 2019 does not.
      jit_compile: compile the loop with XLA.
    """

    epsilon: float = 2e-5
    steps_per_level: int = 100
    num_levels: int | None = None
    prior: str = "uniform"
    denoise: bool = False
    jit_compile: bool = False

    def __post_init__(self):
        checks.positive("sampler", epsilon=self.epsilon)
        checks.at_least("sampler", 1, MOST_STEPS_PER_LEVEL, steps_per_level=self.steps_per_level)
        if self.num_levels is not None:
            checks.at_least("sampler", 2, num_levels=self.num_levels)
        checks.one_of("sampler", ("uniform", "normal"), prior=self.prior)


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """Ancestral sampling, `samplers.ancestral`, from the SDE's prior.

    Attributes:
      num_steps: the number of steps. On a grid of L levels at most L - 1, evenly spread, and None is all; in continuous
        time None is 1,000.
      last_time: where a walk in continuous time ends; the authors' programs take 1e-5 for VE, 1e-3 for VP and sub-VP.
      variance: "posterior", the paper's for VE, or "transition", the paper's for DDPM.
      denoise: end with one denoising step by Tweedie's formula, which is one more evaluation.
      jit_compile: compile the loop with XLA.
    """

    num_steps: int | None = None
    last_time: float = 1e-3
    variance: str = "posterior"
    denoise: bool = True
    jit_compile: bool = False

    def __post_init__(self):
        if self.num_steps is not None:
            checks.at_least("sampler", 1, 1_000_000, num_steps=self.num_steps)
        checks.positive("sampler", last_time=self.last_time)
        checks.fraction("sampler", last_time=self.last_time)
        checks.one_of("sampler", ("posterior", "transition"), variance=self.variance)
