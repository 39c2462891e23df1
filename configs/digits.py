"""NCSN on scikit-learn's 8x8 digits: the default that needs no network and no accelerator.

Command:  python -m launch.train --config=configs/digits.py --workdir=runs/digits
Hardware: 2 CPU cores.
Time:     not measured.
Result:   not measured.
"""

from ncsn_tf import defaults


def get_config():
    """The paper's configuration, narrower and shorter for small images and little patience."""
    config = defaults.ncsn()
    config.data.name = "digits"
    config.network.filters = 32
    config.training.batch_size = 64
    config.training.steps = 2_000
    config.training.evaluate_every = 500
    config.training.held_out_examples = 296
    config.training.sample_every = 1_000
    config.training.checkpoint_every = 250
    config.sampler.jit_compile = True  # at this size the overhead of ops rules, and XLA has less of it
    return config
