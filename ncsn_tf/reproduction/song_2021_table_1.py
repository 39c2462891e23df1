"""Table 1 of Song et al., Score-based generative modeling through stochastic differential equations, 2021.

Solvers of the reverse-time SDE, with and without a corrector, at equal numbers of evaluations.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ncsn_tf.evaluation.evaluator import Progress
from ncsn_tf.reproduction import song_2021_cells as cells
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws, Estimate, Judged, Log
from ncsn_tf.reproduction.table import Table, markdown

ANCESTRAL, REVERSE, FLOW = "ancestral sampling", "reverse diffusion", "probability flow"
PREDICTORS = (ANCESTRAL, REVERSE, FLOW)
ALONE = "corrector alone"
"""The row of the corrector without a predictor: one cell for all of them."""
SHORT, LONG, CORRECTOR, BOTH = "P-N", "P-2N", "C-2N", "PC-N"
COLUMNS = (SHORT, LONG, CORRECTOR, BOTH)
Place = tuple[str, str]
"""(row, column) of a cell."""
PLACES: tuple[Place, ...] = (
    *((row, column) for row in PREDICTORS for column in (SHORT, LONG, BOTH)),
    (ALONE, CORRECTOR),
)
STEPS = 100
"""The default N; the paper's is 1,000."""

RATIOS: dict[str, dict[str, float]] = {
    "ve": {ANCESTRAL: 0.17, REVERSE: 0.16, FLOW: 0.17, ALONE: 0.22},
    "vp": {ANCESTRAL: 0.01, REVERSE: 0.01, FLOW: 0.04, ALONE: 0.27},
}
"""The signal-to-noise ratios that the paper found best on CIFAR-10, its Table 5."""

