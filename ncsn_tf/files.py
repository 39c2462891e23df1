"""Functions that write files atomically, so that a reader sees the complete new file or the old one; and paths."""

import contextlib
import csv
import datetime
import errno
import fcntl
import io
import json
import os
import pathlib
import re
import socket
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_LONGEST = 160
_DESCRIPTORS = "/proc/self/fd"
_PLAIN = re.compile(r"[A-Za-z0-9._/ -]+")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_address(text: str) -> bool:
    """Returns whether a text is an address such as gs://BUCKET/FOLDER, and not a path of this machine."""
    return _ADDRESS.match(text) is not None


def local_path(path: str | os.PathLike) -> pathlib.Path:
    """Returns the absolute form of a path on this machine: `~` and `~user` are expanded, symbolic links are kept.

    Raises:
      ValueError: if the path is empty, has a NUL byte, is an address such as gs://BUCKET, or names a user that does
        not exist.
    """
    text = os.fsdecode(path)
    if not text:
        raise ValueError("A path is empty. Give the path of a file or a folder; the current folder is '.'.")
    if "\0" in text:
        raise ValueError(f"A path has a NUL byte, which no file system accepts. Received: {text!r}.")
    if is_address(text):
        raise ValueError(f"Expected a path on this machine. Received the address {text!r}: mount it, or copy it here.")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise ValueError(f"{user!r} has no home folder here. Received: {text!r}. Write ./{user} for a folder's name.")
    return pathlib.Path(expanded).absolute()


@contextlib.contextmanager
def plain_path(path: str | os.PathLike) -> Iterator[str]:
    """Yields a path to the same place that TensorFlow takes literally, valid until the block ends.

    TensorFlow reads `[`, `*`, `?` and a backslash in some paths as a pattern, and refuses names that are not UTF-8. A
    path with anything but ASCII letters, digits, spaces and `._/-` is replaced by one below `/proc/self/fd`, which
    leads through a descriptor of the folder and needs no permission to write; or, where there is none, as on macOS, by
    one through a symbolic link in a temporary folder.

    Args:
      path: a file or a folder that exists, or a name without special characters in a folder that exists.

    Raises:
      ValueError: if there is no such replacement; and as `local_path`.
      OSError: if the folder does not exist or may not be entered.
    """
    place = local_path(path)
    if _PLAIN.fullmatch(str(place)) and ".." not in place.parts:
        yield str(place)
        return
    by_folder = _PLAIN.fullmatch(place.name) is not None and place.name != ".."
    if not (by_folder or place.exists()):
        raise ValueError(f"TensorFlow cannot use the path {str(place)!r}. Give one of ASCII letters, digits and ._-/.")
    with _another_way(place.parent if by_folder else place) as way:
        yield f"{way}/{place.name}" if by_folder else way


@contextlib.contextmanager
def _another_way(place: pathlib.Path) -> Iterator[str]:
    """Yields a path of plain characters to a file or folder that exists."""
    descriptor = os.open(place, getattr(os, "O_PATH", os.O_RDONLY))
    try:
        if os.path.isdir(_DESCRIPTORS):
            yield f"{_DESCRIPTORS}/{descriptor}"
            return
    finally:
        os.close(descriptor)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(place, os.path.join(folder, "link"))
        yield os.path.join(folder, "link")


