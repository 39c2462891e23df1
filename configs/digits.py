"""Score networks on scikit-learn's 8x8 digits; NCSN, the default, needs no download and no accelerator.

Command:  python -m launch.train --config=configs/digits.py --workdir=runs/digits
          Variants: ncsn (the default), sliced, ncsnv2, edm, ve, vp, subvp, classes.
Hardware: 2 CPU cores.
Time:     4.6 minutes, including the sample grids; another 40 seconds for launch.sample's 100 samples.
Result:   held-out loss of the averaged weights 13.2, 11.5, 10.6, 10.1 per image after 500, 1,000, 1,500, 2,000 steps.
          Among 100 samples (launch.sample, seed 0) a support vector classifier trained on the real digits counts
          7 18 10 10 5 7 16 8 4 15 of the digits 0 to 9; docs/digits_grid.png shows them.
          launch.evaluate (1,000 samples, seed 0, against the 1,501 training images, by the digits' own classifier):
          classifier_score 6.61 +- 0.21 (held-out images: 8.10), classifier_fid 1.47 (held-out images: 0.17), at
          infinitely many samples 1.35 +- 0.10, classifier_kid 0.037 +- 0.008, classifier_precision 0.53,
          classifier_recall 0.89. No copies: a sample is nearer to the training images than a held-out image is with
          probability 0.24 in pixels, 0.28 in features. Held-out loss with every image at every level 10.67.
          :ncsnv2 (22 levels from 4.82, 111 evaluations per sample; 30 minutes, during which other work shared the
          cores): held-out loss 9.53, 8.62, 8.18, 7.89 after the same steps, of other levels than NCSN's. By
          launch.evaluate as above: classifier_score 5.48 +- 0.35, classifier_fid 2.44, at infinitely many samples
          2.37 +- 0.16, classifier_kid 0.067 +- 0.011, classifier_precision 0.40, classifier_recall 0.88, no copies:
          0.13 in pixels, 0.16 in features. Among 100 samples some strokes are smudged.
          :edm (19 evaluations per sample; 16 minutes, during which other work shared the cores): held-out loss 9.66,
          9.15, 8.92, 8.82, 8.74, 8.72 after 500 to 3,000 steps, of other noise than NCSN's. By launch.evaluate as
          above: classifier_score 8.36 +- 0.33, classifier_fid 0.21, at infinitely many samples 0.05 +- 0.11,
          classifier_kid 0.006 +- 0.007, classifier_precision 0.80, classifier_recall 0.94, no copies: 0.46 in pixels,
          0.50 in features. docs/samplers.md has other samplers.
          :vp, :ve, :subvp (19 evaluations per sample; 13, 15 and 13 minutes, shared as above): held-out loss 3.03,
          2.82, 2.69, 2.64, 2.59, 2.57; 7.28, 6.78, 6.54, 6.38, 6.30, 6.28; 4.53, 4.17, 3.94, 3.84, 3.72, 3.70 after 500
          to 3,000 steps, each of its own noise. By launch.evaluate as above: classifier_fid 0.17, 0.34, 0.30, at
          infinitely many samples 0.03 +- 0.06, 0.23 +- 0.10, 0.20 +- 0.08, classifier_precision 0.71, 0.68, 0.61,
          classifier_recall 0.94, 0.94, 0.95, no copies: 0.37, 0.34, 0.30 in pixels.
          :sliced, :classes not measured.
"""

from ncsn_tf.config import sections


def _ncsn(config):
    """The paper's configuration, narrower and shorter, for small images and a short run."""
    config.data.name = "digits"
    config.network.filters = 32
    config.training.batch_size = 64
    config.training.steps = 2_000
    config.training.evaluate_every = 500
    config.training.held_out_examples = 296
    config.training.sample_every = 1_000
    config.training.checkpoint_every = 250
    config.evaluation.features = "classifier"
    config.evaluation.num_samples = 1_000
    config.evaluation.held_out_examples = 296
    config.sampler.jit_compile = True  # at this size the overhead of ops dominates, and XLA reduces it


def _sliced(config):
    """The same network, trained by sliced score matching with Rademacher slices."""
    _ncsn(config)
    config.objective = sections.section("objective", "sliced")
    config.objective.slices = "rademacher"
    config.objective.variance_reduced = True


def _ncsnv2(config):
    """NCSNv2 with the levels and the step size that launch.choose finds for the digits."""
    _ncsn(config)
    config.sde.sigma_max = 4.82
    config.times.num_levels = 22
    sections.choose(config, "network", "ncsnv2")
    sections.choose(config, "output", "score_over_sigma")
    sections.choose(config, "condition", "none")
    config.sampler.epsilon = 4.7e-5
    config.sampler.steps_per_level = 5
    config.sampler.denoise = True


def _unet(config):
    """The parts that the U-Nets in continuous time share: 0.9 million weights, two resolutions, no attention."""
    _ncsn(config)
    config.data.dequantize = False
    sections.choose(config, "network", "unet")
    config.network.filters = 32
    config.network.multipliers = (1, 2)
    config.network.blocks = 2
    config.network.attention = ()
    config.network.resampling = "plain"
    config.network.progressive_input = "none"
    config.network.embedding = "positional"
    config.network.output_sigmas = "none"
    config.network.dropout = 0.0
    config.optim.learning_rate = 2e-3
    config.optim.decay = "cosine"
    config.optim.decay_steps = 3_000
    config.optim.final_fraction = 0.01
    config.ema.decay = 0.99
    config.training.steps = 3_000
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
    config.output.sigma_data = 0.5
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


def _classes(config):
    """The U-Net of the VP SDE with the classes of the digits; a tenth of the examples are trained without."""
    _vp(config)
    config.network.num_classes = 10
    config.network.label_dropout = 0.1


VARIANTS = {
    "ncsn": _ncsn,
    "sliced": _sliced,
    "ncsnv2": _ncsnv2,
    "edm": _edm,
    "ve": _ve,
    "vp": _vp,
    "subvp": _subvp,
    "classes": _classes,
}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)
