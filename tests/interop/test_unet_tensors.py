"""The architecture of a U-Net, read off lists of tensors that are written here as the authors' program orders them."""

import itertools
import math

import pytest

from ncsn_tf.interop import unet_tensors
from ncsn_tf.interop.torch_files import CheckpointFormatError
from tests.support import score_sde
from tests.support.score_sde import shapes


def test_the_list_written_here_is_that_of_the_published_networks():
    """Numbers of modules and of trained parameters of the authors' configurations."""

    def counts(**options):
        listed = shapes(filters=128, **options)
        trained = sum(math.prod(shape) for name, shape in listed.items() if name != "all_modules.0.W")
        return len({name.split(".")[1] for name in listed}), trained

    cifar10 = {"multipliers": (1, 2, 2, 2), "blocks": 4}
    assert counts(**cifar10, inputs="residual", fir=True) == (59, 62_758_787)
    assert counts(**cifar10, fourier=False) == (55, 61_804_419)
    assert counts(**cifar10 | {"blocks": 2}, block="ddpm", fourier=False) == (37, 35_218_947)
    large = {"multipliers": (1, 1, 2, 2, 2, 2, 2), "blocks": 2, "attention": (4,)}
    assert counts(**large, inputs="input_skip", outputs="output_skip", fir=True) == (77, 65_574_421)


OPTIONS = {
    "block": ("biggan", "ddpm"),
    "inputs": ("none", "input_skip", "residual"),
    "outputs": ("none", "output_skip", "residual"),
    "combiner": ("sum", "cat"),
    "fir": (True, False),
    "convolve": (True, False),
}
NAMES = {"inputs": "progressive_input", "outputs": "progressive_output", "convolve": "resampling_convolution"}


@pytest.mark.parametrize("multipliers", [(1, 2), (2, 1, 2)])
def test_every_combination_of_options_is_told(multipliers):
    for values in itertools.product(*OPTIONS.values()):
        given = dict(zip(OPTIONS, values, strict=True))
        found = unet_tensors.architecture(shapes(multipliers=multipliers, blocks=2, **given))
        assert (found.filters, found.multipliers, found.blocks, found.attention) == (4, multipliers, 2, (1,)), given
        ddpm = given["block"] == "ddpm"
        told = {
            "combiner": given["inputs"] == "input_skip",
            "fir": "residual" in (given["inputs"], given["outputs"]) or (ddpm and given["convolve"]),
            "convolve": ddpm,
        }
        for key, value in given.items():
            assert getattr(found, NAMES.get(key, key)) == (value if told.get(key, True) else None), (key, given)


@pytest.mark.parametrize("fourier", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
def test_the_embedding_and_the_channels_are_told(fourier, conditional):
    found = unet_tensors.architecture(shapes(fourier=fourier, conditional=conditional, channels=1))
    assert found.embedding == ("fourier" if fourier else "positional")
    assert (found.conditional, found.channels) == (conditional, 1)


@pytest.mark.parametrize("attention", [(), (0,), (2,), (0, 1, 2)])
def test_the_levels_with_attention_are_told(attention):
    found = unet_tensors.architecture(shapes(multipliers=(1, 1, 2), attention=attention))
    assert found.attention == attention


@pytest.mark.parametrize("attention", [(), (0,)])
@pytest.mark.parametrize("outputs", ["none", "residual"])
def test_a_single_level_is_told(attention, outputs):
    found = unet_tensors.architecture(shapes(multipliers=(3,), blocks=2, attention=attention, outputs=outputs))
    assert (found.multipliers, found.blocks, found.attention) == ((3,), 2, attention)
    assert found.progressive_output == ("residual" if outputs == "residual" else None)
    assert (found.fir, found.progressive_input, found.combiner) == (None, None, None)


def without(listed, *numbers):
    """The shapes without some modules, the last ones by negative numbers."""
    last = max(int(name.split(".")[1]) for name in listed)
    left_out = [number % (last + 1) for number in numbers]
    return {name: shape for name, shape in listed.items() if int(name.split(".")[1]) not in left_out}


DAMAGES = {
    "no modules": ({"conv.weight": (3, 3)}, "no tensors of all_modules"),
    "no start": (without(shapes(), 3), r"Expected Fourier features, .* Received: all_modules\.0 has W"),
    "a missing block": (without(shapes(blocks=2), 5), r"Expected .*all_modules\."),
    "a missing end": (without(shapes(), -1, -2), r"Expected .*levels of residual blocks"),
    "a block too many": (
        shapes(blocks=2) | {f"all_modules.4.{name}": shape for name, shape in score_sde.attention_block(4).items()},
        r"Expected ",
    ),
    "mixed shortcuts": (shapes() | {"all_modules.10.NIN_0.W": (8, 8)}, "all Conv_2 or all NIN_0"),
    "uneven widths": (
        shapes() | {"all_modules.6.Conv_1.weight": (9, 9, 3, 3), "all_modules.6.GroupNorm_1.weight": (9,)},
        r"multiples of 4\. Received: \[4, 9\]",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_no_such_network_is_refused(kind):
    shapes, match = DAMAGES[kind]
    with pytest.raises(CheckpointFormatError, match=match):
        unet_tensors.architecture(shapes)
