"""Measures what a run's samplers can use: python -m launch.calibrate --workdir=runs/edm --sampler=heun --num_steps=5

For a sampler that follows the probability flow (ddim, heun, dpm_solver, unipc, adams_bashforth), fits the times of its
steps to the trained network: those with which walks end nearest to the fine solution. For predictor_corrector with the
Langevin corrector, measures the expected norm of the score at each time on training images. The numbers are kept in
the run's calibration.json. Then --grid=fitted, or --sampler=predictor_corrector,norms=expected, uses them in every verb
that opens the run, and launch.export writes them into the model.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

from typing import TYPE_CHECKING, Any

from absl import flags

from .flags import cli, paths, run, sampler

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun

_WORKDIR = paths.define("workdir", None, "The run's directory.", required=True)
_CHECKPOINT = flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest.")
_SEED = flags.DEFINE_integer("seed", 0, "The seed of the starts, or of the noise.", 0, 2**31 - 1)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 128, "How many samples: half of them fit the times, half check them.", 2
)
_SAMPLER = sampler.define()
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Load everything; measure and write nothing.")


def main() -> None:
    """Calibrates."""
    from ncsn_tf import calibration, runs
    from ncsn_tf.samplers import fitting
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        if _SAMPLER.grid.value == "fitted":
            raise ValueError("--grid=fitted is what launch.calibrate makes: leave it out.")
        opened = runs.TrainedRun(RunDirectory(_WORKDIR.value), None, _SAMPLER.changes())
        calibration.read(opened.directory.path)  # raises a ValueError now, before the work
        section = opened.builder.sampler_key
        corrects = section["name"] == "predictor_corrector" and section["corrector"] == "langevin"
        if not opened.builder.continuous:
            raise ValueError("A calibration needs a run in continuous time. This run was trained at noise levels.")
        if not corrects and section["name"] not in fitting.FLOWS:
            raise ValueError(
                f"There is nothing to measure for this sampler. Give --sampler={'|'.join(fitting.FLOWS)}, to fit its "
                "times, or --sampler=predictor_corrector with the Langevin corrector, to measure the norms of the "
                f"score. Received: {section['name']}."
            )
        if section.get("churn"):
            raise ValueError(
                "Times are fitted to the probability flow, which has no noise: leave out churn. "
                f"Received: churn={section['churn']}."
            )
        if not corrects and section["num_steps"] is None:
            raise ValueError("Times are fitted for a number of steps: give --num_steps.")
        opened.load(_CHECKPOINT.value)
        what = "score norms" if corrects else f"a grid of {section['num_steps']} steps for {section['name']}"
        print(f"{what[0].upper() + what[1:]}, step {opened.step} of {opened.directory.path}")
        if _DRY_RUN.value:
            print(f"Dry run: would write into {opened.directory.path / calibration.NAME}")
            return
    try:
        kind, key, entry = _norms(opened, section) if corrects else _grid(opened, section)
    except ArithmeticError as error:
        cli.fail(error, cli.FAILURE)
    about = {
        "checkpoint": opened.checkpoint,
        "step": opened.step,
        "seed": _SEED.value,
        "num_samples": _NUM_SAMPLES.value,
    }
    with cli.usage_errors():
        calibration.keep(opened.directory.path, kind, key, {**entry, **about, **run.environment()})
    print(f"Kept in {opened.directory.path / calibration.NAME}")


def _grid(opened: "TrainedRun", section: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The fitted grid of the section's sampler, as an entry; prints how near the ends of walks are."""
    import tensorflow as tf

    from ncsn_tf import calibration
    from ncsn_tf.config import samplers
    from ncsn_tf.progress import progress_bar
    from ncsn_tf.samplers import blocks, fitting

    options = samplers.WALKS[section["name"]](**{key: section[key] for key in section if key != "name"}).options
    starts = blocks.start_samples(
        tf.range(_NUM_SAMPLES.value), opened.builder.prior, opened.shape, run_seed=_SEED.value
    )[1]
    with progress_bar(fitting.walks(section["num_steps"]), "walk") as bar:
        found = fitting.fit_grid(
            section["name"],
            opened.score_fn,
            opened.builder.sde,
            starts,
            section["num_steps"],
            last_time=section["last_time"],
            options=options,
            jit_compile=section["jit_compile"],
            on_walk=lambda: bar.update(1),
        )
    print("Mean distance to the fine solution, in data units per dimension, on samples of the fit and on others:")
    for name, error in found.errors.items():
        print(f"  {name:8} {error:.4g}  {found.checked[name]:.4g}")
    entry = {"times": [float(time) for time in found.grid], "errors": found.errors, "checked": found.checked}
    return "grids", calibration.grid_key(section), entry


def _norms(opened: "TrainedRun", section: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The expected norms of the run's score, as an entry."""
    import numpy as np
    import tensorflow as tf

    from ncsn_tf import calibration, random, times
    from ncsn_tf.config import samplers
    from ncsn_tf.data import pipeline
    from ncsn_tf.samplers import correctors

    builder = opened.builder
    images = opened.training_images()
    count = min(_NUM_SAMPLES.value, len(images))
    batch = next(iter(pipeline.evaluation_batches(images, batch_size=count, value_range=builder.value_range)))
    grid = times.log_snr(builder.sde, samplers.NORM_TIMES, section["last_time"])
    seeds = random.per_example(random.seed(_SEED.value), tf.range(count))
    found = correctors.measure_norms(opened.score_fn, builder.sde, grid, batch["image"], seeds)
    sigmas = builder.sde.marginal(tf.constant(grid))[1].numpy()
    ratio = found.norms * sigmas / np.sqrt(np.prod(opened.shape))
    print(f"Norms times sigma / sqrt(D): {ratio.min():.3g} to {ratio.max():.3g}; 1 is pure noise")
    entry = {"norm_table": [float(norm) for norm in found.norms]}
    return "norms", calibration.norms_key(section), entry


def entry_point() -> None:
    """Entry point of `ncsn-calibrate`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
