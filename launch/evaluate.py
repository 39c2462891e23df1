"""Judges samples: python -m launch.evaluate --workdir=runs/digits

Draws samples of a run on every device (--strategy and the flags beside it), measures them against its training images,
looks for copies, and writes into --output, by default a folder under the run's evaluation/:
  results.json             Inception score, FID and its extrapolation, KID, precision, recall, copies, held-out loss by
                           level, each with the number of images, its uncertainty and its warnings, and what is needed
                           to repeat them
  samples.npz              samples (uint8 [N, H, W, C])
  neighbours_pixels.png    the samples nearest to training images, each beside these
  neighbours_features.png  the same by features
  distances.png            how near samples and held-out images are to the training images
and adds the numbers to the run's TensorBoard curves. The same command goes on after a kill, from the last batch.

  --checkpoint=1000,2000   these checkpoints; --follow: each new one, until the run is complete
  --samples=PATH           images of any other program, a folder or an .npz, in place of a run's samples; against the
                           data of --workdir, of --data_name, or of the statistics --reference alone
"""

import pathlib
import warnings

from absl import flags

from launch.flags import cli, data, devices
from launch.flags import evaluator as judging
from launch.flags import sampler as sampling

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory.")
_SAMPLES = flags.DEFINE_string("samples", None, "Images to judge: a folder, an .npz or an .npy.")
_OUTPUT = flags.DEFINE_string("output", None, "Where to write; by default WORKDIR/evaluation/step_N_seed_S.")
_CHECKPOINT = flags.DEFINE_list("checkpoint", None, "Steps of checkpoints; by default the newest.")
_FOLLOW = flags.DEFINE_bool("follow", False, "Judge each new checkpoint until the run is complete.")
_PATIENCE = flags.DEFINE_float("follow_timeout", 3600.0, "Seconds to wait for the next checkpoint.", 0.0)
_SEED = flags.DEFINE_integer("seed", 0, "Sample i depends on (seed, i) alone.", 0, 2**31 - 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "How many samples, in place of the run's choice.", 2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "How many a device draws at a time, likewise.", 1)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check the flags, the run and the data; measure and write nothing.")


def main() -> None:
    """Judges."""
    with cli.user_mistakes():
        _check_flags()
    with devices.evaluating() as strategy:
        if _SAMPLES.value is not None:
            _judge_images()
        else:
            _judge_run(strategy)


def _check_flags() -> None:
    data.refuse_without_name()
    judging.metrics()
    if _WORKDIR.value is None and _SAMPLES.value is None:
        raise ValueError("Give --workdir, a run whose samples are judged, or --samples, images of any program.")
    if _SAMPLES.value is None and data.NAME.value is not None:
        raise ValueError("A run is judged against its own data: leave --data_name out, or judge images by --samples.")
    if _FOLLOW.value and (_CHECKPOINT.value is not None or _OUTPUT.value is not None):
        raise ValueError("--follow judges each new checkpoint in a folder of its own: no --checkpoint, no --output.")
    if _CHECKPOINT.value is not None and not all(_is_step(step) for step in _CHECKPOINT.value or [""]):
        raise ValueError(f"--checkpoint takes steps, such as 1000,2000. Received: {','.join(_CHECKPOINT.value)!r}.")
    if len(_CHECKPOINT.value or []) > 1 and _OUTPUT.value is not None:
        raise ValueError("--output is one folder; leave it out to judge several checkpoints.")
    if _SAMPLES.value is not None:
        drawing = (_CHECKPOINT, _FOLLOW, _NUM_SAMPLES, _BATCH_SIZE, _SEED)
        given = [flag.name for flag in drawing if flag.present] + sorted(sampling.changes())
        if given:
            names = ", ".join(f"--{name}" for name in given)
            raise ValueError(f"{names}: for samples that are drawn from a run, not for --samples.")
        if _WORKDIR.value is not None and data.NAME.value is not None:
            raise ValueError("Against which images? --workdir and --data_name each name some; give one of them.")
        if _OUTPUT.value is None:
            raise ValueError("Say by --output where the results of --samples go.")


