"""The U-Net's parts and options: the authors' outputs and sizes, every variant, the condition, classes and dropout."""

import json
import math
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from ncsn_tf.networks.embeddings import FourierFeatures
from ncsn_tf.networks.unet import UNet
from ncsn_tf.networks.unet_blocks import Attention, Combine, Resample, UNetBlock
from tests.support.unet import DDPM, DDPMPP, NCSNPP, PYRAMIDS, TINY, built, images

DATA = pathlib.Path(__file__).parents[1] / "official"


# The authors' networks


def weights_in_the_programs_order(part):
    """The weights of a part, each with what a tensor of the program must be transposed by."""
    if isinstance(part, UNetBlock):
        layers = (part.norm1, part.conv1, part.dense, part.norm2, part.conv2, part.shortcut)
    elif isinstance(part, Attention):
        layers = (part.norm, part.query, part.key, part.value, part.out)
    elif isinstance(part, Resample | Combine):
        layers = (part.conv,)
    else:
        layers = (part,)
    along_channels = layers[1:] if isinstance(part, Attention) else layers[5:]  # their matrices are as ours
    for layer in layers:
        for weight in layer.weights if layer is not None else ():
            axes = {4: (2, 3, 1, 0), 2: (0, 1) if layer in along_channels else (1, 0), 1: (0,)}[len(weight.shape)]
            yield weight, axes


def load(network, file):
    """Puts the average of a checkpoint into a network: a list without names, which lacks the frequencies."""
    content = torch.load(file, weights_only=True)
    parts = network.parts
    if isinstance(parts[0], FourierFeatures):
        parts[0].frequencies.assign(content["model"]["module.all_modules.0.W"].numpy())
        parts = parts[1:]
    weights = [pair for part in parts for pair in weights_in_the_programs_order(part)]
    for (weight, axes), tensor in zip(weights, content["ema"]["shadow_params"], strict=True):
        weight.assign(tensor.numpy().transpose(axes))


@pytest.mark.parametrize(
    ("name", "options"),
    [("ncsnpp_16x16x3", NCSNPP), ("pyramids_8x8x3", PYRAMIDS), ("ddpmpp_16x16x3", DDPMPP), ("ddpm_16x16x3", DDPM)],
)
def test_outputs_are_those_of_the_authors_program(name, options):
    reference = np.load(DATA / f"{name}.npz")
    config = json.loads(str(reference["config"]))
    network = UNet(
        3,
        config["nf"],
        **{**options, "blocks": config["num_res_blocks"]},
        multipliers=config["ch_mult"],
        attention=config["attn_resolutions"],
    )
    network.build(reference["x"].shape, (None,))
    load(network, DATA / f"{name}.pth")
    difference = np.abs(network(reference["x"], reference["noise_label"]) - reference["output"]).max()
    assert difference < 1e-4 * reference["output"].std()


