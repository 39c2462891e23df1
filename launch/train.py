"""Trains a network: python -m launch.train --config=configs/digits.py --workdir=runs/digits

The same command again resumes from the last checkpoint, and so does --workdir alone. Any value of the configuration
can be set on the command line, as in --config.optim.learning_rate=1e-4; --config=digits is the packaged configuration
of that name, --config=digits:VARIANT a variant of it. --init_from=DIR starts a new run with another's averaged weights.
--strategy and the flags beside it say which devices and machines train together; docs/distributed.md has the commands.

Exits 0 when the run is complete, 75 when it was stopped from outside and the same command resumes (SIGTERM, a
machine's last notice, the loss of another worker; 143 for SIGTERM before training began), 130 on Ctrl-C, 1 on a
failure, and 2 on a usage error, another worker's included.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import contextlib
import dataclasses
import pathlib
import re
import shlex
import signal
from typing import TYPE_CHECKING, Any

from absl import flags

from .flags import cli, config, devices, paths, workers

if TYPE_CHECKING:
    import tensorflow as tf

    from ncsn_tf.config.build import Builder
    from ncsn_tf.data.images import ImageSource
    from ncsn_tf.training.initial import InitialWeights
    from ncsn_tf.training.loop import MeasureHeldOut
    from ncsn_tf.training.run_directory import RunDirectory
    from ncsn_tf.training.trainer import Trainer

_CONFIG = config.define("For example configs/digits.py, or digits; by default the run's own.")
_DEVICES = devices.define()
_WORKDIR = paths.define("workdir", None, "The run's directory; created if it does not exist.", required=True)
_DATA_DIR = paths.define("data_dir", None, "Where TFDS datasets are prepared: config.data.data_dir.", remote=True)
_INIT_FROM = paths.define(
    "init_from", None, "A new run starts with the averaged weights of this other run, or of this checkpoint in it."
)
_MAINTENANCE = flags.DEFINE_bool(
    "maintenance_notice", False, "On Google Compute Engine, stop and save when maintenance of the host is announced."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build everything, take no step, write nothing.")


@dataclasses.dataclass(frozen=True)
class _Job:
    """A training job: the configuration, the run's directory and the images."""

    config: dict[str, Any]
    directory: "RunDirectory"
    builder: "Builder"
    source: "ImageSource"
    dataset: dict[str, Any]
    starts_from: pathlib.Path | None  # on the chief


def main() -> None:
    """Trains."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.cluster.rendezvous import AbsentWorkersError

    strategy = None
    try:
        with cli.usage_errors():
            strategy = _DEVICES.create()
        _train(strategy)
    except AbsentWorkersError as error:
        cli.fail(error, cli.FAILURE)
    except strategies.LOST_PEER_ERRORS as error:
        if strategy is not None and strategies.place(strategy)[1] == 1:
            raise
        named = sorted(set(re.findall(r"/job:worker/replica:0/task:(\d+)", str(error.message))))
        who = f"Worker {' or '.join(named)}" if named else "Another worker"
        cli.fail(f"{who} is gone: its log may say why. The same command, on all, resumes.", cli.STOPPED)


def _train(strategy: "tf.distribute.Strategy") -> None:
    from ncsn_tf import jobs
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import sections
    from ncsn_tf.training import preemption

    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as starting:
            if strategies.place(strategy)[1] > 1:
                starting.enter_context(preemption.watch_signals(None))
            with workers.usage_errors_of_any(strategy):
                job = _read(strategy, held)
            with cli.usage_errors():
                agreed = {"configuration": sections.fingerprint(job.config), "images": job.dataset["checksum"] % 2**31}
                strategies.require_agreement(strategy, **agreed)
                trainer = job.builder.trainer(strategy, job.source.shape)
                held_out_loss = jobs.held_out_measure(job.builder, trainer, job.source.shape)
            with workers.usage_errors_of_any(strategy):
                start = _initial_weights(job, trainer)
        described = f"{job.source.name}: {len(job.source)} images {job.source.shape}"
        print(f"{described}; {trainer.network.count_params():,} parameters; {strategies.describe(strategy)}")
        if _DRY_RUN.value:
            print(f"Dry run: would train to step {job.builder.training.steps} in {job.directory.path}")
            return
        _fit(job, trainer, start, held_out_loss, held)
    if strategies.is_chief(strategy):
        print(f"Checkpoints: {job.directory.checkpoints}")
        print(f"Sample grids: {job.directory.samples}")
        print(f"Curves: tensorboard --logdir={shlex.quote(str(job.directory.tensorboard))}")


def _read(strategy: "tf.distribute.Strategy", held: contextlib.ExitStack) -> _Job:
    """Reads and checks the job before anything is written; the chief holds the directory's lock from here on."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import build
    from ncsn_tf.training import initial, preemption
    from ncsn_tf.training.run_directory import RunDirectory

    chief = strategies.is_chief(strategy)
    if _MAINTENANCE.value:
        preemption.maintenance_notice()  # an OSError says that there is no metadata server here
    directory = RunDirectory(_WORKDIR.value)
    content = config.resolved(_CONFIG.value.to_dict() if _CONFIG.value is not None else directory.config())
    if _DATA_DIR.value is not None:
        content.setdefault("data", {})["data_dir"] = _DATA_DIR.value
    builder = build.Builder(content)
    builder.check_devices(strategy)
    if _DRY_RUN.value:
        builder.forbid_download()
    elif chief:
        held.enter_context(directory.locked())
    source = builder.load_images("train")
    builder.load_labels("train")  # raises a ValueError now, before anything is written
    dataset = source.describe()
    if chief:
        directory.check(content, dataset)
    starts_from = initial.source(directory, _INIT_FROM.value) if chief else None
    return _Job(content, directory, builder, source, dataset, starts_from)


