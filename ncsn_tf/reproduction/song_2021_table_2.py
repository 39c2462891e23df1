"""Table 2 of Song et al. 2021: bits per dimension and Frechet distance by the probability flow."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf import flow_jobs, ode
from ncsn_tf.evaluation.evaluator import Evaluator, Progress
from ncsn_tf.reproduction import song_2021_cells as cells
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws, Judged, Log
from ncsn_tf.reproduction.table import Table, markdown
from ncsn_tf.runs import TrainedRun

TOLERANCE = 1e-3
"""Both tolerances of the flow that draws samples."""
SOLVER = {"rtol": 1e-5, "atol": 1e-5, "first_time": None}
"""The options of the flow that measures likelihoods, those of launch.likelihood and of the paper."""
SPLIT = "held_out"
LIKELIHOOD = "likelihood"
"""The weighting g^2 of the objective."""

_PAPER = (
    ("DDPM++ continuous", "VP", "3.16", "3.93"),
    ("DDPM++ continuous", "sub-VP", "3.02", "3.16"),
    ("DDPM++ continuous, deep", "VP", "3.13", "3.08"),
    ("DDPM++ continuous, deep", "sub-VP", "2.99", "2.92"),
)
"""The paper's own models on CIFAR-10: network, SDE, bits per dimension, FID of samples by the flow."""


@dataclasses.dataclass(frozen=True)
class Bits:
    """The measurements of likelihood of every run.

    Attributes:
      seed: the seed of the dequantizations and of the probes, the same for all runs.
      batch_size: images at a time; bounds the memory.
      num_images: the number of held-out images, the first ones; None for all.
      dequantizations: how many of each image.
      probes: how many probes of the trace.
    """

    seed: int
    batch_size: int
    num_images: int | None = None
    dequantizations: int = 1
    probes: int = 1


@dataclasses.dataclass(frozen=True)
class Row:
    """A run and what was measured of it.

    Attributes:
      run: the name of its directory.
      sde: the SDE's name in configurations.
      weighting: the weighting of its objective, of `cells.weighting`.
      content: of its likelihood.json; None if the flow did not converge.
      by_image: float64 [N], the bits per dimension of each image, the mean over dequantizations and probes.
      samples: the Frechet distance of its samples; None if it was left out.
      remarks: what weakens the numbers, or the reason why one is missing.
    """

    run: str
    sde: str
    weighting: str
    content: Mapping[str, Any] | None
    by_image: np.ndarray | None
    samples: Cell | None = None
    remarks: tuple[str, ...] = ()

    @property
    def bits(self) -> str:
        """The bits per dimension with their standard error over images."""
        if self.content is None:
            return "did not converge"
        found = self.content["bits_per_dimension"]
        error = found["standard_error"]
        return f"{found['mean']:.3f}" + ("" if error is None else f" ({error:.2g})")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, one number or text each."""
        found = self.content or {}
        bits, estimate = found.get("bits_per_dimension", {}), self.samples and self.samples.estimate
        return {
            "run": self.run,
            "sde": self.sde,
            "weighting": self.weighting,
            "bits_per_dimension": bits.get("mean"),
            "standard_error": bits.get("standard_error"),
            "evaluations_per_image": found.get("score_evaluations_per_image"),
            "distance": estimate.mean if estimate else None,
            "distance_deviation": estimate.deviation if estimate else None,
            "evaluations_per_sample": self.samples.evaluations if self.samples else None,
            "remarks": "; ".join(self.remarks),
        }


def check(runs: Sequence[TrainedRun], num_images: int | None = None) -> np.ndarray:
    """The held-out images, uint8 [N, H, W, C]; raises ValueError for what `table2` refuses."""
    if not runs:
        raise ValueError("Table 2 shows the likelihoods of trained runs: give --run, once for each.")
    names = {(str(run.directory.path), run.checksum()) for run in runs}
    if len(names) < len(runs):
        raise ValueError("A run is given twice: give each --run once.")
    images = flow_jobs.images(runs[0], SPLIT, num_images)
    for run in runs[1:]:
        if not np.array_equal(flow_jobs.images(run, SPLIT, num_images), images):
            raise ValueError(
                "Bits per dimension are comparable on the same images: give runs on one dataset, prepared in one way. "
                f"Received: {run.directory.path}, whose held-out images are not those of {runs[0].directory.path}."
            )
    return images


def table2(
    *,
    runs: Sequence[TrainedRun],
    output: pathlib.Path,
    bits: Bits,
    evaluator: Evaluator | None = None,
    draws: Draws | None = None,
    progress: Progress = lambda activity, rows: None,
    log: Log = print,
) -> Table:
    """Table 2: the likelihood of held-out images, and the quality of samples by the probability flow.

    It is meant for runs with the VE, VP and sub-VP SDEs, each with and without likelihood weighting, which came with
    Song, Durkan, Murray and Ermon, Maximum likelihood training of score-based diffusion models, 2021. The dequantized
    images and the probes are the same for all runs, so that differences between runs are taken image by image. Their
    errors are those over images; what another training seed would change is not in them.

    What differs from the paper: samples are drawn with tolerances of 1e-3, and each row of a batch takes its own steps.

    Args:
      runs: the runs, with weights, on the same images.
      output: keeps each run's likelihoods, samples and results; those that it has already are not computed again.
      bits: how likelihoods are measured.
      evaluator: measures the samples; None leaves them out.
      draws: the number of samples and the seeds; None leaves them out.
      progress: called with an activity and the number of images just done.
      log: takes one line per run.

    Raises:
      ValueError: for no run, one that is given twice, or runs on different images.
    """
    images = check(runs, bits.num_images)
    rows = []
    for run in runs:
        judged = Judged(run, evaluator) if evaluator is not None and draws is not None else None
        rows.append(_measured(run, images, output, bits, judged, draws, progress))
        log(f"{run.directory.path.name}: {rows[-1].bits} bits/dim; {rows[-1].samples or 'no samples'}")
    metric = "" if evaluator is None else Judged(runs[0], evaluator).metric
    about = {
        "images": len(images),
        "likelihood": {**dataclasses.asdict(bits), **SOLVER, "split": SPLIT},
        "samples": None if draws is None else {**dataclasses.asdict(draws), "tolerance": TOLERANCE},
        "evaluator": None if evaluator is None else evaluator.about(),
        "runs": [cells.about(run) for run in runs],
    }
    return tabulate(rows, metric, about)


def _measured(
    run: TrainedRun,
    images: np.ndarray,
    output: pathlib.Path,
    bits: Bits,
    judged: Judged | None,
    draws: Draws | None,
    progress: Progress,
) -> Row:
    """The row of one run; its folder carries the checksum of its weights, so that runs never share one."""
    sde, weighting = cells.sde_name(run), cells.weighting(run)
    folder = f"{sde}_{weighting}_{run.checksum():08x}"
    remarks, content, by_image, samples = flow_jobs.likelihood_caveats(run), None, None, None
    try:
        content, values = flow_jobs.likelihood_once(
            run,
            SPLIT,
            images,
            output / "song_2021_likelihoods" / folder,
            seed=bits.seed,
            dequantizations=bits.dequantizations,
            options={**SOLVER, "probes": bits.probes},
            batch_size=bits.batch_size,
            progress=progress,
        )
        by_image = values.mean(axis=(1, 2))
    except ode.NotConvergedError as error:
        remarks.append(str(error))
    if judged is not None and draws is not None:
        text = cells.sampler("probability_flow", sde, rtol=TOLERANCE, atol=TOLERANCE)
        samples = cells.measured(judged, text, output / "song_2021_cells" / folder, draws, progress)
        remarks += [samples.remark] if samples.remark else []
    return Row(run.directory.path.name, sde, weighting, content, by_image, samples, tuple(remarks))


def comparisons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Differences in bits per dimension, paired by image: sub-VP to VP, and likelihood weighting to the others.

    Several runs with one SDE and weighting count as their mean. A negative difference is for the claim; `verdict` is
    that of `cells.verdict`.
    """
    groups: dict[tuple[str, str], list[np.ndarray]] = {}
    for row in rows:
        if row.by_image is not None:
            groups.setdefault((row.sde, row.weighting), []).append(row.by_image)
    means = {key: np.mean(values, axis=0) for key, values in groups.items()}
    found = []
    for sde, weighting in means:
        if sde == "subvp" and ("vp", weighting) in means:
            text = f"{weighting}: sub-VP has fewer bits than VP"
            found.append(_compared(text, means[sde, weighting], means["vp", weighting]))
    for sde, weighting in means:
        if weighting != LIKELIHOOD and (sde, LIKELIHOOD) in means:
            text = f"{cells.SDES[sde]}: likelihood weighting has fewer bits than {weighting}"
            found.append(_compared(text, means[sde, LIKELIHOOD], means[sde, weighting]))
    return found


