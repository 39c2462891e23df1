"""Drawing many samples on every replica of a strategy, so that a kill costs one batch and changes nothing.

Samples are drawn in blocks of equal size. Block k holds the samples [k b, (k + 1) b), always computed together and
alone, so its bits do not depend on how many replicas there are nor on when the program was stopped; R replicas take R
blocks at a time. What is done lies in two files until all of it is:

samples.raw     the bytes of the images, block after block
samples.json    the plan (checkpoint, seed, sampler), how many images are done, their CRC-32, and what they cost

and then in `samples.npz` (`samples`, uint8 [N, H, W, C]) beside samples.json. Asking for more samples later goes on
from there.
"""

import json
import math
import os
import pathlib
import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files
from ncsn_tf.evaluation import EvaluationError
from ncsn_tf.samplers import driver

Image = tuple[int, int, int]


class DivergedError(ArithmeticError):
    """Samples are not finite."""


class PlanError(EvaluationError):
    """A folder holds the samples of another plan."""


class BlockSampler:
    """Draws blocks of samples, one a replica at a time.

    Args:
      strategy: the strategy, under whose scope the network of the sampler was made.
      sampler: the compiled sampler.
      prior: draws where samples start.
      shape: (H, W, C) of a sample.
      run_seed: sample i depends on (run_seed, i) alone, as `launch.sample` draws it.
      block: how many samples a replica draws at a time.
      workers: how many processes the strategy has.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        sampler: driver.Sampler,
        prior: driver.Prior,
        shape: Image,
        *,
        run_seed: int,
        block: int,
        workers: int = 1,
    ):
        self.replicas = strategy.num_replicas_in_sync
        self.block = block
        self.shape = shape
        base = driver.base_seed(run_seed)

        def on_replica(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            numbers = (first + tf.cast(replica, tf.int32)) * block + tf.range(block)
            seeds, x = driver.begin(base, numbers, prior, shape)
            return sampler.in_graph(x, seeds)

        @tf.function(autograph=False)
        def draw(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x, evaluations = strategy.run(on_replica, args=(first,))
            if workers > 1:
                x = strategy.gather(x, axis=0)
            elif self.replicas > 1:
                x = tf.concat(strategy.experimental_local_results(x), axis=0)
            return x, strategy.experimental_local_results(evaluations)[0]

        self._draw = draw

    def draw(self, first_block: int) -> tuple[np.ndarray, int]:
        """The next `replicas` blocks.

        Args:
          first_block: the number of the first.

        Returns:
          float32 [replicas * block, H, W, C] in order, and the evaluations of the score that each took.
        """
        x, evaluations = self._draw(tf.constant(first_block))
        return x.numpy(), int(evaluations)


class SampleStore:
    """The samples of one plan in a folder, complete or on the way.

    Args:
      directory: the folder; made if need be.
      plan: plain values that say which samples these are. Not their number: sample i does not depend on it.
      shape: (H, W, C).

    Attributes:
      path: where the samples lie once they are complete, `samples.npz`.
      done: how many samples are there.
      evaluations: of the score that a sample took; 0 before there is one.
      wild: values far outside [0, 1] among all that were drawn, before they became bytes.

    Raises:
      PlanError: if the folder holds samples of another plan.
    """

    def __init__(self, directory: pathlib.Path, plan: Mapping[str, Any], shape: Image):
        self.path = directory / "samples.npz"
        self._raw = directory / "samples.raw"
        self._journal = directory / "samples.json"
        self._plan = json.loads(json.dumps(plan))
        self._shape = shape
        directory.mkdir(parents=True, exist_ok=True)
        self.evaluations = 0
        self.wild = 0
        self.done, self._checksum = self._resume()

    def _resume(self) -> tuple[int, int]:
        """How many samples are there, and their checksum, after what a kill has left half-written is cut off."""
        journal = _read_json(self._journal)
        if journal is None and self._journal.exists():
            raise PlanError(
                f"{self._journal} cannot be read, and nobody else knows whose samples lie beside it. Restore it, or "
                "give another --output."
            )
        if journal is None:
            if self.path.exists():
                raise PlanError(
                    f"{self.path} lies there with no samples.json that says whose samples they are. "
                    "Move it away, or give another --output."
                )
            self._raw.unlink(missing_ok=True)  # of a first batch that was never journalled
            return 0, 0
        if journal.get("plan") != self._plan:
            raise PlanError(
                f"{self.path.parent} holds other samples ({_difference(journal.get('plan'), self._plan)}). "
                "Give another --output, or remove them."
            )
        done, checksum, self.evaluations, self.wild = (
            value if isinstance(value := journal.get(name), int) else 0
            for name in ("done", "checksum", "evaluations", "wild")
        )
        if self._raw.exists() and _whole(self._in_raw(done), done, checksum):
            with open(self._raw, "r+b") as file:
                file.truncate(done * math.prod(self._shape))
            return done, checksum
        if _whole(self._in_npz(done), done, checksum):
            self._raw.unlink(missing_ok=True)
            return done, checksum
        self.evaluations = self.wild = 0
        if done:
            warnings.warn(f"The samples in {self.path.parent} are damaged and are drawn anew.", stacklevel=3)
        self._raw.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        return 0, 0

    def _in_raw(self, rows: int) -> np.ndarray:
        """The first rows of samples.raw, uint8, as many as there are."""
        rows = min(rows, self._raw.stat().st_size // math.prod(self._shape))
        if not rows:
            return np.zeros((0, *self._shape), np.uint8)
        return np.memmap(self._raw, np.uint8, "r", shape=(rows, *self._shape))

    def _in_npz(self, rows: int) -> np.ndarray:
        """The first rows of samples.npz, uint8; none if it is not there or damaged."""
        try:
            with np.load(self.path) as archive:
                return archive["samples"][:rows]
        except Exception:  # noqa: BLE001 - a damaged archive raises what zipfile, zlib or NumPy please
            return np.zeros((0, *self._shape), np.uint8)

    def append(self, pixels: np.ndarray, evaluations: int, wild: int = 0) -> None:
        """Adds samples; they are on the disk before it returns.

        Args:
          pixels: uint8 [n, H, W, C].
          evaluations: of the score that each took.
          wild: how many of their values lay far outside [0, 1].
        """
        if not self._raw.exists():
            # Aside first: a kill must not leave half a copy in the place of samples that are whole elsewhere.
            partial = self._raw.with_name(self._raw.name + ".partial")
            with open(partial, "wb") as file:
                file.write(np.ascontiguousarray(self._in_npz(self.done)).data)
            os.replace(partial, self._raw)
        pixels = np.ascontiguousarray(pixels)
        with open(self._raw, "ab") as file:
            file.write(pixels.data)
        files.to_disk(self._raw)
        self.done += len(pixels)
        self._checksum = zlib.crc32(pixels.data, self._checksum)
        self.evaluations = evaluations
        self.wild += wild
        state = {
            "plan": self._plan,
            "done": self.done,
            "checksum": self._checksum,
            "evaluations": evaluations,
            "wild": self.wild,
        }
        files.write_text(self._journal, json.dumps(state, indent=2) + "\n")

    def finish(self, num_samples: int) -> np.ndarray:
        """The first `num_samples` samples, uint8; all that are there are in `samples.npz` from then on.

        Raises:
          OSError: if they are no longer there, or no longer those that were drawn.
        """
        pixels = self._in_raw(self.done) if self._raw.exists() else self._in_npz(self.done)
        if self.done < num_samples or not _whole(pixels, self.done, self._checksum):
            raise OSError(
                f"{self.path.parent} no longer holds the {self.done} samples that were drawn into it: another program "
                "has written there, or the disk has failed. The same command draws what is missing."
            )
        if self._raw.exists():
            files.write_npz(self.path, len(pixels), [{"samples": pixels}])
            self._raw.unlink()
        return np.array(pixels[:num_samples])


def fill(
    sampler: BlockSampler,
    store: SampleStore | None,
    done: int,
    num_samples: int,
    quantise: Callable[[np.ndarray], tuple[np.ndarray, int]],
    on_round: Callable[[int], object] = lambda rows: None,
) -> None:
    """Draws what a store lacks.

    Args:
      sampler: draws the blocks.
      store: where they go; None on a worker that only computes.
      done: how many samples are there, the same on every worker; whole blocks are used, and a part of one drawn again.
      num_samples: how many there are to be.
      quantise: floats to bytes, and the number of values that lay far outside their range.
      on_round: called with the number of new samples after each round.

    Raises:
      DivergedError: if a sample that is wanted is not finite.
    """
    block = sampler.block
    for first in range(done // block, -(-num_samples // block), sampler.replicas):
        x, evaluations = sampler.draw(first)
        # Of the first block, what is there already; of the last round, blocks that nobody asked for.
        start, stop = max(done - first * block, 0), num_samples - first * block
        x = x[start:stop]
        if not (finite := np.isfinite(x).all(axis=(1, 2, 3))).all():
            number = first * block + start + int(np.flatnonzero(~finite)[0])
            raise DivergedError(f"Sample {number} is not finite: it diverged. Try a smaller epsilon.")
        new, wild = quantise(x)
        if store is not None:
            store.append(new, evaluations, wild)
        on_round(len(new))


def _whole(pixels: np.ndarray, rows: int, checksum: int) -> bool:
    return len(pixels) == rows and zlib.crc32(np.ascontiguousarray(pixels).data) == checksum


def _read_json(path: pathlib.Path) -> dict | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _difference(there: Any, now: Mapping[str, Any]) -> str:
    """The first few values in which two plans differ."""
    there = there if isinstance(there, dict) else {}
    keys = [key for key in sorted(there.keys() | now.keys()) if there.get(key) != now.get(key)]
    return "; ".join(f"{key}: {there.get(key)!r} there, {now.get(key)!r} now" for key in keys[:3])