SIX = (1, 1, 2, 2, 4, 4)
SEVEN, EIGHT = (1, 1, 2, 2, 2, 2, 2), (1, 2, 4, 8, 16, 32, 32, 32)
SIZES = {  # image size, arguments, trainable parameters, fixed ones, tensors of the average, modules
    "NCSN++": (32, NCSNPP, 62_758_787, 128, 570, 59),
    "NCSN++ deep": (32, {**NCSNPP, "blocks": 8}, 107_586_947, 128, 962, 95),
    "NCSN++ positional": (
        32,
        {**NCSNPP, "embedding": "positional", "output_sigmas": (50.0, 0.01, 1000)},
        62_693_251,
        0,
        570,
        58,
    ),
    "DDPM++": (32, DDPMPP, 61_804_419, 0, 564, 55),
    "DDPM++ deep": (32, {**DDPMPP, "blocks": 8}, 106_632_579, 0, 956, 91),
    "DDPM": (32, DDPM, 35_218_947, 0, 308, 37),
    "DDPM 256": (256, {**DDPM, "multipliers": SIX}, 111_569_923, 0, 430, 51),
    "NCSN++ 256": (256, {**PYRAMIDS, "multipliers": SEVEN, "blocks": 2}, 65_574_421, 128, 644, 77),
    "NCSN++ 1024": (1024, {**PYRAMIDS, "filters": 16, "multipliers": EIGHT, "blocks": 1}, 105_785_880, 16, 552, 70),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_papers_networks_have_their_size(name):
    size, options, parameters, fixed, tensors, modules = SIZES[name]
    with keras.StatelessScope(initialize_variables=False):  # shapes alone, no memory
        network = UNet(3, **options)
        network.build((None, size, size, 3), (None,))
        trainable = [math.prod(weight.shape) for weight in network.trainable_variables]
        assert sum(trainable) == parameters and len(trainable) == tensors
        assert sum(math.prod(weight.shape) for weight in network.non_trainable_variables) == fixed
    assert len(network.parts) == modules


# Variants

INPUTS = [("none", "sum"), ("input_skip", "sum"), ("input_skip", "cat"), ("residual", "sum")]
OUTPUTS = ["none", "output_skip", "residual"]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("input", "combiner"), INPUTS)
def test_every_variant_keeps_the_shape_and_uses_every_weight(output, input, combiner):
    """Each input and each output meets both kinds of blocks and both ways to resample."""
    row, column = INPUTS.index((input, combiner)), OUTPUTS.index(output)
    network = UNet(
        2,
        **{**TINY, "attention": ()},
        block=("biggan", "ddpm")[(row + column) % 2],
        resampling=("fir", "plain")[(row // 2 + column) % 2],
        progressive_input=input,
        progressive_output=output,
        combiner=combiner,
    )
    x = images((3, 8, 8, 2))
    with tf.GradientTape() as tape:
        y = network(x, np.array([0.1, 1.0, 10.0]))
        loss = tf.reduce_sum(y * images(y.shape, 1))
    assert y.shape == x.shape and np.isfinite(y).all()
    gradients = tape.gradient(loss, network.trainable_variables)
    for gradient, variable in zip(gradients, network.trainable_variables, strict=True):
        assert isinstance(gradient, tf.Tensor) and np.abs(gradient).max() > 0, variable.path


def test_a_residual_pyramid_of_outputs_is_the_feature_map_of_the_next_level():
    """The whole network written out, part by part; the authors' PyTorch program cannot run this variant."""
    options = {"block": "ddpm", "progressive_input": "residual", "progressive_output": "residual"}
    network = built(multipliers=(1, 1), attention=(), **options, randomised=True, dtype="float64")
    x, sigma = images((2, 8, 8, 2), dtype=np.float64), np.array([0.1, 10.0])
    parts = iter(network.parts)

    def part(h):
        return next(parts)(h)

    embedding = tf.nn.silu(part(tf.nn.silu(part(part(sigma)))))

    def block(*feature_maps):
        return next(parts)(tf.concat(feature_maps, axis=-1), embedding)

    a = part(2.0 * x - 1.0)
    b = block(a)
    c = part(b)
    c = (c + part(2.0 * x - 1.0)) / np.sqrt(2.0)
    d = block(c)
    h = block(part(block(d)))
    h = block(block(h, d), c)
    pyramid = part(tf.nn.silu(part(h)))
    h = block(block(part(h), b), a)
    h = (h + part(pyramid)) / np.sqrt(2.0)
    np.testing.assert_allclose(network(x, sigma), part(tf.nn.silu(part(h))), atol=1e-10)
    assert next(parts, None) is None


def test_attention_is_where_the_shorter_side_is_chosen():
    network = built((16, 8), blocks=2, multipliers=(1, 1, 1))
    places = [part.norm.gamma.shape for part in network.parts if isinstance(part, Attention)]
    assert len(places) == 2 + 1 + 1, "two on the way down, one in the middle, one on the way up"
    assert [[attention is not None for _, attention in level.blocks] for level in network.downs] == [
        [False, False],
        [True, True],
        [False, False],
    ]
    assert network(images((2, 16, 8, 2)), np.ones(2)).shape == (2, 16, 8, 2)


@pytest.mark.parametrize("convolve", [True, False])
def test_layers_between_ddpm_levels_convolve_or_not(convolve):
    network = built(block="ddpm", resampling="plain", resampling_convolution=convolve)
    between = [part for part in network.parts if isinstance(part, Resample)]
    assert len(between) == 2 and all((layer.conv is not None) == convolve for layer in between)


# The condition


def test_the_output_is_divided_by_sigma_or_by_a_levels_sigma():
    x, sigmas = images((3, 8, 8, 2)), np.array([50.0, 0.7071068, 0.01], np.float32)
    undivided = np.asarray(built(output_sigmas=None)(x, sigmas))
    np.testing.assert_allclose(
        built(output_sigmas="condition")(x, sigmas), undivided / sigmas[:, None, None, None], rtol=1e-5
    )
    levels, options = np.array([0, 1, 2]), {"embedding": "positional"}
    undivided = np.asarray(built(**options)(x, levels))
    divided = built(**options, output_sigmas=(50.0, 0.01, 3))(x, levels)
    np.testing.assert_allclose(divided, undivided / sigmas[:, None, None, None], rtol=1e-5)
    assert UNet(2, output_sigmas=[50.0, 0.01, 3]).output_sigmas == (50.0, 0.01, 3), "as JSON gives it back"


def test_levels_that_are_none_give_nan():
    """A graph under XLA cannot raise an error; no index is taken for another."""
    network = built(embedding="positional", output_sigmas=(50.0, 0.01, 3))
    for levels in (np.array([-1, 3, 0]), np.array([0.5, -0.2, 2.0])):
        for call in (network, tf.function(network, jit_compile=True)):
            y = np.asarray(call(images((3, 8, 8, 2)), levels))
            np.testing.assert_array_equal(np.isnan(y).all((1, 2, 3)), [True, True, False])


@pytest.mark.parametrize("embedding", ["log_fourier", "fourier", "positional"])
def test_the_condition_matters(embedding):
    network, x = built(embedding=embedding), images((3, 8, 8, 2))
    y, other = (np.asarray(network(x, np.array(condition))) for condition in ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]))
    assert not np.allclose(y[0], other[0], atol=1e-4) and np.allclose(y[1], other[1], atol=1e-5)


