"""NCSN on MNIST.

Command:  python -m launch.train --config=configs/mnist.py --workdir=runs/mnist --data_dir=DIR
Hardware: 2 CPU cores.
Time:     1 hour 21 minutes, during which other work shared the cores; 2.5 minutes for 64 samples.
Result:   held-out loss of the averaged weights 63.8, 41.6, 36.4, 34.9, 34.2, 33.8, 33.4, 33.1, 32.9, 32.7 an image
          after 1,000, 2,000, ... 10,000 steps; docs/mnist_grid.png shows 64 samples (launch.sample, seed 0).
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
    config.evaluation.features = "classifier"
    config.evaluation.num_samples = 1_000
    return config
