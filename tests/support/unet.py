"""U-Nets small enough for tests, with the arguments that make them DDPM, DDPM++ or NCSN++."""

import functools

import numpy as np

from ncsn_tf.networks.unet import UNet

NCSNPP = {"progressive_input": "residual", "output_sigmas": "condition"}
DDPMPP = {"resampling": "plain", "embedding": "positional", "centre_input": False}
DDPM = {**DDPMPP, "blocks": 2, "block": "ddpm", "rescale_skips": False, "groups": 32}
PYRAMIDS = {"progressive_input": "input_skip", "progressive_output": "output_skip", "output_sigmas": "condition"}
TINY = {"filters": 4, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "init_scale": 1.0, "seed": 1}
"""Two levels of 8x8 and 4x4, whose branches do not start at zero."""


def images(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@functools.cache
def built(size=(8, 8), randomised=False, **options):
    """A network that tests share and leave as it is; `randomised` moves all its weights, biases and table included."""
    network = UNet(2, **{**TINY, **options})
    network.build((None, *size, 2), (None,))
    if randomised:
        generator = np.random.default_rng(0)
        network.set_weights([weight + generator.normal(0.0, 0.2, weight.shape) for weight in network.get_weights()])
    return network
