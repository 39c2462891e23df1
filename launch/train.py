"""Trains a network: python -m launch.train --config=configs/digits.py --workdir=runs/digits

The same command again goes on from the last checkpoint, and so does --workdir alone. Any value of the configuration
can be set on the command line, as in --config.optim.learning_rate=1e-4. --strategy and the flags beside it say which
devices and machines train together; docs/distributed.md has the commands.

Ends with code 0 when the run is complete, 75 when it was stopped from outside and the same command goes on (SIGTERM, a
machine's last notice, the loss of another worker; 143 for SIGTERM before training began), 130 on Ctrl-C, 1 on a failure
and 2 on a mistake in what was asked, another worker's included.
"""

import contextlib
import re
import signal
import types

from absl import flags
from ml_collections import config_flags

from launch.flags import cli, devices

_CONFIG = config_flags.DEFINE_config_file("config", None, "For example configs/digits.py; by default the run's own.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; made if need be.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS datasets are prepared: config.data.data_dir.")
_MAINTENANCE = flags.DEFINE_bool(
    "maintenance_notice", False, "On Google Compute Engine, stop and save when maintenance of the host is announced."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build everything, take no step, write nothing.")


def main() -> None:
    """Trains."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.cluster.rendezvous import AbsentWorkersError

    strategy = None
    try:
        with cli.user_mistakes():
            strategy = devices.strategy()
        _train(strategy)
    except AbsentWorkersError as error:
        cli.fail(error, cli.FAILURE)
    except strategies.LOST_PEER_ERRORS as error:
        if strategy is not None and strategies.place(strategy)[1] == 1:
            raise
        named = sorted(set(re.findall(r"/job:worker/replica:0/task:(\d+)", str(error.message))))
        who = f"Worker {' or '.join(named)}" if named else "Another worker"
        cli.fail(f"{who} is gone: its log may say why. The same command, on all, goes on.", cli.STOPPED)


def _train(strategy) -> None:
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import sections
    from ncsn_tf.training import preemption

    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as starting:
            if strategies.place(strategy)[1] > 1:
                starting.enter_context(preemption.watch_signals(None))
            try:
                with cli.user_mistakes():
                    job = _read(strategy, held)
            except SystemExit as ending:
                _end_together(strategy, int(str(ending.code)))
                raise
            _end_together(strategy, 0)
            with cli.user_mistakes():
                agreed = {"configuration": sections.fingerprint(job.config), "images": job.dataset["checksum"] % 2**31}
                strategies.require_agreement(strategy, **agreed)
                trainer = job.builder.trainer(strategy, job.source.shape)
                held_out_loss = job.builder.held_out_loss(trainer, job.source.shape)
        described = f"{job.source.name}: {len(job.source)} images {job.source.shape}"
        print(f"{described}; {trainer.network.count_params():,} parameters; {strategies.describe(strategy)}")
        if _DRY_RUN.value:
            print(f"Dry run: would train to step {job.builder.training.steps} in {job.directory.path}")
            return
        _fit(job, trainer, held_out_loss, held)
    if strategies.is_chief(strategy):
        print(f"Checkpoints: {job.directory.checkpoints}")
        print(f"Sample grids: {job.directory.samples}")
        print(f"Curves: tensorboard --logdir={job.directory.tensorboard}")


def _end_together(strategy, code: int) -> None:
    """Tells the other workers the code that this one is about to end with, 0 to go on; ends with theirs if one failed.

    A worker that only left would be taken for lost, and an orchestrator would start again what fails again.
    """
    from ncsn_tf.cluster import strategies

    failures = (cli.FAILURE, cli.USER_MISTAKE)
    for other, theirs in enumerate(strategies.exchange_codes(strategy, code)):
        if theirs in failures and code not in failures:
            cli.fail(f"Worker {other} ended with code {theirs}: its log says why.", theirs)


def _read(strategy, held: contextlib.ExitStack) -> types.SimpleNamespace:
    """What is trained and where, checked before anything is written; the chief holds the directory from here on."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import build
    from ncsn_tf.training import preemption
    from ncsn_tf.training.run_directory import RunDirectory

    chief = strategies.is_chief(strategy)
    if _MAINTENANCE.value:
        preemption.maintenance_notice()  # an OSError says that there is no metadata server here
    directory = RunDirectory(_WORKDIR.value)
    config = _CONFIG.value.to_dict() if _CONFIG.value is not None else directory.config()
    if _DATA_DIR.value is not None:
        config["data"]["data_dir"] = _DATA_DIR.value
    builder = build.Builder(config)
    builder.check_devices(strategy)
    if _DRY_RUN.value:
        builder.forbid_download()
    elif chief:
        held.enter_context(directory.locked())
    source = builder.load_images("train")
    dataset = source.describe()
    if chief:
        directory.check(config, dataset)
    return types.SimpleNamespace(config=config, directory=directory, builder=builder, source=source, dataset=dataset)


def _fit(job: types.SimpleNamespace, trainer, held_out_loss, held: contextlib.ExitStack) -> None:
    """Trains to the end, or ends the program with the code that says why not."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.data import pipeline
    from ncsn_tf.training import loop, preemption
    from ncsn_tf.training.checkpoints import Checkpoints, CheckpointWriteError
    from ncsn_tf.training.summaries import Record
    from ncsn_tf.training.trainer import NonFiniteLossError

    builder, directory, strategy = job.builder, job.directory, trainer.strategy
    chief = strategies.is_chief(strategy)
    held.enter_context(preemption.watch_signals(trainer.stop))
    with cli.user_mistakes():
        if chief:
            directory.open(job.config, job.dataset, strategies.describe(strategy))
        checkpoints = Checkpoints(directory.checkpoints, trainer, builder.training.keep_checkpoints)
        checkpoints.restore()
    for notice in preemption.notices(strategy, _MAINTENANCE.value):
        held.enter_context(preemption.watch_notice(notice, trainer.stop))
    try:
        loop.fit(
            trainer,
            lambda step: builder.batches(job.source, strategy, step),
            builder.training,
            checkpoints=checkpoints,
            record=Record(directory, builder.sigmas, writes=chief),
            probe=next(iter(pipeline.evaluation_batches(job.source, batch_size=8))),
            held_out_loss=held_out_loss,
            draw_samples=builder.sample_drawer(trainer.average_score_model.score, job.source.shape) if chief else None,
        )
        _end_together(strategy, 0)
    except preemption.Preempted as stopped:
        code = cli.INTERRUPTED if stopped.signal_number == signal.SIGINT else cli.STOPPED
        _end_together(strategy, code)
        cli.fail(f"{stopped} The same command goes on.", code)
    except (NonFiniteLossError, CheckpointWriteError) as error:
        _end_together(strategy, cli.FAILURE)
        saved = checkpoints.latest
        left = f"The last good checkpoint is {saved}." if saved else "No checkpoint had been written yet."
        cli.fail(f"{error} {left}", cli.FAILURE)


def run() -> None:
    """Entry point of `ncsn-train`."""
    cli.run(main)


if __name__ == "__main__":
    run()
