"""The figures and tables of Song et al. 2021: which flags of launch.reproduce each reads, and what these mean."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import flow
from .evaluator import EvaluatorFlags

if TYPE_CHECKING:
    from ncsn_tf.evaluation.evaluator import Evaluator
    from ncsn_tf.reproduction.song_2021_cells import Draws, Judged
    from ncsn_tf.runs import TrainedRun

EVALUATOR = ("features", "inception_path", "classifier_path", "reference")
DRAWS = ("num_samples", "batch_size", "seeds")
READ = {
    ("table", 1): ("ve", "vp", "steps", "ve_ratio", "vp_ratio", *DRAWS, *EVALUATOR),
    ("table", 2): ("run", "num_images", "dequantizations", "probes", *DRAWS, *EVALUATOR),
    ("figure", 3): ("workdir", "tolerances", *DRAWS, *EVALUATOR),
    ("figure", 7): ("run", "num_images", "batch_size"),
    ("figure", 9): ("workdir", "budgets", "ratio", *DRAWS, *EVALUATOR),
}
"""The flags that each table and figure reads."""
_SEEDS = 5
_SAMPLES = 1_000


@dataclasses.dataclass(frozen=True)
class Request:
    """A figure or a table that is asked for.

    Attributes:
      title: its name at the beginning of a sentence.
      given: the values of the flags that are given, by name.
      seed: the seed of everything random.
      output: the folder that is written into.
      evaluator: the flags of the evaluator.
      dry: open runs and images, but compute nothing.
    """

    title: str
    given: dict[str, Any]
    seed: int
    output: pathlib.Path
    evaluator: EvaluatorFlags
    dry: bool

    def options(self, kind: str, number: int) -> dict[str, Any]:
        """The keyword arguments of the function of a figure or table.

        Raises:
          ValueError: for a missing run, one at noise levels, or whatever the function refuses.
        """
        makers = {
            ("table", 1): self._table1,
            ("table", 2): self._table2,
            ("figure", 3): self._figure3,
            ("figure", 7): self._figure7,
            ("figure", 9): self._figure9,
        }
        return makers[kind, number]()

    def _open(self, workdir: str) -> "TrainedRun":
        """The run of a directory with its newest weights; raises ValueError for one at noise levels."""
        run = flow.open_continuous(workdir, self.title)
        run.load()
        return run

    def _evaluator(self, run: "TrainedRun") -> "Evaluator | None":
        """The evaluator of a run's samples; None in a dry run. Raises ValueError if it cannot be evaluated."""
        train, builder = run.training_images(), run.builder
        return self.evaluator.evaluator(
            run.shape, builder.evaluation.features, builder.preparation, train, dry=self.dry
        )

    def _judged(self, workdir: str) -> "Judged":
        from ncsn_tf.reproduction import song_2021_cells

        run = self._open(workdir)
        return song_2021_cells.Judged(run, self._evaluator(run))  # type: ignore[arg-type]

    def _runs(self) -> "list[TrainedRun]":
        """The runs of --run."""
        return [self._open(workdir) for workdir in self.given.get("run", ())]

    def _own(self) -> "Judged":
        """The run of --workdir."""
        if "workdir" not in self.given:
            raise ValueError(f"{self.title} shows the samples of a trained run: give its --workdir.")
        return self._judged(self.given["workdir"])

    def _batch_size(self, runs: "Sequence[TrainedRun]") -> int:
        """--batch_size, by default the smallest of the runs' own."""
        return self.given.get("batch_size") or min((run.builder.evaluation.batch_size for run in runs), default=100)

    def _draws(self, runs: "Sequence[TrainedRun]") -> "Draws":
        from ncsn_tf.reproduction import song_2021_cells

        seeds = tuple(self.seed + number for number in range(self.given.get("seeds", _SEEDS)))
        return song_2021_cells.Draws(self.given.get("num_samples", _SAMPLES), self._batch_size(runs), seeds)

    def _table1(self) -> dict[str, Any]:
        from ncsn_tf.reproduction import song_2021_table_1

        judged = {name: self._judged(self.given[name]) for name in ("ve", "vp") if name in self.given}
        found: dict[str, Any] = {"runs": judged, "draws": self._draws([one.run for one in judged.values()])}
        found["ratios"] = {name: self.given.get(f"{name}_ratio") for name in ("ve", "vp")}
        found |= {"steps": self.given["steps"]} if "steps" in self.given else {}
        song_2021_table_1.check(**found)
        return {**found, "output": self.output}

    def _table2(self) -> dict[str, Any]:
        from ncsn_tf.reproduction import song_2021_table_2

        runs = self._runs()
        names = ("num_images", "dequantizations", "probes")
        numbers = {name: self.given[name] for name in names if name in self.given}
        song_2021_table_2.check(runs, numbers.get("num_images"))
        found = {"runs": runs, "bits": song_2021_table_2.Bits(self.seed, self._batch_size(runs), **numbers)}
        if self.given.get("num_samples"):
            found |= {"evaluator": self._evaluator(runs[0]), "draws": self._draws(runs)}
        return {**found, "output": self.output}

    def _figure3(self) -> dict[str, Any]:
        from ncsn_tf.config import values
        from ncsn_tf.reproduction import song_2021_cells, song_2021_figure_3

        texts = self.given.get("tolerances") or map(str, song_2021_figure_3.TOLERANCES)
        tolerances = [values.from_text("a tolerance", float, text) for text in texts]
        song_2021_figure_3.check(tolerances)
        judged = self._own()
        for tolerance in tolerances:
            song_2021_cells.changed(judged.run, song_2021_figure_3.sampler(judged.sde, tolerance))
        return {"run": judged, "draws": self._draws([judged.run]), "tolerances": tolerances, "output": self.output}

    def _figure7(self) -> dict[str, Any]:
        from ncsn_tf.reproduction import song_2021_figure_7

        runs, count = self._runs(), self.given.get("num_images", song_2021_figure_7.IMAGES)
        song_2021_figure_7.check(runs, count)
        return {"runs": runs, "num_images": count, "batch_size": self._batch_size(runs), "seed": self.seed}

    def _figure9(self) -> dict[str, Any]:
        from ncsn_tf.config import values
        from ncsn_tf.reproduction import song_2021_figure_9

        judged = self._own()
        texts = self.given.get("budgets") or map(str, song_2021_figure_9.BUDGETS)
        budgets, ratio = [values.from_text("a budget", int, text) for text in texts], self.given.get("ratio")
        for budget in budgets:
            song_2021_figure_9.splits(judged.sde, budget, ratio)
        found = {"run": judged, "draws": self._draws([judged.run]), "budgets": budgets, "ratio": ratio}
        return {**found, "output": self.output}
