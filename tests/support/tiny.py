"""A network, a trainer and images that are small enough for a test to trace and train in seconds."""

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, score, time_draws, times
from ncsn_tf.config import build, sections
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.score import ScoreModel
from ncsn_tf.sde import VE
from ncsn_tf.training.checkpoints import Checkpoints
from ncsn_tf.training.optimizers import ReducedAdam
from ncsn_tf.training.run_directory import RunDirectory
from ncsn_tf.training.trainer import Trainer


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


SDE = VE(sigma_max=1.0, sigma_min=0.01)
TIMES = times.uniform(4)
BINS = ("level_0", "level_1", "level_2", "level_3")
SHAPE = (4, 4, 1)
SOURCE = ImageSource("noise", random_pixels(40, *SHAPE))
BATCH = 8


class TinyNetwork(keras.Model):
    """Two convolutions and an embedding of the level: traced in a blink."""

    def __init__(self, kernel_size=3, seed=7):
        super().__init__()
        start = [keras.initializers.GlorotUniform(seed=3 * seed + number) for number in range(3)]
        self.first = keras.layers.Conv2D(3, kernel_size, padding="same", activation="elu", kernel_initializer=start[0])
        self.second = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer=start[1])
        self.scales = keras.layers.Dense(1, use_bias=False, kernel_initializer=start[2])

    def build(self, *shapes):
        self.first.build((None, 4, 4, 1))
        self.second.build((None, 4, 4, 3))
        self.scales.build((None, len(TIMES)))

    def call(self, x, condition, labels=None, dropout_seeds=None):
        scale = self.scales(keras.ops.one_hot(condition, len(TIMES)))
        return self.second(self.first(2.0 * x - 1.0)) * (1.0 + scale[:, :, None, None])


def stand_in(keys, *, channels, seed, centre_input, levels):
    """The tiny network in place of NCSN, for what a builder makes of a configuration."""
    return TinyNetwork(seed=seed)


class TimelessNetwork(keras.Model):
    """One convolution, for runs in continuous time whose samplers many graphs are traced of."""

    def __init__(self, channels):
        super().__init__()
        start = keras.initializers.GlorotUniform(seed=7)
        self.only = keras.layers.Conv2D(channels, 3, padding="same", kernel_initializer=start)

    def build(self, *shapes):
        self.only.build((None, 8, 8, self.only.filters))

    def call(self, x, condition, labels=None, dropout_seeds=None):
        return 0.1 * self.only(x)


def timeless(keys, *, channels, seed, centre_input, levels):
    """That network in place of a U-Net, as `stand_in` is in place of NCSN."""
    return TimelessNetwork(channels)


def model(network):
    """A network as the score model of the tiny levels."""
    return ScoreModel(network, SDE, condition=score.nearest_level(TIMES))


def sampler(steps_per_level=5, **options):
    """Annealed Langevin dynamics over the tiny levels."""
    noise = {"noise": options.pop("noise")} if "noise" in options else {}
    step = langevin.Langevin(langevin.annealed(SDE, 2e-5), **noise)
    return driver.FixedSteps(SDE, step, times.repeat_times(TIMES, steps_per_level), segments=len(TIMES), **options)


def make(
    strategy=None,
    *,
    objective=None,
    decay=0.9,
    batch_size=BATCH,
    optimizer=None,
    network=TinyNetwork,
    model=model,
    draw=None,
    **kwargs,
):
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        networks = [network() for _ in range(2)]
        for built in networks:
            built.build()
        optimizer = ReducedAdam(1e-2, epsilon=1e-8) if optimizer is None else optimizer()
    return Trainer(
        strategy=strategy,
        model=model(networks[0]),
        average_model=model(networks[1]),
        draw=draw or time_draws.Levels(TIMES, BINS),
        objective=objective or (lambda score_fn, x, t, z: objectives.annealed_denoising(score_fn, SDE, x, t, z)),
        optimizer=optimizer,
        ema_decay=decay,
        run_seed=0,
        batch_size=batch_size,
        **kwargs,
    )


def batches(trainer, start=0):
    return iter(
        pipeline.distributed_training_batches(
            SOURCE, trainer.strategy, global_batch_size=trainer.batch_size, seed=0, start_step=start
        )
    )


def run(trainer, steps):
    iterator = batches(trainer, trainer.step)
    return [trainer.run(iterator, 1) for _ in range(steps)]


def save_run(path, steps=(2,), config=None, **changes):
    """A run directory of a small network on two levels of the digits, with untrained weights.

    Args:
      path: the directory to make.
      steps: the checkpoints to write, each with other weights.
      config: another configuration to start from, as plain values.
      **changes: values to change in a section of the configuration, as dictionaries.

    Returns:
      The trainer.
    """
    config = config or _digits_at_levels(max(steps))
    for name, values in changes.items():
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


def _digits_at_levels(steps):
    config = sections.ncsn().to_dict()
    config["data"]["name"] = "digits"
    config["network"]["filters"] = 2
    config["times"]["num_levels"] = 2
    config["sde"]["sigma_min"] = 0.1
    config["sampler"] |= {"steps_per_level": 2, "epsilon": 1e-3}
    config["training"] |= {"batch_size": 8, "steps": steps, "keep_checkpoints": 9}
    config["evaluation"] |= {"features": "classifier", "num_samples": 6, "batch_size": 4, "held_out_examples": 10}
    return config


def flow_config():
    """A small U-Net in continuous time under the VP SDE; its score is nearly 0 at first, so that x / alpha stays."""
    config = sections.ncsn()
    config.data.name = "digits"
    config.training.update({"batch_size": 8, "steps": 2, "keep_checkpoints": 9})
    for name, choice in (("sde", "vp"), ("times", "uniform"), ("output", "noise"), ("condition", "scaled_time")):
        sections.choose(config, name, choice)
    sections.choose(config, "network", "unet")
    config.network.update({"filters": 4, "multipliers": (1,), "blocks": 1, "attention": ()})
    config.network.update({"embedding": "positional", "output_sigmas": "none", "progressive_input": "none"})
    config.sampler = sections.section("sampler", "heun")
    return config.to_dict()