def no_space(error: BaseException | None) -> bool:
    """Returns whether an error, or one that it was raised from, says that a disk or a quota is full.

    An error of TensorFlow has no number, and its ResourceExhaustedError also stands for too many open files. It is
    known by the operating system's words, which it repeats.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno in full
        if any(os.strerror(number) in str(error) for number in full):
            return True
        error = error.__cause__
    return False


def reason(error: BaseException) -> str:
    """The type and message of an error in one line, without TensorFlow's names of nodes.

    A long message loses its beginning, which is a path: the words of the operating system come last.
    """
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", str(error))
    words = " ".join(re.sub(r"/proc/self/fd/\d+", "...", text).split())  # of `plain_path`, of no use to a reader
    return f"{type(error).__name__}: {words if len(words) <= _LONGEST else '...' + words[-_LONGEST:]}"


def _beside(path: pathlib.Path, purpose: str) -> pathlib.Path:
    """A path in the same folder for what is incomplete; its name is short, whatever the length of the other name."""
    return path.with_name(f"{zlib.crc32(os.fsencode(path.name)):08x}_{purpose}.partial")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the path of a new file beside `path`, which replaces `path` when the block ends.

    If the block raises, `path` stays as it was and the new file is removed. The new file is on the disk before it is
    renamed, and its name belongs to this thread: two processes may write one file at the same time.
    """
    path = local_path(path)
    partial = _beside(path, f"{os.getpid()}_{threading.get_ident()}")
    try:
        yield partial
        to_disk(partial)
        os.replace(partial, path)
        to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def check_free(path: str | os.PathLike) -> None:
    """Raises ValueError if `path` exists, unless it is an empty folder."""
    path = local_path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists and is not an empty folder. Give another path, or remove it.")


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a spare folder, whose content is at `path` when the block ends; if it raises, nothing is left.

    Raises:
      ValueError: if `path` exists and is not an empty folder.
    """
    path = local_path(path)
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:32]}.", suffix=".partial") as spare:
        partial = pathlib.Path(spare) / "content"
        partial.mkdir()
        yield partial
        for written in partial.rglob("*"):
            to_disk(written)
        try:
            os.rename(partial, path)  # replaces an empty folder, and nothing else
        except OSError:
            check_free(path)  # another process was first
            raise
    to_disk(path.parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically; what UTF-8 cannot hold, as in some names of files, is escaped."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes plain values as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table atomically: a heading, then a line per row; the rows, one at least, have the same keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def to_disk(path: pathlib.Path) -> None:
    """Waits until a file or a directory is on the disk, so that a power failure does not undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: pathlib.Path, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Locks a file for this process, as a sign that only this process writes into the folder.

    The operating system holds the lock and releases it when the process ends, however it ends. On a network file system
    without support for locks, it only keeps out processes of the same machine.

    Args:
      path: the file, created if it does not exist; its text names the holder.
      refusal: makes the exception to raise if another process holds the lock, from the text of the file.
    """
    with open(path, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise refusal(lock.read().strip() or "unknown") from error
        lock.truncate(0)
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        lock.flush()
        yield


def write_npz_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to one `.npz`, atomically."""
    named: dict[str, Any] = dict(arrays)  # NumPy's annotations take any keyword for `allow_pickle` otherwise
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, **named)


def write_npz(path: str | os.PathLike, num_rows: int, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Writes arrays that arrive batch by batch to one `.npz`, atomically, with the memory of one batch.

    Args:
      path: the file to write.
      num_rows: the final number of rows of every array.
      batches: dicts with the same names each time, of arrays [b, ...] whose b add up to `num_rows`.

    Raises:
      ValueError: if the batches do not add up to `num_rows`.
    """
    path = local_path(path)
    columns: dict[str, np.memmap] = {}
    spare = {}
    try:
        filled = 0
        for batch in batches:
            rows = len(next(iter(batch.values())))
            for name, values in batch.items():
                if name not in columns:
                    spare[name] = _beside(path, name)
                    shape = (num_rows, *values.shape[1:])
                    columns[name] = np.lib.format.open_memmap(spare[name], "w+", values.dtype, shape)
                columns[name][filled : filled + rows] = values
            filled += rows
        if filled != num_rows:
            raise ValueError(f"Expected {num_rows} rows in all. Received: {filled}.")
        with (
            replacing(path) as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            for name, column in columns.items():
                column.flush()
                archive.write(spare[name], f"{name}.npy")
    finally:
        for leftover in spare.values():
            leftover.unlink(missing_ok=True)
