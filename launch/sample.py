"""Draws samples from a trained run: python -m launch.sample --workdir=runs/digits --num_samples=100

Writes to --output (by default a folder under the run's samples/):
  grid.png         the first samples
  trajectory.png   rows are samples, columns noise levels, as in the paper's Figure 4
  trajectory.gif   the same samples from noise to data
  samples.npz      samples (uint8 [N, H, W, C]) and samples_float (float32, as the sampler left them)
  trajectory.npz   trajectory (uint8 [levels, n, H, W, C])
  about.json       checkpoint, seed, sampler, evaluations of the score, seconds, versions
"""

import json
import math
import pathlib
import time

import numpy as np
from absl import flags

from launch.flags import cli
from launch.flags import run as trained

_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "How many samples to draw.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "How many at a time; bounds the memory.", 1)

_GRID = 100
_TRAJECTORY = 10
"""How many samples the grid and the trajectory show."""


def main() -> None:
    """Draws samples."""
    from ncsn_tf import files, pictures

    with cli.user_mistakes():
        run = trained.open_run()
        output = trained.output(run, "samples")
        print(f"{_NUM_SAMPLES.value} samples {run.shape} from step {run.step} of {run.directory.path}")
        if not trained.prepare(output):
            return
    begun = time.perf_counter()
    grid, trajectory, evaluations = _draw(run, output / "samples.npz")
    about = {
        "num_samples": _NUM_SAMPLES.value,
        "batch_size": _BATCH_SIZE.value,
        "score_evaluations_per_sample": evaluations,
        "seconds": round(time.perf_counter() - begun, 1),
        **trained.record(run),
    }
    pictures.save_grid(output / "grid.png", grid)
    pictures.save_trajectory(output / "trajectory.png", trajectory)
    pictures.save_animation(output / "trajectory.gif", trajectory)
    np.savez(output / "trajectory.npz", trajectory=trajectory)
    files.write_text(output / "about.json", json.dumps(about, indent=2) + "\n")
    print(f"Pictures and arrays: {output}")


def _draw(run, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Draws all samples into an .npz, batch by batch.

    Returns the first samples, the first few's trajectory (both uint8) and the evaluations that a sample took.
    """
    from ncsn_tf import files
    from ncsn_tf.data import pipeline
    from ncsn_tf.samplers import driver
    from ncsn_tf.training.summaries import progress_bar

    count = _NUM_SAMPLES.value
    batch_size = min(_BATCH_SIZE.value, count)
    first: list[np.ndarray] = []
    frames: dict[int, list[np.ndarray]] = {}
    evaluations = outside = 0

    def look(start: int, level: int, x) -> None:
        bar.update()
        if not np.isfinite(x := x.numpy()).all():
            bar.close()
            cli.fail(f"The samples diverged at level {level}. Try a smaller --epsilon.", cli.FAILURE)
        if start < _TRAJECTORY:
            frames.setdefault(level, []).append(pipeline.to_uint8(x[: _TRAJECTORY - start]))

    def arrays():
        nonlocal evaluations, outside
        options = {"run_seed": trained.SEED.value, "num_samples": count, "batch_size": batch_size, "on_frame": look}
        for samples in driver.generate(run.sampler, run.builder.prior(), run.shape, **options):
            values = samples.x.numpy()
            pixels = pipeline.to_uint8(values)
            first.append(pixels[: max(0, _GRID - sum(map(len, first)))])
            evaluations = samples.evaluations
            outside += int(np.sum(np.abs(values - 0.5) > 1.5))
            yield {"samples": pixels, "samples_float": values}

    with progress_bar(-(-count // batch_size) * run.sampler.segments, "level") as bar:
        files.write_npz(path, count, arrays())
    if outside > 0.01 * count * math.prod(run.shape):
        print("Warning: over 1 % of the values lie outside [-1, 2]; the step size is probably too large.")
    trajectory = np.stack([np.concatenate(frames[level]) for level in sorted(frames)])
    return np.concatenate(first), trajectory, evaluations


def run() -> None:
    """Entry point of `ncsn-sample`."""
    cli.run(main)


if __name__ == "__main__":
    run()
