"""The flags that change a run's sampler."""

import dataclasses
from typing import Any

from absl import flags


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The flags of the sampler, defined; their names are the keys of the `sampler` section."""

    epsilon: flags.FlagHolder
    steps_per_level: flags.FlagHolder
    num_levels: flags.FlagHolder
    num_steps: flags.FlagHolder
    denoise: flags.FlagHolder
    jit_compile: flags.FlagHolder

    def changes(self) -> dict[str, Any]:
        """The values of the `sampler` section that were given."""
        values = {field.name: getattr(self, field.name).value for field in dataclasses.fields(self)}
        return {key: value for key, value in values.items() if value is not None}


def define() -> Sampler:
    """Defines --epsilon, --steps_per_level, --num_levels, --num_steps, --denoise and --jit_compile."""
    return Sampler(
        epsilon=flags.DEFINE_float("epsilon", None, "Step size at the smallest level, in place of the run's."),
        steps_per_level=flags.DEFINE_integer("steps_per_level", None, "Steps per level, in place of the run's.", 1),
        num_levels=flags.DEFINE_integer(
            "num_levels", None, "How many of the noise levels to visit, in place of the run's.", 2
        ),
        num_steps=flags.DEFINE_integer("num_steps", None, "Steps of ancestral sampling, in place of the run's.", 1),
        denoise=flags.DEFINE_bool("denoise", None, "End with one denoising step, in place of the run's choice."),
        jit_compile=flags.DEFINE_bool("jit_compile", None, "Compile with XLA, in place of the run's choice."),
    )
