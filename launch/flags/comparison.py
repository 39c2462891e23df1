"""The flags of a comparison of samplers: several samplers, and lists of their values."""

import dataclasses
from typing import TYPE_CHECKING, Any

from absl import flags

from ncsn_tf.config.samplers import GRIDS

if TYPE_CHECKING:
    from ncsn_tf.combinations import SamplerSetting
    from ncsn_tf.sweep import Setting

_KINDS = {"epsilon": float, "num_steps": int, "steps_per_level": int, "num_levels": int, "grid": str}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The flags of a comparison, defined; but for `sampler` their names here are the keys of the `sampler` section."""

    sampler: flags.FlagHolder
    epsilon: flags.FlagHolder
    num_steps: flags.FlagHolder
    steps_per_level: flags.FlagHolder
    num_levels: flags.FlagHolder
    grid: flags.FlagHolder

    def settings(self, own: dict[str, Any]) -> "list[Setting] | list[SamplerSetting]":
        """The combinations for a run whose `sampler` section is `own`.

        Without --sampler, --num_steps and --grid those of a run of Langevin dynamics are `sweep.Setting`.

        Raises:
          ValueError: for values that are no numbers or no grids, or combinations that cannot exist.
        """
        from ncsn_tf import combinations, sweep

        lists = {key: self._values(key, kind) for key, kind in _KINDS.items()}
        if self.sampler.value or lists["num_steps"] or lists["grid"] or "epsilon" not in own:
            return combinations.combine(own, self.sampler.value or [], lists)
        return sweep.grid(*(lists[key] or [own[key]] for key in ("epsilon", "steps_per_level", "num_levels")))

    def _values(self, key: str, kind: type) -> list:
        flag = getattr(self, key)
        texts = [text.strip() for text in flag.value or []]
        unknown = [text for text in texts if text not in GRIDS] if key == "grid" else []
        if unknown:
            raise ValueError(f"--grid takes some of {', '.join(GRIDS)}. Received: {', '.join(unknown)}.")
        if flag.value is not None and not texts:
            raise ValueError(f"--{flag.name} is given no value. Leave it out, or give values with commas between them.")
        try:
            return [kind(text) for text in texts]
        except ValueError as error:
            raise ValueError(
                f"--{flag.name} takes numbers with commas between them. Received: {','.join(texts)}."
            ) from error


def define() -> Comparison:
    """Defines --sampler, --num_steps, --grid, and the flags of lists of the values of Langevin dynamics."""
    return Comparison(
        sampler=flags.DEFINE_multi_string(
            "sampler",
            None,
            "A sampler to compare, NAME or NAME,KEY=VALUE,... as heun,churn=10; give it several times. By default the "
            "run's. ncsn_tf/config/samplers.py lists the names and the keys.",
        ),
        epsilon=flags.DEFINE_list("epsilons", None, "Step sizes of Langevin dynamics at the smallest level."),
        num_steps=flags.DEFINE_list("num_steps", None, "Numbers of steps from noise to data."),
        steps_per_level=flags.DEFINE_list("steps_per_level", None, "Numbers of Langevin steps at each level."),
        num_levels=flags.DEFINE_list("num_levels", None, "How many of the noise levels Langevin dynamics visits."),
        grid=flags.DEFINE_list("grid", None, f"The times of the steps: some of {', '.join(GRIDS)}."),
    )
