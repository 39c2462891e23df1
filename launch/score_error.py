"""Compares a run's score with the exact score of its training images: python -m launch.score_error --workdir=runs/edm

Denoising score matching on N images has one minimiser, the score of the noised empirical density of these images, along
which samples are copies. This verb measures at each noise level how far a trained network is from it. Prints one line
per level, and writes into --output, by default a folder under the run's score_error/:
  score_error.json   the numbers by level and their means, and everything that is needed to repeat them
  score_error.csv    the same numbers, one row per level
  score_error.png    the losses of the network and of the exact score, and the share, over sigma / alpha

  --by_time=5   also evaluates samples with the network's score in one of 5 bins of time and the exact score in the
                others, and the reverse: by_time.csv, by_time.png, and the folder by_time/ with --num_samples samples of
                each set. After a kill the same command resumes from the last batch of samples

docs/evaluation.md says what each column means. Every device measures (--strategy and the flags beside it).
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import pathlib
import time
import warnings
from typing import TYPE_CHECKING

from absl import flags

from ncsn_tf.evaluation.names import METRICS

from .flags import cli, evaluator, run

if TYPE_CHECKING:
    from ncsn_tf.by_time import ByTime
    from ncsn_tf.evaluation.evaluator import Evaluator
    from ncsn_tf.evaluation.score_error import ScoreError
    from ncsn_tf.runs import TrainedRun

_FLAGS = run.define()
_EVALUATOR = evaluator.define()
_NUM_IMAGES = flags.DEFINE_integer("num_images", 500, "How many training and how many held-out images.", 2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Images that a device takes at a time; bounds the memory.", 1)
_BY_TIME = flags.DEFINE_integer("by_time", None, "Draw samples with either score in one of so many bins of time.", 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1_000, "How many samples of each set, with --by_time.", 2)
_METRIC = flags.DEFINE_enum("metric", "fid", METRICS, "Measured of each set; by a classifier, its counterpart.")
_REPLACE = flags.DEFINE_bool("replace", False, "Replace earlier results in the folder.")

_RECORD = "score_error.json"


def main() -> None:
    """Measures the errors of a run's score."""
    from ncsn_tf import jobs
    from ncsn_tf.cluster import strategies
    from ncsn_tf.evaluation import score_error_report

    with _FLAGS.devices.using() as strategy:
        with cli.usage_errors():
            _check_flags()
            opened = _FLAGS.open(strategy) if _BY_TIME.value is None else _FLAGS.open_for_steps(strategy, "--by_time")
            unseen, output = jobs.held_out_points(opened), _folder(opened)
            print(
                f"{_NUM_IMAGES.value} images {opened.shape} of each set, step {opened.step} of {_FLAGS.workdir.value}"
            )
            for caveat in jobs.dequantization_caveats(opened):
                warnings.warn(caveat, stacklevel=1)
            compared = _evaluator(opened) if _BY_TIME.value is not None else None
            if not _FLAGS.prepare(opened, output):
                return
        begun = time.perf_counter()
        with evaluator.progress() as show:
            options = {"num_images": _NUM_IMAGES.value, "batch_size": _BATCH_SIZE.value, "seed": _FLAGS.seed.value}
            found = jobs.measure_score(opened, unseen, progress=show, **options)
        if opened.is_chief:
            print("\n".join(score_error_report.lines(found)))
        parts = _by_time(opened, compared, output) if _BY_TIME.value is not None else None
        if opened.is_chief:
            _write(opened, output, found, parts, compared, time.perf_counter() - begun)
        strategies.wait_for_everyone(strategy)


def _check_flags() -> None:
    """Raises ValueError for flags of samples where none are drawn."""
    own = (_NUM_SAMPLES, _METRIC, *vars(_EVALUATOR).values())
    given = [flag.name for flag in own if flag.present] + _FLAGS.sampler.given()
    if given and _BY_TIME.value is None:
        names = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"{names}: samples are drawn only with --by_time. Give it, or leave out the other flags.")


def _evaluator(opened: "TrainedRun") -> "Evaluator | None":
    """The evaluator of samples, on the chief; raises ValueError for a number of bins that the sampler does not have."""
    from ncsn_tf import by_time

    by_time.edges_of(opened.builder.sampler_grid, _BY_TIME.value or 0)
    if not opened.is_chief:
        return None
    train, held_out = evaluator.real_images(opened.builder.load_images)
    default, prepared = opened.builder.evaluation.features, opened.builder.preparation
    return _EVALUATOR.evaluator(opened.shape, default, prepared, train, held_out, dry=_FLAGS.dry_run.value)


def _folder(opened: "TrainedRun") -> pathlib.Path:
    name = f"step_{opened.step:08d}_seed_{_FLAGS.seed.value}"
    output = pathlib.Path(_FLAGS.output.value or opened.directory.path / "score_error" / name)
    if (output / _RECORD).exists() and not _REPLACE.value:
        raise ValueError(f"{output} holds a measurement already. Give another --output, or --replace.")
    return output


def _by_time(opened: "TrainedRun", compared: "Evaluator | None", output: pathlib.Path) -> "ByTime | None":
    from ncsn_tf import by_time
    from ncsn_tf.samplers.store import SamplingKeyError

    options = {"metric": _METRIC.value, "num_samples": _NUM_SAMPLES.value, "seed": _FLAGS.seed.value}
    options["batch_size"] = min(_BATCH_SIZE.value, _NUM_SAMPLES.value)
    try:
        with evaluator.progress() as show:
            return by_time.measure_by_time(opened, compared, _BY_TIME.value or 0, output, progress=show, **options)
    except SamplingKeyError as error:
        cli.fail(error)


def _write(
    opened: "TrainedRun",
    output: pathlib.Path,
    found: "ScoreError",
    parts: "ByTime | None",
    compared: "Evaluator | None",
    seconds: float,
) -> None:
    """Writes the results."""
    from ncsn_tf import by_time
    from ncsn_tf.evaluation import score_error_report

    about = {"mirrored": opened.builder.flips, "dequantized": opened.builder.dequantizes}
    about |= {"batch_size": _BATCH_SIZE.value, "seconds": round(seconds, 1), **_FLAGS.record(opened)}
    if parts is not None and compared is not None:
        by_time.write(output, parts)
        about |= {"by_time": by_time.summary(parts), "num_samples": _NUM_SAMPLES.value, **compared.about()}
    score_error_report.write(output, found, about)
    print(f"Results: {output}")


def entry_point() -> None:
    """Entry point of `ncsn-score-error`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
