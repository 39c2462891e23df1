"""Progress of long work: a bar on a terminal, an occasional line of text anywhere else."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import tqdm

_FIRST, _LONGEST = 30.0, 600.0
"""Seconds until the first line, and the longest time between two lines, which doubles from line to line."""


def progress_bar(
    total: int | None,
    unit: str,
    start: int = 0,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "Progress":
    """The progress of some work, shown on standard error; a context manager, whose exit closes it.

    Its `update(n)` adds n finished units, `set_description` names the activity, and `set_postfix_str` sets a remark,
    such as the loss.

    Args:
      total: the number of units in the end; None if it is not known.
      unit: the name of one of them: "step".
      start: how many are done already.
      stream: where to show it, by default `sys.stderr`. If that is None, which Python sets where there is no standard
        error, nothing is shown.
      clock: the time in seconds, for lines of text.
    """
    stream = sys.stderr if stream is None else stream
    if not _is_terminal(stream):
        return Lines(total, unit, start, stream=stream, clock=clock)
    return _Bar(total=total, initial=start, unit=f" {unit}s", dynamic_ncols=True, file=stream)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, OSError, ValueError):  # replaced by something else, or closed
        return False


class _Bar(tqdm.tqdm):
    """A bar that shows the time alone as long as nothing is counted."""

    def __init__(self, **options: Any):
        uncounted = "{desc}{elapsed}" if options["total"] is None and not options["initial"] else None
        super().__init__(bar_format=uncounted, **options)

    def update(self, n: float | None = 1) -> bool | None:
        if n:
            self.bar_format = None
        return super().update(n)


class Lines:
    """Progress as lines of text: the first after half a minute, further ones ever more rarely, and one at the end.

    Work that ends before the first line leaves none. An error of the stream is ignored: work is not lost for its
    progress.

    Args:
      total: as for `progress_bar`.
      unit: likewise.
      start: likewise.
      stream: where to write; None for nowhere.
      clock: the time in seconds.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        start: int = 0,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._unit, self._stream, self._clock = total, unit, stream, clock
        self._first = self._done = self._last_done = start
        self._begun = self._last_time = clock()
        self._pause = _FIRST
        self._description = self._remark = ""
        self._closed = False

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Adds n finished units, and writes a line if one is due."""
        self._done += n
        now = self._clock()
        if now - self._last_time < self._pause:
            return
        new, seconds = self._done - self._last_done, now - self._last_time
        parts = [self._place()]
        if new > 0:
            parts.append(_rate(new / seconds, self._unit))
            if self._total is not None and self._total > self._done:
                parts.append(f"{duration((self._total - self._done) * seconds / new)} left")
        if self._total is None:
            parts.append(f"{duration(now - self._begun)} so far")
        self._show(parts)
        self._last_done, self._last_time = self._done, now
        self._pause = min(2.0 * self._pause, _LONGEST)

    def set_description(self, desc: str, refresh: bool = True) -> None:
        """Names the activity."""
        self._description = desc

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        """Sets a remark, such as the loss."""
        self._remark = s

    def close(self) -> None:
        """Writes the last line if the work has taken long enough for a first one."""
        seconds = self._clock() - self._begun
        if self._closed or seconds < _FIRST:
            self._closed = True
            return
        self._closed = True
        parts = [f"{self._place()} after {duration(seconds)}" if self._done else f"took {duration(seconds)}"]
        if self._done > self._first:
            parts.append(_rate((self._done - self._first) / seconds, self._unit))
        self._show(parts)

    def _place(self) -> str:
        if self._total is None:
            return f"{self._done} {self._unit}{'s' * (self._done != 1)}"
        return f"{self._unit} {self._done} of {self._total} ({100 * self._done // max(1, self._total)} %)"

    def _show(self, parts: list[str]) -> None:
        text = ", ".join(part for part in parts if part)
        line = f"{self._description}: {text}" if self._description else text
        with contextlib.suppress(OSError, ValueError):
            if sys.stdout is not None:
                sys.stdout.flush()  # in a file that has both, what was printed before stands before this line
            if self._stream is not None:
                self._stream.write(f"{line}; {self._remark}\n" if self._remark else f"{line}\n")
                self._stream.flush()


Progress = _Bar | Lines


def _rate(per_second: float, unit: str) -> str:
    """Describes a rate: "5.2 steps/s", or "12 s per step"."""
    if per_second >= 1.0:
        return f"{_rounded(per_second)} {unit}s/s"
    return f"{_rounded(1.0 / per_second)} s per {unit}"


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100.0 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Describes a time in one or two units: "45 s", "28 min", "3 h 20 min", "2 d 4 h"."""
    minutes = round(seconds / 60.0)
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
