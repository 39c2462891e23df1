"""Reads the configuration that an authors' program trained with, and compares it with what the tensors tell."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf import files

_SECTIONS = ("model", "data", "training")
_MISSING = object()
NAMES = ("ncsnpp", "ddpm", "ncsn", "ncsnv2_64", "ncsnv2_128", "ncsnv2_256")
"""The names of networks in the key `model.name` of score_sde."""


class Configuration:
    """The sections `model`, `data` and `training` of an authors' configuration, each possibly empty.

    Values are looked up as "model.nf"; several names separated by "|" are those of several programs for one value. A
    key that is absent, or null, is one that the configuration does not tell. Keys that nobody asks for do not matter.

    Args:
      sections: the sections by name.
      where: names the configuration in messages.
    """

    def __init__(self, sections: Mapping[str, Any], where: str = "config"):
        for name in _SECTIONS:
            if not isinstance(sections.get(name, {}), Mapping):
                raise ValueError(f"{where}: {name} must be a section. Received: {sections[name]!r}.")
        self._sections = {name: dict(sections.get(name, {})) for name in _SECTIONS}
        self._where = where

    def __bool__(self) -> bool:
        return any(self._sections.values())

    def whole(self, names: str) -> int | None:
        """A whole number."""
        return self._value(names, "a whole number", _whole)

    def number(self, names: str) -> float | None:
        """A finite number."""
        return self._value(names, "a finite number", _number)

    def switch(self, names: str) -> bool | None:
        """True or False."""
        return self._value(names, "true or false", lambda value: value if isinstance(value, bool) else _MISSING)

    def word(self, names: str, choices: Sequence[str]) -> str | None:
        """One of some words, in lower case."""

        def read(value: Any) -> Any:
            return value.lower() if isinstance(value, str) and value.lower() in choices else _MISSING

        return self._value(names, f"one of {', '.join(choices)}", read)

    def whole_numbers(self, names: str) -> tuple[int, ...] | None:
        """A list of whole numbers; a single number counts as a list of one."""

        def read(value: Any) -> Any:
            numbers = [_whole(number) for number in (value if isinstance(value, list | tuple) else [value])]
            return _MISSING if _MISSING in numbers else tuple(numbers)

        return self._value(names, "a list of whole numbers", read)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the images."""
        side = self.whole("data.image_size")
        if side is not None and side < 1:
            raise self.wrong("data.image_size", side, "the images have 1 or more pixels a side.")
        return None if side is None else (side, side)

    def size(self, given: Any) -> tuple[int, int] | None:
        """(height, width) of the images: what is given, a side or (height, width), else the configuration's.

        Raises:
          ValueError: if it is something else, or if both tell different sizes.
        """
        trained = self.image_size
        if given is None:
            return trained
        pair = tuple(given) if isinstance(given, list | tuple) else (given, given)
        if len(pair) != 2 or _MISSING in (sides := [_whole(side) for side in pair]) or min(sides) < 1:
            raise ValueError(f"image_size must be a side or (height, width), in whole pixels. Received: {given!r}.")
        if trained not in (None, tuple(sides)):
            raise ValueError(
                f"{self._where}: data.image_size={trained[0]} contradicts the image_size that was given, "
                f"{sides[0]}x{sides[1]}. Give one of them."
            )
        return sides[0], sides[1]

    def agree(self, names: str, given: Any, told: Any, teller: str = "the tensors") -> None:
        """Raises ValueError if the configuration gives another value than the tensors tell; None is no value.

        Args:
          names: the key, as for the other methods.
          given: the configuration's value.
          told: the tensors' value.
          teller: says whose value that is.
        """
        if given is None or told is None or given == told:
            return
        if isinstance(told, float) and math.isclose(given, told, rel_tol=1e-3):
            return
        raise ValueError(
            f"{self._where}: {self._given(names)[0]}={_written(given)} contradicts {teller}, which have "
            f"{_written(told)}. Give the configuration that this checkpoint was trained with."
        )

    def refuse(self, names: str, given: Any, reason: str) -> ValueError:
        """The error about a value that this library has no counterpart of."""
        return ValueError(f"{self._where}: {self._given(names)[0]}={_written(given)} is not supported: {reason}")

    def wrong(self, names: str, given: Any, reason: str) -> ValueError:
        """The error about an impossible value."""
        return ValueError(f"{self._where}: {self._given(names)[0]}={_written(given)} cannot be used: {reason}")

    def _given(self, names: str) -> tuple[str, Any]:
        """The first of the names that has a value, and that value; else the first name and None."""
        section, _, keys = names.partition(".")
        held = self._sections[section]
        for key in keys.split("|"):
            if held.get(key) is not None:
                return f"{section}.{key}", held[key]
        return f"{section}.{keys.partition('|')[0]}", None

    def _value(self, names: str, expected: str, read: Callable[[Any], Any]) -> Any:
        name, given = self._given(names)
        value = None if given is None else read(given)
        if value is _MISSING:
            raise ValueError(f"{self._where}: {name} must be {expected}. Received: {given!r}.")
        return value


