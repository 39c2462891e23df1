"""Figure 9 of Song et al. 2021: how a budget of evaluations is best split between predictor and corrector."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf import pictures
from ncsn_tf.evaluation.evaluator import Progress
from ncsn_tf.reproduction import song_2021_cells as cells
from ncsn_tf.reproduction import song_2021_table_1 as table
from ncsn_tf.reproduction.figure import Figure
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws, Judged, Log

BUDGETS = (20, 40, 80, 160)
CORRECTIONS = (0, 1, 3, 9)
"""Corrections per step of the predictor, which take 0, 1/2, 3/4 and 9/10 of a budget."""
ALL = 1.0
"""The share of the corrector that is alone."""
_SHOWN = 9
"""The samples of one split in the picture, a square."""


def splits(sde: str, budget: int, ratio: float | None = None) -> dict[float, str]:
    """By the corrector's share of a budget, the sampler as a text that --sampler takes.

    M corrections at each of N steps are N (1 + M) evaluations, and N is the largest number within the budget. The
    corrector alone takes two steps at each time.

    Raises:
      ValueError: if the budget is below that of one step of each split.
    """
    least = 1 + max(CORRECTIONS)
    if budget < least:
        raise ValueError(
            f"A budget of {budget} evaluations is too small for {max(CORRECTIONS)} corrections at a step: give budgets "
            f"of {least} or more."
        )
    ratios = table.RATIOS.get(sde, table.RATIOS["vp"])
    found = {0.0: cells.sampler("reverse_diffusion", sde, num_steps=budget, flow=False)}
    for count in CORRECTIONS[1:]:
        steps = budget // (1 + count)
        text = table.corrected(sde, "reverse_diffusion", steps, ratio or ratios[table.REVERSE], count)
        found[count / (1 + count)] = text
    found[ALL] = table.corrected(sde, "none", budget // 2, ratio or ratios[table.ALONE], 2)
    return found


def figure9(
    *,
    run: Judged,
    output: pathlib.Path,
    draws: Draws,
    budgets: Sequence[int] = BUDGETS,
    ratio: float | None = None,
    progress: Progress = lambda activity, rows: None,
    log: Log = print,
) -> Figure:
    """Figure 9: samples and their Frechet distance, by the total computation and the share of it for the corrector.

    The paper shows samples of LSUN alone. Tweedie's formula at the end is one evaluation beyond each budget.

    Args:
      run: the run and its evaluator.
      output: keeps the samples of each split and seed; those that it has already are not drawn again.
      draws: the number of samples of each split, and the seeds.
      budgets: total numbers of evaluations.
      ratio: the signal-to-noise ratio of every corrector; None for those of the paper's Table 5.
      progress: called with an activity and the number of images just done.
      log: takes one line per split.

    Raises:
      ValueError: for a budget that is too small.
    """
    texts = {budget: splits(run.sde, budget, ratio) for budget in budgets}
    folder = output / "song_2021_cells" / run.sde
    found: dict[int, dict[float, Cell]] = {}
    shown: dict[tuple[int, float], np.ndarray] = {}
    for budget, of in texts.items():
        found[budget] = {}
        for share, text in of.items():
            cell = cells.measured(run, text, folder, draws, progress)
            found[budget][share] = cell
            log(f"budget {budget}, {share:.0%} for the corrector: {run.metric} {cell}, {cell.evaluations} evaluations")
            drawn = folder / cells.changed(run.run, text)[0] / f"seed_{draws.seeds[0]}" / "samples.npz"
            if drawn.exists():  # not where samples diverged
                with np.load(drawn) as archive:
                    shown[budget, share] = archive["samples"][:_SHOWN]
    numbers = {
        "metric": run.metric,
        **dataclasses.asdict(draws),
        "run": run.about(),
        "budgets": [
            {"budget": budget, "splits": [{"share": share, **cell.as_dict()} for share, cell in of.items()]}
            for budget, of in found.items()
        ],
    }
    caption = (
        f"{run.metric} by the share of a budget of evaluations that the corrector takes, with two standard errors over "
        "seeds, and the first samples of each split: budgets from top to bottom, shares from left to right."
    )
    return Figure(numbers, draw(found, shown, run.metric), caption)


def draw(
    found: Mapping[int, Mapping[float, Cell]], shown: Mapping[tuple[int, float], np.ndarray], metric: str
) -> "pictures.Figure":
    """Draws a line per budget over the corrector's share, and a grid of samples per split."""
    with pictures.drawn(11.0, 1.5 * len(found) + 2.0) as picture:
        panels: Any = picture.subfigures(1, 2)
        left, right = panels
        axes = left.subplots()
        for budget, of in found.items():
            known: list[tuple[float, Any]] = [(share, cell.estimate) for share, cell in of.items() if cell.estimate]
            axes.errorbar(
                [share for share, _ in known],
                [one.mean for _, one in known],
                yerr=[2.0 * (one.standard_error or 0.0) for _, one in known],
                marker="o",
                capsize=3.0,
                label=f"{budget} evaluations",
            )
        axes.set(xlabel="share of the corrector", ylabel=metric, yscale="log")
        axes.legend()
        shares = list(next(iter(found.values())))
        panels = right.subplots(len(found), len(shares), squeeze=False)
        for line, budget in zip(panels, found, strict=True):
            for panel, share in zip(line, shares, strict=True):
                if (budget, share) in shown:
                    panel.imshow(pictures.tile(shown[budget, share]), interpolation="nearest")
                panel.set_xticks([])
                panel.set_yticks([])
            line[0].set_ylabel(str(budget))
        for panel, share in zip(panels[0], shares, strict=True):
            panel.set_title(f"{share:.0%}", fontsize="small")
    return picture
