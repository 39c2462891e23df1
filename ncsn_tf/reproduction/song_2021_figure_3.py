"""Figure 3 of Song et al. 2021: the probability flow by its tolerance, from few evaluations to many."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf import pictures
from ncsn_tf.data import pipeline
from ncsn_tf.evaluation import encodings
from ncsn_tf.evaluation.evaluator import Progress
from ncsn_tf.reproduction import song_2021_cells as cells
from ncsn_tf.reproduction.figure import Figure
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws, Judged, Log

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_PATHS = 100
"""The most samples whose evaluations and distances are recorded one by one."""
_SHOWN = 12
"""The samples of one tolerance in the picture, a row."""


@dataclasses.dataclass(frozen=True)
class Ends:
    """Where the flow carries the first samples with one tolerance.

    Attributes:
      images: float32 [N, H, W, C] in units of [0, 1]; NaN where the solver did not converge.
      evaluations: int [N], of the score.
    """

    images: np.ndarray
    evaluations: np.ndarray


def check(tolerances: Sequence[float]) -> None:
    """Raises ValueError unless there are two or more tolerances, all of them different."""
    if len(set(tolerances)) < max(2, len(tolerances)):
        raise ValueError(
            "Samples are compared with those of the finest tolerance: give two or more, each once. "
            f"Received: {', '.join(f'{one:g}' for one in tolerances)}."
        )


def sampler(sde: str, tolerance: float) -> str:
    """The probability flow with rtol = atol, as a text that --sampler takes."""
    return cells.sampler("probability_flow", sde, rtol=tolerance, atol=tolerance)


def figure3(
    *,
    run: Judged,
    output: pathlib.Path,
    draws: Draws,
    tolerances: Sequence[float] = TOLERANCES,
    progress: Progress = lambda activity, rows: None,
    log: Log = print,
) -> Figure:
    """Figure 3: evaluations, Frechet distance, and samples from the same starts, over the tolerance rtol = atol.

    What differs from the paper: each sample has steps of its own, so that evaluations have a spread; and how far
    samples move is measured, as the root mean square difference from those of the finest tolerance. Interpolations of
    codes, the right of the paper's figure, are made by launch.encode.

    Args:
      run: the run and its evaluator.
      output: keeps the samples of each tolerance and seed; those that it has already are not drawn again.
      draws: the number of samples of each tolerance, and the seeds. Up to 100 samples of the first seed are followed.
      tolerances: two or more.
      progress: called with an activity and the number of images just done.
      log: takes one line per tolerance.

    Raises:
      ValueError: for a tolerance out of range, one that is given twice, or a single one.
    """
    check(tolerances)
    ordered = sorted(tolerances, reverse=True)
    ends, measured = {}, {}
    for tolerance in ordered:
        text = sampler(run.sde, tolerance)
        cell = cells.measured(run, text, output / "song_2021_cells" / run.sde, draws, progress)
        ends[tolerance], measured[tolerance] = _followed(run, text, draws), cell
        log(f"tolerance {tolerance:g}: {run.metric} {cell}, {cell.evaluations} evaluations")
    points = summarize(ends)
    numbers = {
        "metric": run.metric,
        **dataclasses.asdict(draws),
        "run": run.about(),
        "followed": len(ends[ordered[0]].images),
        "tolerances": [
            {"tolerance": tolerance, **points[tolerance], **measured[tolerance].as_dict()} for tolerance in ordered
        ],
    }
    caption = (
        "The probability flow by its tolerance: evaluations per sample with their deviation over samples, "
        f"{run.metric} with two standard errors over seeds, the distance of samples to those of the finest tolerance "
        "from the same starts, and samples of each tolerance."
    )
    return Figure(numbers, draw(points, measured, ends, run.metric), caption)


def _followed(run: Judged, text: str, draws: Draws) -> Ends:
    """The first samples under the first seed, which are those of the cell, with what each of them cost."""
    changed = cells.changed(run.run, text)[1]
    count = min(draws.num_samples, _PATHS)
    block = changed.block_sampler(changed.start_samples(draws.seeds[0]), min(draws.batch_size, count))
    drawn = block.draw_rows(count)
    return Ends(changed.builder.value_range.decode(drawn["x"]), drawn["evaluations"])


def summarize(ends: Mapping[float, Ends]) -> dict[float, dict[str, Any]]:
    """Evaluations, and distances to the finest tolerance, by tolerance, as plain values.

    `evaluations_mean`, `_deviation`, `_minimum` and `_maximum` are over samples; `distance` is the median over samples
    of the root mean square difference in units of [0, 1], and `distance_worst` its maximum; None for the finest.
    Samples that did not converge are left out, and counted as `failed`.
    """
    finest = min(ends)
    found = {}
    for tolerance, end in ends.items():
        sound = np.isfinite(end.images).all(axis=(1, 2, 3))
        both = sound & np.isfinite(ends[finest].images).all(axis=(1, 2, 3))
        spent, distance = end.evaluations[sound], np.zeros(0)
        if tolerance != finest and both.any():
            distance = encodings.round_trip_error(ends[finest].images[both], end.images[both])
        found[tolerance] = {
            "evaluations_mean": _plain(np.mean, spent),
            "evaluations_deviation": float(spent.std(ddof=1)) if len(spent) > 1 else None,
            "evaluations_minimum": _plain(np.min, spent),
            "evaluations_maximum": _plain(np.max, spent),
            "distance": _plain(np.median, distance),
            "distance_worst": _plain(np.max, distance),
            "failed": int((~sound).sum()),
        }
    return found


def _plain(function: Any, values: np.ndarray) -> float | None:
    return float(function(values)) if len(values) else None


def draw(
    points: Mapping[float, Mapping[str, Any]],
    measured: Mapping[float, Cell],
    ends: Mapping[float, Ends],
    metric: str,
) -> "pictures.Figure":
    """Draws evaluations, the metric and the distance over the tolerance, and below a row of samples per tolerance."""
    with pictures.drawn(11.0, 3.2 + 0.9 * len(ends)) as picture:
        parts: Any = picture.subfigures(2, 1, height_ratios=(3.2, 0.9 * len(ends)))
        above, below = parts
        evaluations, quality, distance = above.subplots(1, 3)
        estimates = {tolerance: cell.estimate for tolerance, cell in measured.items()}
        curves = (
            (evaluations, "evaluations per sample", _column(points, "evaluations_mean", "evaluations_deviation")),
            (
                quality,
                metric,
                [(at, one.mean, 2.0 * (one.standard_error or 0.0)) for at, one in estimates.items() if one is not None],
            ),
            (distance, "distance to the finest", _column(points, "distance")),
        )
        for axes, label, curve in curves:
            axes.errorbar(
                [at for at, _, _ in curve],
                [value for _, value, _ in curve],
                yerr=[error for _, _, error in curve],
                marker="o",
                capsize=3.0,
            )
            axes.set(xlabel="rtol = atol", ylabel=label, xscale="log", yscale="log")
            axes.invert_xaxis()
        columns = min(_SHOWN, min(len(end.images) for end in ends.values()))
        rows = [pipeline.to_uint8(np.nan_to_num(end.images[:columns])) for end in ends.values()]
        panel = below.subplots()
        grid = pictures.tile(np.concatenate(rows), columns=columns)
        panel.imshow(grid, interpolation="nearest")
        middles = [(number + 0.5) * len(grid) / len(rows) for number in range(len(rows))]
        panel.set_yticks(middles, [f"{tolerance:g}" for tolerance in ends])
        panel.set_xticks([])
    return picture


def _column(points: Mapping[float, Mapping[str, Any]], name: str, error: str = "") -> list[tuple[float, float, float]]:
    return [(at, one[name], one.get(error) or 0.0) for at, one in points.items() if one[name] is not None]
