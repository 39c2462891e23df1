"""Trains a network: python -m launch.train --config=configs/digits.py --workdir=runs/digits

The same command again goes on from the last checkpoint. Any value of the configuration can be set on the command
line, as in --config.optim.learning_rate=1e-4.
"""

from absl import flags
from ml_collections import config_flags

from launch import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "The configuration, for example configs/digits.py.")
flags.mark_flag_as_required("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; made if need be.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS datasets are prepared: config.data.data_dir.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build everything, take no step, write nothing.")


def main() -> None:
    """Trains."""
    from ncsn_tf import build
    from ncsn_tf.data import pipeline
    from ncsn_tf.samplers import driver
    from ncsn_tf.training import loop, strategy
    from ncsn_tf.training.checkpoints import Checkpoints
    from ncsn_tf.training.run_directory import RunDirectory
    from ncsn_tf.training.summaries import Summaries
    from ncsn_tf.training.trainer import NonFiniteLossError

    with cli.user_mistakes():
        config = _CONFIG.value.to_dict()
        if _DATA_DIR.value is not None:
            config["data"]["data_dir"] = _DATA_DIR.value
        builder = build.Builder(config)
        options = builder.training
        devices = strategy.default_strategy()
        source = builder.load_images("train")
        held_out = builder.load_images("held_out") if options.held_out_examples else None
        trainer = builder.trainer(devices, source.shape)
        builder.batches(source, devices, 0)
    parameters = sum(int(weight.shape.num_elements()) for weight in trainer.network.trainable_variables)
    print(
        f"{source.name}: {len(source)} images {source.shape}; network: {parameters:,} parameters; "
        f"{strategy.describe(devices)}"
    )
    if _DRY_RUN.value:
        print(f"Dry run: would train {options.steps} steps of {options.batch_size} images into {_WORKDIR.value}")
        return

    directory = RunDirectory(_WORKDIR.value)
    with cli.user_mistakes():
        directory.open(config, dataset=source.name, images=len(source), shape=source.shape)
        checkpoints = Checkpoints(directory.checkpoints, trainer, options.keep_checkpoints)
    sampler = builder.sampler(trainer.average_score_model.score)

    def draw_samples():
        batch = driver.generate(
            sampler,
            builder.prior(),
            source.shape,
            run_seed=builder.seed,
            num_samples=options.sample_count,
            batch_size=options.sample_count,
        )
        return pipeline.to_uint8(next(batch).x.numpy())

    held_out_batches = None
    if held_out is not None:
        held_out_batches = pipeline.evaluation_batches(
            held_out, batch_size=options.batch_size, limit=options.held_out_examples
        )
    try:
        loop.fit(
            trainer,
            lambda step: builder.batches(source, devices, step),
            options,
            directory=directory,
            checkpoints=checkpoints,
            summaries=Summaries(directory.tensorboard, builder.sigmas),
            held_out=held_out_batches,
            draw_samples=draw_samples,
        )
    except NonFiniteLossError as error:
        cli.fail(f"{error} The last good checkpoint is in {directory.checkpoints}", cli.FAILURE)
    print(
        f"Checkpoints: {directory.checkpoints}\nSample grids: {directory.samples}\n"
        f"Curves: tensorboard --logdir={directory.tensorboard}"
    )


def run() -> None:
    """Entry point of `ncsn-train`."""
    cli.run(main)


if __name__ == "__main__":
    run()
