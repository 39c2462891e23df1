"""A network, a trainer and images so small that a test traces and trains them in a blink."""

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, times
from ncsn_tf.config import build, defaults
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.sde import VE
from ncsn_tf.training.checkpoints import Checkpoints
from ncsn_tf.training.optimizers import ReducedAdam
from ncsn_tf.training.run_directory import RunDirectory
from ncsn_tf.training.trainer import Trainer


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


SDE = VE(1.0, 0.01)
TIMES = times.uniform(4)
SHAPE = (4, 4, 1)
SOURCE = ImageSource("noise", random_pixels(40, *SHAPE))
BATCH = 8


class TinyNetwork(keras.Model):
    """Two convolutions and an embedding of the level: traced in a blink."""

    def __init__(self, kernel_size=3):
        super().__init__()
        self.first = keras.layers.Conv2D(3, kernel_size, padding="same", activation="elu")
        self.second = keras.layers.Conv2D(1, 3, padding="same")
        self.scales = keras.layers.Dense(1, use_bias=False)

    def build(self, *shapes):
        self.first.build((None, 4, 4, 1))
        self.second.build((None, 4, 4, 3))
        self.scales.build((None, len(TIMES)))

    def call(self, x, level):
        scale = self.scales(keras.ops.one_hot(level, len(TIMES)))
        return self.second(self.first(x)) * (1.0 + scale[:, :, None, None])


class StandIn(TinyNetwork):
    """The tiny network under the arguments of NCSN, for what a builder makes of a configuration."""

    def __init__(self, channels, num_levels, filters=2, *, rematerialise=False, dtype=None):
        super().__init__()


def make(strategy=None, *, objective=None, decay=0.9, batch_size=BATCH, optimizer=None, **kwargs):
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        networks = []
        for _ in range(2):
            keras.utils.set_random_seed(7)
            networks.append(TinyNetwork())
            networks[-1].build()
        optimizer = ReducedAdam(1e-2, epsilon=1e-8) if optimizer is None else optimizer()
    return Trainer(
        strategy=strategy,
        network=networks[0],
        average=networks[1],
        sde=SDE,
        times=TIMES,
        objective=objective or (lambda score_fn, x, t, z: objectives.annealed_denoising(score_fn, SDE, x, t, z)),
        optimizer=optimizer,
        ema_decay=decay,
        run_seed=0,
        batch_size=batch_size,
        **kwargs,
    )


def batches(trainer, start=0):
    def shard(context):
        return pipeline.training_batches(
            SOURCE,
            global_batch_size=trainer.batch_size,
            seed=0,
            start_step=start,
            num_replicas=context.num_replicas_in_sync,
            pipeline_id=context.input_pipeline_id,
            num_pipelines=context.num_input_pipelines,
        )

    return iter(trainer.strategy.distribute_datasets_from_function(shard))


def run(trainer, steps):
    iterator = batches(trainer, trainer.step)
    return [trainer.run(iterator, 1) for _ in range(steps)]


def save_run(path, steps=(2,), **sections):
    """A run directory of a small network on two levels of the digits, whose weights nobody trained.

    Args:
      path: the directory to make.
      steps: the checkpoints to write, of ever other weights.
      **sections: values to change in a section of the configuration, as dictionaries.

    Returns:
      The trainer.
    """
    config = defaults.ncsn().to_dict()
    config["data"]["name"] = "digits"
    config["network"]["filters"] = 2
    config["noise"] |= {"num_levels": 2, "sigma_min": 0.1}
    config["sampler"] |= {"steps_per_level": 2, "epsilon": 1e-3}
    config["training"] |= {"batch_size": 8, "steps": max(steps), "keep_checkpoints": 9}
    config["evaluation"] |= {"features": "classifier", "num_samples": 6, "batch_size": 4, "held_out_examples": 10}
    for name, values in sections.items():
        config[name] |= values
    builder = build.Builder(config)
    source = builder.load_images("train")
    trainer = builder.trainer(tf.distribute.get_strategy(), source.shape)
    directory = RunDirectory(path)
    directory.open(config, source.describe(), devices="none")
    for step in steps:
        trainer.optimizer.iterations.assign(step)
        for weight in trainer.average.weights:
            weight.assign(weight.value * 1.01)
        Checkpoints(directory.checkpoints, trainer, keep=9).save()
    return trainer
