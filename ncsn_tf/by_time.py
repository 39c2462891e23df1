"""The part of each stretch of time in the quality of a run's samples: the exact score in its place, and the reverse.

Samples are drawn with the network's score in one bin of time and the exact score of the training images in all others,
and the other way round. With the network in one bin alone, the samples are as good as the errors of that bin allow;
with the exact score in one bin alone, they show what these errors cost. The exact score alone draws copies of training
images: a good metric there is no merit, and the distance of samples to the training images says where copying begins.

OUTPUT/by_time/NAME/  samples and results of one score function, see `evaluation.report`
OUTPUT/by_time.csv    one row per bin
OUTPUT/by_time.png    the metric by bin
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files, jobs, pictures
from ncsn_tf.evaluation import measure
from ncsn_tf.evaluation.evaluator import Evaluator, Progress
from ncsn_tf.runs import TrainedRun
from ncsn_tf.samplers import driver
from ncsn_tf.score import ScoreFunction, expand

NETWORK, EXACT = "network", "exact"


@dataclasses.dataclass(frozen=True)
class Quality:
    """The samples of one score function.

    Attributes:
      value: the metric's value; None if the samples diverged, or cannot be measured.
      standard_error: its standard error; None if it is not known.
      nearer: the probability that a sample is nearer to the training images than a held-out image is, in pixels; None
        if there are no held-out images.
      remark: the reason why there is no value, or warnings about the samples; "" for none.
    """

    value: float | None
    standard_error: float | None
    nearer: float | None
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class ByTime:
    """The qualities of samples by bins of time.

    Attributes:
      metric: the metric's name.
      edges: the largest time of each bin, from noise to data; a bin reaches down to that of the next one, which is not
        in it, and the last to the data.
      network: with the network's score everywhere.
      exact: with the exact score everywhere.
      network_in: with the network's score in one bin alone, by bin.
      exact_in: with the exact score in one bin alone, by bin.
    """

    metric: str
    edges: list[float]
    network: Quality
    exact: Quality
    network_in: list[Quality]
    exact_in: list[Quality]


def edges_of(starts: np.ndarray, number: int) -> list[float]:
    """Divides the times of a walk into bins with equal numbers of its segments, up to one.

    Args:
      starts: [K], the times at which the segments of the walk start.
      number: how many bins, at least 1.

    Returns:
      The largest time of each bin, decreasing.

    Raises:
      ValueError: if there are fewer segments, or the walk does not move in time.
    """
    if not 1 <= number <= len(starts):
        raise ValueError(
            f"The walk has {len(starts)} segments: give 1 to {len(starts)} bins of time, or more sampler.num_steps. "
            f"Received: {number}."
        )
    edges = [float(starts[row]) for row in driver.segment_starts(len(starts), number)]
    if any(edge <= following for edge, following in zip(edges, edges[1:], strict=False)):
        raise ValueError("Bins of time need a sampler that goes from noise to data, such as heun or annealed_langevin.")
    return edges


def spliced(inside: ScoreFunction, outside: ScoreFunction, edges: Sequence[float], number: int) -> ScoreFunction:
    """The score function that is `inside` at the times of one bin, and `outside` at all others.

    Each row has the score of its own time. Where no row of a batch needs one of the two, it is not computed.

    Args:
      inside: the score function of the bin.
      outside: that of the other times.
      edges: as `edges_of` returns them.
      number: the number of the bin, from 0.
    """
    below = tf.constant(edges[1:], tf.float32)

    def score_fn(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        bins = tf.reduce_sum(tf.cast(t[:, None] <= tf.cast(below, t.dtype)[None], tf.int32), axis=1)
        is_inside = tf.equal(bins, number)

        def mixed() -> tf.Tensor:
            return tf.where(expand(is_inside, x), inside(x, t), outside(x, t))

        def of_one() -> tf.Tensor:
            return tf.cond(is_inside[0], lambda: inside(x, t), lambda: outside(x, t))

        alike = tf.reduce_all(tf.equal(is_inside, is_inside[0]))
        return tf.ensure_shape(tf.cond(alike, of_one, mixed), x.shape)

    return score_fn


def measure_by_time(
    run: TrainedRun,
    evaluator: Evaluator | None,
    number: int,
    output: str | os.PathLike,
    *,
    metric: str,
    num_samples: int,
    batch_size: int,
    seed: int,
    progress: Progress = lambda what, rows: None,
    log: Callable[[str], object] = print,
) -> ByTime | None:
    """Evaluates samples of the loaded checkpoint with the network's and the exact score spliced; resumes after a kill.

    All samples start from the same noise, so that they differ by their scores alone.

    Args:
      run: the run, its checkpoint loaded, with a sampler of fixed steps.
      evaluator: measures the samples; None on the workers of a cluster other than the chief.
      number: how many bins of time; 2 number + 2 sets of samples are drawn.
      output: the folder.
      metric: one of `names.METRICS`.
      num_samples: the number of samples of each set.
      batch_size: the number of samples that a replica draws at a time.
      seed: sample i depends on (seed, i) alone.
      progress: called with an activity and the number of images just done.
      log: takes one line per set.

    Returns:
      The qualities; None without an evaluator.

    Raises:
      ValueError: as `edges_of`, and if the training images are not those of the run.
    """
    edges = edges_of(run.builder.sampler_grid, number)
    name = metric if evaluator is None else measure.named(metric, evaluator.kind)
    density = run.training_density()
    scores = {NETWORK: run.score_fn, EXACT: density.score_fn(run.builder.sde)}
    sets: dict[str, tuple[ScoreFunction, dict[str, Any]]] = {
        of: (score_fn, {"everywhere": of}) for of, score_fn in scores.items()
    }
    for of, other in ((NETWORK, EXACT), (EXACT, NETWORK)):
        for bin_number in range(number):
            score_fn = spliced(scores[of], scores[other], edges, bin_number)
            about = {"inside": of, "outside": other, "edges": edges, "bin": bin_number + 1}
            sets[f"{of}_in_{bin_number + 1}_of_{number}"] = score_fn, about
    found = {}
    for folder, (score_fn, about) in sets.items():
        changed = run.with_score(score_fn, about)
        content = jobs.evaluate_once(
            changed,
            evaluator,
            files.local_path(output) / "by_time" / folder,
            metric=metric,
            num_samples=num_samples,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        found[folder] = _quality(content or {}, name)
        if evaluator is not None:
            log(f"{len(found)} of {len(sets)}: {folder}: {_text(found[folder], name)}")
    if evaluator is None:
        return None
    parts = [[quality for key, quality in found.items() if key.startswith(f"{of}_in")] for of in scores]
    return ByTime(name, edges, found[NETWORK], found[EXACT], *parts)


def _quality(content: dict[str, Any], name: str) -> Quality:
    value, error, remark = jobs.value_of(content, name)
    return Quality(value, error, content.get("copies", {}).get("pixels", {}).get("probability_nearer"), remark)


def _text(quality: Quality, metric: str) -> str:
    if quality.value is None:
        return f"no {metric}: {quality.remark}"
    error = f" +- {quality.standard_error:.2g}" if quality.standard_error is not None else ""
    nearer = f", nearer than held-out images {quality.nearer:.3f}" if quality.nearer is not None else ""
    return f"{metric} {quality.value:.4g}{error}{nearer}"


def rows(found: ByTime) -> list[dict[str, Any]]:
    """One row per bin, as plain values: its times, and the qualities of samples with either score in it alone."""
    ends = [*found.edges[1:], 0.0]
    return [
        {
            "bin": number,
            "from_time": first,
            "to_time": last,
            **_columns(f"{NETWORK}_in", network),
            **_columns(f"{EXACT}_in", exact),
        }
        for number, (first, last, network, exact) in enumerate(
            zip(found.edges, ends, found.network_in, found.exact_in, strict=True), start=1
        )
    ]


def _columns(prefix: str, quality: Quality) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in dataclasses.asdict(quality).items()}


def write(output: str | os.PathLike, found: ByTime) -> None:
    """Writes by_time.csv, one row per bin, and by_time.png, its values as bars."""
    output = files.local_path(output)
    files.write_csv(output / "by_time.csv", rows(found))
    pictures.save_figure(output / "by_time.png", draw(found))


def summary(found: ByTime) -> dict[str, Any]:
    """All numbers as plain values, for a record."""
    references = {name: dataclasses.asdict(getattr(found, name)) for name in (NETWORK, EXACT)}
    return {"metric": found.metric, **references, "bins": rows(found)}


def draw(found: ByTime) -> "pictures.Figure":
    """Draws the metric by bin as bars, and that of the network's and of the exact score alone as lines."""

    def values(qualities: Sequence[Quality]) -> np.ndarray:
        return np.array([quality.value for quality in qualities], np.float64)  # None becomes NaN, which is not drawn

    with pictures.drawn(6.5, 4.5) as figure:
        axes = figure.subplots()
        places = np.arange(len(found.edges))
        for shift, color, label, qualities in (
            (-0.2, "C0", "the network's score in this bin alone", found.network_in),
            (0.2, "C1", "the exact score in this bin alone", found.exact_in),
        ):
            errors = np.array([quality.standard_error for quality in qualities], np.float64)
            bars = 2.0 * np.nan_to_num(errors)
            axes.bar(places + shift, values(qualities), 0.4, yerr=bars, color=color, label=label)
        for color, label, quality in (
            ("C0", "the network's score everywhere", found.network),
            ("C1", "the exact score everywhere", found.exact),
        ):
            axes.axhline(values([quality])[0], color=color, linestyle="--", label=label)
        ends = [*found.edges[1:], 0.0]
        labels = [f"{first:.3g} to {last:.3g}" for first, last in zip(found.edges, ends, strict=True)]
        axes.set_xticks(places, labels, fontsize="small")
        axes.set(xlabel="times of the bin, from noise to data", ylabel=found.metric)
        axes.legend(fontsize="small")
    return figure
