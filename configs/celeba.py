"""Score networks on CelebA: NCSN at 32x32, NCSNv2 and NCSN++ at 64x64, as the papers train them.

Command:  python -m launch.train --config=configs/celeba.py:ncsn --workdir=runs/celeba --data_dir=DIR
          Variants: ncsn (the default), ncsnv2, ncsnpp.
Hardware: the papers do not say; meant for one host with several GPUs.
Time:     not measured.
Result:   not measured. NCSNv2's paper reports an FID of 10.23; those of NCSN and NCSN++ report none for CelebA.
"""

from ncsn_tf.config import sections


def _ncsn(config):
    """The paper's configuration; faces are cut to 140 pixels, resized, and mirrored at random."""
    config.data.name = "celeb_a"
    config.data.center_crop = 140
    config.data.image_size = 32
    config.data.random_flip = True


def _at_64_pixels(config):
    """The data and the noise range that NCSNv2 and NCSN++ share."""
    _ncsn(config)
    config.data.image_size = 64
    config.data.dequantize = False
    config.sde.sigma_max = 90.0


def _ncsnv2(config):
    """Song & Ermon 2020: levels by Techniques 1 and 2, steps by Technique 4; epsilon is twice the program's step_lr."""
    _at_64_pixels(config)
    config.times.num_levels = 500
    sections.choose(config, "network", "ncsnv2")
    sections.choose(config, "output", "score_over_sigma")
    sections.choose(config, "condition", "none")
    config.optim.learning_rate = 1e-4
    config.training.steps = 210_000
    config.sampler.epsilon = 6.6e-6
    config.sampler.steps_per_level = 5
    config.sampler.denoise = True


def _ncsnpp(config):
    """NCSN++ at 1,000 noise levels, as the program of Song et al. 2021 trains it and samples from it."""
    _at_64_pixels(config)
    config.times.num_levels = 1_000
    sections.choose(config, "network", "unet")
    config.network.embedding = "positional"
    config.network.output_sigmas = "levels"
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 5_000
    config.optim.clip_norm = 1.0
    config.training.steps = 1_300_000
    config.sampler = sections.section("sampler", "predictor_corrector")
    config.sampler.ratio = 0.17


VARIANTS = {"ncsn": _ncsn, "ncsnv2": _ncsnv2, "ncsnpp": _ncsnpp}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)
