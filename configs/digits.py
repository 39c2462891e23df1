"""NCSN on scikit-learn's 8x8 digits: the default that needs no network and no accelerator.

Command:  python -m launch.train --config=configs/digits.py --workdir=runs/digits
Hardware: 2 CPU cores.
Time:     not measured.
Result:   not measured.

Noise levels and sampler as in the paper for MNIST (Song & Ermon 2019, section 5: sigma 1 to 0.01 in 10 levels, T = 100,
epsilon = 2e-5, Adam at 0.001, batch 128); network and run are smaller, for small images and patience.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The configuration, every key that there is."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    config.data.name = "digits"
    config.data.data_dir = ml_collections.config_dict.placeholder(str)
    config.data.image_size = ml_collections.config_dict.placeholder(int)
    config.data.center_crop = ml_collections.config_dict.placeholder(int)
    config.data.channels = ml_collections.config_dict.placeholder(int)
    config.data.download = False
    config.data.memory_limit_gib = 8.0
    config.data.random_flip = False
    config.data.dequantize = True

    config.noise = ml_collections.ConfigDict()
    config.noise.sigma_max = 1.0
    config.noise.sigma_min = 0.01
    config.noise.num_levels = 10

    config.network = ml_collections.ConfigDict()
    config.network.name = "ncsn"
    config.network.filters = 32
    config.network.dtype = "float32"

    config.objective = ml_collections.ConfigDict()
    config.objective.name = "denoising"
    config.objective.sigma_power = 2.0

    config.optim = ml_collections.ConfigDict()
    config.optim.learning_rate = 1e-3
    config.optim.beta_1 = 0.9
    config.optim.beta_2 = 0.999
    config.optim.epsilon = 1e-8

    config.ema = ml_collections.ConfigDict()
    config.ema.decay = 0.999

    config.training = ml_collections.ConfigDict()
    config.training.steps = 5000
    config.training.batch_size = 64
    config.training.steps_per_loop = 100
    config.training.evaluate_every = 1000
    config.training.held_out_examples = 300
    config.training.sample_every = 2500
    config.training.sample_count = 64
    config.training.checkpoint_every = 500
    config.training.keep_checkpoints = 3
    config.training.jit_compile = True

    config.sampler = ml_collections.ConfigDict()
    config.sampler.name = "annealed_langevin"
    config.sampler.epsilon = 2e-5
    config.sampler.steps_per_level = 100
    config.sampler.prior = "uniform"
    config.sampler.denoise = False
    config.sampler.jit_compile = True
    return config
