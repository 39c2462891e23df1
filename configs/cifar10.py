"""Score networks on CIFAR-10, as the papers train them.

Command:  python -m launch.train --config=configs/cifar10.py:ncsn --workdir=runs/cifar10 --data_dir=DIR
          Variants: ncsn (the default), ncsnv2, ddpm, ddpmpp, ddpmpp_vp, ddpmpp_subvp, ddpmpp_deep, ncsnpp,
          ncsnpp_continuous, ncsnpp_deep.
Hardware: the papers do not say; meant for one host with several GPUs.
Time:     not measured.
Result:   not measured. The papers report these Inception scores and FIDs: NCSN 8.87, 25.32; NCSNv2 8.40, 10.87; DDPM in
          the program of Song et al. 2021 FID 3.24; DDPM++ 9.64, 2.78; in continuous time on VP 9.58, 2.55, on sub-VP
          9.56, 2.61, deep on VP 9.68, 2.41; NCSN++ 9.73, 2.45; in continuous time 9.83, 2.38, deep 9.89, 2.20. These
          configurations sample as the authors' do: NCSN++ by reverse diffusion with a Langevin corrector, whose steps
          here follow from each sample's own score, DDPM++ in continuous time by Euler-Maruyama, DDPM and DDPM++ at
          levels by ancestral sampling.
"""

from ncsn_tf.config import sections


def _ncsn(config):
    """The paper's configuration; images are mirrored at random, as the official program does."""
    config.data.name = "cifar10"
    config.data.random_flip = True


def _ncsnv2(config):
    """Song & Ermon 2020: levels by Techniques 1 and 2, steps by Technique 4; epsilon is twice the program's step_lr."""
    _ncsn(config)
    config.data.dequantize = False
    config.sde.sigma_max = 50.0
    config.times.num_levels = 232
    sections.choose(config, "network", "ncsnv2")
    sections.choose(config, "output", "score_over_sigma")
    sections.choose(config, "condition", "none")
    config.optim.learning_rate = 1e-4
    config.training.steps = 300_000
    config.sampler.epsilon = 1.24e-5
    config.sampler.steps_per_level = 5
    config.sampler.denoise = True


def _song_2021(config):
    """The parts that the configurations of Song et al. 2021 on CIFAR-10 share (appendices C, G and H)."""
    _ncsn(config)
    config.data.dequantize = False
    sections.choose(config, "network", "unet")
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 5_000
    config.optim.clip_norm = 1.0
    config.training.steps = 1_300_000
    config.sampler = sections.section("sampler", "ancestral")


def _ncsnpp(config):
    """NCSN++ at 1,000 noise levels, whose index it embeds; it divides its output by sigma."""
    _song_2021(config)
    config.sde.sigma_max = 50.0
    config.times.num_levels = 1_000
    config.network.embedding = "positional"
    config.network.output_sigmas = "levels"
    config.sampler = sections.section("sampler", "predictor_corrector")


def _ncsnpp_continuous(config):
    """NCSN++ in continuous time."""
    _song_2021(config)
    config.sde.sigma_max = 50.0
    sections.choose(config, "times", "uniform")
    sections.choose(config, "condition", "sigma")
    config.sampler = sections.section("sampler", "predictor_corrector")
    config.sampler.last_time = 1e-5


def _ncsnpp_deep(config):
    """NCSN++ in continuous time with twice the blocks."""
    _ncsnpp_continuous(config)
    config.network.blocks = 8
    config.training.steps = 950_000


def _vp(config):
    """The parts that the VP configurations share: images in [-1, 1], and a network that predicts the noise."""
    _song_2021(config)
    sections.choose(config, "sde", "vp")
    sections.choose(config, "output", "noise")
    config.network.resampling = "plain"
    config.network.progressive_input = "none"
    config.network.embedding = "positional"
    config.network.output_sigmas = "none"
    config.objective.per_dimension = True
    config.ema.decay = 0.9999
    config.sampler.variance = "transition"


def _ddpm_levels(config):
    """DDPM's 1,000 levels, whose number the network embeds."""
    sections.choose(config, "times", "ddpm_levels")
    config.times.num_levels = 1_000
    sections.choose(config, "condition", "ddpm_step")


def _ddpm(config):
    """DDPM as Song et al. 2021 train it; the program of Ho et al. 2020 has a slightly larger network."""
    _vp(config)
    _ddpm_levels(config)
    config.network.block = "ddpm"
    config.network.blocks = 2
    config.network.groups = 32
    config.network.rescale_skips = False


def _ddpmpp(config):
    """DDPM++ at DDPM's levels."""
    _vp(config)
    _ddpm_levels(config)


def _ddpmpp_vp(config):
    """DDPM++ in continuous time on the VP SDE."""
    _vp(config)
    sections.choose(config, "times", "uniform")
    sections.choose(config, "condition", "scaled_time")
    config.sampler = sections.section("sampler", "euler_maruyama")


def _ddpmpp_subvp(config):
    """DDPM++ in continuous time on the sub-VP SDE."""
    _ddpmpp_vp(config)
    sections.choose(config, "sde", "subvp")


def _ddpmpp_deep(config):
    """DDPM++ in continuous time on the VP SDE with twice the blocks."""
    _ddpmpp_vp(config)
    config.network.blocks = 8
    config.training.steps = 950_000


VARIANTS = {
    "ncsn": _ncsn,
    "ncsnv2": _ncsnv2,
    "ddpm": _ddpm,
    "ddpmpp": _ddpmpp,
    "ddpmpp_vp": _ddpmpp_vp,
    "ddpmpp_subvp": _ddpmpp_subvp,
    "ddpmpp_deep": _ddpmpp_deep,
    "ncsnpp": _ncsnpp,
    "ncsnpp_continuous": _ncsnpp_continuous,
    "ncsnpp_deep": _ncsnpp_deep,
}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)
