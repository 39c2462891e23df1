"""Weights of the checkpoints of NCSN++, DDPM++ and DDPM (github.com/yang-song/score_sde_pytorch) in our U-Net."""

import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from ncsn_tf.interop import assign, checkpoints, configuration, families, levels, unet_options, unet_tensors
from ncsn_tf.interop.assign import LINEAR, Target
from ncsn_tf.interop.checkpoints import Checkpoint
from ncsn_tf.interop.unet_options import ImageSize
from ncsn_tf.networks.embeddings import FourierFeatures
from ncsn_tf.networks.unet import UNet
from ncsn_tf.networks.unet_blocks import Attention, Combine, Resample, UNetBlock
from ncsn_tf.networks.unet_layers import GroupNorm

_MOST_MODULES = 300
_FREQUENCIES = "all_modules.0.W"  # of Fourier features: a parameter without a gradient, so that no average holds it
_LAYERS = ("GroupNorm_0", "GroupNorm_1", "Conv_0", "Conv_1", "Conv_2", "Conv2d_0", "Dense_0")
_INSIDE = (
    *(f"{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")),
    *(f"NIN_{number}.{kind}" for number in range(4) for kind in ("W", "b")),
    "weight",
    "bias",
    "W",
)
"""The tensors that a module of the program may have."""


def network_from_torch(
    path: str | os.PathLike,
    config: Any = None,
    weights: str | None = None,
    image_size: ImageSize | None = None,
) -> UNet:
    """Reads a checkpoint that score_sde_pytorch writes for its networks `ncsnpp` and `ddpm`.

    Args:
      path: a `.pth` file: {model, ema, optimizer, step}, or dicts and lists that hold the weights, whatever their keys.
      config: the configuration that it was trained with: its section `model` or all of it, as a dict, an
        `ml_collections.ConfigDict` or the path of a JSON file. None to read from the tensors what they tell (widths,
        blocks, attention, pyramids, embedding), and to take the rest from the published models.
      weights: "raw" or "average"; by default the averaged weights if the file has any, else the raw ones.
      image_size: the size of the images in pixels, a side or (height, width). None if `config` gives it.

    Returns:
      A built `UNet` with these weights, for images of that size. `network(x, label)` is the program's output for its
      own label: sigma or the number of the level for the VE SDE, 999 t or the number of the step for the others. Only a
      network that is not told the time never divides its output by sigma.

    Raises:
      CheckpointFormatError: a ValueError, if the file cannot be read as tensors, or holds no such weights or several,
        or if tensors are missing, superfluous or misshapen; the message says what there is.
      ValueError: if the configuration contradicts the tensors, cannot be read, or has what this library has no
        counterpart of, or if neither of the two tells something in which the published models differ.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    return read_checkpoint(path, config, weights, image_size).network


def read_checkpoint(
    path: str | os.PathLike,
    config: Any = None,
    weights: str | None = None,
    image_size: ImageSize | None = None,
) -> Checkpoint:
    """Reads a checkpoint, and says what was taken and assumed; arguments and errors as for `network_from_torch`."""
    return from_content(*checkpoints.read(path), config, weights, image_size)


def from_content(
    where: str,
    content: Any,
    config: Any = None,
    weights: str | None = None,
    image_size: ImageSize | None = None,
) -> Checkpoint:
    """Finds the checkpoint in the content of a file; arguments and errors otherwise as for `network_from_torch`."""
    families.check(content, families.SCORE_SDE, where)
    told = configuration.read(config)
    chosen = checkpoints.choose(content, where, _names(), weights, untrained=(_FREQUENCIES,))
    with chosen.named_in_errors():
        sigmas = None if chosen.sigmas is None else (*levels.ends(chosen.sigmas), chosen.sigmas.size)
        tensors = unet_tensors.architecture({name: np.shape(value) for name, value in chosen.tensors.items()})
        options = unet_options.resolve(tensors, told, sigmas, image_size)
        network = UNet(tensors.channels, **options.network)
        network.build((None, *options.image_size, tensors.channels), (None,))
        assign.assign(
            list(_targets(network, tensors)),
            chosen.tensors,
            f"the {options.family} that the other tensors make up",
            ignored=_unused(chosen.tensors, tensors),
        )
    kept = (chosen.weights, chosen.kind, chosen.also)
    return Checkpoint(options.family, network, *kept, options.sections, options.image_size, options.assumed)


@functools.cache
def _names() -> tuple[str, ...]:
    """The names that tensors of the program's networks may have."""
    return tuple(f"all_modules.{number}.{name}" for number in range(_MOST_MODULES) for name in _INSIDE)


