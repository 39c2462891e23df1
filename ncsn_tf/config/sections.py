"""Configurations by section: their defaults and variants, and a reader that refuses unknown keys."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from ncsn_tf.config import schema

Config = Mapping[str, Any]
"""Plain values in nested dictionaries: sections, and the number `seed`."""


def may_change(section: str, key: str) -> bool:
    """Returns whether a run may continue with another value of a key."""
    return section in schema.MAY_CHANGE and (not schema.MAY_CHANGE[section] or key in schema.MAY_CHANGE[section])


def section(name: str, chosen: str | None = None) -> ml_collections.ConfigDict:
    """A section with its defaults; `chosen` is the `name` of a section with choices, by default the first choice.

    Raises:
      ValueError: for an unknown choice.
    """
    values = ml_collections.ConfigDict()
    if name in schema.CHOICES:
        values.name = chosen = known(
            schema.CHOICES[name], next(iter(schema.CHOICES[name])) if chosen is None else chosen, name
        )
    for field in dataclasses.fields(
        schema.CHOICES[name][str(chosen)] if name in schema.CHOICES else schema.FIXED[name]
    ):
        kinds = {"int | None": int, "float | None": float, "str | None": str}
        default = field.default
        if default is None:
            default = placeholder(kinds.get(str(field.type), object))
        values[field.name] = default
    return values


def known(table: Mapping[str, Any], name: Any, where: str) -> str:
    """Returns the name if the table has it; otherwise raises a ValueError that lists the known names."""
    if name not in table:
        raise ValueError(f"config.{where}.name must be one of {sorted(table)}. Received: {name!r}.")
    return name


def choose(config: ml_collections.ConfigDict, name: str, chosen: str) -> None:
    """Gives a section of an unlocked configuration another choice, in place; keys that both choices have stay.

    Raises:
      ValueError: for an unknown choice.
    """
    new, old = section(name, chosen), config[name]
    for key in new.keys():
        if key != "name" and key in old and old.get_type(key) == new.get_type(key):
            new[key] = old[key]
    config[name] = new


def ncsn() -> ml_collections.ConfigDict:
    """The configuration of NCSN with every default; files in `configs/` start from it."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    for name in schema.SECTIONS:
        config[name] = section(name)
    return config


def variant(variants: Mapping[str, Callable[[ml_collections.ConfigDict], Any]], name: str) -> ml_collections.ConfigDict:
    """The configuration of a variant, `configs/FILE.py:NAME`.

    Args:
      variants: name -> a function that changes `ncsn()` in place.
      name: the variant's name.

    Raises:
      ValueError: for an unknown variant; the message lists the known ones.
    """
    if name not in variants:
        raise ValueError(f"The variants are {', '.join(variants)}. Received: {name!r}.")
    config = ncsn()
    variants[name](config)
    return config


@dataclasses.dataclass(frozen=True)
class Sections:
    """A configuration, all of whose keys have been read.

    Attributes:
      seed: the run's seed, in [0, 2^31).
      names: the `name` of each section that offers a choice.
      values: the dataclass of each section.
    """

    seed: int
    names: Mapping[str, str]
    values: Mapping[str, Any]


def read(config: Config) -> Sections:
    """Reads a configuration.

    Raises:
      ValueError: for an unknown key, naming the most similar known one; for a missing key; and for an invalid value.
    """
    _check_names("config", config, ("seed", *schema.SECTIONS))
    names, values = {}, {}
    for name in schema.SECTIONS:
        content = config[name]
        if not isinstance(content, Mapping):
            raise ValueError(f"config.{name} must be a section, of keys and values. Received: {content!r}.")
        if name in schema.CHOICES:
            _check_names(f"config.{name}", {"name": content["name"]} if "name" in content else {}, ("name",))
            names[name] = known(schema.CHOICES[name], content["name"], name)
        kind = schema.CHOICES[name][names[name]] if name in schema.CHOICES else schema.FIXED[name]
        given = {key: value for key, value in content.items() if key != "name" or name not in schema.CHOICES}
        _check_names(f"config.{name}", given, [field.name for field in dataclasses.fields(kind)], names.get(name))
        values[name] = kind(**given)
    return Sections(config["seed"], names, values)


def _check_names(where: str, content: Mapping, expected, chosen: str | None = None) -> None:
    for key in content:
        if key not in expected:
            raise ValueError(unread(where, key, expected, chosen))
    missing = [key for key in expected if key not in content]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")


def unread(where: str, key: str, expected, chosen: str | None = None) -> str:
    """The message about an unknown key: it names the most similar known key, or the choice that the key belongs to."""
    name = where.removeprefix("config.")
    owners = [
        choice
        for choice, kind in schema.CHOICES.get(name, {}).items()
        if key in [field.name for field in dataclasses.fields(kind)]
    ]
    if owners:
        return f"Nothing reads {where}.{key} when {name}.name={chosen}; it belongs to {' or '.join(owners)}."
    near = difflib.get_close_matches(key, expected, n=1)
    hint = f"Did you mean {where}.{near[0]}?" if near else f"Known: {', '.join(sorted(expected))}."
    return f"Nothing reads {where}.{key}. {hint}"


def fingerprint(config: Config) -> int:
    """A number in [0, 2^31) that differs between configurations that the workers of a cluster must share.

    Workers may differ in the place of the data, and in sampling and evaluation, which training does not read.
    """
    data = {key: value for key, value in config["data"].items() if key not in ("name", "data_dir", "download")}
    shared = {name: value for name, value in config.items() if name not in ("sampler", "evaluation")}
    text = json.dumps({**shared, "data": data}, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 2**31
