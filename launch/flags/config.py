"""The flag --config: a configuration file or the name of a packaged one, its variant, and values of its sections."""

import pathlib
import re
import sys
import traceback
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

_OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)(?:=(.*))?", re.DOTALL)


def define(help_text: str, *, required: bool = False) -> flags.FlagHolder:
    """Defines --config, and with it --config.SECTION.KEY for every key of the configuration.

    `--config=configs/digits.py` is a file, `--config=digits` the packaged configuration of that name, and
    `--config=digits:sliced` a variant of it. A section whose `name` is overridden has the keys of the new choice.

    Args:
      help_text: the flag's help.
      required: whether it must be given.
    """
    holder = config_flags.DEFINE_config_file("config", None, help_text)
    flags.FLAGS["config"].parser = _Parser(name="config")
    if required:
        flags.mark_flag_as_required("config")
    return holder


class _Parser(ConfigFileFlagParser):
    """Reads a configuration file, and applies the choices of the command line before its other overrides."""

    def parse(self, path: str) -> Any:
        from ncsn_tf.config import sections

        try:
            config = super().parse(_located(path))
        except Exception as error:  # the file is a program; ml_collections adds its traceback to the message
            raise _without_traceback(error) from error
        overrides = [found for argument in sys.argv[1:] if (found := _OVERRIDE.fullmatch(argument))]
        with config.unlocked():
            for override in overrides:
                section, _, key = override[1].partition(".")
                if key == "name" and section in config and "name" in config[section] and override[2] is not None:
                    sections.choose(config, section, override[2])
        for override in overrides:
            _check(config, override[1])
        return config


def _without_traceback(error: Exception) -> Exception:
    """The error of a configuration file as one message; with its line, unless the message is made for the user."""
    cause = error.__context__ or error
    if isinstance(cause, ValueError | SyntaxError):
        return ValueError(str(cause))
    place = traceback.extract_tb(cause.__traceback__)[-1]
    return ValueError(f"{type(cause).__name__}: {cause} ({place.filename}, line {place.lineno}).")


def _located(path: str) -> str:
    """The path of a configuration file, from a path or the name of a packaged configuration, with its variant."""
    name, colon, variant = path.partition(":")
    if name.endswith(".py") or "/" in name:
        if not pathlib.Path(name).is_file():
            raise ValueError(f"There is no configuration file {name!r}.")
        return path
    package = pathlib.Path(__file__).parents[2] / "configs"
    found = package / f"{name}.py"
    if not found.is_file():
        known = ", ".join(sorted(file.stem for file in package.glob("*.py") if file.stem != "__init__"))
        raise ValueError(
            f"There is no packaged configuration {name!r}. There are: {known}. Or give a path to a .py file."
        )
    return f"{found}{colon}{variant}"


def _check(config: Any, path: str) -> None:
    """Raises ValueError if the configuration has no value of this path, naming the nearest."""
    from ncsn_tf.config import sections

    here, where = config, "config"
    for key in path.split("."):
        if not hasattr(here, "keys"):
            raise ValueError(f"{where} is a value and has no keys. Received: --config.{path}.")
        if key not in here:
            raise ValueError(sections.unread(where, key, list(here.keys()), here.get("name")))
        here, where = here[key], f"{where}.{key}"