def _initial_weights(job: _Job, trainer: "Trainer") -> "InitialWeights | None":
    """The weights of --init_from, on the chief of a new run."""
    from ncsn_tf.training import initial

    if job.starts_from is None:
        return None
    found = initial.read(job.starts_from, trainer.network, job.config, job.source.shape[-1])
    print(f"Starts with the averaged weights of {found.checkpoint}")
    return found


def _fit(
    job: _Job,
    trainer: "Trainer",
    start: "InitialWeights | None",
    held_out_loss: "MeasureHeldOut | None",
    held: contextlib.ExitStack,
) -> None:
    """Trains to the end, or ends the program with the code that says why not."""
    from ncsn_tf import jobs
    from ncsn_tf.cluster import strategies
    from ncsn_tf.data import pipeline
    from ncsn_tf.objectives import NonFiniteLossError
    from ncsn_tf.training import loop, preemption
    from ncsn_tf.training.checkpoints import Checkpoints, CheckpointWriteError
    from ncsn_tf.training.summaries import Record

    builder, directory, strategy = job.builder, job.directory, trainer.strategy
    chief = strategies.is_chief(strategy)
    held.enter_context(preemption.watch_signals(trainer.stop))
    with cli.usage_errors():
        if chief:
            directory.open(job.config, job.dataset, strategies.describe(strategy))
        checkpoints = Checkpoints(directory.checkpoints, trainer, builder.training.keep_checkpoints)
        checkpoints.restore(start.values if start is not None else None)
    with workers.usage_errors_of_any(strategy):
        if start is not None:
            start.record(directory)
            checkpoints.save()  # from here on the run does not need the other one
    for notice in preemption.notices(strategy, _MAINTENANCE.value):
        held.enter_context(preemption.watch_notice(notice, trainer.stop))
    try:
        loop.fit(
            trainer,
            lambda step: builder.batches(job.source, strategy, step),
            builder.cadence,
            checkpoints=checkpoints,
            record=Record(directory, builder.draw.bins, writes=chief),
            probe=next(iter(pipeline.evaluation_batches(job.source, batch_size=8))),
            held_out_loss=held_out_loss,
            draw_samples=jobs.sample_drawer(builder, trainer, job.source.shape) if chief else None,
        )
        workers.end_together(strategy, 0)
    except preemption.Preempted as stopped:
        code = cli.INTERRUPTED if stopped.signal_number == signal.SIGINT else cli.STOPPED
        workers.end_together(strategy, code)
        cli.fail(f"{stopped} The same command resumes.", code)
    except (NonFiniteLossError, CheckpointWriteError) as error:
        workers.end_together(strategy, cli.FAILURE)
        saved = checkpoints.latest
        left = f"The last good checkpoint is {saved}." if saved else "No checkpoint had been written yet."
        cli.fail(f"{error} {left}", cli.FAILURE)


def entry_point() -> None:
    """Entry point of `ncsn-train`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
