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

USAGE_ERROR = 2
FAILURE = 1
INTERRUPTED = 130
TERMINATED = 143
STOPPED = 75
"""Stopped from outside: the same command resumes. sysexits.h calls this code EX_TEMPFAIL."""


_FULL_HELP = frozenset(("--helpfull", "-helpfull"))
_HELP = frozenset(("--help", "-help", "-h", "-?"))


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """Ends the program with one line on standard error."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Within it, an error that the library raises about its input ends the program with code 2 and no traceback.

    Put it around reading configurations, data and checkpoints, not around long computations, where a ValueError is a
    defect of ours whose traceback is wanted.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            fail(f"{error}. Make room, or give another place to write to.", FAILURE)
        fail(error)


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow and lets it look for devices with standard error closed.

    It writes a dozen lines about libraries and drivers there before any log level applies, which would bury the one
    line that a user needs. Real failures raise, and are reported.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


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

    # A request to end unwinds as an exception does, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    app.run(guarded, flags_parser=parse)
