"""Stores drawn rows in a folder, so that a kill costs one round of blocks and changes nothing.

Until all rows are drawn, the folder holds

samples.raw         the rows as bytes, one after another
samples_float.raw   the same rows as float32, where the store keeps them
samples.json        the journal: the sampling key (checkpoint, seed, sampler), how many rows are done, the CRC-32 of
                    each array, and what the rows cost

and afterwards `samples.npz` (`samples`, uint8 [N, ...], `samples_float`, and `labels` of samples of classes) beside
samples.json. A later request for more rows continues from there.
"""

import dataclasses
import json
import math
import os
import pathlib
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf import files
from ncsn_tf.samplers import journal

_OUT_OF_RANGE = 0.01
"""The largest share of values far outside their range for which no caveat is reported."""
_SATURATED = 0.999
"""The largest share of bytes 0 and 255 for which no caveat is reported."""
_ARCHIVE = "samples.npz"
_JOURNAL = "samples.json"
SAMPLES = "samples"
SAMPLES_FLOAT = "samples_float"
LABELS = "labels"


class DivergedError(ArithmeticError):
    """Drawn rows are not finite."""


class SamplingKeyError(ValueError):
    """A folder holds samples of another sampling key, or samples of unknown origin."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Rows of a store.

    Attributes:
      pixels: uint8 [N, ...].
      floats: float32 [N, ...]; None if the store keeps none.
      evaluations: of the score function, per row.
      out_of_range: the share of all values that were far outside their range before they became bytes.
    """

    pixels: np.ndarray
    floats: np.ndarray | None
    evaluations: float
    out_of_range: float

    def caveats(self, drawn_share: float = 1.0) -> list[str]:
        """`caveats` of all rows; `drawn_share` is the share of the values that were drawn, not given."""
        return caveats(self.pixels, min(1.0, self.out_of_range / drawn_share) if drawn_share > 0.0 else 0.0)


def caveats(pixels: np.ndarray, out_of_range: float) -> list[str]:
    """Describes samples that look as if they had diverged, one line per fault; empty for others.

    Args:
      pixels: uint8 [N, H, W, C], the samples.
      out_of_range: the share of their values that were far outside their range before they became bytes.
    """
    found = []
    if out_of_range > _OUT_OF_RANGE:
        found.append(
            f"{out_of_range:.1%} of the samples' values are outside [-1, 2]: are the steps too large or too few?"
        )
    rows = pixels.reshape(len(pixels), -1, pixels.shape[-1])
    if rows.shape[1] > 1 and (rows == rows[:, :1]).all():
        found.append("every sample is of one colour: has the model learnt anything yet?")
    elif (saturated := float(np.isin(pixels, (0, 255)).mean())) > _SATURATED:
        found.append(f"{saturated:.1%} of the samples' values are 0 or 255: are the steps too large or too few?")
    return found


def is_free_for(directory: str | os.PathLike, sampling_key: Mapping[str, Any]) -> bool:
    """Returns whether a folder, which may not exist yet, holds no samples, or only those of a sampling key."""
    directory = files.local_path(directory)
    found = journal.read(directory / _JOURNAL)
    if found is None:
        return not any((directory / name).exists() for name in (_JOURNAL, _ARCHIVE))
    return found["sampling_key"] == json.loads(json.dumps(sampling_key))


