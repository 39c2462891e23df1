"""The flag --config: a configuration file or the name of a packaged one, its variant, and values of its sections."""

import importlib.machinery
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ncsn_tf import files
from ncsn_tf.data import names

from . import cli

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)
_CONFIG = re.compile(r"--?config(?:=.*)?", re.DOTALL)
_FLAG = re.compile(r"--.*|-[^\d.].*", re.DOTALL)
"""An argument that is a flag and no negative number."""


def define(help_text: str, *, required: bool = False) -> flags.FlagHolder:
    """Defines --config, and with it --config.SECTION.KEY for every key of the configuration.

    `--config=configs/digits.py` is a file, `--config=digits` the packaged configuration of that name, and
    `--config=digits:sliced` a variant of it. A section whose `name` is overridden has the keys of the new choice.

    Args:
      help_text: the flag's help.
      required: whether it must be given.
    """
    parser = _Parser()
    cli.before_parsing(parser.take_overrides)
    return flags.DEFINE(parser, "config", None, help_text, serializer=flags.ArgumentSerializer(), required=required)


def resolved(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration, plain values in nested dicts, with absolute paths, as a run records it.

    Raises:
      ValueError: for a path that is not on this machine.
    """
    data = content.get("data")
    if not isinstance(data, dict):
        return content  # the builder says what a section is
    name, folder = data.get("name"), data.get("data_dir")
    found = {}
    try:
        if isinstance(name, str) and name:
            found["name"] = names.located(name)
        if isinstance(folder, str) and not files.is_address(folder):
            found["data_dir"] = str(files.local_path(folder))
    except ValueError as error:
        raise ValueError(f"config.data: {error}") from error
    return {**content, "data": {**data, **found}}


class _Parser(flags.ArgumentParser):
    """Reads a configuration file, and applies the values of the command line."""

    def __init__(self):
        super().__init__()
        self._overrides: list[tuple[str, str | None]] = []

    def flag_type(self) -> str:
        return "configuration"

    def take_overrides(self, arguments: Sequence[str]) -> list[str]:
        """Takes the values of keys out of a command line, whose flag files are expanded, and returns the rest of it.

        Raises:
          ValueError: for a value without --config, and for a wrong --noconfig.SECTION.KEY.
        """
        rest, self._overrides, waiting = [], [], list(arguments)
        while waiting:
            argument = waiting.pop(0)
            found = _OVERRIDE.fullmatch(argument)
            if argument == "--":
                rest += [argument, *waiting]
                break
            if found is None:
                rest.append(argument)
            else:
                self._overrides.append((found[2], _value(found, waiting)))
        if self._overrides and not any(map(_CONFIG.fullmatch, rest)):
            path, _ = self._overrides[0]
            raise ValueError(
                f"--config.{path} changes a value of the configuration of --config, which is not given: give "
                "--config=NAME too."
            )
        return rest

    def parse(self, argument: str) -> ConfigDict:
        """The configuration of a file with the values of the command line; raises ValueError if one is wrong."""
        from ncsn_tf.config import schema, sections

        file, variant = _located(argument)
        config = _returned(file, variant)
        try:
            sections.check_keys(config.to_dict())
        except ValueError as error:
            raise ValueError(f"{error} ({file})") from error
        with config.unlocked():
            for key, text in self._overrides:  # choices first: other keys may belong to them
                section, _, name = key.partition(".")
                if name == "name" and section in schema.CHOICES and text:
                    sections.choose(config, section, text)
        content = config.to_dict()
        for key, text in self._overrides:
            sections.override(content, key, text)
        sections.read(content)
        return ConfigDict(sections.plain(content))


def _value(found: re.Match, waiting: list[str]) -> str | None:
    """The text of a key's value, which may be the next of the `waiting` arguments, and is taken then; None without one.

    Raises:
      ValueError: for --noconfig.SECTION.KEY with a value or with a key that is not true or false.
    """
    from ncsn_tf.config import sections, values

    negated, path, text = found.groups()
    switch = sections.is_switch(path)
    if negated:
        if text is not None:
            raise ValueError(f"--noconfig.{path} takes no value. Write --config.{path}=VALUE. Received: {text!r}.")
        if not switch:
            raise ValueError(f"--noconfig.{path}: config.{path} is not a true-or-false key.")
        return "false"
    if text is not None:
        return text
    following = waiting[0] if waiting else None
    if switch:
        return waiting.pop(0) if following is not None and values.reads_as_switch(following) else "true"
    return waiting.pop(0) if following is not None and not _FLAG.fullmatch(following) else None


def _returned(file: str, variant: list[str]) -> ConfigDict:
    """The configuration that a file's `get_config` returns; raises ValueError with the place of a mistake."""
    try:
        module = types.ModuleType("ncsn_tf_configuration")
        module.__file__ = file
        sys.modules[module.__name__] = module  # where dataclasses look up the names in annotations
        importlib.machinery.SourceFileLoader(module.__name__, file).exec_module(module)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise ValueError("The file has no function get_config().")
        config = get_config(*variant)
        if not isinstance(config, ConfigDict | Mapping):
            forgotten = " A return statement may be missing." if config is None else ""
            raise ValueError(f"get_config() must return a ConfigDict. Received: {type(config).__name__}.{forgotten}")
        return config if isinstance(config, ConfigDict) else ConfigDict(config)
    except (Exception, SystemExit) as error:  # the file is a program and may raise anything
        raise ValueError(_described(error, file)) from error


def _described(error: BaseException, file: str) -> str:
    """The error of a configuration file as one message with its place; with its type, unless it is for the user."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError):
        text, lines = f"{type(error).__name__}: {error.msg}", [error.lineno]
    elif isinstance(error, ValueError) and str(error):
        text = str(error)
    else:
        said = cli.described(error).removeprefix(type(error).__name__).removeprefix(": ")
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"{text} ({file}{f', line {lines[-1]}' if lines and lines[-1] else ''})"


def _located(path: str) -> tuple[str, list[str]]:
    """The path of a configuration file and its variant, if one is given, from a path or the name of a packaged one."""
    parts = path.split(":")
    for count in range(len(parts), 0, -1):  # a folder's name may have a colon too
        name, variants = ":".join(parts[:count]), [":".join(parts[count:])] if parts[count:] else []
        if (name.endswith(".py") or "/" in name) and files.local_path(name).is_file():
            return str(files.local_path(name)), variants
    name, colon, variant = path.partition(":")
    variants = [variant] if colon else []
    if name.endswith(".py") or "/" in name:
        file = files.local_path(name)
        if not file.is_file():
            what = "It is a folder." if file.is_dir() else "Give a path to a .py file, or the name of a packaged one."
            raise ValueError(f"There is no configuration file {str(file)!r}. {what}")
        return str(file), variants
    package = pathlib.Path(__file__).parents[2] / "configs"
    found = package / f"{name}.py"
    if not found.is_file():
        known = ", ".join(sorted(file.stem for file in package.glob("*.py") if file.stem != "__init__"))
        raise ValueError(
            f"There is no packaged configuration {name!r}. There are: {known}. Or give a path to a .py file."
        )
    return str(found), variants
