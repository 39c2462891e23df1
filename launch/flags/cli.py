"""The frame in which a verb runs: it parses the flags, and ends with one clear line on a usage error."""

import contextlib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app, flags, logging

from ncsn_tf import files

from . import output

USAGE_ERROR = 2
FAILURE = 1
INTERRUPTED = 130
TERMINATED = 143
STOPPED = 75
"""Stopped from outside: the same command resumes. sysexits.h calls this code EX_TEMPFAIL."""


_FULL_HELP = frozenset(("--helpfull", "-helpfull"))
_HELP = frozenset(("--help", "-help", "-h", "-?"))


_preparations: list[Callable[[Sequence[str]], Sequence[str]]] = []


def before_parsing(prepare: Callable[[Sequence[str]], Sequence[str]]) -> None:
    """Registers a function that takes from a command line what absl's flags do not know, and returns the rest of it."""
    _preparations.append(prepare)


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """Ends the program with one line on standard error."""
    print(f"error: {' '.join(described(message).split())}", file=sys.stderr)
    sys.exit(code)


def described(message: object) -> str:
    """A message, or an error as a sentence: with its type if its text alone says nothing, without errno's number."""
    if isinstance(message, OSError) and message.strerror and message.errno is not None:
        names = [os.fsdecode(name) for name in (message.filename, message.filename2) if isinstance(name, str | bytes)]
        return f"{message.strerror}: {' and '.join(map(repr, names))}" if names else message.strerror
    text = str(message).strip()
    if isinstance(message, BaseException) and (isinstance(message, KeyError) or not text):
        return f"{type(message).__name__}: {text}" if text else type(message).__name__
    return text


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Within it, an error that the library raises about its input ends the program with code 2 and no traceback.

    Put it around reading configurations, data and checkpoints, not around long computations, where a ValueError is a
    defect of ours whose traceback is wanted.
    """
    try:
        yield
    except Exception as error:
        if files.no_space(error):
            remedy = "" if "Make room" in str(error) else ". Make room, or give another place to write to."
            fail(f"{described(error) if isinstance(error, OSError) else files.reason(error)}{remedy}", FAILURE)
        if isinstance(error, OSError) and error.errno == errno.EIO:
            fail(error, FAILURE)
        if isinstance(error, (ValueError, OSError, ImportError)):
            fail(error)
        raise


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow and Keras, and lets TensorFlow look for devices with standard error closed.

    It writes a dozen lines about libraries and drivers there before any log level applies, which would bury the one
    line that a user needs. A failure ends the program with its reason, such as a wrong value in Keras's keras.json.
    """
    sys.stderr.flush()
    failure = None
    # Keras imports Matplotlib, which reads these. This program shows no window, and draws with the default settings.
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    # If TensorFlow does not know a flag in these, it ends the process, and its last words are the only reason given.
    silent = not (os.environ.get("TF_XLA_FLAGS") or os.environ.get("XLA_FLAGS"))
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    if silent:
        os.dup2(nowhere, 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
        import keras  # noqa: F401
    except Exception as error:  # modules of others, which read files and variables of the user
        failure = error
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    if failure is not None:
        fail(
            f"TensorFlow and Keras cannot be imported: {described(failure)}. Check the installed packages, the file "
            "keras.json in KERAS_HOME or ~/.keras, and the variables TF_* and KERAS_*."
        )


def _help(main: Callable[[], None]) -> str:
    """The launcher's description, its own flags, and those that it shares with others; --helpfull adds absl's."""
    verb = sys.modules[main.__module__]
    here = __name__.rpartition(".")[0]
    shared = [module for module in flags.FLAGS.flags_by_module_dict() if module.startswith(f"{here}.")]
    parts = [(verb.__doc__ or "").strip()]
    for module in (verb, *shared):
        _, _, listed = flags.FLAGS.module_help(module).partition(":\n")
        if listed:
            title = "Flags" if module is verb else f"Shared flags: {str(module).rpartition('.')[2]}"
            parts.append(f"{title}\n{listed.rstrip()}")
    return "\n\n".join([*parts, "--helpfull lists every flag."])


def _expanded(arguments: Sequence[str]) -> list[str]:
    """The arguments with the lines of each --flagfile in its place; raises ValueError if one cannot be read."""
    try:
        return flags.FLAGS.read_flags_from_files(arguments, force_gnu=False)
    except (flags.Error, OSError, UnicodeError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise ValueError(f"A --flagfile cannot be read: {described(cause)}.") from error


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags and runs `main`; a wrong flag or configuration file ends with code 2 and one line."""

    def parse(arguments: Sequence[str]) -> list[str]:
        if _HELP.intersection(arguments[1:]):
            print(_help(main))
            sys.exit(0)
        if _FULL_HELP.intersection(arguments[1:]):
            print(f"{sys.modules[main.__module__].__doc__}\n{flags.FLAGS.get_help()}")
            sys.exit(0)
        try:
            arguments = [arguments[0], *_expanded(arguments[1:])]
            for prepare in _preparations:
                arguments = prepare(arguments)
            rest = flags.FLAGS(arguments)
        except Exception as error:  # a config file is the user's program and may raise anything
            fail(error)
        if len(rest) > 1:
            fail(f"Unexpected arguments: {' '.join(rest[1:])}. Flags are written --name=value.")
        return rest

    def guarded(_: Sequence[str]) -> None:
        logging.set_verbosity(logging.ERROR)
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
        _import_tensorflow_quietly()
        try:
            main()
        except KeyboardInterrupt:
            fail("interrupted. The same command resumes from what is saved.", INTERRUPTED)

    output.make_tolerant()
    # A request to end unwinds as an exception does, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    app.run(guarded, flags_parser=parse)
