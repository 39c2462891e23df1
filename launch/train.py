"""Trains a network: python -m launch.train --config=configs/digits.py --workdir=runs/digits

The same command again goes on from the last checkpoint, and so does --workdir alone. Any value of the configuration
can be set on the command line, as in --config.optim.learning_rate=1e-4.
"""

from absl import flags
from ml_collections import config_flags

from launch import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "For example configs/digits.py; by default the run's own.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; made if need be.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS datasets are prepared: config.data.data_dir.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build everything, take no step, write nothing.")


def main() -> None:
    """Trains."""
    from ncsn_tf import build
    from ncsn_tf.data import pipeline
    from ncsn_tf.training import loop, strategy
    from ncsn_tf.training.checkpoints import Checkpoints
    from ncsn_tf.training.run_directory import RunDirectory
    from ncsn_tf.training.summaries import Summaries
    from ncsn_tf.training.trainer import NonFiniteLossError

    with cli.user_mistakes():
        directory = RunDirectory(_WORKDIR.value)
        config = _CONFIG.value.to_dict() if _CONFIG.value is not None else directory.config()
        if _DATA_DIR.value is not None:
            config["data"]["data_dir"] = _DATA_DIR.value
        builder = build.Builder(config)
        if _DRY_RUN.value:
            builder.forbid_download()
        devices = strategy.default_strategy()
        source = builder.load_images("train")
        held_out = builder.held_out_batches(devices, source.shape)
        trainer = builder.trainer(devices, source.shape)
        builder.batches(source, devices, 0)
        directory.check(config, source.shape)
    parameters = trainer.network.count_params()
    print(
        f"{source.name}: {len(source)} images {source.shape}; {parameters:,} parameters; {strategy.describe(devices)}"
    )
    if _DRY_RUN.value:
        print(f"Dry run: would train to step {builder.training.steps} in {_WORKDIR.value}")
        return

    with cli.user_mistakes():
        described = {"dataset": source.name, "images": len(source), "shape": source.shape}
        directory.open(config, **described, devices=strategy.describe(devices))
        checkpoints = Checkpoints(directory.checkpoints, trainer, builder.training.keep_checkpoints)
        checkpoints.restore()
    try:
        loop.fit(
            trainer,
            lambda step: builder.batches(source, devices, step),
            builder.training,
            directory=directory,
            checkpoints=checkpoints,
            summaries=Summaries(directory.tensorboard, builder.sigmas),
            probe=next(iter(pipeline.evaluation_batches(source, batch_size=8))),
            held_out=held_out,
            draw_samples=builder.sample_drawer(trainer.average_score_model.score, source.shape),
        )
    except NonFiniteLossError as error:
        saved = checkpoints.latest
        left = f"The last good checkpoint is {saved}." if saved else "No checkpoint had been written yet."
        cli.fail(f"{error} {left}", cli.FAILURE)
    print(f"Checkpoints: {directory.checkpoints}")
    print(f"Sample grids: {directory.samples}")
    print(f"Curves: tensorboard --logdir={directory.tensorboard}")


def run() -> None:
    """Entry point of `ncsn-train`."""
    cli.run(main)


if __name__ == "__main__":
    run()
