"""Configurations by section: their defaults and variants, and a reader that refuses unknown keys."""

import dataclasses
import difflib
import hashlib
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from ncsn_tf.config import schema, values

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
    content = ml_collections.ConfigDict()
    if name in schema.CHOICES:
        content.name = chosen = known(
            schema.CHOICES[name], next(iter(schema.CHOICES[name])) if chosen is None else chosen, name
        )
    for field in dataclasses.fields(_kind(name, chosen)):
        kinds = {"int | None": int, "float | None": float, "str | None": str}
        default = field.default
        if default is None:
            default = placeholder(kinds.get(str(field.type), object))
        content[field.name] = default
    return content


def _kind(name: str, chosen: str | None) -> type:
    """The dataclass of a section's keys, for its choice if it offers one."""
    return schema.CHOICES[name][str(chosen)] if name in schema.CHOICES else schema.FIXED[name]


def known(table: Mapping[str, Any], name: Any, where: str) -> str:
    """Returns the name if the table has it; otherwise raises a ValueError that lists the known names."""
    if not isinstance(name, str) or name not in table:
        near = difflib.get_close_matches(str(name), table, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"config.{where}.name must be one of {sorted(table)}. Received: {values.described(name)}.{hint}"
        )
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
      ValueError: as `plain` does, and for an invalid value.
    """
    content = plain(config)
    names = {name: content[name].pop("name") for name in schema.CHOICES}
    return Sections(
        content["seed"], names, {name: _kind(name, names.get(name))(**content[name]) for name in schema.SECTIONS}
    )


def plain(config: Config) -> dict[str, Any]:
    """A configuration whose values have the types of the schema, as plain values in nested dictionaries.

    Raises:
      ValueError: for an unknown key, naming the most similar known one; for a missing key; and for a value of another
        type than the schema's.
    """
    names, found = check_keys(config), {"seed": values.checked("config.seed", int, config["seed"])}
    for name in schema.SECTIONS:
        kinds = typing.get_type_hints(_kind(name, names.get(name)))
        found[name] = {"name": names[name]} if name in names else {}
        for key, kind in kinds.items():
            found[name][key] = values.checked(f"config.{name}.{key}", kind, config[name][key])
    return found


def check_keys(config: Config) -> dict[str, str]:
    """Checks that a configuration has the sections and keys of the schema; their values may be wrong.

    Returns:
      The `name` of each section that offers a choice.

    Raises:
      ValueError: for an unknown or missing section, choice or key.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"A configuration must have sections. Received: {values.described(config)}.")
    _check_names("config", config, ("seed", *schema.SECTIONS))
    names = {}
    for name in schema.SECTIONS:
        content = config[name]
        if not isinstance(content, Mapping):
            raise ValueError(
                f"config.{name} must be a section, of keys and values. Received: {values.described(content)}."
            )
        if name in schema.CHOICES:
            _check_names(f"config.{name}", {"name": content["name"]} if "name" in content else {}, ("name",))
            names[name] = known(schema.CHOICES[name], content["name"], name)
        given = {key: value for key, value in content.items() if key != "name" or name not in schema.CHOICES}
        _check_names(f"config.{name}", given, _keys(_kind(name, names.get(name))), names.get(name))
    return names


def _keys(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _check_names(where: str, content: Mapping, expected: Iterable[str], chosen: str | None = None) -> None:
    for key in content:
        if key not in expected:
            raise ValueError(unread(where, str(key), expected, chosen))
    missing = [key for key in expected if key not in content]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")


def unread(where: str, key: str, expected: Iterable[str], chosen: str | None = None) -> str:
    """The message about an unknown key: it names the most similar known key, or the choice or section that has it."""
    name = where.removeprefix("config.")
    owners = [choice for choice, kind in schema.CHOICES.get(name, {}).items() if key in _keys(kind)]
    if owners:
        return f"Nothing reads {where}.{key} when {name}.name={chosen}; it belongs to {' or '.join(owners)}."
    near = [f"{where}.{found}" for found in difflib.get_close_matches(key, expected, n=1)]
    elsewhere = _everywhere()
    # A section that has the key itself is a better guess than a key that is spelt alike.
    found = (
        elsewhere.get(key)
        or near
        or [path for other in difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.8) for path in elsewhere[other]]
    )
    hint = f"Did you mean {' or '.join(found)}?" if found else f"Known: {', '.join(sorted(expected))}."
    return f"Nothing reads {where}.{key}. {hint}"