def _unused(names: Mapping[str, Any], tensors: unet_tensors.Architecture) -> list[str]:
    """The names of tensors that the program keeps and its network does not use."""
    unused = [checkpoints.SIGMAS]
    if not tensors.conditional:
        unused += [name for name in names if ".Dense_0." in name or name == _FREQUENCIES]
    return unused


# The program's names


def _targets(network: UNet, tensors: unet_tensors.Architecture) -> Iterator[Target]:
    """Yields the variables of the network with the program's names."""
    # Without a condition, the program keeps Fourier features that it does not use.
    start = 1 if tensors.embedding == "fourier" and not tensors.conditional else 0
    for number, part in enumerate(network.parts, start):
        yield from _part(f"all_modules.{number}", part)


def _part(name: str, part: keras.layers.Layer) -> Iterator[Target]:
    match part:
        case FourierFeatures():
            yield Target(f"{name}.W", part, "frequencies")
        case GroupNorm():
            yield from _norm(name, part)
        case UNetBlock():
            yield from _block(name, part)
        case Attention():
            yield from _norm(f"{name}.GroupNorm_0", part.norm)
            for number, layer in enumerate((part.query, part.key, part.value, part.out)):
                yield from _pointwise(f"{name}.NIN_{number}", layer)
        case Resample():
            if part.conv is not None:
                yield from assign.convolution(f"{name}.{'Conv2d_0' if part.method == 'fir' else 'Conv_0'}", part.conv)
        case Combine():
            yield from assign.convolution(f"{name}.Conv_0", part.conv)
        case keras.layers.Conv2D():
            yield from assign.convolution(name, part)
        case keras.layers.Dense():
            yield from _dense(name, part)
        case _:
            raise AssertionError(f"{part} has no names")


def _block(name: str, block: UNetBlock) -> Iterator[Target]:
    yield from _norm(f"{name}.GroupNorm_0", block.norm1)
    yield from assign.convolution(f"{name}.Conv_0", block.conv1)
    if block.dense is not None:
        yield from _dense(f"{name}.Dense_0", block.dense)
    yield from _norm(f"{name}.GroupNorm_1", block.norm2)
    yield from assign.convolution(f"{name}.Conv_1", block.conv2)
    if isinstance(block.shortcut, keras.layers.Dense):
        yield from _pointwise(f"{name}.NIN_0", block.shortcut)
    elif block.shortcut is not None:
        yield from assign.convolution(f"{name}.Conv_2", block.shortcut)


def _norm(name: str, norm: GroupNorm) -> Iterator[Target]:
    yield Target(f"{name}.weight", norm, "gamma")
    yield Target(f"{name}.bias", norm, "beta")


def _dense(name: str, layer: keras.layers.Dense) -> Iterator[Target]:
    yield Target(f"{name}.weight", layer, "kernel", LINEAR)
    yield Target(f"{name}.bias", layer, "bias")


def _pointwise(name: str, layer: keras.layers.Dense) -> Iterator[Target]:
    """The program's "NIN", a matrix [in, out] over the features of each pixel."""
    yield Target(f"{name}.W", layer, "kernel")
    yield Target(f"{name}.b", layer, "bias")
