"""NCSN on MNIST.

Command:  python -m launch.train --config=configs/mnist.py --workdir=runs/mnist --data_dir=DIR
Hardware: 2 CPU cores.
Time:     not measured.
Result:   not measured.
"""

from ncsn_tf import defaults


def get_config():
    """The paper's configuration, narrower (24 filters for 64) and shorter, for two cores and an hour or two."""
    config = defaults.ncsn()
    config.data.name = "mnist"
    config.network.filters = 24
    config.training.batch_size = 32
    config.training.steps = 10_000
    config.training.steps_per_loop = 50
    config.training.held_out_examples = 512
    config.training.sample_every = 3_000
    config.training.sample_count = 36
    config.training.checkpoint_every = 500
    return config
