"""Chooses a run's sampler by a metric: python -m launch.sweep --workdir=runs/digits --epsilons=1e-5,2e-5,5e-5

Evaluates samples of one checkpoint under every combination of --sampler, given several times, and of the lists that a
sampler takes: --num_steps and --grid for samplers with fixed steps, --epsilons, --steps_per_level and --num_levels for
Langevin dynamics. Writes sweep.csv, sweep.json, sweep.png and a folder per combination into --output, by default a
folder under the run's evaluation/. After a kill the same command resumes. Values that are not given are the run's, or
for another sampler than the run's its defaults. --labels, --guidance_scale and --classifier are those of launch.sample.
A step size with which sampling is known to diverge is listed as such, and nothing is drawn with it.

  --sampler=heun --sampler=dpm_solver_sde --num_steps=5,9,18 --grid=karras
  --sampler=probability_flow,rtol=1e-3,atol=1e-3    chooses its own steps, and is drawn once
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import pathlib
from typing import TYPE_CHECKING

from absl import flags

from ncsn_tf.evaluation.names import METRICS

from .flags import classes, cli, comparison, devices, evaluator, paths

if TYPE_CHECKING:
    import tensorflow as tf

    from ncsn_tf.combinations import SamplerSetting
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.sweep import Row, Setting
    from ncsn_tf.training.run_directory import RunDirectory

_DEVICES = devices.define()
_EVALUATOR = evaluator.define()
_COMPARISON = comparison.define()
_CLASSES = classes.define()
_WORKDIR = paths.define("workdir", None, "The run's directory.", required=True)
_OUTPUT = paths.define("output", None, "Where to write; by default WORKDIR/evaluation/sweep_step_N_seed_S.")
_CHECKPOINT = flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest.")
_SEED = flags.DEFINE_integer("seed", 0, "Sample i depends on (seed, i) alone.", 0, 2**31 - 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "How many samples each, in place of the run's choice.", 2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "How many a device draws at a time, likewise.", 1)
_METRIC = flags.DEFINE_enum(
    "metric",
    "fid",
    METRICS,
    "The metric that decides; by a classifier, its counterpart.",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check the flags, the run and the data; measure and write nothing.")


def main() -> None:
    """Evaluates every combination."""
    with _DEVICES.using() as strategy:
        _sweep(strategy)


def _sweep(strategy: "tf.distribute.Strategy") -> None:
    from ncsn_tf import sweep
    from ncsn_tf.cluster import strategies
    from ncsn_tf.evaluation import measure
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        directory = RunDirectory(_WORKDIR.value)
        settings = _COMPARISON.settings(directory.config()["sampler"])
        run = _CLASSES.chosen(_opened(directory, strategy, settings))
        options = run.builder.evaluation
        run.load(_CHECKPOINT.value)
        name = f"sweep_step_{run.step:08d}_seed_{_SEED.value}{_CLASSES.suffix()}"
        output = pathlib.Path(_OUTPUT.value or run.directory.path / "evaluation" / name)
        count = _NUM_SAMPLES.value or options.num_samples
        print(f"{len(settings)} combinations, {count} samples each, of {run.directory.path}")
        compared = None
        if strategies.is_chief(strategy):
            train = run.training_images()
            prepared = run.builder.preparation
            compared = _EVALUATOR.evaluator(run.shape, options.features, prepared, train, dry=_DRY_RUN.value)
        if _DRY_RUN.value:
            print(f"Dry run: would write into {output}")
            return
        output.mkdir(parents=True, exist_ok=True)
    with evaluator.progress() as show:
        rows = sweep.sweep(
            run,
            compared,
            settings,
            output,
            metric=_METRIC.value,
            num_samples=count,
            batch_size=_BATCH_SIZE.value or options.batch_size,
            seed=_SEED.value,
            progress=show,
        )
    if compared is not None:
        _report(rows, measure.named(_METRIC.value, compared.kind))
        print(f"Table and plot: {output}")
    strategies.wait_for_everyone(strategy)


def _report(rows: "list[Row]", name: str) -> None:
    """Prints the best combination, and the cheapest that is as good; a failure if none could be evaluated."""
    from ncsn_tf import sweep

    best, cheapest = sweep.best(rows, name), sweep.cheapest(rows, name)
    if best is None:
        cli.fail(f"No combination has samples that can be evaluated. {rows[0].remark}", cli.FAILURE)
    print(f"Best: {best.setting.name}, {name} {best.value:.5g}.")
    if cheapest is not None and cheapest is not best:
        print(
            f"Cheapest within two standard errors of it: {cheapest.setting.name}, {name} {cheapest.value:.5g}, "
            f"{cheapest.evaluations:.5g} evaluations per sample instead of {best.evaluations:.5g}."
        )


def _opened(
    directory: "RunDirectory", strategy: "tf.distribute.Strategy", settings: "list[Setting] | list[SamplerSetting]"
) -> "TrainedRun":
    """The run with the first stable combination; an error for impossible values, or if no combination is stable."""
    from ncsn_tf import runs
    from ncsn_tf.samplers.langevin import UnstableStepError

    found, unstable = None, None
    for setting in settings:
        try:
            if found is None:
                found = runs.TrainedRun(directory, strategy, setting.changes())
            found.with_sampler(setting.changes())  # refuses impossible values before anything is drawn
        except UnstableStepError as error:
            unstable = unstable or error
        except ValueError as error:
            raise ValueError(f"{setting.name}: {error}") from error
    if found is None:
        raise unstable or ValueError("There is no combination to evaluate.")
    return found


def entry_point() -> None:
    """Entry point of `ncsn-sweep`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