class Reader:
    """Takes each value from the tensors, the configuration or the published models, in this order.

    Args:
      config: the authors' configuration.
      family: the published models, for people.

    Attributes:
      assumed: the values that were taken from the published models, each as "KEY=VALUE".
    """

    def __init__(self, config: Configuration, family: str):
        self.config = config
        self.family = family
        self.assumed: list[str] = []

    def take(self, names: str, given: Any, published: Any, told: Any = None) -> Any:
        """The value that the tensors tell, else that of the configuration, else the published one.

        Args:
          names: the key, as `Configuration` takes it.
          given: the configuration's value, or None.
          published: the value in the published models; None if they differ.
          told: the tensors' value, or None.

        Raises:
          ValueError: if the configuration contradicts the tensors, or nothing tells the value.
        """
        self.config.agree(names, given, told)
        if told is not None or given is not None:
            return given if told is None else told
        key = names.partition("|")[0]
        if published is None:
            raise ValueError(
                f"Nothing tells {key} of this {self.family}: the tensors do not, and published models differ. Give "
                f"config (--model_config=FILE.json) with {key}, the configuration that it was trained with."
            )
        self.assumed.append(f"{key}={_written(published)}")
        return published


def read(config: Any) -> Configuration:
    """Reads a configuration of an authors' program.

    Args:
      config: the section `model`, or a whole configuration with sections `model`, `data` and `training`: a dict, an
        `ml_collections.ConfigDict`, or the path of a JSON file that holds one. None for none.

    Raises:
      ValueError: if it is something else, or the file is empty, damaged or no JSON object.
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be opened.
    """
    if config is None or isinstance(config, Configuration):
        return config or Configuration({})
    where = "config"
    if isinstance(config, str | os.PathLike):
        path = files.local_path(config)
        where, config = str(path), _content(path)
    elif hasattr(config, "to_dict"):
        config = config.to_dict()
    if not isinstance(config, Mapping):
        raise ValueError(
            f"{where} must be the model section of a configuration, of keys and values, or the path of a JSON file. "
            f"Received: {type(config).__name__}."
        )
    if not config:
        raise ValueError(f"{where} is empty. Give the model section that the checkpoint was trained with.")
    whole = any(isinstance(config.get(name), Mapping) for name in _SECTIONS)
    return Configuration(config if whole else {"model": config}, where)


def _content(path: os.PathLike) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no configuration at {path}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text. Expected a configuration in JSON.") from error
    if not text.strip():
        raise ValueError(f"{path} is empty. Expected a configuration in JSON.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}. Write the model section with json.dump.") from error


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or value != value // 1:
        return _MISSING
    return int(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return _MISSING
    return float(value)


def _written(value: Any) -> str:
    """A value as it is written in JSON."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
