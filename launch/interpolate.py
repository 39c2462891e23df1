"""Walks from one sample to another: python -m launch.interpolate --workdir=runs/digits --num_paths=8

Samples 2 i and 2 i + 1 of launch.sample under the same --seed are the ends of path i; between them the noise is mixed.
Writes into --output, by default a folder under the run's interpolation/:
  interpolation.png   a row a path
  interpolation.npz   samples (uint8 [paths, points, H, W, C]) and samples_float
  about.json          what is needed to repeat it
"""

import json
import time

import numpy as np
from absl import flags

from launch.flags import cli
from launch.flags import run as trained

_PATHS = flags.DEFINE_integer("num_paths", 8, "How many paths.", 1)
_POINTS = flags.DEFINE_integer("points", 8, "How many samples a path, both ends with it.", 2)


def main() -> None:
    """Draws paths."""
    from ncsn_tf import files, pictures
    from ncsn_tf.data import pipeline
    from ncsn_tf.guidance import interpolation
    from ncsn_tf.training.summaries import progress_bar

    with cli.user_mistakes():
        run = trained.open_run()
        output = trained.output(run, "interpolation")
        print(f"{_PATHS.value} paths of {_POINTS.value} samples {run.shape} of {run.directory.path}")
        if not trained.prepare(output):
            return
    begun = time.perf_counter()
    sampler = run.builder.sampler(run.score_fn, draw=interpolation.noise(_POINTS.value))
    ends = [(2 * path, 2 * path + 1) for path in range(_PATHS.value)]
    drawn = []
    with progress_bar(len(ends), "path") as bar:
        for samples in interpolation.paths(
            sampler,
            run.builder.prior(_POINTS.value),
            run.shape,
            run_seed=trained.SEED.value,
            ends=ends,
            points=_POINTS.value,
        ):
            drawn.append(samples.x.numpy())
            if not np.isfinite(drawn[-1]).all():
                bar.close()
                cli.fail("The samples diverged. Try a smaller --epsilon.", cli.FAILURE)
            bar.update()
    floats = np.stack(drawn)
    pixels = pipeline.to_uint8(floats)
    pictures.save_grid(output / "interpolation.png", pixels.reshape(-1, *run.shape), columns=_POINTS.value)
    files.write_npz_arrays(output / "interpolation.npz", {"samples": pixels, "samples_float": floats})
    about = {"seconds": round(time.perf_counter() - begun, 1), "ends": ends, **trained.record(run)}
    files.write_text(output / "about.json", json.dumps(about, indent=2) + "\n")
    print(f"Picture and arrays: {output}")


def run() -> None:
    """Entry point of `ncsn-interpolate`."""
    cli.run(main)


if __name__ == "__main__":
    run()
