"""The authors' names for the tensors of a RefineNet, the network of NCSN and, without its conditions, of NCSNv2."""

from collections.abc import Iterator, Mapping

import keras

from ncsn_tf.interop.assign import TABLE, Target, convolution
from ncsn_tf.interop.configuration import Configuration
from ncsn_tf.networks.layers import ConditionalInstanceNormPlusPlus
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock, ResidualConvolutionUnits

_OPTIONS = {
    "model.nonlinearity": ("elu", "relu", "lrelu", "swish"),
    "model.normalization": ("instancenorm++", "instancenorm", "batchnorm", "variancenorm", "groupnorm", "nonenorm"),
}
"""Keys of an authors' configuration, and their values: that of the networks of this library first."""


def check_options(config: Configuration, channels: int) -> None:
    """Raises ValueError if an authors' configuration describes another network than the two RefineNets of this library.

    Args:
      config: the authors' configuration.
      channels: the channels of the images, as the tensors have them.
    """
    config.agree("data.channels|num_channels", config.whole("data.channels|num_channels"), channels)
    for key, choices in _OPTIONS.items():
        given = config.word(key, choices)
        if given not in (None, choices[0]):
            raise config.refuse(key, given, f"the networks of this library have {choices[0]}.")
    if config.switch("model.spec_norm"):
        raise config.refuse("model.spec_norm", True, "the networks of this library have no spectral normalisation.")
    if config.switch("model.scale_by_sigma") is False:
        raise config.refuse("model.scale_by_sigma", False, "these models divide by sigma.")


def targets(
    network: keras.Model, stages: Mapping[str, list[ResidualBlock]], refinements: Mapping[str, RefineBlock]
) -> Iterator[Target]:
    """Yields the variables of a network with their names in the authors' program.

    Args:
      network: it has `begin_conv`, `norm` and `end_conv`.
      stages: its cascades of residual blocks, by name.
      refinements: its refinement blocks, by name.
    """
    yield from convolution("begin_conv", network.begin_conv)
    for name, blocks in stages.items():
        for index, block in enumerate(blocks):
            yield from _residual_block(f"{name}.{index}", block)
    for name, block in refinements.items():
        yield from _refine_block(name, block)
    yield from _norm("normalizer", network.norm)
    yield from convolution("end_conv", network.end_conv)


def _residual_block(prefix: str, block: ResidualBlock) -> Iterator[Target]:
    # The authors' network wraps a convolution that averages over cells in a module of its own.
    inner = ".conv" if block.downsample else ""
    yield from _norm(f"{prefix}.normalize1", block.norm1)
    yield from convolution(f"{prefix}.conv1", block.conv1)
    yield from _norm(f"{prefix}.normalize2", block.norm2)
    yield from convolution(f"{prefix}.conv2{inner}", block.conv2)
    if block.shortcut is not None:
        yield from convolution(f"{prefix}.shortcut{inner}", block.shortcut)


def _refine_block(prefix: str, block: RefineBlock) -> Iterator[Target]:
    for index, adapter in enumerate(block.adapters):
        yield from _units(f"{prefix}.adapt_convs.{index}", adapter)
    parts = [("crp", block.pooling)] + ([("msf", block.fusion)] if block.fusion is not None else [])
    for name, part in parts:
        for index, norm in enumerate(part.norms):
            yield from _norm(f"{prefix}.{name}.norms.{index}", norm)
        for index, conv in enumerate(part.convs):
            yield from convolution(f"{prefix}.{name}.convs.{index}", conv)
    yield from _units(f"{prefix}.output_convs", block.output_convs)


def _units(prefix: str, units: ResidualConvolutionUnits) -> Iterator[Target]:
    for stage, norm in enumerate(units.norms):
        yield from _norm(f"{prefix}.{_place(stage)}_norm", norm)
    for stage, conv in enumerate(units.convs):
        yield from convolution(f"{prefix}.{_place(stage)}_conv", conv)


def _place(stage: int) -> str:
    """The unit and the stage in it, counted from 1."""
    return f"{stage // 2 + 1}_{stage % 2 + 1}"


def _norm(prefix: str, norm: keras.layers.Layer) -> Iterator[Target]:
    if isinstance(norm, ConditionalInstanceNormPlusPlus):
        yield Target(f"{prefix}.embed.weight", norm, "table", TABLE)
    else:
        for name in ("alpha", "gamma", "beta"):
            yield Target(f"{prefix}.{name}", norm, name)
