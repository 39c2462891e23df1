"""The tables and the picture of a score's errors.

OUTPUT/score_error.json  the numbers by time and their means, and everything that is needed to repeat them
OUTPUT/score_error.csv   the numbers, one row per time
OUTPUT/score_error.png   losses, and the shares, over sigma / alpha
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ncsn_tf import files, pictures
from ncsn_tf.evaluation.score_error import ScoreError

NAME = "score_error"
_SHOWN = {
    "train_loss": "train",
    "held_out_loss": "held out",
    "gap": "gap",
    "exact_train_loss": "exact train",
    "exact_held_out_loss": "exact held out",
    "normal_held_out_loss": "normal held out",
    "share": "share",
}
"""The columns that are printed, and their headings."""


def write(output: str | os.PathLike, found: ScoreError, about: Mapping[str, Any]) -> None:
    """Writes the tables and the picture; `about` is what is needed to repeat them."""
    output = files.local_path(output)
    rows = found.rows()
    files.write_csv(output / f"{NAME}.csv", rows)
    images = {"train": len(found.train.network), "held_out": len(found.held_out.network)}
    files.write_json(output / f"{NAME}.json", {"images": images, "mean": found.mean(), "levels": rows, **about})
    pictures.save_figure(output / f"{NAME}.png", draw(found))


def lines(found: ScoreError) -> list[str]:
    """The numbers as lines of text: a heading, one line per time, and the means."""
    heading = "".join(f"{name:>22}" for name in ("t, sigma / alpha", *_SHOWN.values()))
    rows = [
        (f"{time:.4g}, {sigma / alpha:.4g}", row)
        for time, alpha, sigma, row in zip(found.times, found.alphas, found.sigmas, found.rows(), strict=True)
    ]
    cells = ([name, *(_text(row, column) for column in _SHOWN)] for name, row in [*rows, ("mean", found.mean())])
    return [heading, *("".join(f"{cell:>22}" for cell in line) for line in cells)]


def _text(row: Mapping[str, float | None], column: str) -> str:
    value, error = row[column], row[f"{column}_error"]
    if value is None:
        return "-"
    return f"{value:.4g}" + ("" if error is None else f" +- {error:.2g}")


def draw(found: ScoreError) -> "pictures.Figure":
    """Draws the losses and the share over sigma / alpha; bars are two standard errors."""
    ratios = found.sigmas / found.alphas
    rows: Any = found.rows()
    lines = {
        "train_loss": ("network, training images", "C0-"),
        "held_out_loss": ("network, held-out images", "C0--"),
        "exact_train_loss": ("exact score, training images", "C1-"),
        "exact_held_out_loss": ("exact score, held-out images", "C1--"),
        "normal_held_out_loss": ("normal density's score, held-out images", "C2--"),
        "share": ("0 has memorised, 1 is as good on unseen images", "C0-"),
    }
    with pictures.drawn(10.0, 4.5) as figure:
        axes = figure.subplots(1, 2)
        for name, (label, style) in lines.items():
            values, errors = (np.array([row[key] for row in rows], np.float64) for key in (name, f"{name}_error"))
            bars = 2.0 * np.nan_to_num(errors)
            axes[int(name == "share")].errorbar(ratios, values, yerr=bars, fmt=style, marker=".", label=label)
        # The exact score's losses go to 0 and to infinity at small noise, and leave the picture.
        losses = [row[name] for row in rows for name in ("train_loss", "held_out_loss", "normal_held_out_loss")]
        axes[0].set(ylabel="loss per image, 1/2 sigma^2 |s + z / sigma|^2", yscale="log")
        if np.isfinite(losses).all():
            axes[0].set_ylim(0.3 * min(losses), 10.0 * max(losses))
        axes[1].set(ylabel="share = distance / (distance + gap)", ylim=(-0.1, 1.5))
        for each in axes:
            each.set(xscale="log", xlabel="sigma / alpha")
            each.legend(fontsize="small")
    return figure