_SEEDS_OF_PAPER = 5
_PAPER: dict[str, dict[Place, tuple[float, float]]] = {
    "ve": {
        (ANCESTRAL, SHORT): (4.98, 0.06),
        (ANCESTRAL, LONG): (4.88, 0.06),
        (ANCESTRAL, BOTH): (3.62, 0.03),
        (REVERSE, SHORT): (4.79, 0.07),
        (REVERSE, LONG): (4.74, 0.08),
        (REVERSE, BOTH): (3.60, 0.02),
        (FLOW, SHORT): (15.41, 0.15),
        (FLOW, LONG): (10.54, 0.08),
        (FLOW, BOTH): (3.51, 0.04),
        (ALONE, CORRECTOR): (20.43, 0.07),
    },
    "vp": {
        (ANCESTRAL, SHORT): (3.24, 0.02),
        (ANCESTRAL, LONG): (3.24, 0.02),
        (ANCESTRAL, BOTH): (3.21, 0.02),
        (REVERSE, SHORT): (3.21, 0.02),
        (REVERSE, LONG): (3.19, 0.02),
        (REVERSE, BOTH): (3.18, 0.01),
        (FLOW, SHORT): (3.59, 0.04),
        (FLOW, LONG): (3.23, 0.03),
        (FLOW, BOTH): (3.06, 0.03),
        (ALONE, CORRECTOR): (19.06, 0.06),
    },
}
"""Mean and deviation of the FID on CIFAR-10 in the paper, N = 1,000."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """An order of cells that the paper reports.

    Attributes:
      text: the claim in words.
      weights: the weights of a sum of cells that is below 0 if the claim holds.
    """

    text: str
    weights: Mapping[Place, float]


def claims() -> list[Claim]:
    """What section 4.2 reads from the table, one claim per comparison."""

    def below(lower: Place, upper: Place) -> dict[Place, float]:
        return {lower: 1.0, upper: -1.0}

    found = [
        Claim(f"{column}: {REVERSE} is better than {ANCESTRAL}", below((REVERSE, column), (ANCESTRAL, column)))
        for column in (SHORT, LONG, BOTH)
    ]
    for column, of in (
        (SHORT, "a correction at every step improves"),
        (LONG, "correcting beats doubling the steps of"),
    ):
        found += [
            Claim(f"{of} {row}: {BOTH} is better than {column}", below((row, BOTH), (row, column)))
            for row in PREDICTORS
        ]
    gain = {(FLOW, LONG): -1.0, (FLOW, BOTH): 1.0}
    found += [
        Claim(
            f"{FLOW} gains more by the corrector than {row}, {LONG} to {BOTH}",
            {**gain, (row, LONG): 1.0, (row, BOTH): -1.0},
        )
        for row in (ANCESTRAL, REVERSE)
    ]
    return found + [
        Claim(f"the {ALONE} is worse than {row}, {column}", below((row, column), (ALONE, CORRECTOR)))
        for row in PREDICTORS
        for column in (LONG, BOTH)
    ]


def samplers(sde: str, steps: int, ratio: float | None = None) -> dict[Place, str]:
    """The sampler of each cell, as a text that --sampler takes.

    Ancestral sampling has the variance that the paper takes for the SDE, and probability flow is its discretization in
    the manner of reverse diffusion (appendix D.3). The corrector alone takes two steps at each of N times, as there.

    Args:
      sde: "ve" or "vp".
      steps: N.
      ratio: the signal-to-noise ratio of every corrector; None for those of the paper.

    Raises:
      ValueError: for less than one step.
    """
    if steps < 1:
        raise ValueError(f"A walk takes 1 or more steps. Received: steps={steps}.")
    variance = "posterior" if sde == "ve" else "transition"
    alone = {
        ANCESTRAL: ("ancestral", {"variance": variance}),
        REVERSE: ("reverse_diffusion", {"flow": False}),
        FLOW: ("reverse_diffusion", {"flow": True}),
    }
    names = {
        ANCESTRAL: "ancestral" if sde == "ve" else "ancestral_transition",
        REVERSE: "reverse_diffusion",
        FLOW: "reverse_diffusion_flow",
    }
    found = {}
    for row in PREDICTORS:
        name, options = alone[row]
        for column, count in ((SHORT, steps), (LONG, 2 * steps)):
            found[row, column] = cells.sampler(name, sde, num_steps=count, **options)
        found[row, BOTH] = corrected(sde, names[row], steps, ratio or RATIOS[sde][row])
    found[ALONE, CORRECTOR] = corrected(sde, "none", steps, ratio or RATIOS[sde][ALONE], corrections=2)
    return {place: found[place] for place in PLACES}


def corrected(sde: str, predictor: str, steps: int, ratio: float, corrections: int = 1) -> str:
    """Predictor-corrector sampling as a text that --sampler takes; the predictor "none" leaves the corrector alone."""
    return cells.sampler(
        "predictor_corrector",
        sde,
        num_steps=steps,
        predictor=predictor,
        corrector="langevin",
        norms="own",
        ratio=ratio,
        corrections=corrections,
        order="predictor_first" if predictor == "none" else "corrector_first",
    )


def check(
    runs: Mapping[str, Judged], draws: Draws, steps: int = STEPS, ratios: Mapping[str, float | None] | None = None
) -> dict[str, dict[Place, str]]:
    """The samplers of every cell by SDE; raises ValueError for what `table1` refuses."""
    if not runs:
        raise ValueError("Table 1 shows the samplers of trained runs: give --ve, --vp or both.")
    if len(draws.seeds) < 2:
        raise ValueError(f"A deviation over seeds needs 2 or more of them. Received: {len(draws.seeds)}.")
    for name, judged in runs.items():
        if judged.sde != name:
            raise ValueError(
                f"--{name} takes a run whose sde.name is {name}. Received: {judged.run.directory.path}, whose sde.name "
                f"is {judged.sde}."
            )
    found = {name: samplers(name, steps, (ratios or {}).get(name)) for name in runs}
    for name, judged in runs.items():
        for text in found[name].values():
            cells.changed(judged.run, text)
    return found


def table1(
    *,
    runs: Mapping[str, Judged],
    output: pathlib.Path,
    draws: Draws,
    steps: int = STEPS,
    ratios: Mapping[str, float | None] | None = None,
    progress: Progress = lambda activity, rows: None,
    log: Log = print,
) -> Table:
    """Table 1: ancestral sampling, reverse diffusion and probability flow, with and without corrector, on VE and VP.

    What differs from the paper: the runs are trained in continuous time, so P-2N needs no interpolation between noise
    levels. All cells end with Tweedie's formula, one more evaluation. The corrector's step follows from the norm of
    each sample's own score, not from the mean over a batch.

    Args:
      runs: the runs of "ve", "vp" or both, with their evaluators.
      output: keeps the samples of each cell and seed; those that it has already are not drawn again.
      draws: the number of samples of each cell, and the seeds, two or more.
      steps: N.
      ratios: by SDE, the signal-to-noise ratio of its correctors; None for those of the paper's Table 5.
      progress: called with an activity and the number of images just done.
      log: takes one line per cell.

    Raises:
      ValueError: for no run, a run of another SDE than its name says, or fewer than two seeds.
    """
    found: dict[str, dict[Place, Cell]] = {}
    texts = check(runs, draws, steps, ratios)
    for name, judged in runs.items():
        found[name] = {}
        for place, text in texts[name].items():
            cell = cells.measured(judged, text, output / "song_2021_cells" / name, draws, progress)
            found[name][place] = cell
            log(f"{cells.SDES[name]}, {place[0]}, {place[1]}: {_line(cell, judged.metric)}")
    return tabulate(found, steps, draws, {name: judged.about() for name, judged in runs.items()}, _metric(runs))


def _metric(runs: Mapping[str, Judged]) -> str:
    return ", ".join(dict.fromkeys(judged.metric for judged in runs.values()))


def _line(cell: Cell, metric: str) -> str:
    if cell.estimate is None:
        return f"no {metric}: {cell.remark}"
    return f"{metric} {cell.estimate} over {len(cell.values)} seeds, {cell.evaluations:g} evaluations per sample"


def tabulate(
    found: Mapping[str, Mapping[Place, Cell]],
    steps: int,
    draws: Draws,
    about: Mapping[str, Any],
    metric: str,
) -> Table:
    """The table of measured cells, with the paper's beside it and its claims checked on both.

    Args:
      found: by SDE and place, the cells.
      steps: N.
      draws: the samples of every cell.
      about: by SDE, plain values that identify the run.
      metric: the name of the metric.
    """
    checked = [_checked(name, found[name]) for name in found]
    numbers = {
        "metric": metric,
        "steps": steps,
        **dataclasses.asdict(draws),
        "runs": dict(about),
        "cells": {name: _nested({place: cell.as_dict() for place, cell in of.items()}) for name, of in found.items()},
        "paper": {
            name: _nested({place: {"mean": mean, "deviation": error} for place, (mean, error) in _PAPER[name].items()})
            for name in found
        },
        "claims": [one for of in checked for one in of],
    }
    rows = [
        {"sde": name, "predictor": place[0], "column": place[1], **cell.as_dict()}
        for name, of in found.items()
        for place, cell in of.items()
    ]
    rows = [{**row, "values": " ".join(f"{value:.6g}" for value in row["values"])} for row in rows]
    caption = (
        f"Table 1 of Song et al. 2021 on runs of our own: {metric} of {draws.num_samples} samples, mean and standard "
        f"deviation over {len(draws.seeds)} seeds, N = {steps}."
    )
    return Table(numbers, rows, _text(found, steps, metric, checked), caption)


def _nested(values: Mapping[Place, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for (row, column), value in values.items():
        nested.setdefault(row, {})[column] = value
    return nested


def _checked(sde: str, found: Mapping[Place, Cell]) -> list[dict[str, Any]]:
    """The claims, with what the cells and the paper's own numbers say about each."""
    paper = {place: Estimate(*value, _SEEDS_OF_PAPER) for place, value in _PAPER[sde].items()}
    checked = []
    for claim in claims():
        ours = cells.paired(found, claim.weights)
        difference, error, count = (ours.mean, ours.standard_error, ours.count) if ours is not None else (None,) * 3
        checked.append(
            {
                "sde": cells.SDES[sde],
                "claim": claim.text,
                "difference": difference,
                "standard_error": error,
                "verdict": cells.verdict(difference, error, count),
                "in_the_paper": cells.verdict(*cells.contrast(paper, claim.weights)),
            }
        )
    return checked


