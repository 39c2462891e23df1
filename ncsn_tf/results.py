"""Tables of trained runs, made of the files that runs, evaluations and likelihoods leave."""

import dataclasses
import json
import math
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ncsn_tf.evaluation import likelihood, measure, names, report
from ncsn_tf.training import history
from ncsn_tf.training.run_directory import RunDirectory

_LIKELIHOOD_KEYS = (
    *("bits_per_dimension", "nats", "images", "dequantizations", "probes"),
    "score_evaluations_per_image",
)
_METRICS = [measure.named(name, kind) for kind in names.FEATURE_KINDS for name in names.METRICS]
"""Metrics of different feature networks have columns of their own, because they must never be compared."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      columns: the headings.
      rows: one text per column and row, "" where a number is unknown.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in Markdown, without the columns in which every row is empty."""
        kept = [k for k in range(len(self.columns)) if any(row[k] for row in self.rows)]
        lines = [[self.columns[k] for k in kept], ["---"] * len(kept), *([row[k] for k in kept] for row in self.rows)]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def trainings(runs: Sequence[RunDirectory]) -> Table:
    """One row per run: how it was trained, how long that took, and its last held-out loss.

    Minutes are those of the training steps, tracing and compilation included; see `training.history`.

    Raises:
      RunDirectoryError: if a directory holds no run.
    """
    columns = ("run", "command", "commit", "seed", "step", "minutes", "held-out loss")
    rows = []
    for run in runs:
        config, started = run.config(), _first_start(run)
        points = history.read(run.path / history.NAME)
        losses = [point.held_out_loss for point in points if not math.isnan(point.held_out_loss)]
        rows.append(
            (
                run.path.name,
                f"`{command(started.get('command', []))}`" if started.get("command") else "",
                _short(started.get("commit")),
                str(config["seed"]),
                f"{points[-1].step:,}" if points else "",
                f"{points[-1].seconds / 60.0:.1f}" if points else "",
                f"{losses[-1]:.4g}" if losses else "",
            )
        )
    return Table(columns, rows)


def evaluations(runs: Sequence[RunDirectory]) -> Table:
    """One row per evaluation in the folder `evaluation` of a run, in the order of their names."""
    columns = (
        *("run", "step", "sampler", "classes", "scale", "evaluations", "seconds", "samples", "seed"),
        *_METRICS,
        *("nearer, in pixels", "commit"),
    )
    rows = []
    for run in runs:
        for content in _contents(run.path / "evaluation", report.RESULTS):
            copies, evaluations = (
                content.get("copies", {}).get("pixels", {}),
                content.get("score_evaluations_per_sample"),
            )
            rows.append(
                (
                    run.path.name,
                    f"{content['step']:,}" if "step" in content else "",
                    sampler_text(content.get("sampler", {})),
                    ",".join(map(str, content.get("labels", []))),
                    f"{content['guidance_scale']:g}" if "guidance_scale" in content else "",
                    f"{evaluations:.4g}" if evaluations is not None else "",
                    f"{content.get('seconds', {}).get('sampling', '')}",
                    f"{content['num_samples']:,}" if "num_samples" in content else "",
                    f"{content.get('seed', '')}",
                    *(_metric(content.get("metrics", {}), name) for name in _METRICS),
                    _with_error(copies.get("probability_nearer"), copies.get("standard_error")),
                    _short(content.get("commit")),
                )
            )
    return Table(columns, rows)


def likelihoods(runs: Sequence[RunDirectory]) -> Table:
    """One row per measurement of likelihoods in the folder `likelihood` of a run."""
    columns = ("run", "step", "images", "dequantizations", "probes", "bits/dim", "nats", "evaluations", "commit")
    rows = []
    for run in runs:
        for content in _contents(run.path / "likelihood", likelihood.RESULTS):
            if not all(key in content for key in _LIKELIHOOD_KEYS):
                continue  # not of launch.likelihood
            bits, nats = content["bits_per_dimension"], content["nats"]
            rows.append(
                (
                    run.path.name,
                    f"{content['step']:,}" if "step" in content else "",
                    f"{content['images']:,}",
                    f"{content['dequantizations']}",
                    f"{content['probes']}",
                    _with_error(bits["mean"], bits["standard_error"]),
                    _with_error(nats["mean"], nats["standard_error"]),
                    f"{content['score_evaluations_per_image']:.4g}",
                    _short(content.get("commit")),
                )
            )
    return Table(columns, rows)


def command(arguments: Sequence[str]) -> str:
    """The command line of a record, as the README writes it: python -m launch.VERB ..."""
    return shlex.join(["python", "-m", f"launch.{pathlib.PurePath(arguments[0]).stem}", *arguments[1:]])


def sampler_text(sampler: Mapping[str, Any]) -> str:
    """The sampler as --sampler takes it: its name and its keys, without tables and how it is compiled."""
    hidden = ("name", "times", "norm_table", "jit_compile", "denoise")
    keys = [f"{key}={value}" for key, value in sampler.items() if key not in hidden and value is not None]
    return ",".join([str(sampler.get("name", "")), *keys])


def _first_start(run: RunDirectory) -> Mapping[str, Any]:
    try:
        first = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))[0]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return first if isinstance(first, dict) else {}


def _contents(folder: pathlib.Path, name: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects FOLDER/*/name; those that cannot be read are left out."""
    for path in sorted(folder.glob(f"*/{name}")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            yield content


def _metric(metrics: Mapping[str, Any], name: str) -> str:
    found = metrics.get(name, {})
    return _with_error(found.get("value"), found.get("standard_error", found.get("deviation")))


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if error is None else f"{value:.3g} +- {error:.2g}"


def _short(commit: str | None) -> str:
    name, plus, changes = (commit or "").partition("+")
    return f"{name[:10]}{plus}{changes}"
