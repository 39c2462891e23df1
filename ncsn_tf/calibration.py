"""Calibration of a trained run's samplers, kept in RUN/calibration.json: fitted grids and expected score norms.

A sampler that is given `grid=fitted` or `norms=expected` gets the numbers themselves into its section when the run is
opened. So results and exported models hold them, and do not depend on the file.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ncsn_tf import files

NAME = "calibration.json"
_VALUES = {"grids": "times", "norms": "norm_table"}
"""The numbers of an entry of each kind."""
_NOT_METHOD = ("grid", "times", "denoise", "jit_compile")
"""The keys of a `sampler` section that do not matter for the times that suit it."""


def grid_key(section: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a `sampler` section for which a grid is fitted: the method, its options, its number of steps."""
    return {key: value for key, value in section.items() if key not in _NOT_METHOD}


def norms_key(section: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a `sampler` section for which score norms are measured."""
    return {"last_time": section["last_time"]}


def read(run: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """The calibration of a run's directory: entries by kind, "grids" and "norms".

    Raises:
      ValueError: if the file is damaged.
    """
    try:
        content = json.loads((run / NAME).read_text(encoding="utf-8"))
        for kind, values in _VALUES.items():
            for entry in content[kind]:
                _checked(entry, values)
        return {kind: list(content[kind]) for kind in _VALUES}
    except FileNotFoundError:
        return {"grids": [], "norms": []}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{run / NAME} cannot be read: {error}. Remove it, and run launch.calibrate again.") from error


def _checked(entry: dict[str, Any], values: str) -> None:
    """Raises one of the errors that `read` expects, unless an entry has its key, its step and its numbers."""
    if not isinstance(entry["of"], dict) or not isinstance(entry["step"], int):
        raise TypeError("an entry lacks its sampler or its step")
    for value in entry[values]:
        float(value)


def keep(run: pathlib.Path, kind: str, key: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Adds an entry, in place of an earlier one for the same key.

    Args:
      run: the run's directory.
      kind: "grids" or "norms".
      key: `grid_key` or `norms_key` of the section for which the entry is.
      entry: plain values: `times` or `norm_table`, and `step`, that of the checkpoint, among them.
    """
    content = read(run)
    others = [other for other in content[kind] if other["of"] != dict(key)]
    files.write_json(run / NAME, {**content, kind: [*others, {"of": dict(key), **entry}]})


def resolved(run: pathlib.Path, section: Mapping[str, Any]) -> dict[str, Any]:
    """A `sampler` section with the numbers of the run's calibration in it, if it asks for them.

    Raises:
      ValueError: if the run has none for this section.
    """
    found = dict(section)
    if found.get("grid") == "fitted" and found.get("times") is None:
        found["times"] = _entry(run, "grids", grid_key(found))["times"]
    if found.get("norms") == "expected" and found.get("norm_table") is None:
        found["norm_table"] = _entry(run, "norms", norms_key(found))["norm_table"]
    return found


def caveats(run: pathlib.Path, section: Mapping[str, Any], step: int) -> list[str]:
    """One line if a section that `resolved` returned has numbers that were measured of another checkpoint."""
    wanted = [("grids", grid_key(section))] if section.get("times") is not None else []
    wanted += [("norms", norms_key(section))] if section.get("norm_table") is not None else []
    found = (_find(read(run)[kind], key) for kind, key in wanted)
    return [
        f"the sampler's calibration is of step {entry['step']}, the weights are of step {step}: "
        f"launch.calibrate --checkpoint={step} measures it anew"
        for entry in found
        if entry is not None and entry["step"] != step
    ]


def _find(entries: list[dict[str, Any]], key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The entry for a key, if there is one."""
    return next((entry for entry in entries if entry["of"] == key), None)


def _entry(run: pathlib.Path, kind: str, key: dict[str, Any]) -> dict[str, Any]:
    entries = read(run)[kind]
    found = _find(entries, key)
    if found is not None:
        return found
    what = {"grids": "fitted grid", "norms": "measured norms"}[kind]
    known = "; ".join(_shown(entry["of"]) for entry in entries) or "none"
    raise ValueError(
        f"{run} has no {what} for {_shown(key)}. Run launch.calibrate with the same sampler and steps. Known: {known}."
    )


def _shown(key: Mapping[str, Any]) -> str:
    values = [f"{name}={value}" for name, value in key.items() if name != "name"]
    return ",".join([key["name"], *values] if "name" in key else values)