def test_without_embedding_the_network_is_not_told():
    network, x = built(embedding="none"), images((2, 8, 8, 2))
    assert not any("dense" in weight.path for block in network.parts[1:3] for weight in block.weights[:4])
    assert all(part.dense is None for part in network.parts if isinstance(part, UNetBlock))
    np.testing.assert_array_equal(network(x, np.array([1.0, 2.0])), network(x, np.array([7.0, 0.0])))


def test_the_input_is_centred_in_its_own_precision():
    """Even in bfloat16, 2x - 1 is computed in float32: 0.5 + 2^-12 rounds to 0.5 in bfloat16, 2x - 1 does not to 0."""
    centring, plain = built(dtype="mixed_bfloat16"), built(dtype="mixed_bfloat16", centre_input=False)
    x, sigma = 0.5 + 2.0**-12 * images((2, 8, 8, 2)), np.array([0.1, 1.0])
    np.testing.assert_array_equal(centring(x, sigma), plain(2.0 * x - 1.0, sigma))
    assert not np.array_equal(centring(x, sigma), plain(x, sigma))


# Classes


def test_labels_are_refused_without_classes():
    with pytest.raises(ValueError, match=r"is not class-conditional.*Received: labels of shape \(2,\)"):
        built()(images((2, 8, 8, 2)), np.ones(2), labels=np.array([0, 1]))


@pytest.mark.parametrize("embedding", ["log_fourier", "none"])
def test_labels_move_the_embedding_from_no_class(embedding):
    x, sigma = images((3, 8, 8, 2)), np.array([0.1, 1.0, 10.0])
    network = built(num_classes=3, embedding=embedding, randomised=True)
    none = np.asarray(network(x, sigma))
    labelled = np.asarray(network(x, sigma, np.array([0, 2, 3])))
    np.testing.assert_allclose(labelled[2], none[2], atol=1e-5)
    assert not np.allclose(labelled[:2], none[:2], atol=1e-2)
    assert network.weights[-1] is network.class_table.table and network.class_table not in network.parts


def test_labels_out_of_range_are_refused():
    network = built(num_classes=3, embedding="none", randomised=True)
    with pytest.raises(ValueError, match="0 to 2, and 3 for no class. Received: 1 to 4"):
        network(images((2, 8, 8, 2)), np.ones(2), np.array([1, 4]))


# Dropout


def test_dropout_belongs_to_the_example():
    network, x, sigma = built(dropout=0.3), images((3, 8, 8, 2)), np.array([0.1, 1.0, 10.0])
    seeds = tf.constant([[1, 2], [3, 4], [5, 6]])
    y = np.asarray(network(x, sigma, None, seeds))
    np.testing.assert_allclose(network(x[1:2], sigma[1:2], None, seeds[1:2]), y[1:2], atol=1e-5)
    other = np.asarray(network(x, sigma, None, seeds + 1))
    undropped = np.asarray(network(x, sigma))
    for different in (other, undropped):
        assert np.abs(different - y).std((1, 2, 3)).min() > 0.1 * y.std()
    np.testing.assert_array_equal(network(x, sigma), undropped)


def test_every_block_has_a_dropout_of_its_own(monkeypatch):
    network, seen = built(dropout=0.3), []
    blocks = [part for part in network.parts if isinstance(part, UNetBlock)]
    original = UNetBlock.call
    monkeypatch.setattr(UNetBlock, "call", lambda *args: seen.append((args[0], np.asarray(args[3]))) or original(*args))
    network(images((1, 8, 8, 2)), np.ones(1), None, tf.constant([[1, 2]]))
    assert [block for block, _ in seen] == blocks
    assert len({tuple(seeds[0]) for _, seeds in seen}) == len(blocks)
