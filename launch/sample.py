"""Draws samples from a trained run: python -m launch.sample --workdir=runs/digits --num_samples=100

Writes to --output (by default a folder under the run's samples/):
  grid.png         the first samples
  trajectory.png   rows are samples, columns noise levels, as in the paper's Figure 4
  trajectory.gif   the grid from noise to samples
  samples.npz      samples (uint8 [N, H, W, C]) and samples_float (float32, as the sampler left them)
  trajectory.npz   trajectory (uint8 [levels, n, H, W, C])
  about.json       checkpoint, seed, sampler, evaluations of the score, seconds, versions
"""

import dataclasses
import json
import pathlib
import time

import numpy as np
from absl import flags

from launch import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Where to write; by default WORKDIR/samples/step_N_seed_S.")
_CHECKPOINT = flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest.")
_SEED = flags.DEFINE_integer("seed", 0, "Sample i depends on (seed, i) alone.", 0, 2**31 - 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "How many samples to draw.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "How many at a time; bounds the memory.", 1)
_EPSILON = flags.DEFINE_float("epsilon", None, "Step size at the smallest level, in place of the run's.")
_STEPS = flags.DEFINE_integer("steps_per_level", None, "Steps at each level, in place of the run's.", 1)
_DENOISE = flags.DEFINE_bool("denoise", None, "End with one denoising step, in place of the run's choice.")
_XLA = flags.DEFINE_bool("jit_compile", None, "Compile with XLA, in place of the run's choice.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Load everything, draw nothing, write nothing.")

GRID = 100
TRAJECTORY = 10
"""How many samples the grid and the trajectory show."""


def main() -> None:
    """Draws samples."""
    from ncsn_tf import build, files, pictures
    from ncsn_tf.data import pipeline
    from ncsn_tf.samplers import driver
    from ncsn_tf.score import ScoreModel
    from ncsn_tf.training import checkpoints
    from ncsn_tf.training.run_directory import RunDirectory, environment
    from ncsn_tf.training.summaries import progress_bar

    with cli.user_mistakes():
        directory = RunDirectory(_WORKDIR.value)
        config = directory.config()
        overrides = {"epsilon": _EPSILON, "steps_per_level": _STEPS, "denoise": _DENOISE, "jit_compile": _XLA}
        config["sampler"] |= {key: flag.value for key, flag in overrides.items() if flag.value is not None}
        builder = build.Builder(config)
        shape = directory.shape()
        network = builder.network(shape)
        path = checkpoints.find(directory.checkpoints, _CHECKPOINT.value)
        checkpoints.load_average(path, network)
        sampler = builder.sampler(ScoreModel(network, builder.times).score)
        step = checkpoints.step_of(path)
        output = pathlib.Path(_OUTPUT.value or directory.samples / f"step_{step:08d}_seed_{_SEED.value}")
        if not _DRY_RUN.value:
            output.mkdir(parents=True, exist_ok=True)
    print(f"{_NUM_SAMPLES.value} samples {shape} from step {step} of {directory.path}")
    if _DRY_RUN.value:
        print(f"Dry run: would write into {output}")
        return

    batch_size = min(_BATCH_SIZE.value, _NUM_SAMPLES.value)
    frames = []
    shown: list[np.ndarray] = []
    evaluations = 0
    begun = time.perf_counter()
    batches = -(-_NUM_SAMPLES.value // batch_size)
    with progress_bar(batches * sampler.segments, "level") as bar:

        def on_frame(start, number, x):
            bar.update()
            if start == 0:
                frames.append(pipeline.to_uint8(x[:TRAJECTORY].numpy()))

        def arrays():
            nonlocal evaluations
            for samples in driver.generate(
                sampler,
                builder.prior(),
                shape,
                run_seed=_SEED.value,
                num_samples=_NUM_SAMPLES.value,
                batch_size=batch_size,
                on_frame=on_frame,
            ):
                x = samples.x.numpy()
                evaluations = samples.evaluations
                pixels = pipeline.to_uint8(x)
                shown.append(pixels[: max(0, GRID - sum(map(len, shown)))])
                yield {"samples": pixels, "samples_float": x}

        files.write_npz(output / "samples.npz", _NUM_SAMPLES.value, arrays())
    seconds = time.perf_counter() - begun
    trajectory = np.stack(frames)
    pictures.save_grid(output / "grid.png", np.concatenate(shown))
    pictures.save_trajectory(output / "trajectory.png", trajectory)
    pictures.save_animation(output / "trajectory.gif", trajectory)
    np.savez(output / "trajectory.npz", trajectory=trajectory)
    about = {
        "checkpoint": path,
        "seed": _SEED.value,
        "num_samples": _NUM_SAMPLES.value,
        "batch_size": batch_size,
        "sampler": dataclasses.asdict(builder.sampler_options),
        "score_evaluations_per_sample": evaluations,
        "seconds": round(seconds, 1),
        **environment(),
    }
    files.write_text(output / "about.json", json.dumps(about, indent=2) + "\n")
    print(f"Pictures and arrays: {output}")


def run() -> None:
    """Entry point of `ncsn-sample`."""
    cli.run(main)


if __name__ == "__main__":
    run()
