"""Samples of a trained run by one sampler under several seeds, measured: a cell of a table of Song et al. 2021."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ncsn_tf import combinations, jobs
from ncsn_tf.evaluation import EvaluationError, measure
from ncsn_tf.evaluation.evaluator import Evaluator, Progress
from ncsn_tf.runs import TrainedRun

SDES = {"ve": "VE", "vp": "VP", "subvp": "sub-VP"}
"""The SDEs of the paper, by their names in configurations."""
LAST_TIMES = {"ve": 1e-5, "vp": 1e-3, "subvp": 1e-3}
"""Where a walk from noise to data ends (appendix C and D.4)."""
_ERRORS = 2.0
"""The number of standard errors within which two values count as equal."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """A trained run and what measures its samples.

    Attributes:
      run: the run, its checkpoint loaded.
      evaluator: the evaluator of its samples.
    """

    run: TrainedRun
    evaluator: Evaluator

    @property
    def sde(self) -> str:
        """The SDE's name in the run's configuration."""
        return sde_name(self.run)

    @property
    def batch_size(self) -> int:
        """The number of samples at a time by the run's configuration."""
        return self.run.builder.evaluation.batch_size

    @property
    def metric(self) -> str:
        """The name of the Frechet distance by the evaluator's features: fid or classifier_fid."""
        return measure.named("fid", self.evaluator.kind)

    def about(self) -> dict[str, Any]:
        """Plain values that identify the run and the evaluator."""
        return {**about(self.run), **self.evaluator.about()}


def sde_name(run: TrainedRun) -> str:
    """The SDE's name in the run's configuration."""
    return run.directory.config()["sde"]["name"]


def weighting(run: TrainedRun) -> str:
    """The weighting of the objective in the run's configuration, such as likelihood or sigma_power=2."""
    keys = run.directory.config()["objective"]
    return f"sigma_power={keys['sigma_power']:g}" if keys["weighting"] == "sigma_power" else keys["weighting"]


def about(run: TrainedRun) -> dict[str, Any]:
    """Plain values that identify a run and its weights."""
    return {"directory": str(run.directory.path), "checkpoint": run.checkpoint, "weights": run.checksum()}


