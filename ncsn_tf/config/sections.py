"""Reading the sections of a configuration: a key that nothing reads is refused, with the nearest that is read.

A section names the arguments of one function. Nothing here knows which sections there are; `build.py` does.
"""

import difflib
import functools
import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import keras

Config = Mapping[str, Any]


def _section(config: Config, name: str, without: str | None = None) -> dict[str, Any]:
    if not isinstance(config[name], Mapping):
        raise ValueError(f"config.{name} must be a section, of keys and values. Received: {config[name]!r}.")
    return {key: value for key, value in config[name].items() if key != without}


def call(function: Callable, config: Config, name: str):
    """Calls `function` with a section's values as keyword arguments, after checking their names."""
    check_section(function, config, name)
    return function(**_section(config, name))


def check_section(function: Callable, config: Config, name: str) -> None:
    """Holds a section's keys against the parameters of the function that reads it, all of which it must give."""
    parameters = list(inspect.signature(function).parameters)
    check_names(f"config.{name}", _section(config, name), parameters, required=parameters)


def choose(table: Mapping[str, Callable], config: Config, name: str) -> Callable:
    """The table's entry that a section's `name` names, with the section's other keys as its keyword arguments.

    A key that is None leaves the entry's own default, so a configuration can show the keys of every entry.
    """
    section = _section(config, name)
    chosen = one_of(table, section.get("name", ""), f"{name}.name")
    readers = {entry: _options(function) for entry, function in table.items()}
    check_names(f"config.{name}", section, ["name", *itertools.chain(*readers.values())], required=["name"])
    given = {key: value for key, value in section.items() if key != "name" and value is not None}
    for key in given:
        if key not in readers[chosen]:
            owners = " or ".join(entry for entry in table if key in readers[entry])
            raise ValueError(f"Nothing reads config.{name}.{key} when {name}.name={chosen}; it belongs to {owners}.")
    return functools.partial(table[chosen], **given)


def _options(function: Callable) -> list[str]:
    """The arguments that a configuration may set: those with a default, and the dtype of a network."""
    options = [p.name for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
    is_network = isinstance(function, type) and issubclass(function, keras.Model)
    return [*options, "dtype"] if is_network else options


def one_of(known, value, where: str):
    """The value, if it is one of those known; `where` is its place, "network.name" for instance."""
    if value not in known:
        raise ValueError(f"config.{where} must be one of {sorted(known)}. Received: {value!r}.")
    return value


def check_names(where: str, section: Mapping, known, required) -> None:
    """Refuses keys that nothing reads, naming the nearest that is read, and keys that are missing."""
    for key in section:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {where}.{near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
            raise ValueError(f"Nothing reads {where}.{key}. {hint}")
    missing = [key for key in required if key not in section]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")


def fingerprint(config: Config) -> int:
    """A number in [0, 2^31) that tells apart configurations that train differently.

    What may differ from machine to machine has no part in it: where the data lie.
    """
    data = {key: value for key, value in config["data"].items() if key not in ("name", "data_dir")}
    text = json.dumps({**config, "data": data}, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 2**31