def _is_step(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _judge_images() -> None:
    """Judges images of any program."""
    from ncsn_tf.config import build
    from ncsn_tf.data.names import DIGITS
    from ncsn_tf.evaluation import features, image_files, report
    from ncsn_tf.training.run_directory import RunDirectory, environment

    with cli.user_mistakes():
        pixels = image_files.read(str(_SAMPLES.value))
        image_files.check(pixels)
        train, held_out, kind, preparation = None, None, features.INCEPTION, data.preparation()
        if _WORKDIR.value is not None:
            directory = RunDirectory(_WORKDIR.value)
            builder = build.Builder(directory.config())
            train, held_out = judging.real_images(builder.load_images)
            directory.check_images(train.describe())
            kind, preparation = builder.evaluation.features, builder.preparation
        elif data.NAME.value is not None:
            train, held_out = judging.real_images(data.load)
            kind = features.CLASSIFIER if data.NAME.value == DIGITS else kind
        print(f"{len(pixels)} images {pixels.shape[1:]} of {_SAMPLES.value}")
        output = pathlib.Path(str(_OUTPUT.value))
        judge = judging.judge(pixels.shape[1:], kind, preparation, train, held_out, dry=_DRY_RUN.value)
        if _DRY_RUN.value:
            print(f"Dry run: would write into {output}")
            return
        assert judge is not None  # of dry runs alone
        output.mkdir(parents=True, exist_ok=True)
    with judging.progress() as show:
        found = judge.judge(pixels, output, metrics=judging.metrics(), progress=show)
    about = {"samples": _SAMPLES.value, "num_samples": len(pixels), **judge.about(), **environment("")}
    report.write(output, found, about)
    print("\n".join([*found.lines(), f"Results: {output / report.RESULTS}"]))


def _judge_run(strategy) -> None:
    """Judges the samples of a run's checkpoints."""
    from ncsn_tf import runs
    from ncsn_tf.cluster import strategies
    from ncsn_tf.evaluation import report
    from ncsn_tf.evaluation.generation import DivergedError
    from ncsn_tf.evaluation.image_files import ImagesError
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.user_mistakes():
        run = runs.TrainedRun(RunDirectory(str(_WORKDIR.value)), strategy, sampling.changes())
        options = run.builder.evaluation
        train, held_out = judging.real_images(run.builder.load_images)
        run.directory.check_images(train.describe())
        steps = [None] if _CHECKPOINT.value is None else [int(step) for step in _CHECKPOINT.value]
        for step in reversed(steps) if not _FOLLOW.value else ():
            run.load(step)  # all are there and whole before the first is judged
        count = _NUM_SAMPLES.value or options.num_samples
        print(f"{count} samples {run.shape} of {run.directory.path}; {strategies.describe(strategy)}")
        judge = None
        if strategies.is_chief(strategy):
            prepared = run.builder.preparation
            judge = judging.judge(run.shape, options.features, prepared, train, held_out, dry=_DRY_RUN.value)
        if _DRY_RUN.value:
            print(f"Dry run: would write below {_OUTPUT.value or run.directory.path / 'evaluation'}")
            return
    unfit = []
    several = _FOLLOW.value or len(steps) > 1
    for step in run.new_checkpoints(_PATIENCE.value) if _FOLLOW.value else steps:
        run.load(step)
        name = f"step_{run.step:08d}_seed_{_SEED.value}"
        output = pathlib.Path(_OUTPUT.value or run.directory.path / "evaluation" / name)
        try:
            with judging.progress() as show:
                found = runs.evaluate(
                    run,
                    judge,
                    output,
                    num_samples=count,
                    batch_size=_BATCH_SIZE.value or options.batch_size,
                    seed=_SEED.value,
                    metrics=judging.metrics(),
                    held_out_images=held_out,
                    held_out_examples=options.held_out_examples,
                    progress=show,
                )
        except (DivergedError, ImagesError) as error:
            if not several:
                raise
            unfit.append(f"step {run.step}: {error}")
            warnings.warn(unfit[-1], stacklevel=1)
            continue
        if found is not None:
            # The run's own curves are of its own samples; what flags have changed has curves beside its results.
            own = not (sampling.changes() or _SEED.value) and count == options.num_samples
            report.write_scalars(run.directory.tensorboard if own else output, run.step, found)
            print("\n".join([f"step {run.step}:", *found.lines(), f"Results: {output / report.RESULTS}"]))
    strategies.wait_for_everyone(strategy)
    if unfit:
        cli.fail(f"Not all checkpoints could be judged. {unfit[0]}", cli.FAILURE)


def run() -> None:
    """Entry point of `ncsn-evaluate`."""
    cli.run(main)


if __name__ == "__main__":
    run()
