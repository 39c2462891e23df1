"""The report of an evaluation, and the files in which it is kept.

OUTPUT/results.json             every number, and everything needed to repeat it
OUTPUT/neighbours_pixels.png    the samples nearest to training images, each beside these images
OUTPUT/neighbours_features.png  the same by features
OUTPUT/distances.png            how near samples and held-out images are to the training images
"""

import dataclasses
import math
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ncsn_tf import files
from ncsn_tf.evaluation import measure, memorisation
from ncsn_tf.evaluation.held_out import HeldOutLoss

RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of an evaluation.

    Attributes:
      measurements: the metrics.
      absent: one line per metric that could not be measured, with the reason.
      caveats: what weakens the results, noticed about the samples and the reference.
      copies: for each space, "pixels" and "features", how near samples and held-out images are to the training images;
        empty where there are no training images to compare with.
      held_out: the model's held-out loss; None where there is none.
    """

    measurements: list[measure.Measurement]
    absent: list[str]
    caveats: list[str]
    copies: Mapping[str, memorisation.Comparison] = dataclasses.field(default_factory=dict)
    held_out: HeldOutLoss | None = None

    def lines(self) -> list[str]:
        """Returns the report as lines of text: values first, caveats last, each of them once."""
        found = [one.describe() for one in self.measurements]
        for space, comparison in self.copies.items():
            error = comparison.standard_error
            found.append(
                f"copies, by {space}: {comparison.copies} exact; a sample is nearer to the training images than a "
                f"held-out image with probability {comparison.probability_nearer:.3f}"
                + (f" (standard error {error:.2g})" if error is not None else "")
            )
        if self.held_out is not None:
            found.append(f"held-out denoising loss {self.held_out.mean:.5g}, {self.held_out.images} images")
        caveats = dict.fromkeys([*self.caveats, *(line for one in self.measurements for line in one.caveats)])
        return [*found, *(f"not measured: {line}" for line in self.absent), *(f"warning: {line}" for line in caveats)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        content: dict[str, Any] = {
            "metrics": {one.name: one.as_dict() for one in self.measurements},
            "not_measured": self.absent,
            "warnings": self.caveats,
            "copies": {space: comparison.summary() for space, comparison in self.copies.items()},
        }
        if self.held_out is not None:
            content["held_out_denoising_loss"] = {
                "mean": self.held_out.mean,
                "images": self.held_out.images,
                "sigmas": self.held_out.sigmas.tolist(),
                "by_level": self.held_out.means.tolist(),
                "standard_errors": self.held_out.standard_errors.tolist() if self.held_out.images > 1 else None,
            }
        return content

    def scalars(self) -> dict[str, float]:
        """The names and finite values of the curves that accompany a training run."""
        found = {one.name: one.value for one in self.measurements}
        found |= {f"probability_nearer/{space}": one.probability_nearer for space, one in self.copies.items()}
        if self.held_out is not None:
            found["held_out_denoising_loss"] = self.held_out.mean
        return {name: value for name, value in found.items() if math.isfinite(value)}


def write(output: str | os.PathLike, report: Report, about: Mapping[str, Any]) -> pathlib.Path:
    """Writes results.json: the report, and `about`, everything that is needed to repeat it. Returns its path."""
    path = files.local_path(output) / RESULTS
    files.write_json(path, {**report.as_dict(), **about})
    return path


def write_scalars(directory: str | os.PathLike, step: int, report: Report) -> None:
    """Adds the report's numbers to TensorBoard's curves at a training step, under `evaluation/`."""
    directory = files.local_path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with files.plain_path(directory) as plain:
            writer = tf.summary.create_file_writer(plain)
            with writer.as_default(step):
                for name, value in report.scalars().items():
                    tf.summary.scalar(f"evaluation/{name}", value)
            writer.close()
    except (OSError, tf.errors.OpError) as error:  # results.json has the numbers: no measurement is lost with a curve
        warnings.warn(f"TensorBoard's curves could not be written to {directory}: {files.reason(error)}", stacklevel=2)
