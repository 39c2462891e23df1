"""Evaluates samples: python -m launch.evaluate --workdir=runs/digits

Draws samples of a run on every device (--strategy and the flags beside it), measures them against its training images,
looks for copies, and writes into --output, by default a folder under the run's evaluation/:
  results.json             Inception score, FID and its extrapolation, KID, precision, recall, copies, held-out loss by
                           level, each with the number of images, its uncertainty and its warnings, and what is needed
                           to repeat them
  samples.npz              samples (uint8 [N, H, W, C])
  neighbours_pixels.png    the samples nearest to training images, each beside these
  neighbours_features.png  the same by features
  distances.png            how near samples and held-out images are to the training images
and adds the numbers to the run's TensorBoard curves. After a kill the same command resumes from the last batch.

  --checkpoint=1000,2000   these checkpoints; --follow: each new one, until the run is complete
  --labels=0,1,2           samples of these classes in turn; with --guidance_scale and --classifier as in launch.sample
  --samples=PATH           images of any other program, a folder or an .npz, in place of a run's samples; against the
                           data of --workdir, of --data_name, or of the statistics --reference alone
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import math
import pathlib
import warnings
from typing import TYPE_CHECKING

from absl import flags

from .flags import classes, cli, data, devices, evaluator, paths, sampler

if TYPE_CHECKING:
    import tensorflow as tf

    from ncsn_tf.runs import TrainedRun

_IMAGES = data.define()
_DEVICES = devices.define()
_EVALUATOR = evaluator.define()
_SAMPLER = sampler.define()
_CLASSES = classes.define()
_METRICS = flags.DEFINE_list("metrics", None, "Some of inception_score, fid, fid_infinity, kid, precision, recall.")
_WORKDIR = paths.define("workdir", None, "The run's directory.")
_SAMPLES = paths.define("samples", None, "Images to evaluate: a folder, an .npz or an .npy.")
_OUTPUT = paths.define("output", None, "Where to write; by default WORKDIR/evaluation/step_N_seed_S.")
_CHECKPOINT = flags.DEFINE_list("checkpoint", None, "Steps of checkpoints; by default the newest.")
_FOLLOW = flags.DEFINE_bool("follow", False, "Evaluate each new checkpoint until the run is complete.")
_PATIENCE = flags.DEFINE_float("follow_timeout", 3600.0, "Seconds to wait for the next checkpoint.", 0.0)
_SEED = flags.DEFINE_integer("seed", 0, "Sample i depends on (seed, i) alone.", 0, 2**31 - 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "How many samples, in place of the run's choice.", 2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "How many a device draws at a time, likewise.", 1)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check the flags, the run and the data; measure and write nothing.")


def main() -> None:
    """Evaluates."""
    with cli.usage_errors():
        _check_flags()
    with _DEVICES.using() as strategy:
        if _SAMPLES.value is not None:
            _evaluate_images()
        else:
            _evaluate_run(strategy)


def _check_flags() -> None:
    _IMAGES.refuse_without_name()
    evaluator.check_metrics(_METRICS.value)
    workdir, samples, name, steps = _WORKDIR.value, _SAMPLES.value, _IMAGES.name.value, _CHECKPOINT.value
    if workdir is None and samples is None:
        raise ValueError("Give --workdir, a run whose samples are evaluated, or --samples, images of any program.")
    if samples is None and name is not None:
        raise ValueError("A run is compared with its own data: leave --data_name out, or give images by --samples.")
    if _FOLLOW.value and (steps is not None or _OUTPUT.value is not None):
        raise ValueError("--follow evaluates each new checkpoint in its own folder: no --checkpoint, no --output.")
    if math.isnan(_PATIENCE.value):
        raise ValueError("--follow_timeout is a number of seconds. Received: nan.")
    if steps is not None and not all(step.isascii() and step.isdigit() for step in steps or [""]):
        raise ValueError(f"--checkpoint takes steps, such as 1000,2000. Received: {','.join(steps)!r}.")
    if len(steps or []) > 1 and _OUTPUT.value is not None:
        raise ValueError("--output is one folder; leave it out to evaluate several checkpoints.")
    if samples is not None:
        drawing = (_CHECKPOINT, _FOLLOW, _NUM_SAMPLES, _BATCH_SIZE, _SEED)
        given = [flag.name for flag in drawing if flag.present] + _SAMPLER.given() + _CLASSES.given()
        if given:
            names = ", ".join(f"--{name}" for name in given)
            raise ValueError(f"{names}: for samples that are drawn from a run, not for --samples.")
        if workdir is not None and name is not None:
            raise ValueError("Against which images? --workdir and --data_name each name some; give one of them.")
        if _OUTPUT.value is None:
            raise ValueError("Give --output, the folder for the results of --samples.")


def _evaluate_images() -> None:
    """Evaluates images of any program."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import build
    from ncsn_tf.data.names import DIGITS
    from ncsn_tf.evaluation import image_files, names, report
    from ncsn_tf.training.run_directory import RunDirectory, environment

    with cli.usage_errors():
        given = image_files.read(str(_SAMPLES.value))
        pixels = given.images
        image_files.check(pixels)
        train, held_out, kind, preparation = None, None, names.INCEPTION, _IMAGES.preparation()
        if _WORKDIR.value is not None:
            directory = RunDirectory(_WORKDIR.value)
            builder = build.Builder(directory.config())
            train, held_out = evaluator.real_images(builder.load_images)
            directory.check_images(train.describe())
            kind, preparation = builder.evaluation.features, builder.preparation
        elif _IMAGES.name.value is not None:
            train, held_out = evaluator.real_images(_IMAGES.load)
            kind = names.CLASSIFIER if _IMAGES.name.value == DIGITS else kind
        print(f"{len(pixels)} images {pixels.shape[1:]} of {_SAMPLES.value}")
        output = pathlib.Path(str(_OUTPUT.value))
        compared = _EVALUATOR.evaluator(pixels.shape[1:], kind, preparation, train, held_out, dry=_DRY_RUN.value)
        if _DRY_RUN.value:
            print(f"Dry run: would write into {output}")
            return
        assert compared is not None  # of dry runs alone
        output.mkdir(parents=True, exist_ok=True)
    with evaluator.progress() as show:
        metrics = evaluator.check_metrics(_METRICS.value)
        found = compared.evaluate(pixels, output, metrics=metrics, formats=given.formats, progress=show)
    devices_used = strategies.describe(strategies.create("one_device"))
    about = {"samples": _SAMPLES.value, "num_samples": len(pixels), **compared.about(), **environment(devices_used)}
    report.write(output, found, about)
    print("\n".join([*found.lines(), f"Results: {output / report.RESULTS}"]))


