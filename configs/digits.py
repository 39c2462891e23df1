"""NCSN on scikit-learn's 8x8 digits: the default, which needs no download and no accelerator.

Command:  python -m launch.train --config=configs/digits.py --workdir=runs/digits
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
          :sliced not measured.
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


VARIANTS = {"ncsn": _ncsn, "sliced": _sliced, "ncsnv2": _ncsnv2}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)
