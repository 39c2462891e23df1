"""The flags of verbs that follow the probability flow of a run in continuous time."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from . import paths, run

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun


@dataclasses.dataclass(frozen=True)
class Flow:
    """The flags of the flow, defined."""

    workdir: flags.FlagHolder
    output: flags.FlagHolder
    checkpoint: flags.FlagHolder
    seed: flags.FlagHolder
    split: flags.FlagHolder
    num_images: flags.FlagHolder
    batch_size: flags.FlagHolder
    rtol: flags.FlagHolder
    atol: flags.FlagHolder
    first_time: flags.FlagHolder
    jit_compile: flags.FlagHolder
    dry_run: flags.FlagHolder

    def open(self, what: str) -> "TrainedRun":
        """The run of the flags with its weights; raises ValueError if it has no flow, or for a value out of range."""
        import tensorflow as tf

        from ncsn_tf import ode
        from ncsn_tf.samplers import methods

        opened = open_continuous(self.workdir.value, what)
        ode.check_tolerances(tf.float32, self.rtol.value, self.atol.value)
        if self.first_time.value is not None:
            methods.check_last_time(opened.builder.sde, self.first_time.value)
        opened.load(self.checkpoint.value)
        return opened

    def images(self, opened: "TrainedRun") -> np.ndarray:
        """The first images of the split, uint8; raises ValueError if they are not of the run's shape."""
        from ncsn_tf import flow_jobs

        return flow_jobs.images(opened, self.split.value, self.num_images.value)

    def folder(self, opened: "TrainedRun", kind: str, record: str, what: str) -> pathlib.Path:
        """--output, or WORKDIR/KIND/step_N_seed_S; raises ValueError if it holds a record of earlier results."""
        name = f"step_{opened.step:08d}_seed_{self.seed.value}"
        output = pathlib.Path(self.output.value or opened.directory.path / kind / name)
        if (output / record).exists():
            raise ValueError(f"{output} holds {what} already. Give another --output.")
        return output

    def options(self) -> dict[str, Any]:
        """The options of the solver."""
        return {"rtol": self.rtol.value, "atol": self.atol.value, "first_time": self.first_time.value}

    def record(self, opened: "TrainedRun") -> dict[str, Any]:
        """Everything that is needed to repeat the results, but the options of the solver and those of the verb."""
        return {
            "split": self.split.value,
            "checkpoint": opened.checkpoint,
            "weights": opened.checksum(),
            "seed": self.seed.value,
            **run.environment(),
        }


def open_continuous(workdir: str, what: str) -> "TrainedRun":
    """A run without weights; raises ValueError if it was trained at noise levels, with which `what` is impossible."""
    from ncsn_tf import runs
    from ncsn_tf.training.run_directory import RunDirectory

    opened = runs.TrainedRun(RunDirectory(workdir))
    if not opened.builder.continuous:
        raise ValueError(
            f"{what} needs a run in continuous time (times.name=uniform, log_normal or log_snr): the flow "
            f"passes between noise levels. {opened.directory.path} was trained at levels."
        )
    return opened


def define_repeats(default: int | None) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """Defines --dequantizations and --probes of a likelihood; a default of None, for 1, tells if they are given."""
    return (
        flags.DEFINE_integer("dequantizations", default, "How many of each image; by default 1.", 1),
        flags.DEFINE_integer(
            "probes", default, "How many probes of the trace, each of which costs a backward pass; by default 1.", 1
        ),
    )


def define(kind: str, seed: str, num_images: int | None) -> Flow:
    """Defines the flags of a verb that writes into WORKDIR/KIND.

    Args:
      kind: the folder of the verb's results in a run's directory.
      seed: what --seed is the seed of.
      num_images: the default of --num_images; None for all.
    """
    shown = "by default all" if num_images is None else f"by default {num_images}"
    return Flow(
        workdir=paths.define("workdir", None, "The run's directory.", required=True),
        output=paths.define("output", None, f"Where to write; by default WORKDIR/{kind}/step_N_seed_S."),
        checkpoint=flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest."),
        seed=flags.DEFINE_integer("seed", 0, f"The seed of {seed}.", 0, 2**31 - 1),
        split=flags.DEFINE_enum("split", "held_out", ("held_out", "train"), "Which images."),
        num_images=flags.DEFINE_integer("num_images", num_images, f"How many of them, the first ones; {shown}.", 1),
        batch_size=flags.DEFINE_integer("batch_size", 100, "Images at a time; bounds the memory.", 1),
        rtol=flags.DEFINE_float("rtol", 1e-5, "The relative tolerance of the solver, as in the paper."),
        atol=flags.DEFINE_float("atol", 1e-5, "The absolute tolerance of the solver."),
        first_time=flags.DEFINE_float("first_time", None, "Where the flow begins; by default 1e-5.", 0.0, 0.99),
        jit_compile=flags.DEFINE_bool("jit_compile", False, "Compile the solver with XLA."),
        dry_run=flags.DEFINE_bool("dry_run", False, "Load everything, compute and write nothing."),
    )