def _everywhere() -> dict[str, list[str]]:
    """By key, the full names that it has in the sections."""
    found: dict[str, list[str]] = {}
    for name in schema.SECTIONS:
        kinds = schema.CHOICES[name].values() if name in schema.CHOICES else [schema.FIXED[name]]
        for key in dict.fromkeys(key for kind in kinds for key in _keys(kind)):
            found.setdefault(key, []).append(f"config.{name}.{key}")
    return found


# Another sampler for a run


def sampler_changes(text: str) -> dict[str, Any]:
    """The values of the `sampler` section that "NAME" or "NAME,KEY=VALUE,..." means, with `name` among them.

    Raises:
      ValueError: for an unknown sampler or key, or a text that does not mean a value of the key's type.
    """
    name, *given = (part.strip() for part in text.split(","))
    changes: dict[str, Any] = {"sampler": {"name": known(schema.CHOICES["sampler"], name, "sampler")}}
    for part in given:
        key, _, value = part.partition("=")
        override(changes, f"sampler.{key}", value)
    return changes["sampler"]


def with_sampler(own: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A run's `sampler` section with some values replaced.

    With another `name`, the values that are not given are the defaults of that sampler; only `jit_compile` stays.
    """
    if changes.get("name", own["name"]) != own["name"]:
        own = {**section("sampler", changes["name"]).to_dict(), "jit_compile": own["jit_compile"]}
    return {**own, **changes}


# Values from the command line


def is_switch(path: str) -> bool:
    """Returns whether "SECTION.KEY" is true or false, with whichever choice of the section has the key."""
    name, _, key = path.partition(".")
    kinds = [*schema.CHOICES.get(name, {}).values(), schema.FIXED.get(name, schema.NoKeys)]
    return any(values.is_switch(typing.get_type_hints(kind).get(key)) for kind in kinds)


def override(config: dict[str, Any], path: str, text: str | None) -> None:
    """Sets a value of a configuration that `check_keys` accepts, in place; a choice is set by `choose` before.

    Args:
      config: plain values in nested dictionaries.
      path: the key as "SECTION.KEY", or "seed".
      text: the value as text; None if none was given.

    Raises:
      ValueError: for an unknown key, or a text that does not mean a value of the key's type.
    """
    name, *keys = path.split(".")
    if "" in (name, *keys):
        raise ValueError(f"--config.{path} names no key. Write --config.SECTION.KEY=VALUE.")
    if name not in config:
        raise ValueError(unread("config", name, list(config)))
    where, here, kinds, chosen = f"config.{name}", config[name], {}, None
    if name == "seed":
        where, here, kinds, keys = "config", config, {"seed": int}, ["seed", *keys]
    else:
        if name in schema.CHOICES:
            kinds["name"], chosen = str, here["name"]
        kinds |= typing.get_type_hints(_kind(name, chosen))
    if not keys:
        raise ValueError(f"{where} is a section: set one of its keys, {', '.join(kinds)}. Received: {text!r}.")
    key, *deeper = keys
    if key not in kinds:
        raise ValueError(unread(where, key, list(kinds), chosen))
    if deeper:
        raise ValueError(f"{where}.{key} is a value and has no keys. Received: --config.{path}.")
    if not text:
        raise ValueError(f"{where}.{key} is given no value. Write --{where}.{key}=VALUE.")
    here[key] = values.from_text(f"{where}.{key}", kinds[key], text)


def fingerprint(config: Config) -> int:
    """A number in [0, 2^31) that differs between configurations that the workers of a cluster must share.

    Workers may differ in the place of the data, and in sampling and evaluation, which training does not read.
    """
    data = {key: value for key, value in config["data"].items() if key not in ("name", "data_dir", "download")}
    shared = {name: value for name, value in config.items() if name not in ("sampler", "evaluation")}
    text = json.dumps({**shared, "data": data}, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 2**31
