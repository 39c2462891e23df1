"""Upgrades configurations of older releases, which a run's `config.json` may contain."""

import json
from collections.abc import Mapping
from typing import Any

from ncsn_tf.config import schema, sections


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the current form; keys that were added since have their defaults.

    Release 0.1 had a section `noise` (sigma_max, sigma_min, num_levels) in place of `sde` and `times`, no `output` and
    no `condition`, and had the keys of all objectives, with None for those of the objectives that were not chosen.

    Args:
      config: plain values in nested dicts; not changed.

    Raises:
      ValueError: if a section is not a mapping, or has a `name` that no release knew.
    """
    found = json.loads(json.dumps(config))
    if "noise" in found and "sde" not in found:
        noise = found.pop("noise")
        found["sde"] = {"name": "ve", **{key: value for key, value in noise.items() if key != "num_levels"}}
        found["times"] = {"name": "levels"}
        if "num_levels" in noise:
            found["times"]["num_levels"] = noise["num_levels"]
        objective = found.get("objective", {})
        found["objective"] = {key: value for key, value in objective.items() if value is not None}
    for name in schema.SECTIONS:
        given = found.get(name, {})
        if not isinstance(given, Mapping):
            raise ValueError(f"config.{name} must be a section, of keys and values. Received: {given!r}.")
        found[name] = {
            **sections.section(name, given.get("name") if name in schema.CHOICES else None).to_dict(),
            **given,
        }
    return {"seed": 0, **found}
