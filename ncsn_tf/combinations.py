"""Combinations of samplers and of values of their keys, for comparing them by a metric."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ncsn_tf.config import schema, sections

VARIED = {
    "epsilon": "epsilon",
    "num_steps": "steps",
    "steps_per_level": "steps",
    "num_levels": "levels",
    "grid": "grid",
}
"""The keys of the `sampler` section that are given as lists, and their words in the names of folders."""
_COSTS = ("num_steps", "steps_per_level", "num_levels", "rtol", "atol")
"""The keys that change the number of evaluations alone: the points of one line in a plot over evaluations."""


@dataclasses.dataclass(frozen=True)
class SamplerSetting:
    """One sampler with all its values.

    Attributes:
      section: the `sampler` section.
      keys: those of its values, apart from `VARIED`, that differ from the sampler's own ones for the run.
    """

    section: dict[str, Any]
    keys: dict[str, Any]

    def changes(self) -> dict[str, Any]:
        """The values of the `sampler` section."""
        return dict(self.section)

    @property
    def name(self) -> str:
        """The name of its folder, such as heun_steps_9_grid_karras; values that are None are left out."""
        varied = {word: self.section[key] for key, word in VARIED.items() if self.section.get(key) is not None}
        parts = (f"{key}_{_text(value)}" for key, value in {**varied, **self.keys}.items())
        return "_".join([self.section["name"], *parts])

    @property
    def epsilon(self) -> float | None:
        """The step size of Langevin dynamics; None for other samplers."""
        return self.section.get("epsilon")

    def columns(self) -> dict[str, Any]:
        """The columns of a table."""
        varied = {key: self.section.get(key) for key in VARIED}
        return {"sampler": self.section["name"], **varied, "keys": _listed(self.keys)}

    def line(self, over_epsilon: bool) -> str:
        """The label of its line in a plot over epsilon, or over evaluations."""
        left_out = ("epsilon",) if over_epsilon else _COSTS
        shown = {key: self.section[key] for key in VARIED if self.section.get(key) is not None} | self.keys
        return _listed({key: value for key, value in shown.items() if key not in left_out}, self.section["name"])


def combine(
    own: Mapping[str, Any], samplers: Iterable[str], lists: Mapping[str, Sequence[Any]]
) -> list[SamplerSetting]:
    """All combinations of samplers and of the values that they take, each once.

    A sampler takes the lists of the keys that it has: one that chooses its own steps takes no number of steps.

    Args:
      own: the run's `sampler` section. Values that are not given are the run's, or for another sampler than the run's
        its defaults; see `sections.with_sampler`.
      samplers: texts as `sections.sampler_changes` reads them; none for the run's own.
      lists: values by key, of `VARIED`; an empty list stands for a key that is not given.

    Raises:
      ValueError: for an unknown sampler or key, a key that is given both with its sampler and as a list, or a list that
        no sampler takes.
    """
    given = {key: values for key, values in lists.items() if values}
    found: list[SamplerSetting] = []
    chosen = [sections.sampler_changes(text) for text in samplers] or [{"name": own["name"]}]
    for changes in chosen:
        alone = sections.with_sampler(own, {"name": changes["name"]})
        taken = {key: values for key, values in given.items() if key in alone}
        twice = [key for key in taken if key in changes]
        if twice:
            raise ValueError(
                f"{twice[0]} of {changes['name']} is given twice: as a list for all samplers, and as the sampler's "
                f"{twice[0]}={changes[twice[0]]}. Leave one of them out."
            )
        for values in itertools.product(*taken.values()):
            section = {**sections.with_sampler(own, changes), **dict(zip(taken, values, strict=True))}
            others = (key for key in section if key != "name" and key not in VARIED)
            setting = SamplerSetting(section, {key: section[key] for key in others if section[key] != alone[key]})
            if setting not in found:
                found.append(setting)
    for key in given:
        if not any(key in setting.section for setting in found):
            _refuse(key, dict.fromkeys(changes["name"] for changes in chosen))
    return found


def _refuse(key: str, names: Iterable[str]) -> None:
    owners = [name for name, kind in schema.CHOICES["sampler"].items() if key in kind.__dataclass_fields__]
    raise ValueError(
        f"No sampler that is compared takes {key}. Leave it out, or add a sampler that does: {', '.join(owners)}. "
        f"Received: {', '.join(names)}."
    )


def _text(value: Any) -> str:
    """A value as it is written on the command line."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _listed(values: Mapping[str, Any], *before: str) -> str:
    return ",".join([*before, *(f"{key}={_text(value)}" for key, value in values.items())])
