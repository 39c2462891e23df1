"""Functions that write files atomically: a reader sees the complete new file or the old one."""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the path of a new file beside `path`, which replaces `path` when the block ends.

    If the block raises, `path` stays as it was and the new file is removed. The new file is on the disk before it is
    renamed, and its name belongs to this thread: two processes may write one file at the same time.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}_{threading.get_ident()}.partial")
    try:
        yield partial
        to_disk(partial)
        os.replace(partial, path)
        to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes plain values as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


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


def write_npz_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to one `.npz`, atomically."""
    named: dict[str, Any] = dict(arrays)  # NumPy's annotations take any keyword for `allow_pickle` otherwise
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, **named)


def write_npz(path: pathlib.Path, num_rows: int, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Writes arrays that arrive batch by batch to one `.npz`, atomically, with the memory of one batch.

    Args:
      path: the file to write.
      num_rows: the final number of rows of every array.
      batches: dicts with the same names each time, of arrays [b, ...] whose b add up to `num_rows`.

    Raises:
      ValueError: if the batches do not add up to `num_rows`.
    """
    columns: dict[str, np.memmap] = {}
    spare = {}
    try:
        filled = 0
        for batch in batches:
            rows = len(next(iter(batch.values())))
            for name, values in batch.items():
                if name not in columns:
                    spare[name] = path.with_name(f"{path.name}.{name}.partial")
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