class SampleStore:
    """The rows of one sampling key in a folder, complete or not.

    Args:
      directory: the folder; it is created if it does not exist.
      sampling_key: plain values that determine the rows. Their number is not among them: row i does not depend on it.
      shape: the shape of one row, such as (H, W, C).
      floats: whether the rows are also kept as float32, as the sampler left them.
      labels: the classes that the rows have in turn, which `samples.npz` then holds, int32 [N]; none for no classes.

    Attributes:
      path: the path of the complete rows, `samples.npz`.
      done: the number of rows that are done.
      total_evaluations: evaluations of the score function, summed over these rows.
      out_of_range: the number of values far outside their range among these rows, before they became bytes.

    Raises:
      SamplingKeyError: if the folder holds rows of another key, or rows without a readable journal.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        sampling_key: Mapping[str, Any],
        shape: tuple[int, ...],
        *,
        floats: bool = False,
        labels: Sequence[int] = (),
    ):
        directory = files.local_path(directory)
        self.path = directory / _ARCHIVE
        self._journal = directory / _JOURNAL
        self._sampling_key = json.loads(json.dumps(sampling_key))
        self._shape = tuple(shape)
        self._labels = np.array(labels, np.int32)
        self._dtypes = {SAMPLES: np.dtype(np.uint8)} | ({SAMPLES_FLOAT: np.dtype(np.float32)} if floats else {})
        self._raw = {name: directory / f"{name}.raw" for name in self._dtypes}
        directory.mkdir(parents=True, exist_ok=True)
        self._start_anew()
        self._resume()

    @property
    def evaluations_per_row(self) -> float:
        """The mean number of evaluations of the score function per row, an integer if all took as many; 0 if empty."""
        mean, rest = divmod(self.total_evaluations, max(1, self.done))
        return mean if not rest else self.total_evaluations / self.done

    def _start_anew(self) -> None:
        self.done = self.total_evaluations = self.out_of_range = 0
        self._checksums = dict.fromkeys(self._dtypes, 0)

    def _resume(self) -> None:
        """Reads the journal, and removes rows that a kill has left incomplete."""
        found = journal.read(self._journal)
        if found is None and self._journal.exists():
            raise SamplingKeyError(
                f"{self._journal} cannot be read, and nothing else tells which samples are beside it. Restore it, or "
                "give another --output."
            )
        if found is None:
            if self.path.exists():
                raise SamplingKeyError(
                    f"{self.path} exists, but there is no samples.json that tells which samples these are. "
                    "Move it away, or give another --output."
                )
            self._remove_raw()  # of a first round that was never recorded in a journal
            return
        self._check_key(found)
        self.done, self.total_evaluations, self.out_of_range = (
            found[name] for name in ("done", "total_evaluations", "out_of_range")
        )
        self._checksums = found["checksums"]
        if all(raw.exists() for raw in self._raw.values()) and self._whole(self._in_raw()):
            for name, raw in self._raw.items():
                with open(raw, "r+b") as file:
                    file.truncate(self.done * self._row_bytes(name))
            return
        if self._whole(self._in_npz()):
            self._remove_raw()
            return
        if self.done:
            warnings.warn(f"The samples in {self.path.parent} are damaged and are drawn again.", stacklevel=3)
        self._start_anew()
        self._remove_raw()
        self.path.unlink(missing_ok=True)

    def _check_key(self, found: Mapping[str, Any]) -> None:
        folder = self.path.parent
        if found["sampling_key"] != self._sampling_key:
            raise SamplingKeyError(
                f"{folder} holds other samples ({journal.difference(found['sampling_key'], self._sampling_key)}). "
                "Give another --output, or remove them."
            )
        if found["checksums"].keys() != self._dtypes.keys():
            raise SamplingKeyError(
                f"{folder} holds the arrays {', '.join(found['checksums'])} of these samples; this program writes "
                f"{', '.join(self._dtypes)}. Give another --output, or remove them."
            )

    def _row_bytes(self, name: str) -> int:
        return math.prod(self._shape) * self._dtypes[name].itemsize

    def _remove_raw(self) -> None:
        for raw in self._raw.values():
            raw.unlink(missing_ok=True)
            _partial(raw).unlink(missing_ok=True)

    def _in_raw(self) -> dict[str, np.ndarray]:
        """The first `done` rows of each raw file, or as many as there are."""
        found = {}
        for name, raw in self._raw.items():
            rows = min(self.done, raw.stat().st_size // self._row_bytes(name))
            shape, dtype = (rows, *self._shape), self._dtypes[name]
            found[name] = np.memmap(raw, dtype, "r", shape=shape) if rows else np.zeros(shape, dtype)
        return found

    def _in_npz(self) -> dict[str, np.ndarray]:
        """The first `done` rows of each array of samples.npz; none if the file is missing or damaged."""
        try:
            with np.load(self.path) as archive:
                return {name: archive[name][: self.done] for name in self._dtypes}
        except Exception:  # a damaged archive raises whatever zipfile, zlib or NumPy raise
            return {name: np.zeros((0, *self._shape), dtype) for name, dtype in self._dtypes.items()}

    def _whole(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Returns whether arrays are bit-for-bit the rows that the journal records."""
        return all(
            len(array) == self.done and zlib.crc32(np.ascontiguousarray(array).data) == self._checksums[name]
            for name, array in arrays.items()
        )

    def append(self, pixels: np.ndarray, floats: np.ndarray, *, evaluations: int, out_of_range: int = 0) -> None:
        """Appends rows; they are on the disk before it returns.

        Args:
          pixels: the rows as bytes, uint8 [n, *shape].
          floats: the same rows as they were drawn, float32 [n, *shape]; written only if the store keeps them.
          evaluations: evaluations of the score function, summed over the rows.
          out_of_range: how many of their values are far outside their range.

        Raises:
          ValueError: if an array has another shape or dtype.
        """
        new = {SAMPLES: pixels, SAMPLES_FLOAT: floats}
        for name, dtype in self._dtypes.items():
            if new[name].dtype != dtype or new[name].shape != (len(pixels), *self._shape):
                raise ValueError(
                    f"The rows of {name} must be {dtype} {('n', *self._shape)}, as many of each array. "
                    f"Received: {new[name].dtype} {new[name].shape} beside {len(pixels)} rows of {SAMPLES}."
                )
        if not all(raw.exists() for raw in self._raw.values()):
            self._unpack()
        for name, raw in self._raw.items():
            rows = np.ascontiguousarray(new[name])
            with open(raw, "ab") as file:
                file.write(rows.data)
            files.to_disk(raw)
            self._checksums[name] = zlib.crc32(rows.data, self._checksums[name])
        self.done += len(pixels)
        self.total_evaluations += evaluations
        self.out_of_range += out_of_range
        state = {
            "sampling_key": self._sampling_key,
            "done": self.done,
            "checksums": self._checksums,
            "total_evaluations": self.total_evaluations,
            "out_of_range": self.out_of_range,
        }
        files.write_json(self._journal, state)

    def _unpack(self) -> None:
        """Copies the rows of samples.npz into the raw files, so that more can follow.

        Each copy is written under a temporary name and renamed: a kill must not leave half a copy in the place of rows
        that are complete elsewhere. While a raw file is missing, `_resume` reads samples.npz.
        """
        for name, rows in self._in_npz().items():
            partial = _partial(self._raw[name])
            with open(partial, "wb") as file:
                file.write(np.ascontiguousarray(rows).data)
            os.replace(partial, self._raw[name])

    def finish(self, num_rows: int) -> Drawn:
        """Writes all rows that are done to `samples.npz`, and returns the first `num_rows`.

        Raises:
          OSError: if the rows are no longer there, or are no longer those that were drawn.
        """
        packed = not all(raw.exists() for raw in self._raw.values())
        arrays = self._in_npz() if packed else self._in_raw()
        if self.done < num_rows or not self._whole(arrays):
            raise OSError(
                f"{self.path.parent} no longer holds the {self.done} samples that were drawn into it: another program "
                "has written there, or the disk has failed. The same command draws what is missing."
            )
        if not packed:
            labels = {LABELS: np.resize(self._labels, self.done)} if self._labels.size else {}
            files.write_npz(self.path, self.done, [arrays | labels])
        found = {name: np.array(rows[:num_rows]) for name, rows in arrays.items()}
        if not packed:
            self._remove_raw()
        share = self.out_of_range / max(1, self.done * math.prod(self._shape))
        return Drawn(found[SAMPLES], found.get(SAMPLES_FLOAT), self.evaluations_per_row, share)


