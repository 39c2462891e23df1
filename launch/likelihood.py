"""Measures the likelihood of held-out images: python -m launch.likelihood --workdir=runs/vp --num_images=100

Solves the probability flow from each uniformly dequantized image to its latent code (Song et al. 2021, section 4.3),
for runs in continuous time. Prints nats and bits per dimension with their standard errors, and writes into --output, by
default a folder under the run's likelihood/:
  likelihood.json   the means, their errors, the offset of the bits, and everything that is needed to repeat it
  likelihood.npz    nats and bits_per_dimension [images, dequantizations, probes], evaluations [images, dequantizations]
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import pathlib
import time
import warnings
from typing import Any

import numpy as np
from absl import flags

from .flags import cli, evaluator, paths, run

_WORKDIR = paths.define("workdir", None, "The run's directory.", required=True)
_OUTPUT = paths.define("output", None, "Where to write; by default WORKDIR/likelihood/step_N_seed_S.")
_CHECKPOINT = flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest.")
_SEED = flags.DEFINE_integer("seed", 0, "The seed of the dequantization and of the probes.", 0, 2**31 - 1)
_SPLIT = flags.DEFINE_enum("split", "held_out", ("held_out", "train"), "The images to measure.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", None, "How many of them, the first ones; by default all.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Images at a time; bounds the memory.", 1)
_DEQUANTIZATIONS = flags.DEFINE_integer("dequantizations", 1, "How many of each image.", 1)
_PROBES = flags.DEFINE_integer("probes", 1, "How many probes of the trace, each of which costs a backward pass.", 1)
_EXACT = flags.DEFINE_bool("exact", False, "Compute the trace itself: for small images.")
_RTOL = flags.DEFINE_float("rtol", 1e-5, "The relative tolerance of the solver.")
_ATOL = flags.DEFINE_float("atol", 1e-5, "The absolute tolerance of the solver.")
_FIRST_TIME = flags.DEFINE_float("first_time", None, "Where the flow begins; by default the SDE's, 1e-5.", 0.0, 0.99)
_JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "Compile the solver with XLA.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Load everything, measure and write nothing.")


def main() -> None:
    """Measures likelihoods."""
    import tensorflow as tf

    from ncsn_tf import files, ode, runs
    from ncsn_tf.evaluation import likelihood
    from ncsn_tf.samplers import methods
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        opened = runs.TrainedRun(RunDirectory(_WORKDIR.value))
        builder = opened.builder
        if not builder.continuous:
            raise ValueError(
                "The likelihood needs a run in continuous time (times.name=uniform, log_normal or log_snr): the flow "
                "passes between noise levels. This run was trained at levels."
            )
        ode.check_tolerances(tf.float32, _RTOL.value, _ATOL.value)
        if _FIRST_TIME.value is not None:
            methods.check_last_time(builder.sde, _FIRST_TIME.value)
        opened.load(_CHECKPOINT.value)
        images = np.asarray(builder.load_images(_SPLIT.value).images[: _NUM_IMAGES.value])
        if images.shape[1:] != opened.shape:
            raise ValueError(f"The run is on images {opened.shape}, these are {images.shape[1:]}.")
        name = f"step_{opened.step:08d}_seed_{_SEED.value}"
        output = pathlib.Path(_OUTPUT.value or opened.directory.path / "likelihood" / name)
        if (output / "likelihood.json").exists():
            raise ValueError(f"{output} holds a measurement already. Give another --output.")
        print(f"{len(images)} images {opened.shape} of {builder.data_name}, {_SPLIT.value}; step {opened.step}")
        if not builder.dequantizes:
            warnings.warn(
                "This run was trained on images that were not dequantized, and the likelihood is that of dequantized "
                "ones; train with --config.data.dequantize=True for a fair one.",
                stacklevel=2,
            )
        if _DRY_RUN.value:
            print(f"Dry run: would write into {output}")
            return
    options = {"rtol": _RTOL.value, "atol": _ATOL.value, "first_time": _FIRST_TIME.value}
    options |= {"exact": True} if _EXACT.value else {"probes": _PROBES.value}
    begun = time.perf_counter()
    try:
        with evaluator.progress() as show:
            found = likelihood.measure(
                opened.score_fn,
                builder.sde,
                images,
                builder.value_range,
                run_seed=_SEED.value,
                batch_size=_BATCH_SIZE.value,
                dequantizations=_DEQUANTIZATIONS.value,
                options=options,
                jit_compile=_JIT_COMPILE.value,
                on_images=lambda rows: show("likelihoods", rows),
            )
    except ode.NotConvergedError as error:
        cli.fail(error, cli.FAILURE)
    output.mkdir(parents=True, exist_ok=True)
    summary = found.summary()
    arrays = {"nats": found.nats, "bits_per_dimension": found.bits, "evaluations": found.evaluations}
    files.write_npz_arrays(output / "likelihood.npz", arrays)
    about = {
        **summary,
        **options,
        "split": _SPLIT.value,
        "checkpoint": opened.checkpoint,
        "weights": opened.checksum(),
        "seed": _SEED.value,
        "seconds": round(time.perf_counter() - begun, 1),
        **run.environment(),
    }
    files.write_json(output / "likelihood.json", about)
    _print(summary)
    print(f"Results: {output}")


def _print(summary: dict[str, Any]) -> None:
    """Prints the means with their errors, and what the bits rest on."""
    for name, unit in (("nats", "nats"), ("bits_per_dimension", "bits per dimension")):
        value = summary[name]
        error = "" if value["standard_error"] is None else f" +- {value['standard_error']:.2g}"
        print(f"{value['mean']:.4f}{error} {unit}")
    print(
        f"Offset: {summary['offset_bits']:g} bits, of bytes dequantized as (k + u) / 256; "
        f"{summary['score_evaluations_per_image']:.0f} evaluations per image"
    )


def entry_point() -> None:
    """Entry point of `ncsn-likelihood`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
