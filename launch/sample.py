"""Draws samples from a trained run: python -m launch.sample --workdir=runs/digits --num_samples=100

Writes to --output (by default a folder under the run's samples/):
  grid.png         the first samples; with --labels one row for each of them
  trajectory.png   rows are samples, columns noise levels, as in the paper's Figure 4; at most 20 of the levels
  trajectory.gif   the same samples from noise to data
  samples.npz      samples (uint8 [N, H, W, C]), samples_float (float32, as the sampler left them) and with --labels
                   labels (int32 [N]); also those that an earlier command with the same settings drew beyond them
  trajectory.npz   trajectory (uint8 [levels, n, H, W, C])
  about.json       checkpoint, seed, sampler, evaluations of the score, seconds, versions

  --labels=3            samples of a class, or of several in turn, --labels=0,1,2; the run was trained with classes
  --classifier=DIR      guides any run to --labels, by a classifier of launch.train_classifier --noisy
  --guidance_scale=2    goes beyond the class as it is, which has the scale 1; see docs/guidance.md

Every device draws (--strategy and the flags beside it). After a kill the same command resumes from the last batch.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import pathlib
import time
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from .flags import classes, cli, run

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn

_FLAGS = run.define()
_CLASSES = classes.define()
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "How many samples to draw.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "How many a device draws at a time; bounds the memory.", 1)

_FRAMES = "trajectory.npz"
_GRID = 100
_TRAJECTORY = 10
"""The numbers of samples that the grid and the trajectory show."""
_COLUMNS = 20
"""The most levels that the trajectory shows."""


def main() -> None:
    """Draws samples."""
    from ncsn_tf import files, pictures

    with _FLAGS.devices.using() as strategy:
        with cli.usage_errors():
            opened = _CLASSES.chosen(_FLAGS.open(strategy))
            output = _FLAGS.folder(opened, "samples", opened.sampling_key(_FLAGS.seed.value, _batch_size()))
            print(f"{_NUM_SAMPLES.value} samples {opened.shape} from step {opened.step} of {opened.directory.path}")
            if not _FLAGS.prepare(opened, output):
                return
        begun = time.perf_counter()
        drawn = _draw(opened, output)
    if drawn is None:
        return
    about = {
        "num_samples": _NUM_SAMPLES.value,
        "batch_size": _BATCH_SIZE.value,
        "score_evaluations_per_sample": drawn.evaluations,
        "warnings": _FLAGS.caveats(drawn),
        "seconds": round(time.perf_counter() - begun, 1),
        **_FLAGS.record(opened),
    }
    pictures.save_grid(output / "grid.png", *_rows(drawn.pixels[:_GRID], len(opened.classes.labels)))
    with np.load(output / _FRAMES) as archive:
        trajectory = archive["trajectory"]
    pictures.save_trajectory(output / "trajectory.png", trajectory)
    pictures.save_animation(output / "trajectory.gif", trajectory)
    files.write_json(output / run.ABOUT, about)
    print(f"Pictures and arrays: {output}")


def _rows(pixels: np.ndarray, classes: int) -> tuple[np.ndarray, int | None]:
    """The images of the grid and the length of its rows: those of one class of several that take turns, if any."""
    columns = len(pixels) // classes if classes > 1 else 0
    if not columns:
        return pixels, None
    by_turn = pixels[: columns * classes].reshape(columns, classes, *pixels.shape[1:])
    return by_turn.swapaxes(0, 1).reshape(-1, *pixels.shape[1:]), columns


def _batch_size() -> int:
    return min(_BATCH_SIZE.value, _NUM_SAMPLES.value)


def _frames(output: pathlib.Path) -> int:
    """The number of samples in the trajectory that is there already."""
    if not (output / _FRAMES).exists():
        return 0
    with np.load(output / _FRAMES) as archive:
        return archive["trajectory"].shape[1]


def _draw(opened: "TrainedRun", output: pathlib.Path) -> "Drawn | None":
    """Draws the samples, and writes the trajectory of the first ones; None on workers other than the chief."""
    count = _NUM_SAMPLES.value
    shown = min(_TRAJECTORY, count)
    batch_size = _batch_size()
    frames: dict[int, list[np.ndarray]] = {}
    levels = opened.sampler.segments
    columns = set(np.linspace(levels, 1, min(levels, _COLUMNS)).round().astype(int).tolist())

    def look(first: int, level: int, x: np.ndarray) -> None:
        bar.update()
        if first < shown and level in columns:
            frames.setdefault(level, []).append(x[: shown - first])

    def begin(rows: int) -> None:
        (output / run.ABOUT).unlink(missing_ok=True)  # it would describe other results until these are complete
        if not rows:  # no sample is there yet: a trajectory would belong to others
            (output / _FRAMES).unlink(missing_ok=True)

    rounds = -(-count // (batch_size * opened.strategy.num_replicas_in_sync))
    with run.levels_shown(rounds * levels) as bar:
        drawn = opened.samples(
            output,
            count,
            seed=_FLAGS.seed.value,
            batch_size=batch_size,
            floats=True,
            on_round=begin,
            on_frame=look,
        )
        whole = len(frames) == len(columns) and sum(map(len, frames[levels])) == shown
        if not whole and (opened.workers > 1 or _frames(output) < shown):
            # The first samples existed already. In a cluster all workers draw them again, whether or not they write.
            frames.clear()
            opened.sample_drawer(_FLAGS.seed.value, batch_size).draw_rows(shown, on_frame=look)
            whole = True
    if drawn is not None and whole:
        _write_trajectory(opened, output, [np.concatenate(frames[level]) for level in sorted(frames)])
    return drawn


def _write_trajectory(opened: "TrainedRun", output: pathlib.Path, frames: list[np.ndarray]) -> None:
    from ncsn_tf import files
    from ncsn_tf.data import pipeline

    decode = opened.builder.value_range.decode
    trajectory = np.stack([pipeline.to_uint8(decode(frame)) for frame in frames])
    files.write_npz_arrays(output / _FRAMES, {"trajectory": trajectory})


def entry_point() -> None:
    """Entry point of `ncsn-sample`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