def _compared(claim: str, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    differences = first - second
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else None
    mean = float(differences.mean())
    return {"claim": claim, "difference": mean, "standard_error": error, "verdict": cells.verdict(mean, error)}


def tabulate(rows: Sequence[Row], metric: str, about: Mapping[str, Any]) -> Table:
    """The table of measured runs, with the paper's beside it and the differences between runs.

    Args:
      rows: the runs.
      metric: the name of the Frechet distance; "" if it was left out.
      about: `images`, their number, and plain values that identify runs and options.
    """
    compared = comparisons(rows)
    numbers = {
        **about,
        "metric": metric or None,
        "rows": [
            {
                **row.as_dict(),
                "likelihoods": None if row.content is None else dict(row.content),
                "distances": None if row.samples is None else row.samples.as_dict(),
            }
            for row in rows
        ],
        "comparisons": compared,
        "paper": [dict(zip(("network", "sde", "bits_per_dimension", "fid"), row, strict=True)) for row in _PAPER],
    }
    quality = f", and {metric} of samples by the probability flow" if metric else ""
    caption = (
        f"Table 2 of Song et al. 2021 on runs of our own: bits per dimension of {about['images']} held-out images, "
        f"with the standard error over images{quality}."
    )
    return Table(numbers, [row.as_dict() for row in rows], _text(rows, metric, compared), caption)


def _text(rows: Sequence[Row], metric: str, compared: Sequence[Mapping[str, Any]]) -> str:
    """The table, its remarks, the differences and the paper's table, in Markdown."""
    header = ["run", "SDE", "weighting", "bits/dim", "evaluations per image"]
    header += [metric, "evaluations per sample"] if metric else []
    lines = []
    for row in rows:
        plain = row.as_dict()
        line = [row.run, cells.SDES[row.sde], row.weighting, row.bits, _count(plain["evaluations_per_image"])]
        lines.append(line + ([str(row.samples), _count(plain["evaluations_per_sample"])] if metric else []))
    parts = [markdown(header, lines), *(f"{row.run}: {remark}" for row in rows for remark in row.remarks)]
    if compared:
        parts.append("Differences in bits/dim, taken image by image:")
        found = [
            [one["claim"], cells.difference_text(one["difference"], one["standard_error"]), one["verdict"]]
            for one in compared
        ]
        parts.append(markdown(["claim", "difference (negative if it holds)", "verdict"], found))
    parts += ["The paper, CIFAR-10:", markdown(["network", "SDE", "bits/dim", "FID by the flow"], _PAPER)]
    return "\n\n".join(parts)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
