"""Standard streams that cannot end a program: what is printed is a service, and a run is not lost for it."""

import io
import os
import select
import sys
from typing import TextIO


def make_tolerant() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams that never raise.

    Characters that the encoding lacks, such as those of names that are not text, are escaped. After the first failure,
    for instance a closed pipe, a full disk or a vanished terminal, the stream leads nowhere; so does one that was
    closed from the start. Streams without a file, such as those of a notebook, stay as they are.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = _nowhere(descriptor)
        setattr(sys, name, _tolerant(stream))


def _nowhere(descriptor: int) -> TextIO:
    """A stream that leads nowhere, in the place of a standard one that is closed.

    The descriptor is taken, since the next file that is opened would get it, and with it what is printed below Python.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(descriptor)
    except OSError:
        os.dup2(null, descriptor)
        os.close(null)
        null = descriptor
    return open(null, "w", encoding="utf-8", closefd=False)


def _tolerant(stream: TextIO) -> TextIO:
    try:
        descriptor = stream.fileno()
        stream.flush()
    except ValueError:  # it is closed, or has no file
        return stream
    except OSError:  # what it holds cannot be written, and would be tried again at the end
        descriptor = stream.fileno()
        _lead_nowhere(descriptor)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Raw(descriptor, "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _lead_nowhere(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class _Raw(io.FileIO):
    """A file that leads nowhere once it cannot be written."""

    def write(self, data, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            while (written := super().write(data)) is None:  # a descriptor that does not block has no room yet
                select.select([], [self], [])
            return written
        except OSError:
            _lead_nowhere(self.fileno())
            return len(data)
