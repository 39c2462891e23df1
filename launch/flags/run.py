"""The flags of verbs that open a trained run and draw with it."""

import contextlib
import dataclasses
import itertools
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from . import devices, paths, sampler

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn, SampleStore

ABOUT = "about.json"
"""The record of a folder of results."""


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """The flags of an opened run, defined."""

    workdir: flags.FlagHolder
    output: flags.FlagHolder
    checkpoint: flags.FlagHolder
    seed: flags.FlagHolder
    dry_run: flags.FlagHolder
    sampler: sampler.Sampler
    devices: devices.Devices

    def open(self, strategy: Any) -> "TrainedRun":
        """The run of the flags on a strategy, its weights loaded, its sampler changed; raises as `runs.TrainedRun`."""
        from ncsn_tf import runs
        from ncsn_tf.training.run_directory import RunDirectory

        run = runs.TrainedRun(RunDirectory(self.workdir.value), strategy, self.sampler.changes())
        run.load(self.checkpoint.value)
        return run

    def open_for_steps(self, strategy: Any, what: str) -> "TrainedRun":
        """`open`, but raises ValueError for a sampler that chooses its own steps, with which `what` is impossible."""
        run = self.open(strategy)
        if not run.sampler.takes_projections:
            raise ValueError(
                f"{what} needs a sampler with fixed steps: give another --sampler, such as heun. "
                f"Received: {run.builder.sampler_key['name']}."
            )
        return run

    def folder(self, run: "TrainedRun", kind: str, key: Mapping[str, Any]) -> pathlib.Path:
        """Where results are written: --output, or WORKDIR/KIND/step_N_seed_S.

        If the latter holds results of another sampling key, which are kept, it is step_N_seed_S_2, and so on.
        """
        from ncsn_tf.samplers import store

        if self.output.value is not None:
            return pathlib.Path(self.output.value)
        first = run.directory.path / kind / f"step_{run.step:08d}_seed_{self.seed.value}"
        others = (first.with_name(f"{first.name}_{number}") for number in itertools.count(2))
        return next(folder for folder in itertools.chain([first], others) if store.is_free_for(folder, key))

    def prepare(self, run: "TrainedRun", folder: pathlib.Path) -> bool:
        """Makes the folder and returns True; a dry run reports instead and returns False."""
        if self.dry_run.value:
            print(f"Dry run: would write into {folder}")
            return False
        if run.is_chief:
            folder.mkdir(parents=True, exist_ok=True)
        return True

    @contextlib.contextmanager
    def stored(self, run: "TrainedRun", folder: pathlib.Path, key: Mapping[str, Any]) -> "Iterator[SampleStore | None]":
        """`run.stored`, without the record of earlier results, which would describe others until these are complete."""
        with run.stored(folder, key, floats=True) as rows:
            if rows is not None:
                (folder / ABOUT).unlink(missing_ok=True)
            yield rows

    def caveats(self, drawn: "Drawn", share: float = 1.0) -> list[str]:
        """Warns of each caveat of what was drawn, and returns them for the record; `share` as for `Drawn.caveats`."""
        found = drawn.caveats(share)
        for caveat in found:
            warnings.warn(caveat, stacklevel=2)
        return found

    def record(self, run: "TrainedRun") -> dict[str, Any]:
        """Everything that is needed to repeat what was drawn."""
        from ncsn_tf.cluster import strategies
        from ncsn_tf.training.run_directory import environment

        return {
            "checkpoint": run.checkpoint,
            "weights": run.checksum(),
            "seed": self.seed.value,
            "sampler": run.builder.sampler_key,
            **run.classes.key,
            **environment(strategies.describe(run.strategy)),
        }


def define() -> OpenedRun:
    """Defines --workdir, --output, --checkpoint, --seed, --dry_run, and the flags of the sampler and of devices."""
    return OpenedRun(
        workdir=paths.define("workdir", None, "The run's directory.", required=True),
        output=paths.define("output", None, "Where to write; by default a folder in the run's directory."),
        checkpoint=flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest."),
        seed=flags.DEFINE_integer("seed", 0, "The seed of all draws: row i depends on (seed, i) alone.", 0, 2**31 - 1),
        dry_run=flags.DEFINE_bool("dry_run", False, "Load everything, draw nothing, write nothing."),
        sampler=sampler.define(),
        devices=devices.define(),
    )


def environment() -> dict[str, Any]:
    """Versions, commit, device and command of a program that computes on one device, for its record."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.training import run_directory

    return run_directory.environment(strategies.describe(strategies.create("one_device")))


@contextlib.contextmanager
def levels_shown(total: int, unit: str = "level") -> Iterator[Any]:
    """Yields the progress of `total` frames."""
    from ncsn_tf.progress import progress_bar

    with progress_bar(total, unit) as bar:
        yield bar