def _text(
    found: Mapping[str, Mapping[Place, Cell]], steps: int, metric: str, checked: Sequence[Sequence[dict[str, Any]]]
) -> str:
    """The table, the evaluations, the paper's table and the claims, in Markdown."""
    ours = {name: {place: str(cell) for place, cell in of.items()} for name, of in found.items()}
    paper = {name: {place: str(Estimate(*_PAPER[name][place], _SEEDS_OF_PAPER)) for place in PLACES} for name in found}
    costs = {name: {place: _cost(cell) for place, cell in of.items()} for name, of in found.items()}
    parts = [
        f"{metric}:",
        _grid(ours, steps),
        "Evaluations of the score per sample, as counted; the last is Tweedie's formula:",
        _grid(costs, steps),
        "The paper, FID on CIFAR-10:",
        _grid(paper, 1_000),
        "What the paper reads from its table, here and by the paper's own numbers:",
    ]
    keys = ("sde", "claim", "verdict", "in_the_paper")
    lines = [
        (cells.difference_text(one["difference"], one["standard_error"]), *(one[key] for key in keys))
        for of in checked
        for one in of
    ]
    rows = [[sde, claim, difference, here, paper] for difference, sde, claim, here, paper in lines]
    parts.append(markdown(["", "claim", "difference (negative if it holds)", "here", "in the paper"], rows))
    return "\n\n".join(parts)


def _cost(cell: Cell) -> str:
    return "" if cell.evaluations is None else f"{cell.evaluations:g}"


def _grid(texts: Mapping[str, Mapping[Place, str]], steps: int) -> str:
    """Rows of predictors, columns of samplers; as in the paper the corrector alone is between the others."""
    names = {SHORT: f"P{steps}", LONG: f"P{2 * steps}", CORRECTOR: f"C{2 * steps}", BOTH: f"PC{steps}"}
    header = ["", *(f"{cells.SDES[name]}: {names[column]}" for name in texts for column in COLUMNS)]
    rows = []
    for row in PREDICTORS:
        line = [row]
        for of in texts.values():
            between = of[ALONE, CORRECTOR] if row == REVERSE else ""
            line += [between if column == CORRECTOR else of[row, column] for column in COLUMNS]
        rows.append(line)
    return markdown(header, rows)
