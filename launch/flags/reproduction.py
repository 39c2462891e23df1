"""The flags of the papers' figures and tables: which there are, which flags each reads, and what these mean."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from . import evaluator, flow, paths, size

if TYPE_CHECKING:
    from ncsn_tf.reproduction.song_2021_cells import Judged

PAPERS = ("song_ermon_2019", "hyvarinen_2005", "song_2021")
Which = tuple[str, str, int]
"""(paper, "figure" or "table", number)."""

_IMAGES = ("data_name", "data_dir", "image_size")
_EVALUATOR = ("features", "inception_path", "classifier_path", "reference")
_DRAWS = ("num_samples", "batch_size", "seeds")
READ: dict[Which, tuple[str, ...]] = {
    ("song_ermon_2019", "figure", 1): (*_IMAGES, "steps"),
    ("song_ermon_2019", "figure", 2): ("steps",),
    ("song_ermon_2019", "figure", 3): ("num_samples",),
    ("song_ermon_2019", "figure", 4): ("workdir", "checkpoint", "num_samples"),
    ("hyvarinen_2005", "figure", 1): ("runs",),
    ("hyvarinen_2005", "figure", 2): ("runs",),
    ("hyvarinen_2005", "figure", 3): (*_IMAGES, "patches"),
    ("hyvarinen_2005", "figure", 4): (*_IMAGES, "patches"),
    ("song_2021", "table", 1): ("ve", "vp", "steps", "ve_ratio", "vp_ratio", *_DRAWS, *_EVALUATOR),
    ("song_2021", "figure", 9): ("workdir", "budgets", "ratio", *_DRAWS, *_EVALUATOR),
}
"""The flags that each figure and table reads, apart from --seed and --output."""


def title(which: Which) -> str:
    """The name in a sentence: figure 3 of song_ermon_2019."""
    paper, kind, number = which
    return f"{kind} {number} of {paper}"


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The flags of the figures and tables, defined.

    Attributes:
      paper: the paper.
      figure: the number of a figure.
      table: the number of a table.
      seed: the seed of everything random.
      others: the flags that only some read, by name.
      evaluator: those of the evaluator, which are among them.
    """

    paper: flags.FlagHolder
    figure: flags.FlagHolder
    table: flags.FlagHolder
    seed: flags.FlagHolder
    others: dict[str, flags.FlagHolder]
    evaluator: evaluator.EvaluatorFlags

    def which(self) -> Which:
        """What is to be reproduced; raises ValueError unless it is one figure or table that the paper has here."""
        asked = [(kind, flag.value) for kind, flag in (("figure", self.figure), ("table", self.table))]
        given = [(kind, number) for kind, number in asked if number is not None]
        if len(given) != 1:
            raise ValueError(f"Give --figure or --table, one of them. {self._known()}")
        which = (self.paper.value, *given[0])
        if which not in READ:
            raise ValueError(f"There is no {title(which)}. {self._known()}")
        return which

    def _known(self) -> str:
        known = [f"--{kind}={number}" for paper, kind, number in READ if paper == self.paper.value]
        return f"{self.paper.value} has {', '.join(known)}."

    def given(self, which: Which) -> dict[str, Any]:
        """The values of the flags that are given; raises ValueError for one that the figure or table does not read."""
        found = {name: flag.value for name, flag in self.others.items() if flag.value is not None}
        for name in found:
            if name not in READ[which]:
                readers = ", ".join(
                    f"{paper} {number}" if kind == "figure" else f"{paper} {kind} {number}"
                    for (paper, kind, number), read in READ.items()
                    if name in read
                )
                raise ValueError(f"--{name} has no effect on {title(which)}; it belongs to {readers}.")
        return found

    def options(self, which: Which, output: pathlib.Path, *, dry: bool = False) -> dict[str, Any]:
        """The keyword arguments of the figure's or table's function.

        Args:
          which: the figure or table.
          output: the folder that is written into.
          dry: open runs and images, but compute nothing.

        Raises:
          ValueError: for a flag that is not read, a missing run, or images that cannot be read.
        """
        given = self.given(which)
        if which[0] == "song_2021":
            return self._of_song_2021(which, given, output, dry)
        options = {"seed": self.seed.value, **{name: given[name] for name in given if name not in _IMAGES}}
        if which == ("song_ermon_2019", "figure", 4):
            return _walks(options)
        return {**options, **_images(given)}

    def _of_song_2021(self, which: Which, given: dict[str, Any], output: pathlib.Path, dry: bool) -> dict[str, Any]:
        from ncsn_tf.reproduction import song_2021_cells, song_2021_table_1

        what = title(which).capitalize()
        names = ("ve", "vp") if which[1] == "table" else ("workdir",)
        judged = {name: self._judged(given.pop(name), what, dry) for name in names if name in given}
        for name in (*_EVALUATOR, *_DRAWS):
            given.setdefault(name, None)
        seeds = tuple(self.seed.value + number for number in range(given.pop("seeds") or 5))
        batch_size = given.pop("batch_size") or min((run.batch_size for run in judged.values()), default=100)
        draws = song_2021_cells.Draws(given.pop("num_samples") or 1_000, batch_size, seeds)
        if which[1] == "figure":
            return {"output": output, "draws": draws, **_split(judged.get("workdir"), given)}
        ratios = {name: given.pop(f"{name}_ratio", None) for name in ("ve", "vp")}
        options = {name: value for name, value in given.items() if name not in _EVALUATOR}
        found = {"runs": judged, "draws": draws, "ratios": ratios, **options}
        song_2021_table_1.check(**found)
        return {**found, "output": output}

    def _judged(self, workdir: str, what: str, dry: bool) -> "Judged":
        """The run of a directory with its newest weights, and the evaluator of its samples; None for it in a dry run.

        Raises:
          ValueError: for a run at noise levels, or if it cannot be evaluated.
        """
        from ncsn_tf.reproduction import song_2021_cells

        run = flow.open_continuous(workdir, what)
        run.load()
        train, options = run.training_images(), run.builder.evaluation
        found = self.evaluator.evaluator(run.shape, options.features, run.builder.preparation, train, dry=dry)
        return song_2021_cells.Judged(run, found)  # type: ignore[arg-type]


def _split(judged: "Judged | None", given: dict[str, Any]) -> dict[str, Any]:
    """The run of the figure that splits budgets, its budgets and its ratio."""
    from ncsn_tf.config import values
    from ncsn_tf.reproduction import song_2021_figure_9

    if judged is None:
        raise ValueError("Figure 9 shows the samples of a trained run: give its --workdir.")
    texts = given.get("budgets") or map(str, song_2021_figure_9.BUDGETS)
    budgets, ratio = [values.from_text("a budget", int, text) for text in texts], given.get("ratio")
    for budget in budgets:
        song_2021_figure_9.splits(judged.sde, budget, ratio)
    return {"run": judged, "budgets": budgets, "ratio": ratio}


def _walks(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the figure that shows walks of a run at noise levels."""
    from ncsn_tf.training import checkpoints
    from ncsn_tf.training.run_directory import RunDirectory

    if "workdir" not in options:
        raise ValueError("Figure 4 shows the samples of a trained run: give its --workdir.")
    directory = RunDirectory(options.pop("workdir"))
    directory.config()
    checkpoints.find(directory.checkpoints, options.get("checkpoint"))
    return {"directory": directory, **options}


def _images(given: dict[str, Any]) -> dict[str, Any]:
    """The images of the flags as `source`, if they name any."""
    from ncsn_tf.data import images

    if "data_name" not in given:
        if "data_dir" in given or "image_size" in given:
            raise ValueError("--data_dir and --image_size belong to --data_name, which is not given.")
        return {}
    place, image_size = given.get("data_dir"), given.get("image_size")
    return {"source": images.load(given["data_name"], "train", data_dir=place, image_size=image_size)}


def define() -> Reproduction:
    """Defines --paper, --figure, --table, --seed, the flags of the evaluator, and those that only some figures read."""
    compared = evaluator.define()
    others = (
        paths.define_dataset("data_name", "'digits', a TFDS dataset, or a path to images, TFRecords or arrays."),
        paths.define("data_dir", None, "Where TFDS datasets are prepared.", remote=True),
        size.define("image_size", "Resize the images."),
        flags.DEFINE_integer("steps", None, "Training steps; for song_2021, N, the steps from noise to data.", 1),
        flags.DEFINE_integer("runs", None, "Data sets for each sample size.", 1),
        flags.DEFINE_integer("patches", None, "How many patches to learn from.", 1),
        flags.DEFINE_integer("num_samples", None, "Samples of each sampler, or walks to show.", 1),
        flags.DEFINE_integer("batch_size", None, "How many samples to draw at a time; by default the run's choice.", 1),
        flags.DEFINE_integer("seeds", None, "How many sampling seeds, from --seed on; by default 5.", 1),
        paths.define("workdir", None, "The trained run."),
        flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest."),
        paths.define("ve", None, "A run trained with the VE SDE in continuous time."),
        paths.define("vp", None, "A run trained with the VP SDE in continuous time."),
        flags.DEFINE_float("ve_ratio", None, "The signal-to-noise ratio of all VE correctors, not the paper's.", 1e-6),
        flags.DEFINE_float("vp_ratio", None, "The same of all VP correctors.", 1e-6),
        flags.DEFINE_float("ratio", None, "The same of the correctors of the run.", 1e-6),
        flags.DEFINE_list("budgets", None, "Numbers of evaluations to split; by default 20,40,80,160."),
        *(getattr(compared, name) for name in _EVALUATOR),
    )
    return Reproduction(
        paper=flags.DEFINE_enum("paper", PAPERS[0], PAPERS, "The paper."),
        figure=flags.DEFINE_integer("figure", None, "The figure's number in the paper.", 1),
        table=flags.DEFINE_integer("table", None, "The table's number in the paper, in place of --figure.", 1),
        seed=flags.DEFINE_integer("seed", 0, "The seed of everything random, or the first of --seeds.", 0, 2**30),
        others={flag.name: flag for flag in others},
        evaluator=compared,
    )
