"""The `sampler` section of a configuration."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The `sampler` section.

    Attributes:
      name: "annealed_langevin", or "langevin": plain dynamics at the smallest level for as many steps in all.
      epsilon: the step size at the smallest level, in squared data units, as Algorithm 1 writes it.
      steps_per_level: T.
      num_levels: how many of the levels are visited, evenly spread from the first to the last; None for all.
      prior: "uniform" on [0, 1), as in the paper, or "normal" with the largest level's deviation.
      denoise: end with one denoising by Tweedie's formula, which the paper of 2019 does not.
      jit_compile: compile the loop with XLA.
    """

    name: str
    epsilon: float
    steps_per_level: int
    num_levels: int | None
    prior: str
    denoise: bool
    jit_compile: bool
