"""Tensors of PyTorch in variables of Keras: the arrangements against PyTorch's own layers, and all or nothing."""

import keras
import numpy as np
import pytest
import torch

from ncsn_tf.interop import assign
from ncsn_tf.interop.torch_files import CheckpointFormatError
from ncsn_tf.networks.layers import ConditionalInstanceNormPlusPlus

RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def pair():
    """A convolution and a dense layer, as targets, and the tensors of PyTorch that belong in them."""
    convolution, dense = keras.layers.Conv2D(5, (3, 2)), keras.layers.Dense(4)
    convolution.build((None, 7, 7, 3))
    dense.build((None, 6))
    targets = [
        *assign.convolution("net.conv", convolution),
        assign.Target("net.linear.weight", dense, "kernel", assign.LINEAR),
        assign.Target("net.linear.bias", dense, "bias"),
    ]
    tensors = {
        "net.conv.weight": numbers(5, 3, 3, 2),
        "net.conv.bias": numbers(5),
        "net.linear.weight": numbers(4, 6),
        "net.linear.bias": numbers(4),
    }
    return convolution, dense, targets, tensors


def test_layers_compute_what_pytorchs_do():
    convolution, dense, targets, tensors = pair()
    assign.assign(targets, tensors, "a net")
    x, y = numbers(2, 7, 7, 3), numbers(2, 6)
    there = {name: torch.tensor(value) for name, value in tensors.items()}
    expected = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)), there["net.conv.weight"], there["net.conv.bias"]
    )
    np.testing.assert_allclose(convolution(x), expected.numpy().transpose(0, 2, 3, 1), atol=1e-5)
    expected = torch.nn.functional.linear(torch.tensor(y), there["net.linear.weight"], there["net.linear.bias"])
    np.testing.assert_allclose(dense(y), expected.numpy(), atol=1e-5)


def test_a_matrix_over_the_features_of_pixels_is_not_transposed():
    layer, matrix, x = keras.layers.Dense(4, use_bias=False), numbers(6, 4), numbers(2, 3, 3, 6)
    layer.build((None, 3, 3, 6))
    assign.assign([assign.Target("NIN_0.W", layer, "kernel")], {"NIN_0.W": matrix}, "a net")
    np.testing.assert_allclose(layer(x), np.einsum("bhwi,io->bhwo", x, matrix), atol=1e-5)


def test_a_table_of_scales_has_gamma_alpha_and_beta_of_each_level():
    rows = np.concatenate([np.full((2, 4), 1.0), np.full((2, 4), 2.0), np.full((2, 4), 3.0)], axis=1)
    norm = ConditionalInstanceNormPlusPlus(num_levels=2)
    norm.build((None, 5, 5, 4))
    assign.assign(
        [assign.Target("norm.embed.weight", norm, "table", assign.TABLE)], {"norm.embed.weight": rows}, "a net"
    )
    np.testing.assert_array_equal(norm.table[:, :, 0], [[1.0, 2.0, 3.0]] * 2)


def bad(kind):
    _, _, targets, tensors = pair()
    match kind:
        case "missing":
            del tensors["net.linear.weight"]
        case "misspelt":
            tensors["net.linar.weight"] = tensors.pop("net.linear.weight")
        case "superfluous":
            tensors["net.norm.weight"] = numbers(3)
        case "transposed":
            tensors["net.linear.weight"] = numbers(6, 4)
        case "in Keras's order":
            tensors["net.conv.weight"] = numbers(3, 2, 3, 5)
        case "not finite":
            tensors["net.linear.bias"][1:3] = np.nan, np.inf
    return targets, tensors


ERRORS = {
    "missing": r"not those of a net\. Missing: net\.linear\.weight\. Superfluous: none\.",
    "misspelt": r"Missing: net\.linear\.weight \(closest: net\.linar\.weight\)\. Superfluous: net\.linar\.weight\.",
    "superfluous": r"Missing: none\. Superfluous: net\.norm\.weight\.",
    "transposed": r"net\.linear\.weight does not fit\. Expected: \(4, 6\), of a net\. Received: \(6, 4\)\.",
    "in Keras's order": r"net\.conv\.weight does not fit\. Expected: \(5, 3, 3, 2\), .* Received: \(3, 2, 3, 5\)\.",
    "not finite": r"net\.linear\.bias does not fit: it holds 2 values that are not finite \(of 4\)\.",
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_misfit_is_named_and_nothing_is_assigned(kind):
    targets, tensors = bad(kind)
    before = [target.variable.numpy() for target in targets]
    with pytest.raises(CheckpointFormatError, match=ERRORS[kind]):
        assign.assign(targets, tensors, "a net")
    for target, value in zip(targets, before, strict=True):
        np.testing.assert_array_equal(target.variable, value)


def test_names_that_need_no_place_are_ignored():
    _, _, targets, tensors = pair()
    assign.assign(targets, {**tensors, "sigmas": numbers(3)}, "a net", ignored=("sigmas",))
