"""Progress: lines of text that read well in a file, and a bar on a terminal."""

import io
import os
import pty
import sys

import pytest

from ncsn_tf import progress


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


class File(io.StringIO):
    """A stream that is no terminal, or says that it is one."""

    def __init__(self, terminal=False):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def shown(total, unit, events, *, start=0, description="", remark="", end=None):
    """The lines of work that finishes `n` units at each of the times `events`, {seconds: n}, and ends at `end`."""
    stream, clock = File(), Clock()
    with progress.progress_bar(total, unit, start, stream=stream, clock=clock) as bar:
        if description:
            bar.set_description(description)
        for clock.now, count in events.items():
            bar.set_postfix_str(remark)
            bar.update(count)
        clock.now = max(events, default=0) if end is None else end
    bar.close()
    assert "\r" not in stream.getvalue()
    return stream.getvalue().splitlines()


def test_the_lines_of_a_training():
    """52 steps every 10 seconds: lines after 30 s, then 60 s later, then 120 s later, and one at the end."""
    lines = shown(10_000, "step", {10 * n: 52 for n in range(1, 28)}, remark="loss 0.123")
    assert lines == [
        "step 156 of 10000 (1 %), 5.2 steps/s, 32 min left; loss 0.123",
        "step 468 of 10000 (4 %), 5.2 steps/s, 31 min left; loss 0.123",
        "step 1092 of 10000 (10 %), 5.2 steps/s, 29 min left; loss 0.123",
        "step 1404 of 10000 (14 %) after 4 min, 5.2 steps/s; loss 0.123",
    ]


def test_lines_become_rarer_and_at_most_ten_minutes_apart():
    lines = shown(10**6, "step", {second: 1 for second in range(1, 3601)})
    assert [int(line.split()[1]) for line in lines] == [30, 90, 210, 450, 930, 1530, 2130, 2730, 3330, 3600]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (((None, "image", {40: 200}), {"description": "samples"}), 2),
        (((None, "image", {40: 0}), {"description": "held-out loss"}), 2),
        (((10, "level", {29: 10}), {}), 0),
        (((10, "level", {}), {"end": 5}), 0),
        (((10, "level", {}), {"end": 500}), 1),
    ],
)
def test_short_work_leaves_no_line_and_long_work_two(arguments, lines):
    positional, named = arguments
    assert len(shown(*positional, **named)) == lines


def test_lines_have_units_and_count_from_a_resumed_start():
    assert shown(None, "image", {40: 200}, description="samples") == [
        "samples: 200 images, 5 images/s, 40 s so far",
        "samples: 200 images after 40 s, 5 images/s",
    ]
    assert shown(None, "image", {45: 0}, description="held-out loss")[-1] == "held-out loss: took 45 s"
    assert shown(10, "level", {60: 1})[0] == "level 1 of 10 (10 %), 60 s per level, 9 min left"
    assert shown(100, "step", {50: 25}, start=50)[0] == "step 75 of 100 (75 %), 2 s per step, 50 s left"
    assert shown(None, "image", {30: 1})[0].startswith("1 image, 30 s per image")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99.0, "99 s"), (1680.0, "28 min"), (12_000.0, "3 h 20 min"), (187_200.0, "2 d 4 h")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_stdout_is_flushed_before_a_progress_line(monkeypatch):
    """Standard output is buffered in a file, standard error is not."""
    order = []

    class Buffered(io.StringIO):
        def flush(self):
            order.append("output")

    class Unbuffered(File):
        def write(self, text):
            order.append("line")
            return len(text)

    monkeypatch.setattr(sys, "stdout", Buffered())
    clock = Clock()
    bar = progress.progress_bar(2, "step", stream=Unbuffered(), clock=clock)
    clock.now = 31.0
    bar.update()
    assert order == ["output", "line"]


@pytest.mark.parametrize("broken", ["none", "closed", "without isatty", "full"])
def test_work_is_not_lost_for_its_progress(monkeypatch, broken):
    bare = type("Writer", (), {"write": lambda self, text: None, "flush": lambda self: None})()
    stream = {"none": None, "closed": File(), "without isatty": bare, "full": File()}[broken]
    if broken == "closed":
        stream.close()
    if broken == "full":

        def full(text):
            raise OSError(28, "No space left on device")

        stream.write = full
    monkeypatch.setattr(sys, "stderr", stream)
    clock = Clock()
    with progress.progress_bar(5, "step", clock=clock) as bar:
        clock.now = 100.0
        bar.update()


def test_a_terminal_has_a_bar_with_units():
    stream = File(terminal=True)
    with progress.progress_bar(4, "step", stream=stream) as bar:
        bar.update(4)
    assert "4/4" in stream.getvalue() and " steps/s" in stream.getvalue() and "\r" in stream.getvalue()
    with progress.progress_bar(None, "image", stream=(stream := File(terminal=True))) as bar:
        bar.set_description("held-out loss")
        bar.update(0)
        bar.refresh()
        assert "held-out loss: 00:00" in stream.getvalue() and "image" not in stream.getvalue()
        bar.update(3)
        bar.refresh()
    assert "3 images [" in stream.getvalue()


def test_a_pseudo_terminal_is_a_terminal():
    first, second = pty.openpty()
    with os.fdopen(second, "w") as stream:
        bar = progress.progress_bar(4, "step", stream=stream)
        assert not isinstance(bar, progress.Lines)
        bar.close()
    os.close(first)
