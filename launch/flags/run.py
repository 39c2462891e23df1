"""The flags of launchers that open a trained run; import it to have them."""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from launch.flags import sampler as sampling

WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Where to write; by default a folder in the run's directory.")
_CHECKPOINT = flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest.")
SEED = flags.DEFINE_integer("seed", 0, "Of all that is drawn: row i depends on (seed, i) alone.", 0, 2**31 - 1)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Load everything, draw nothing, write nothing.")


def open_run() -> Any:
    """The run of the flags, its weights loaded, its sampler changed as they say; raises as `runs.TrainedRun` does."""
    from ncsn_tf import runs
    from ncsn_tf.training.run_directory import RunDirectory

    run = runs.TrainedRun(RunDirectory(WORKDIR.value), sampler=sampling.changes())
    run.load(_CHECKPOINT.value)
    return run


def output(run: Any, kind: str) -> pathlib.Path:
    """Where results go: --output, or WORKDIR/KIND/step_N_seed_S."""
    return pathlib.Path(OUTPUT.value or run.directory.path / kind / f"step_{run.step:08d}_seed_{SEED.value}")


def prepare(folder: pathlib.Path) -> bool:
    """Makes the folder, unless the run is dry, which it says; whether to go on."""
    if DRY_RUN.value:
        print(f"Dry run: would write into {folder}")
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "about.json").unlink(missing_ok=True)  # it would speak of other results until these are there
    return True


def record(run: Any) -> dict[str, Any]:
    """What is needed to repeat what was drawn."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.training.run_directory import environment

    return {
        "checkpoint": run.checkpoint,
        "weights": run.checksum(),
        "seed": SEED.value,
        "sampler": dataclasses.asdict(run.builder.sampler_options),
        **environment(strategies.describe(strategies.create("one_device"))),
    }