def _evaluate_run(strategy: "tf.distribute.Strategy") -> None:
    """Evaluates the samples of a run's checkpoints."""
    from ncsn_tf import runs
    from ncsn_tf.cluster import strategies
    from ncsn_tf.evaluation.image_files import ImagesError
    from ncsn_tf.samplers.store import DivergedError
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        run = runs.TrainedRun(RunDirectory(str(_WORKDIR.value)), strategy, _SAMPLER.changes())
        run = _CLASSES.chosen(run)
        options = run.builder.evaluation
        train, held_out = evaluator.real_images(run.builder.load_images)
        run.directory.check_images(train.describe())
        steps = [None] if _CHECKPOINT.value is None else [int(step) for step in _CHECKPOINT.value]
        for step in reversed(steps) if not _FOLLOW.value else ():
            run.load(step)  # all exist and are whole before the first is evaluated
        count = _NUM_SAMPLES.value or options.num_samples
        print(f"{count} samples {run.shape} of {run.directory.path}; {strategies.describe(strategy)}")
        compared = None
        if strategies.is_chief(strategy):
            prepared = run.builder.preparation
            compared = _EVALUATOR.evaluator(run.shape, options.features, prepared, train, held_out, dry=_DRY_RUN.value)
        if _DRY_RUN.value:
            print(f"Dry run: would write below {_OUTPUT.value or run.directory.path / 'evaluation'}")
            return
    unfit = []
    several = _FOLLOW.value or len(steps) > 1
    for step in run.new_checkpoints(_PATIENCE.value) if _FOLLOW.value else steps:
        run.load(step)
        try:
            _evaluate_checkpoint(run, compared, held_out, count)
        except (DivergedError, ImagesError) as error:
            if not several:
                raise
            unfit.append(f"step {run.step}: {error}")
            warnings.warn(unfit[-1], stacklevel=1)
    strategies.wait_for_everyone(strategy)
    if unfit:
        cli.fail(f"Not all checkpoints could be evaluated. {unfit[0]}", cli.FAILURE)


def _evaluate_checkpoint(run: "TrainedRun", compared, held_out, count: int) -> None:
    """Evaluates samples of the loaded checkpoint, and prints the report."""
    from ncsn_tf import jobs
    from ncsn_tf.evaluation import report

    options = run.builder.evaluation
    output = pathlib.Path(
        _OUTPUT.value
        or run.directory.path / "evaluation" / f"step_{run.step:08d}_seed_{_SEED.value}{_CLASSES.suffix()}"
    )
    with evaluator.progress() as show:
        found = jobs.evaluate(
            run,
            compared,
            output,
            num_samples=count,
            batch_size=_BATCH_SIZE.value or options.batch_size,
            seed=_SEED.value,
            metrics=evaluator.check_metrics(_METRICS.value),
            held_out_images=held_out,
            held_out_examples=options.held_out_examples,
            progress=show,
        )
    if found is not None:
        # The run's own curves are of its own samples; what flags have changed has curves beside its results.
        own = not (_SAMPLER.given() or _CLASSES.given() or _SEED.value) and count == options.num_samples
        report.write_scalars(run.directory.tensorboard if own else output, run.step, found)
        print("\n".join([f"step {run.step}:", *found.lines(), f"Results: {output / report.RESULTS}"]))


def entry_point() -> None:
    """Entry point of `ncsn-evaluate`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
