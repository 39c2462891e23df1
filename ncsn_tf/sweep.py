"""Choosing a sampler by a metric: samples of one checkpoint under every combination of a few settings.

OUTPUT/NAME/       samples and results of one combination, see `evaluation.report`
OUTPUT/sweep.csv   one row per combination
OUTPUT/sweep.json  the same, and everything that is needed to repeat it
OUTPUT/sweep.png   the metric over evaluations, one line per sampler; over epsilon if only Langevin dynamics is compared
"""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ncsn_tf import files, jobs, pictures
from ncsn_tf.cluster import strategies
from ncsn_tf.combinations import SamplerSetting
from ncsn_tf.evaluation import EvaluationError, measure
from ncsn_tf.evaluation.evaluator import Evaluator, Progress
from ncsn_tf.runs import TrainedRun
from ncsn_tf.samplers.langevin import UnstableStepError
from ncsn_tf.training.run_directory import environment

_LARGER_IS_BETTER = ("score", "precision", "recall")
_ERRORS = 2.0
"""The number of standard errors within which two values count as equal, and the length of the plot's bars."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One combination of values of Langevin dynamics, the run's own sampler.

    Attributes:
      epsilon: the step size at the smallest level.
      steps_per_level: T.
      num_levels: the number of levels that are visited; None for all.
    """

    epsilon: float
    steps_per_level: int
    num_levels: int | None

    def changes(self) -> dict[str, Any]:
        """The values of the `sampler` section."""
        return dataclasses.asdict(self)

    @property
    def name(self) -> str:
        """The name of its folder."""
        levels = "all" if self.num_levels is None else self.num_levels
        return f"epsilon_{self.epsilon!r}_steps_{self.steps_per_level}_levels_{levels}"

    def columns(self) -> dict[str, Any]:
        """The columns of a table."""
        return dataclasses.asdict(self)

    def line(self, over_epsilon: bool) -> str:
        """The label of its line in a plot over epsilon, or over evaluations."""
        size = [] if over_epsilon else [f"epsilon = {self.epsilon!r}"]
        levels = [f"{self.num_levels} levels"] if self.num_levels is not None else []
        return ", ".join([*size, f"T = {self.steps_per_level}", *levels])


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of one combination.

    Attributes:
      setting: the combination.
      evaluations: the evaluations of the score per sample, on average; None if the samples diverged, or would.
      value: the metric's value; None likewise, and if the samples cannot be measured.
      standard_error: the standard error of the value; None if it is not known.
      remark: the reason why there is no value, or a warning about the samples; "" for none.
    """

    setting: Setting | SamplerSetting
    evaluations: float | None
    value: float | None
    standard_error: float | None
    remark: str = ""


def grid(epsilons: Iterable[float], steps: Iterable[int], levels: Iterable[int | None]) -> list[Setting]:
    """All combinations of the values of Langevin dynamics, each once; `combinations.combine` has those of samplers."""
    return [Setting(*values) for values in dict.fromkeys(itertools.product(epsilons, steps, levels))]


def sweep(
    run: TrainedRun,
    evaluator: Evaluator | None,
    settings: Sequence[Setting] | Sequence[SamplerSetting],
    output: str | os.PathLike,
    *,
    metric: str,
    num_samples: int,
    batch_size: int,
    seed: int,
    progress: Progress = lambda what, rows: None,
    log: Callable[[str], object] = print,
) -> list[Row]:
    """Evaluates samples of the loaded checkpoint under every combination; finished combinations are skipped.

    A combination with which sampling is known to diverge is not drawn; its row says why, as where samples diverged.

    Args:
      run: the run, its checkpoint loaded.
      evaluator: measures the samples; None on the workers of a cluster other than the chief.
      settings: the combinations, of `grid` or of `combinations.combine`.
      output: the folder.
      metric: the metric to compare by, one of `names.METRICS`.
      num_samples: the number of samples of each combination.
      batch_size: the number of samples that a replica draws at a time.
      seed: the same for all, so that combinations differ by their settings and not by their noise.
      progress: called with an activity and the number of images just done.
      log: takes one line per combination.

    Returns:
      One row per combination; without values on the workers of a cluster other than the chief.

    Raises:
      EvaluationError: if the metric is unavailable for this number of samples or against this reference.
    """
    output = files.local_path(output)
    rows = []
    name = measure.named(metric, evaluator.kind) if evaluator is not None else metric
    options = {"metric": metric, "num_samples": num_samples, "batch_size": batch_size, "seed": seed}
    record = environment(strategies.describe(run.strategy))
    common = {key: value for key, value in run.sampling_key(seed, batch_size).items() if key != "sampler"}
    common |= {"num_samples": num_samples, **(evaluator.about() if evaluator is not None else {})}
    for number, setting in enumerate(settings, start=1):
        try:
            changed = run.with_sampler(setting.changes())
        except UnstableStepError as error:  # on every worker
            content = {jobs.FAILED: str(error)}
        else:
            content = jobs.evaluate_once(changed, evaluator, output / setting.name, **options, progress=progress)
        rows.append(_row(setting, content or {}, name))
        if evaluator is not None:
            _write(output, rows, name, {**common, **record})
            log(f"{number} of {len(settings)}: {setting.name}: {_text(rows[-1], name)}")
            if rows[-1].value is None and rows[-1].evaluations is not None and content is not None:
                raise EvaluationError("; ".join(content["not_measured"]))
    return rows


def _row(setting: Setting | SamplerSetting, content: dict[str, Any], name: str) -> Row:
    return Row(setting, content.get("score_evaluations_per_sample"), *jobs.value_of(content, name))


def best(rows: Sequence[Row], metric: str) -> Row | None:
    """The row of the largest score, precision or recall, or of the smallest distance; None if all diverged."""
    measured = [row for row in rows if row.value is not None and math.isfinite(row.value)]
    sign = -1.0 if metric.endswith(_LARGER_IS_BETTER) else 1.0
    return min(measured, key=lambda row: sign * (row.value or 0.0), default=None)


def cheapest(rows: Sequence[Row], metric: str) -> Row | None:
    """The row of the fewest evaluations whose value is within two standard errors of the best; None if unknown.

    The standard error is that of the difference of two independent values; of several such rows it is the best.
    """
    first = best(rows, metric)
    if first is None or first.value is None or first.standard_error is None:
        return None
    near = [
        row
        for row in rows
        if row.value is not None
        and row.standard_error is not None
        and abs(row.value - first.value) <= _ERRORS * math.hypot(row.standard_error, first.standard_error)
    ]
    fewest = min(row.evaluations or 0 for row in near)
    return best([row for row in near if row.evaluations == fewest], metric)


def _text(row: Row, metric: str) -> str:
    if row.value is None:
        return f"no {metric}: {row.remark}"
    error = f" (standard error {row.standard_error:.2g})" if row.standard_error is not None else ""
    remark = f" ({row.remark})" if row.remark else ""
    return f"{metric} {row.value:.5g}{error}, {row.evaluations} evaluations per sample{remark}"


def _write(output: pathlib.Path, rows: Sequence[Row], metric: str, common: dict[str, Any]) -> None:
    """The table and the plot of what is done so far, with what all combinations have in common."""
    table = [
        {
            **row.setting.columns(),
            "evaluations": row.evaluations,
            metric: row.value,
            "standard_error": row.standard_error,
            "remark": row.remark,
        }
        for row in rows
    ]
    files.write_csv(output / "sweep.csv", table)
    files.write_json(output / "sweep.json", {"metric": metric, **common, "rows": table})
    pictures.save_figure(output / "sweep.png", draw(rows, metric))


def draw(rows: Sequence[Row], metric: str) -> "pictures.Figure":
    """Draws the metric with bars of two standard errors, one line per sampler and its keys.

    The axis is the evaluations per sample, or epsilon where all rows are of Langevin dynamics; then there is one line
    per number of steps and levels.
    """
    over_epsilon = all(row.setting.epsilon is not None for row in rows)
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row.value is not None:
            lines.setdefault(row.setting.line(over_epsilon), []).append(row)

    def place(row: Row) -> float:
        return (row.setting.epsilon if over_epsilon else row.evaluations) or math.nan

    legend = 0.0 if over_epsilon else 0.2 * len(lines)  # inches below the axes
    with pictures.drawn(6.0, 4.0 + legend) as picture:
        axes = picture.subplots()
        for label, points in lines.items():
            points = sorted(points, key=place)
            axes.errorbar(
                [place(row) for row in points],
                [row.value if row.value is not None else math.nan for row in points],
                yerr=[_ERRORS * (row.standard_error or 0.0) for row in points],
                marker="o",
                capsize=3.0,
                label=label,
            )
        axes.set_xscale("log")
        axes.set_xlabel("epsilon" if over_epsilon else "evaluations per sample")
        axes.set_ylabel(metric)
        if over_epsilon and lines:
            axes.legend()
        elif lines:
            from matplotlib import ticker

            axes.xaxis.set_major_formatter(ticker.LogFormatter())  # 6, 10 and 20, without powers
            axes.xaxis.set_minor_formatter(ticker.LogFormatter())
            picture.legend(loc="outside lower center")
    return picture
