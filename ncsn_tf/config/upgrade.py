"""Upgrades configurations of older releases, which a run's `config.json` may contain."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ncsn_tf.config import schema, sections, values


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the current form; keys that were added since have their defaults.

    Release 0.1 had a section `noise` (sigma_max, sigma_min, num_levels) in place of `sde` and `times`, no `output` and
    no `condition`, and had the keys of all objectives, with None for those of the objectives that were not chosen.

    Args:
      config: plain values in nested dicts; not changed.

    Raises:
      ValueError: if a section is not a mapping, or has a `name` that no release knew.
    """
    found = json.loads(json.dumps(_section("config", config), default=_plain))
    if "noise" in found and "sde" not in found:
        noise = _section("config.noise", found.pop("noise"))
        found["sde"] = {"name": "ve", **{key: value for key, value in noise.items() if key != "num_levels"}}
        found["times"] = {"name": "levels"}
        if "num_levels" in noise:
            found["times"]["num_levels"] = noise["num_levels"]
        objective = _section("config.objective", found.get("objective", {}))
        found["objective"] = {key: value for key, value in objective.items() if value is not None}
    for name in schema.SECTIONS:
        given = _section(f"config.{name}", found.get(name, {}))
        found[name] = {
            **sections.section(name, given.get("name") if name in schema.CHOICES else None).to_dict(),
            **given,
        }
    return {"seed": 0, **found}


def _section(where: str, content: Any) -> Mapping[str, Any]:
    """The content of a section, or of the configuration; raises ValueError if it is not a mapping."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} must be a section, of keys and values. Received: {values.described(content)}.")
    return content


def _plain(value: Any) -> Any:
    """The plain value of a NumPy scalar, which JSON does not know."""
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(f"A configuration has plain values only. Received: {values.described(value)}.")