def fill(
    draw: Callable[[int], Mapping[str, np.ndarray]],
    store: SampleStore | None,
    done: int,
    num_rows: int,
    *,
    block: int,
    replicas: int,
    quantise: Callable[[np.ndarray], tuple[np.ndarray, int]],
    on_round: Callable[[int], object] = lambda rows: None,
) -> None:
    """Draws the rows that a store lacks; in a cluster, every worker calls it.

    Args:
      draw: draws the blocks from a number on, one per replica, as `blocks.BlockSampler.draw` does.
      store: the store of the rows; None on a worker that only computes.
      done: the number of rows that are done, the same on every worker. A partly done block is drawn again.
      num_rows: the number of rows in the end.
      block: the number of rows per block.
      replicas: the number of blocks per call of `draw`.
      quantise: turns float32 rows into uint8, and counts the values that are far outside their range.
      on_round: called with the number of new rows after each round of blocks.

    Raises:
      DivergedError: if a requested row is not finite.
    """
    if done >= num_rows:
        return
    for first in range(done // block, -(-num_rows // block), replicas):
        drawn = draw(first)
        # Omit the rows of the first block that are done, and those that the last round draws beyond the request.
        start, stop = max(done - first * block, 0), num_rows - first * block
        x, evaluations = drawn["x"][start:stop], drawn["evaluations"][start:stop]
        if not (finite := np.isfinite(x).reshape(len(x), -1).all(axis=1)).all():
            number = first * block + start + int(np.flatnonzero(~finite)[0])
            raise DivergedError(f"Sample {number} is not finite: it diverged. Try a smaller epsilon.")
        pixels, out_of_range = quantise(x)
        if store is not None:
            store.append(pixels, x, evaluations=int(evaluations.sum(dtype=np.int64)), out_of_range=out_of_range)
        on_round(len(x))


def _partial(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".partial")