@dataclasses.dataclass(frozen=True)
class Draws:
    """The samples of every cell.

    Attributes:
      num_samples: the number of samples under each seed.
      batch_size: the number of samples at a time; bounds the memory.
      seeds: the seeds, the same in all cells.
    """

    num_samples: int
    batch_size: int
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
      mean: the mean.
      deviation: the standard deviation over seeds; None with a single one.
      count: the number of seeds.
    """

    mean: float
    deviation: float | None
    count: int

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.count)

    @staticmethod
    def of(values: Sequence[float]) -> "Estimate":
        """The estimate of one or more values."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return Estimate(float(np.mean(values)), deviation, len(values))

    def __str__(self):
        """The mean and its deviation, as the paper prints them."""
        return f"{self.mean:.3g}" if self.deviation is None else f"{self.mean:.3f} ± {self.deviation:.3f}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """The measurements of one sampler.

    Attributes:
      sampler: the sampler and its values, as --sampler of launch.sample takes them.
      values: the metric under each seed; those of seeds whose samples diverged are missing.
      evaluations: the counted evaluations of the score per sample, on average; None if all diverged.
      remark: the reason why a value is missing; "" if none is.
    """

    sampler: str
    values: tuple[float, ...]
    evaluations: float | None
    remark: str = ""

    @property
    def estimate(self) -> Estimate | None:
        """The mean over seeds; None if samples diverged."""
        return Estimate.of(self.values) if self.values and not self.remark else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = self.estimate
        return {
            "sampler": self.sampler,
            "mean": None if found is None else found.mean,
            "deviation": None if found is None else found.deviation,
            "values": list(self.values),
            "evaluations": self.evaluations,
            "remark": self.remark,
        }

    def __str__(self):
        """The estimate, or a word for its lack."""
        return "diverged" if self.estimate is None else str(self.estimate)


def sampler(name: str, sde: str, **values: Any) -> str:
    """A sampler of the paper as a text that --sampler takes: along uniform times, with a denoising step at the end.

    Args:
      name: the sampler's name in configurations.
      sde: the SDE's name in configurations, which decides where the walk ends.
      **values: keys of the sampler, a number of steps among them if it takes one.
    """
    given = {**values, "last_time": LAST_TIMES[sde], "denoise": "true"}
    given |= {"grid": "uniform"} if "num_steps" in values else {}
    return ",".join([name, *(f"{key}={str(value).lower()}" for key, value in given.items())])


def changed(run: TrainedRun, text: str) -> tuple[str, TrainedRun]:
    """The run with the sampler of a text, and a name of that sampler for folders; raises ValueError if it has none."""
    (setting,) = combinations.combine(run.directory.config()["sampler"], [text], {})
    return setting.name, run.with_sampler(setting.changes())


def measured(
    judged: Judged,
    text: str,
    folder: pathlib.Path,
    draws: Draws,
    progress: Progress = lambda activity, rows: None,
) -> Cell:
    """Draws and measures samples by one sampler under every seed; what the folder has already is not drawn again.

    Args:
      judged: the run and its evaluator.
      text: the sampler, of `sampler`.
      folder: keeps samples and results in a folder per sampler and seed.
      draws: the number of samples, and the seeds.
      progress: called with an activity and the number of images just done.

    Raises:
      ValueError: if the run cannot have that sampler.
      SamplingKeyError: if the folder holds other samples.
      EvaluationError: if there are too few samples for the metric.
    """
    name, run = changed(judged.run, text)
    values, evaluations, remarks = [], [], []
    for seed in draws.seeds:
        options = {"num_samples": draws.num_samples, "batch_size": draws.batch_size, "seed": seed}
        output = folder / name / f"seed_{seed}"
        content = jobs.evaluate_once(run, judged.evaluator, output, metric="fid", **options, progress=progress) or {}
        if jobs.FAILED in content:
            remarks.append(f"seed {seed}: {content[jobs.FAILED]}")
            continue
        if judged.metric not in content["metrics"]:
            raise EvaluationError("; ".join(content["not_measured"]))
        values.append(content["metrics"][judged.metric]["value"])
        evaluations.append(content["score_evaluations_per_sample"])
    cost = float(np.mean(evaluations)) if evaluations else None
    return Cell(text, tuple(values), cost, "; ".join(remarks))


def paired(cells: Mapping[Any, Cell], weights: Mapping[Any, float]) -> Estimate | None:
    """A weighted sum of cells, such as a difference, seed by seed: its mean over seeds, and its own deviation.

    All cells have the same seeds, and samples of one seed start from the same noise in each: what cells share leaves
    the difference, and its error is that of the differences.

    Args:
      cells: the cells.
      weights: the weights of some of them.

    Returns:
      The estimate; None where samples of a cell diverged.
    """
    found = [(weight, cells[key]) for key, weight in weights.items()]
    if any(cell.estimate is None for _, cell in found):
        return None
    return Estimate.of(np.sum([weight * np.asarray(cell.values) for weight, cell in found], axis=0).tolist())


def contrast(cells: Mapping[Any, Estimate | None], weights: Mapping[Any, float]) -> tuple[float | None, float | None]:
    """A weighted sum of means, such as a difference, and its standard error.

    The error is Welch's, sqrt(sum of w^2 s^2 / n), of independent cells each with a variance of its own. It serves for
    numbers of the paper, of which only means and deviations are known; `paired` is for our own.

    Args:
      cells: the estimates; None where there is none.
      weights: the weights w of some of them.

    Returns:
      (the sum, its error): None for both where an estimate is missing, and for the error if a deviation is.
    """
    found = [(weight, cells.get(key)) for key, weight in weights.items()]
    known = [(weight, one) for weight, one in found if one is not None]
    if len(known) < len(found):
        return None, None
    total = sum(weight * one.mean for weight, one in known)
    errors = [(weight, one.standard_error) for weight, one in known]
    if any(error is None for _, error in errors):
        return total, None
    return total, math.sqrt(sum((weight * (error or 0.0)) ** 2 for weight, error in errors))


def difference_text(difference: float | None, error: float | None) -> str:
    """A difference with its standard error, as far as they are known."""
    if difference is None:
        return ""
    return f"{difference:.3f}" + ("" if error is None else f" (standard error {error:.2g})")


def verdict(difference: float | None, error: float | None, count: int | None = None) -> str:
    """The verdict on the claim that a difference is below 0: whether it holds, or is within the error.

    Args:
      difference: the difference.
      error: its standard error.
      count: the number of values whose deviation gave the error; None for so many that it is known. With few, the error
        is itself uncertain, and Student's 95 % interval is wider than two standard errors: 2.78 for 5 values.
    """
    if difference is None or error is None:
        return "unknown"
    if abs(difference) <= error * (_ERRORS if count is None else float(stats.t.ppf(0.975, count - 1))):
        return "within the error"
    return "holds" if difference < 0.0 else "does not hold"


Log = Callable[[str], object]
"""Takes one line per cell, as soon as it is measured."""
