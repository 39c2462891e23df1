"""Printing cannot end a program."""

import os
import pty
import subprocess
import sys

import pytest

from tests.support.processes import ROOT

# More than a pipe or a buffer holds, by print, by a warning, by a log and below Python, and then its end.
PROGRAM = """
import logging, os, sys, warnings
from launch.flags import output
output.make_tolerant()
for number in range(3000):
    print("a line of text", number, "ü", "\\udce9", "\\u65e5")
sys.stdout.flush()
print("an error ü \\udce9", file=sys.stderr)
warnings.warn("a warning")
logging.error("a log")
os.write(2, b"below Python")
open(sys.argv[1], "w").write("done")
"""


def run(tmp_path, redirection="", **options):
    """Runs the program with a shell's redirection; returns its exit code, its output and whether it came to its end."""
    done = tmp_path / "done"
    done.unlink(missing_ok=True)
    line = ["bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, "-c", PROGRAM, str(done)]
    environment = os.environ | options.pop("environment", {})
    ended = subprocess.run(line, cwd=ROOT, env=environment, timeout=60, **options)
    return ended.returncode, ended, done.exists() and done.read_text() == "done"


@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">&-", "2>&-", ">&- 2>&-", ">/dev/full 2>&1"])
def test_a_stream_that_cannot_be_written_ends_nothing(tmp_path, redirection):
    code, ended, done = run(tmp_path, redirection, capture_output=True)
    assert (code, done) == (0, True)
    assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr
    if "2>" not in redirection:
        assert b"a log" in ended.stderr, "the other stream still works"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_ends_nothing(tmp_path, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    environment = {"PYTHONUNBUFFERED": unbuffered}
    with open(writing, "wb") as pipe:
        code, ended, done = run(tmp_path, stdout=pipe, stderr=subprocess.PIPE, environment=environment)
    assert (code, done) == (0, True)
    assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr


def test_a_terminal_that_vanishes_ends_nothing(tmp_path):
    ours, theirs = pty.openpty()
    os.close(ours)
    with open(theirs, "wb", buffering=0) as terminal:
        code, _, done = run(tmp_path, stdout=terminal, stderr=terminal)
    assert (code, done) == (0, True)


def test_a_pipe_that_does_not_block_receives_everything(tmp_path):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    reader = subprocess.Popen(["bash", "-c", "sleep 0.3; wc -l"], stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    with open(writing, "wb") as pipe:
        code, _, done = run(tmp_path, stdout=pipe, stderr=subprocess.DEVNULL)
    lines, _ = reader.communicate(timeout=30)
    assert (code, done, int(lines)) == (0, True, 3000)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", rb"2 \xfc \udce9 \u65e5"),
        ("ascii:strict", rb"2 \xfc \udce9 \u65e5"),
        ("latin-1", b"2 \xfc \\udce9 \\u65e5"),
        ("utf-8", "2 ü \\udce9 日".encode()),
    ],
)
def test_characters_that_an_encoding_lacks_are_escaped(tmp_path, encoding, expected):
    code, ended, done = run(tmp_path, capture_output=True, environment={"PYTHONIOENCODING": encoding})
    assert (code, done) == (0, True)
    assert ended.stdout.splitlines()[2] == b"a line of text " + expected
    assert ended.stdout.count(b"\n") == 3000


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| head -1 >/dev/null; exit ${PIPESTATUS[0]}"])
def test_a_launcher_keeps_its_exit_code(redirection):
    """Help comes to its end, and an error is still 2."""
    for flag, code in (("--help", 0), ("--no_such_flag", 2)):
        line = f"{sys.executable} -m launch.train {flag} {redirection}"
        ended = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
