"""Trains a network: python -m launch.train --config=configs/digits.py --workdir=runs/digits

The same command again goes on from the last checkpoint, and so does --workdir alone. Any value of the configuration
can be set on the command line, as in --config.optim.learning_rate=1e-4. --strategy and the flags beside it say which
devices and machines train together; docs/distributed.md has the commands.

Ends with code 0 when the run is complete, 75 when it was stopped from outside and the same command goes on (SIGTERM, a
machine's last notice, the loss of another worker), 130 on Ctrl-C, 1 on a failure, 2 on a mistake in what was asked.
"""

import contextlib
import hashlib
import json
import signal

from absl import flags
from ml_collections import config_flags

from launch import cli, devices

_CONFIG = config_flags.DEFINE_config_file("config", None, "For example configs/digits.py; by default the run's own.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; made if need be.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS datasets are prepared: config.data.data_dir.")
_MAINTENANCE = flags.DEFINE_bool(
    "maintenance_notice", False, "On Google Compute Engine, stop and save when maintenance of the host is announced."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build everything, take no step, write nothing.")


def main() -> None:
    """Trains."""
    from ncsn_tf.training import strategy as strategies
    from ncsn_tf.training.rendezvous import AbsentWorkersError

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
        reason = str(error.message).split("Collective ops is aborted by:")[-1]
        cli.fail(f"Another worker is gone: {reason[:300]} The same command, on all, goes on.", cli.STOPPED)


def _train(strategy) -> None:
    from ncsn_tf import build
    from ncsn_tf.data import pipeline
    from ncsn_tf.training import loop, preemption
    from ncsn_tf.training import strategy as strategies
    from ncsn_tf.training.checkpoints import Checkpoints, CheckpointWriteError
    from ncsn_tf.training.run_directory import RunDirectory
    from ncsn_tf.training.summaries import Record
    from ncsn_tf.training.trainer import NonFiniteLossError

    chief = strategies.is_chief(strategy)
    with contextlib.ExitStack() as held:
        with cli.user_mistakes():
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
            strategies.require_agreement(
                strategy, configuration=_fingerprint(_without_paths(config)), images=dataset["checksum"] % 2**31
            )
            trainer = builder.trainer(strategy, source.shape)
            held_out_loss = builder.held_out_loss(trainer, source.shape)
            builder.batches(source, strategy, 0)
        described = f"{source.name}: {len(source)} images {source.shape}; {trainer.network.count_params():,} parameters"
        print(f"{described}; {strategies.describe(strategy)}")
        if _DRY_RUN.value:
            print(f"Dry run: would train to step {builder.training.steps} in {_WORKDIR.value}")
            return

        with cli.user_mistakes():
            if chief:
                directory.open(config, dataset, strategies.describe(strategy))
            checkpoints = Checkpoints(directory.checkpoints, trainer, builder.training.keep_checkpoints)
            checkpoints.restore()
            record = Record(directory, builder.sigmas, writes=chief)
        draw_samples = builder.sample_drawer(trainer.average_score_model.score, source.shape) if chief else None
        held.enter_context(preemption.watch_signals(trainer.stop))
        for notice in preemption.notices(strategy, _MAINTENANCE.value):
            held.enter_context(preemption.watch_notice(notice, trainer.stop))
        try:
            loop.fit(
                trainer,
                lambda step: builder.batches(source, strategy, step),
                builder.training,
                checkpoints=checkpoints,
                record=record,
                probe=next(iter(pipeline.evaluation_batches(source, batch_size=8))),
                held_out_loss=held_out_loss,
                draw_samples=draw_samples,
            )
            strategies.wait_for_everyone(strategy)
        except preemption.Preempted as stopped:
            strategies.wait_for_everyone(strategy)
            code = cli.INTERRUPTED if stopped.signal_number == signal.SIGINT else cli.STOPPED
            cli.fail(f"{stopped} The same command goes on.", code)
        except NonFiniteLossError as error:
            cli.fail(f"{error} {_last(checkpoints)}", cli.FAILURE)
        except CheckpointWriteError as error:
            cli.fail(f"{error} {_last(checkpoints)}", cli.FAILURE)
    if chief:
        print(f"Checkpoints: {directory.checkpoints}")
        print(f"Sample grids: {directory.samples}")
        print(f"Curves: tensorboard --logdir={directory.tensorboard}")


def _last(checkpoints) -> str:
    saved = checkpoints.latest
    return f"The last good checkpoint is {saved}." if saved else "No checkpoint had been written yet."


def _without_paths(config: dict) -> dict:
    """A configuration without what may differ from machine to machine: where the data lie."""
    return {**config, "data": {key: value for key, value in config["data"].items() if key not in ("name", "data_dir")}}


def _fingerprint(config: dict) -> int:
    """A number in [0, 2^31) that tells configurations apart."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:4]) % 2**31


def run() -> None:
    """Entry point of `ncsn-train`."""
    cli.run(main)


if __name__ == "__main__":
    run()
