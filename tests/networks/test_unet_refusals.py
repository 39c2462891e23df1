"""Arguments and images that the U-Net refuses, each with a message that names what was received."""

import numpy as np
import pytest

from ncsn_tf.networks.unet import UNet
from tests.support.unet import TINY, built, images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "`channels` to be an integer of at least 1. Received: 0"),
        ({"filters": 3}, "`filters` to be an integer of at least 4. Received: 3"),
        ({"filters": 8.0}, "`filters` to be an integer of at least 4. Received: 8.0"),
        ({"blocks": 0}, "`blocks` to be an integer of at least 1. Received: 0"),
        ({"groups": 0}, "`groups` to be an integer of at least 1. Received: 0"),
        ({"num_classes": 0}, "`num_classes` to be an integer of at least 1. Received: 0"),
        ({"multipliers": ()}, r"a multiplier .* Received: \(\)"),
        ({"multipliers": (1, 0)}, r"`multipliers` to be positive integers. Received: \(1, 0\)"),
        ({"attention": 16}, r"`attention` to be positive integers. Received: 16"),
        ({"multipliers": 2}, r"`multipliers` to be positive integers. Received: 2"),
        ({"attention": (4.5,)}, r"`attention` to be positive integers. Received: \(4.5,\)"),
        ({"dropout": 1.0}, r"`dropout` to be in \[0, 1\), 0 for none. Received: 1.0"),
        ({"init_scale": -1.0}, "`init_scale` of at least 0 .* Received: -1.0, 16.0"),
        ({"fourier_scale": 0}, "`fourier_scale` above 0. Received: 1.0, 0"),
        ({"block": "resnet"}, "`block` to be one of biggan, ddpm. Received: 'resnet'"),
        ({"resampling": True}, "`resampling` to be one of fir, plain. Received: True"),
        ({"progressive_input": "skip"}, "none, input_skip, residual. Received: 'skip'"),
        ({"progressive_output": "skip"}, "none, output_skip, residual. Received: 'skip'"),
        ({"combiner": "mean"}, "sum, cat. Received: 'mean'"),
        ({"embedding": "cosine"}, "log_fourier, fourier, positional, none. Received: 'cosine'"),
        ({"output_sigmas": "sigma"}, "'condition', or the largest .* Received: 'sigma'"),
        ({"output_sigmas": (0.01, 50.0, 10)}, r"Received: \(0.01, 50.0, 10\)"),
        ({"seed": -1}, "non-negative integer or None. Received: -1"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{"channels": 2, **TINY, **options})


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((None, None, None, 2), {}, r"\[B, H, W, 2\] of one size. Received: \(None, None, None, 2\)"),
        ((None, 8, 8, 3), {}, r"\[B, H, W, 2\] of one size. Received: \(None, 8, 8, 3\)"),
        ((None, 8, 9, 2), {}, "2 must divide height and width.*Received: 8x9"),
        ((None, 8, 8, 2), {"attention": (8, 16)}, "shorter sides are 8, 4: .* Received: 8, 16"),
        ((None, 8, 8, 2), {"filters": 18}, "choose `groups`.* Received: 18 feature maps, 4 groups"),
        ((None, 8, 8, 2), {"groups": 3}, "Received: 4 feature maps, 3 groups"),
    ],
)
def test_impossible_images_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        UNet(2, **{**TINY, **options}).build(shape, (None,))


def test_images_of_another_size_are_refused():
    network = built()
    with pytest.raises(ValueError, match=r"built for images of \(8, 8, 2\).*Received: images of \(16, 16, 2\)"):
        network(images((1, 16, 16, 2)), np.ones(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"condition": np.ones(1)}, r"`condition` must have one entry per image, 2. Received: \(1,\)"),
        ({"labels": np.array([1])}, r"`labels` must have one entry per image, 2. Received: \(1,\)"),
        ({"labels": np.array([0.5, 1.0])}, "Labels are integers; cast them. Received: .*float"),
    ],
)
def test_entries_that_are_not_one_per_image_are_refused(arguments, message):
    network = built(num_classes=3, embedding="positional")
    with pytest.raises(ValueError, match=message):
        network(images((2, 8, 8, 2)), **{"condition": np.ones(2), **arguments})
