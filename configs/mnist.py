"""NCSN on MNIST.

Command:  python -m launch.train --config=configs/mnist.py --workdir=runs/mnist --data_dir=DIR
Hardware: 2 CPU cores.
Time:     1 hour 21 minutes, during which other work shared the cores; 2.5 minutes for 64 samples.
Result:   held-out loss of the averaged weights 56.6, 37.8, 33.5, 32.2, 31.6, 31.2, 30.9, 30.7, 30.4, 30.2 per image
          after 1,000, 2,000, ... 10,000 steps, in a second training, which was interrupted twice. The time above and
          the trajectories in docs/ are from the first training, by an earlier commit, which ended at 32.7.
          launch.evaluate --num_samples=400 --classifier_path=DIR (seed 0, against the 60,000 training images, by a
          classifier of launch.train_classifier, 99.32 % right on held-out images): classifier_score 6.39 +- 0.69,
          classifier_fid 2.39, classifier_kid 0.023 +- 0.010, classifier_precision 0.68, classifier_recall 0.90. With
          few samples, the score is too small and classifier_fid too large: 980 held-out images have 9.28 and 0.12
          (docs/evaluation.md). No copies: a sample is nearer to the training images than a held-out image is with
          probability 0.30 in pixels, 0.25 in features. Held-out loss of 1,000 images, each at every level, 31.3.
          docs/mnist_grid.png shows the first 64 of the samples. They took two hours, with other work on the cores.
          :ncsnv2 not measured.
"""

from ncsn_tf.config import sections


def _ncsn(config):
    """The paper's configuration, narrower (24 filters for 64) and shorter, for two cores and an hour or two."""
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


def _ncsnv2(config):
    """NCSNv2 with the levels and the step size that launch.choose finds for MNIST, narrow and short."""
    _ncsn(config)
    config.sde.sigma_max = 16.9
    config.times.num_levels = 100
    sections.choose(config, "network", "ncsnv2")
    sections.choose(config, "output", "score_over_sigma")
    sections.choose(config, "condition", "none")
    config.optim.learning_rate = 1e-3
    config.sampler.epsilon = 2.15e-5
    config.sampler.steps_per_level = 5
    config.sampler.denoise = True


VARIANTS = {"ncsn": _ncsn, "ncsnv2": _ncsnv2}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)
