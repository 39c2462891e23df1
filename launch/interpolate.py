"""Walks from one sample to another: python -m launch.interpolate --workdir=runs/digits --num_paths=8

Samples 2 i and 2 i + 1 of launch.sample under the same --seed are the ends of path i; between them the noise is mixed.
Writes into --output, by default a folder under the run's interpolation/:
  interpolation.png   one row per path
  interpolation.npz   samples (uint8 [paths, points, H, W, C]) and samples_float
  about.json          everything that is needed to repeat it

Every device draws (--strategy and the flags beside it). After a kill the same command resumes from the last batch.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import pathlib
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from .flags import cli, run

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn

_FLAGS = run.define()
_PATHS = flags.DEFINE_integer("num_paths", 8, "How many paths.", 1)
_POINTS = flags.DEFINE_integer("points", 8, "How many samples per path, both ends included.", 2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "How many samples a device draws at a time, in whole paths.", 1)


def main() -> None:
    """Draws paths."""
    from ncsn_tf import files, pictures

    with _FLAGS.devices.using() as strategy:
        with cli.usage_errors():
            opened = _FLAGS.open(strategy)
            key = {**opened.sampling_key(_FLAGS.seed.value, _block()), "points": _POINTS.value}
            output = _FLAGS.folder(opened, "interpolation", key)
            print(f"{_PATHS.value} paths of {_POINTS.value} samples {opened.shape} of {opened.directory.path}")
            if not _FLAGS.prepare(opened, output):
                return
        begun = time.perf_counter()
        drawn = _draw(opened, output, key)
    if drawn is None:
        return
    floats: Any = drawn.floats
    shape = (_PATHS.value, _POINTS.value, *opened.shape)
    pictures.save_grid(output / "interpolation.png", drawn.pixels, columns=_POINTS.value)
    arrays = {"samples": drawn.pixels.reshape(shape), "samples_float": floats.reshape(shape)}
    files.write_npz_arrays(output / "interpolation.npz", arrays)
    about = {
        "ends": [(2 * path, 2 * path + 1) for path in range(_PATHS.value)],
        "score_evaluations_per_sample": drawn.evaluations,
        "warnings": _FLAGS.caveats(drawn),
        "seconds": round(time.perf_counter() - begun, 1),
        **_FLAGS.record(opened),
    }
    files.write_json(output / run.ABOUT, about)
    print(f"Picture and arrays: {output}")


def _block() -> int:
    """The samples that a device draws at a time: whole paths, one at least."""
    points = _POINTS.value
    return points * max(1, min(_BATCH_SIZE.value, _PATHS.value * points) // points)


def _draw(opened: "TrainedRun", output: pathlib.Path, key: dict[str, Any]) -> "Drawn | None":
    """The points of all paths, row by row; None on workers other than the chief."""
    from ncsn_tf.guidance import interpolation

    builder, points = opened.builder, _POINTS.value
    count = _PATHS.value * points
    block = _block()
    prior = interpolation.mixed_prior(builder.prior, points)
    sampler = builder.sampler(opened.strategy, noise=interpolation.noise(points))
    drawn_by = opened.block_sampler(
        lambda numbers: interpolation.start(numbers, prior, opened.shape, run_seed=_FLAGS.seed.value, points=points),
        block,
        sampler=sampler,
    )
    rounds = -(-count // (block * opened.strategy.num_replicas_in_sync))
    with (
        run.levels_shown(rounds * sampler.segments) as bar,
        _FLAGS.stored(opened, output, key) as rows,
    ):
        opened.fill(rows, drawn_by, count, on_frame=lambda *_: bar.update())
        return None if rows is None else rows.finish(count)


def entry_point() -> None:
    """Entry point of `ncsn-interpolate`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
