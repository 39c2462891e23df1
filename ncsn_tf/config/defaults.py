"""The configuration of the paper, key by key: what the files in `configs/` start from and depart from."""

from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder


def ncsn() -> ml_collections.ConfigDict:
    """NCSN as Song & Ermon 2019 train it on CIFAR-10 and CelebA; every key that a configuration can have.

    What the paper gives (section 5 and appendix A): 10 levels from 1 to 0.01, Adam at 0.001, batches of 128, 200,000
    steps, 128 filters, T = 100, epsilon = 2e-5, a uniform start. The average of the weights is an addition; samples
    come from it.
    """
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.data = data = ml_collections.ConfigDict()
    data.name = "cifar10"  # "digits", a TFDS dataset, or a path to images or TFRecords
    data.data_dir = placeholder(str)  # where TFDS datasets are prepared
    data.download = False  # whether TFDS may download and prepare
    data.image_size = placeholder(object)  # a side, or (height, width); None keeps the dataset's
    data.center_crop = placeholder(int)  # side of a square cut out before resizing
    data.channels = placeholder(int)  # 1 or 3 converts
    data.memory_limit_gib = 8.0
    data.random_flip = False
    data.dequantize = True

    config.noise = noise = ml_collections.ConfigDict()
    noise.sigma_max = 1.0
    noise.sigma_min = 0.01
    noise.num_levels = 10

    config.network = network = ml_collections.ConfigDict()
    network.name = "ncsn"
    network.filters = 128
    network.dtype = "float32"  # or "mixed_bfloat16", "mixed_float16"
    network.rematerialise = False  # compute activations again in the backward pass: less memory, more time

    config.objective = objective = ml_collections.ConfigDict()
    objective.name = "denoising"  # or "sliced", "exact"
    objective.sigma_power = 2.0
    objective.slices = placeholder(str)  # of "sliced": "normal" (its default), "rademacher", "spherical"
    objective.num_slices = placeholder(int)  # of "sliced", 1 by default
    objective.variance_reduced = placeholder(bool)  # of "sliced", False by default
    objective.directions_at_once = placeholder(int)  # of "exact": together, for time, or one by one, for memory

    config.optim = optim = ml_collections.ConfigDict()
    optim.learning_rate = 1e-3
    optim.beta_1 = 0.9
    optim.beta_2 = 0.999
    optim.epsilon = 1e-8
    optim.clip_norm = placeholder(float)  # the largest Euclidean norm of the global gradient
    optim.warmup_steps = 0  # the learning rate rises linearly over so many steps
    optim.decay = placeholder(str)  # "cosine", "linear" or "exponential"; None keeps the rate
    optim.decay_steps = placeholder(int)  # how long the decay takes, from step 0
    optim.final_fraction = 0.0  # of the learning rate, where the decay ends

    config.ema = ml_collections.ConfigDict()
    config.ema.decay = 0.999

    config.training = training = ml_collections.ConfigDict()
    training.steps = 200_000
    training.batch_size = 128
    training.steps_per_loop = 100
    training.evaluate_every = 1_000
    training.held_out_examples = 1_000
    training.sample_every = 10_000
    training.sample_count = 64
    training.checkpoint_every = 1_000
    training.keep_checkpoints = 3
    training.jit_compile = False
    training.accumulation = 1  # parts that a replica's batch is taken in, one after the other: less memory

    config.sampler = sampler = ml_collections.ConfigDict()
    sampler.name = "annealed_langevin"  # or "langevin"
    sampler.epsilon = 2e-5
    sampler.steps_per_level = 100
    sampler.num_levels = placeholder(int)  # visit so many of the levels, evenly spread; None visits all
    sampler.prior = "uniform"  # or "normal"
    sampler.denoise = False
    sampler.jit_compile = False

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.features = "inception"  # or "classifier"
    evaluation.num_samples = 50_000
    evaluation.batch_size = 100  # what a replica draws at a time
    evaluation.held_out_examples = 1_000
    return config


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of an older release, with the defaults of the keys that have come since.

    Args:
      config: plain values in nested dicts; not changed.
    """
    return _merged(ncsn().to_dict(), config)


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in given.items():
        nested = isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping)
        merged[key] = _merged(defaults[key], value) if nested else value
    return merged
