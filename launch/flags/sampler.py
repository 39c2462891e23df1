"""The flags that change a run's sampler."""

import dataclasses
from typing import Any

from absl import flags

from ncsn_tf.config.samplers import GRIDS


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The flags of the sampler, defined; but for `sampler` their names are the keys of the `sampler` section."""

    sampler: flags.FlagHolder
    num_steps: flags.FlagHolder
    grid: flags.FlagHolder
    epsilon: flags.FlagHolder
    steps_per_level: flags.FlagHolder
    num_levels: flags.FlagHolder
    denoise: flags.FlagHolder
    jit_compile: flags.FlagHolder

    def given(self) -> list[str]:
        """The names of the flags that were given."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name).value is not None]

    def changes(self) -> dict[str, Any]:
        """The values of the `sampler` section that were given.

        Raises:
          ValueError: if --sampler names no sampler, or a value that it does not have.
        """
        from ncsn_tf.config import sections

        values = {name: getattr(self, name).value for name in self.given()}
        named = values.pop("sampler", None)
        return {**(sections.sampler_changes(named) if named is not None else {}), **values}


def define() -> Sampler:
    """Defines --sampler, --num_steps, --grid, and the flags of the values of Langevin dynamics."""
    return Sampler(
        sampler=flags.DEFINE_string(
            "sampler",
            None,
            "Another sampler than the run's, with its defaults: NAME, or NAME,KEY=VALUE,... as heun,churn=10. "
            "ncsn_tf/config/samplers.py lists the names and the keys.",
        ),
        num_steps=flags.DEFINE_integer("num_steps", None, "Steps from noise to data, in place of the run's.", 1),
        grid=flags.DEFINE_enum("grid", None, GRIDS, "The times of these steps, in place of the run's."),
        epsilon=flags.DEFINE_float("epsilon", None, "Step size at the smallest level, in place of the run's."),
        steps_per_level=flags.DEFINE_integer("steps_per_level", None, "Steps per level, in place of the run's.", 1),
        num_levels=flags.DEFINE_integer(
            "num_levels", None, "How many of the noise levels to visit, in place of the run's.", 2
        ),
        denoise=flags.DEFINE_bool("denoise", None, "End with one denoising step, in place of the run's choice."),
        jit_compile=flags.DEFINE_bool("jit_compile", None, "Compile with XLA, in place of the run's choice."),
    )
