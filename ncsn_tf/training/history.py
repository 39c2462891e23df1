"""The curve of a run in plain text: the time, the loss and the held-out loss by step."""

import csv
import dataclasses
import io
import math
import os

from ncsn_tf import files
from ncsn_tf.training.results import LoopResult

NAME = "history.csv"
"""The name of the file in a run's directory."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of the curve.

    Attributes:
      step: the step.
      seconds: wall-clock time of all training steps up to this one, over all starts, tracing and compilation included;
        without held-out losses, grids of samples and checkpoints.
      loss: the mean training loss per example since the last point, NaN where it was not recorded.
      held_out_loss: the held-out loss of the averaged weights, NaN likewise.
    """

    step: int
    seconds: float
    loss: float = math.nan
    held_out_loss: float = math.nan


class History:
    """The curve of a run, kept in one file; the constructor reads what an earlier start left.

    Args:
      path: the file. If it cannot be read the curve begins anew: a run is not lost for it.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = files.local_path(path)
        self._points = {point.step: point for point in read(self._path)}

    def training(self, step: int, result: LoopResult) -> None:
        """Adds a loop of training steps that ended at `step`; points after its beginning are of a lost start."""
        begin = step - result.steps
        self._points = {at: point for at, point in self._points.items() if at <= begin}
        self._points[step] = Point(step, self._seconds + result.seconds, loss=result.loss)

    def held_out(self, step: int, loss: float) -> None:
        """Adds the held-out loss at `step`."""
        point = self._points.get(step) or Point(step, self._seconds)
        self._points[step] = dataclasses.replace(point, held_out_loss=loss)

    def write(self) -> None:
        """Writes the file; raises OSError if it cannot."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(Point))
        for step in sorted(self._points):
            point = self._points[step]
            losses = ("" if math.isnan(loss) else f"{loss:.6g}" for loss in (point.loss, point.held_out_loss))
            writer.writerow([step, f"{point.seconds:.2f}", *losses])
        files.write_text(self._path, text.getvalue())

    @property
    def _seconds(self) -> float:
        return max((point.seconds for point in self._points.values()), default=0.0)


def read(path: str | os.PathLike) -> list[Point]:
    """The points of a file by step; none if it does not exist or is damaged."""
    try:
        with files.local_path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [
            Point(int(row["step"]), *(float(row[key] or "nan") for key in ("seconds", "loss", "held_out_loss")))
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []
