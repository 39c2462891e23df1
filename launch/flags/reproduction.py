"""The flags of the papers' figures and tables: which there are, which flags each reads, and what these mean."""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from . import evaluator, flow, paths, size, song_2021

PAPERS = ("song_ermon_2019", "hyvarinen_2005", "song_2021")
Which = tuple[str, str, int]
"""(paper, "figure" or "table", number)."""

_IMAGES = ("data_name", "data_dir", "image_size")
READ: dict[Which, tuple[str, ...]] = {
    ("song_ermon_2019", "figure", 1): (*_IMAGES, "steps"),
    ("song_ermon_2019", "figure", 2): ("steps",),
    ("song_ermon_2019", "figure", 3): ("num_samples",),
    ("song_ermon_2019", "figure", 4): ("workdir", "checkpoint", "num_samples"),
    ("hyvarinen_2005", "figure", 1): ("runs",),
    ("hyvarinen_2005", "figure", 2): ("runs",),
    ("hyvarinen_2005", "figure", 3): (*_IMAGES, "patches"),
    ("hyvarinen_2005", "figure", 4): (*_IMAGES, "patches"),
    **{("song_2021", *what): read for what, read in song_2021.READ.items()},
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
        if found.get("num_samples") == 0 and which != ("song_2021", "table", 2):
            raise ValueError("--num_samples=0 leaves the samples out of table 2 of song_2021; give 1 or more.")
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
            asked = title(which).capitalize(), given, self.seed.value, output, self.evaluator, dry
            return song_2021.Request(*asked).options(*which[1:])
        options = {"seed": self.seed.value, **{name: given[name] for name in given if name not in _IMAGES}}
        if which == ("song_ermon_2019", "figure", 4):
            return _walks(options)
        return {**options, **_images(given)}


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
        flags.DEFINE_integer("num_samples", None, "Samples of each sampler, or walks to show.", 0),
        flags.DEFINE_integer("batch_size", None, "Samples or images at a time; by default the run's choice.", 1),
        flags.DEFINE_integer("seeds", None, "How many sampling seeds, from --seed on; by default 5.", 1),
        paths.define("workdir", None, "The trained run."),
        flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest."),
        paths.define("ve", None, "A run trained with the VE SDE in continuous time."),
        paths.define("vp", None, "A run trained with the VP SDE in continuous time."),
        flags.DEFINE_float("ve_ratio", None, "The signal-to-noise ratio of all VE correctors, not the paper's.", 1e-6),
        flags.DEFINE_float("vp_ratio", None, "The same of all VP correctors.", 1e-6),
        flags.DEFINE_float("ratio", None, "The same of the correctors of the run.", 1e-6),
        flags.DEFINE_list("budgets", None, "Numbers of evaluations to split; by default 20,40,80,160."),
        paths.define_several("run", "A run in continuous time; may be given several times."),
        flags.DEFINE_integer("num_images", None, "How many held-out images; by default all, 16 in figure 7.", 1),
        *flow.define_repeats(default=None),
        flags.DEFINE_list("tolerances", None, "Tolerances of the flow; by default 1e-1,1e-2,1e-3,1e-4,1e-5."),
        *(getattr(compared, name) for name in song_2021.EVALUATOR),
    )
    return Reproduction(
        paper=flags.DEFINE_enum("paper", PAPERS[0], PAPERS, "The paper."),
        figure=flags.DEFINE_integer("figure", None, "The figure's number in the paper.", 1),
        table=flags.DEFINE_integer("table", None, "The table's number in the paper, in place of --figure.", 1),
        seed=flags.DEFINE_integer("seed", 0, "The seed of everything random, or the first of --seeds.", 0, 2**30),
        others={flag.name: flag for flag in others},
        evaluator=compared,
    )
