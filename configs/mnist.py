"""Score networks on MNIST; NCSN is the default.

Command:  python -m launch.train --config=configs/mnist.py --workdir=runs/mnist --data_dir=DIR
          Variants: ncsn (the default), ncsnv2, edm, ve, vp, subvp.
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
          :ncsnv2, :edm, :ve, :vp, :subvp not measured.
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


def _unet(config):
    """The parts that the U-Nets in continuous time share: three resolutions, no attention, 1.7 million weights."""
    _ncsn(config)
    config.data.dequantize = False
    sections.choose(config, "network", "unet")
    config.network.filters = 32
    config.network.multipliers = (1, 2, 2)
    config.network.blocks = 2
    config.network.attention = ()
    config.network.resampling = "plain"
    config.network.progressive_input = "none"
    config.network.embedding = "positional"
    config.network.output_sigmas = "none"
    config.network.dropout = 0.0
    config.optim.learning_rate = 2e-3
    config.optim.decay = "cosine"
    config.optim.decay_steps = 6_000
    config.optim.final_fraction = 0.01
    config.ema.decay = 0.995
    config.training.batch_size = 64
    config.training.steps = 6_000
    config.sampler = sections.section("sampler", "dpm_solver_sde")
    config.sampler.num_steps = 18
    config.sampler.grid = "karras"


def _edm(config):
    """The preconditioning, noise and weights of Karras et al. 2022."""
    _unet(config)
    config.sde.sigma_max = 20.0
    config.sde.sigma_min = 0.005
    sections.choose(config, "times", "log_normal")
    sections.choose(config, "condition", "log_sigma")
    config.condition.scale = 0.25
    sections.choose(config, "output", "edm")
    config.output.sigma_data = 0.33
    config.network.embedding = "fourier"
    config.network.fourier_scale = 1.0
    config.network.centre_input = False
    config.objective.weighting = "output"


def _ve(config):
    """The VE SDE in continuous time; the network divides its output by sigma."""
    _unet(config)
    config.sde.sigma_max = 20.0
    sections.choose(config, "times", "uniform")
    sections.choose(config, "condition", "sigma")
    config.network.embedding = "log_fourier"
    config.network.fourier_scale = 1.0
    config.network.output_sigmas = "condition"


def _vp(config):
    """The VP SDE in continuous time; the network predicts the noise."""
    _unet(config)
    sections.choose(config, "sde", "vp")
    sections.choose(config, "times", "uniform")
    sections.choose(config, "condition", "scaled_time")
    sections.choose(config, "output", "noise")


def _subvp(config):
    """The sub-VP SDE in continuous time; the network predicts the noise."""
    _vp(config)
    sections.choose(config, "sde", "subvp")


VARIANTS = {"ncsn": _ncsn, "ncsnv2": _ncsnv2, "edm": _edm, "ve": _ve, "vp": _vp, "subvp": _subvp}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)
