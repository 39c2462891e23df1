"""Writing files so that a reader sees the whole of one or nothing."""

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


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 text file atomically: to a neighbour first, brought to the disk, then renamed into place."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    to_disk(partial)
    os.replace(partial, path)
    to_disk(path.parent)


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
    """Holds a file for this process, as a sign that it alone writes into the folder.

    The operating system holds the lock and drops it when the process ends, however it ends. On a network file system
    that does not pass locks on, it keeps out the processes of the same machine only.

    Args:
      path: the file, made if need be; it says who holds it.
      refusal: makes the exception to raise if another holds it, from what the file says of the holder.
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
    """Writes arrays to one `.npz`, atomically and brought to the disk."""
    named: dict[str, Any] = dict(arrays)  # NumPy's annotations take any keyword for `allow_pickle` otherwise
    # Of a name of its own: two processes may fill one cache at the same time.
    partial = path.with_name(f"{path.name}.{os.getpid()}_{threading.get_ident()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **named)
        to_disk(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_npz(path: pathlib.Path, num_rows: int, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Writes arrays that arrive batch by batch to one `.npz`, in memory for one batch, atomically.

    Args:
      path: the file to write.
      num_rows: rows of every array in the end.
      batches: dicts with the same names each time, of arrays [b, ...] whose b add up to `num_rows`.

    Raises:
      ValueError: if the batches do not add up to `num_rows`.
    """
    partial = path.with_name(path.name + ".partial")
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
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, column in columns.items():
                column.flush()
                archive.write(spare[name], f"{name}.npy")
        to_disk(partial)
        os.replace(partial, path)
    finally:
        for leftover in (*spare.values(), partial):
            leftover.unlink(missing_ok=True)
