"""Reads the journal of a `store.SampleStore`, and tells two sampling keys apart."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns a journal in its current form, with numbers where numbers are expected; None if it cannot be read.

    Release 0.1 had the keys "plan", "checksum" (of samples.raw, the only array), "evaluations" (per sample) and "wild";
    a folder with such a journal still resumes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    if "plan" in content:
        content = {
            "sampling_key": content["plan"],
            "done": content.get("done"),
            "checksums": {"samples": content.get("checksum")},
            "total_evaluations": _integer(content.get("evaluations")) * _integer(content.get("done")),
            "out_of_range": content.get("wild"),
        }
    checksums = content.get("checksums")
    numbers = {name: _integer(content.get(name)) for name in ("done", "total_evaluations", "out_of_range")}
    found = {name: _integer(value) for name, value in checksums.items()} if isinstance(checksums, dict) else {}
    return {"sampling_key": content.get("sampling_key"), "checksums": found, **numbers}


def difference(there: Any, now: Mapping[str, Any]) -> str:
    """The first few values in which two sampling keys differ."""
    there = there if isinstance(there, dict) else {}
    keys = [key for key in sorted(there.keys() | now.keys()) if there.get(key) != now.get(key)]
    return "; ".join(f"{key}: {there.get(key)!r} there, {now.get(key)!r} now" for key in keys[:3])


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
