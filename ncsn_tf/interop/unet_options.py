"""The options of a U-Net of score_sde: from its tensors, from the authors' configuration, else as it was published."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ncsn_tf.interop import unet_process
from ncsn_tf.interop.configuration import NAMES, Configuration, Reader
from ncsn_tf.interop.unet_tensors import Architecture

ImageSize = int | tuple[int, int]

_LARGEST_WITH_DROPOUT = 64  # pixels; the published models of larger images were trained without


@dataclasses.dataclass(frozen=True)
class Options:
    """A U-Net of score_sde and the process that it was trained on.

    Attributes:
      family: the network, for people.
      network: arguments of `UNet` but `channels`.
      image_size: (height, width) in pixels.
      sections: the sections of our configuration, as `checkpoints.Checkpoint` has them.
      assumed: what was taken from the published models, as `checkpoints.Checkpoint` has it.
    """

    family: str
    network: Mapping[str, Any]
    image_size: tuple[int, int]
    sections: Mapping[str, Mapping[str, Any]]
    assumed: tuple[str, ...]


def resolve(
    tensors: Architecture,
    config: Configuration,
    sigmas: tuple[float, float, int] | None,
    image_size: ImageSize | None,
) -> Options:
    """Completes an architecture by a configuration and by what was published.

    Args:
      tensors: the architecture, as far as the tensors tell it.
      config: the authors' configuration, as far as it is given.
      sigmas: (sigma_max, sigma_min, number) of the file's noise levels; None if it holds none.
      image_size: the images' size in pixels; None to read it from the configuration.

    Raises:
      ValueError: if the configuration contradicts the tensors, or has what this library has no counterpart of, or
        something is not told in which published models differ.
    """
    name = _name(tensors, config)
    _check(tensors, config, name)
    family = "DDPM" if name == "ddpm" else "NCSN++" if tensors.pyramids or tensors.embedding == "fourier" else "DDPM++"
    reader = Reader(config, family)
    process = unet_process.read(reader, tensors, name, sigmas)
    shape, attention = _sizes(tensors, config, image_size)
    network = {**_network(reader, tensors, name, process, shape), "attention": attention}
    sections = {"network": _section(network), **process.sections()}
    return Options(family, network, shape, sections, tuple(reader.assumed))


def _name(tensors: Architecture, config: Configuration) -> str:
    """The program's name of the network: "ddpm" or "ncsnpp"."""
    given, kind = config.word("model.name", NAMES), config.word("model.resblock_type", ("ddpm", "biggan"))
    as_ddpm = tensors.block == "ddpm" and tensors.embedding == "positional" and tensors.conditional
    if not as_ddpm or tensors.pyramids or tensors.fir:
        config.agree("model.name", given, "ncsnpp")
        return "ncsnpp"
    if given not in ("ddpm", "ncsnpp"):
        config.agree("model.name", given, "ddpm")
    # An ncsnpp of the same blocks has the same tensors. Only its section has the key resblock_type.
    return given or ("ddpm" if kind is None else "ncsnpp")


def _check(tensors: Architecture, config: Configuration, name: str) -> None:
    """Raises ValueError if the configuration gives another architecture than the tensors have."""
    agree, word = config.agree, config.word
    agree("model.nf", config.whole("model.nf"), tensors.filters)
    agree("model.ch_mult", config.whole_numbers("model.ch_mult"), tensors.multipliers)
    agree("model.num_res_blocks", config.whole("model.num_res_blocks"), tensors.blocks)
    agree("model.conditional", config.switch("model.conditional"), tensors.conditional)
    agree("data.num_channels|channels", config.whole("data.num_channels|channels"), tensors.channels)
    activation = word("model.nonlinearity", ("swish", "elu", "relu", "lrelu"))
    if activation not in (None, "swish"):
        raise config.refuse("model.nonlinearity", activation, "the network has swish alone.")
    if tensors.block == "ddpm":  # others do not read it
        agree("model.resamp_with_conv", config.switch("model.resamp_with_conv"), tensors.resampling_convolution)
    if name == "ddpm":  # does not read what follows
        return
    inputs, outputs = ("none", "input_skip", "residual"), ("none", "output_skip", "residual")
    agree("model.resblock_type", word("model.resblock_type", ("ddpm", "biggan")), tensors.block)
    agree("model.embedding_type", word("model.embedding_type", ("fourier", "positional")), tensors.embedding)
    agree("model.progressive_input", word("model.progressive_input", inputs), tensors.progressive_input)
    agree("model.progressive", word("model.progressive", outputs), tensors.progressive_output)
    agree("model.progressive_combine", word("model.progressive_combine", ("sum", "cat")), tensors.combiner)


def _sizes(
    tensors: Architecture, config: Configuration, image_size: ImageSize | None
) -> tuple[tuple[int, int], tuple[int, ...]]:
    """((height, width), the sides of the levels with attention)."""
    resolutions, trained = config.whole_numbers("model.attn_resolutions"), config.whole("data.image_size")
    if image_size is None and trained is None and resolutions and tensors.attention:
        candidates = (side << tensors.attention[0] for side in resolutions)
        trained = next(
            (size for size in candidates if _attended(tensors, size, resolutions) == tensors.attention), None
        )
    size = config.size(image_size) or ((trained, trained) if trained else None)
    if size is None:
        raise ValueError(
            "The size of the images is unknown, and a U-Net is built for one. Give image_size (--image_size), or "
            "config (--model_config=FILE.json) with data.image_size."
        )
    height, width = size
    reference = trained or min(height, width)
    if resolutions is not None and _attended(tensors, reference, resolutions) != tensors.attention:
        sides = [reference >> level for level in range(len(tensors.multipliers))]
        raise ValueError(
            f"model.attn_resolutions={list(resolutions)} contradicts the tensors: the levels of images of {reference} "
            f"pixels have {', '.join(map(str, sides))}, and the tensors have attention at "
            f"{', '.join(str(sides[level]) for level in tensors.attention) or 'none of them'}. Give the image_size and "
            "the configuration that this checkpoint was trained with."
        )
    return (height, width), tuple(min(height, width) >> level for level in tensors.attention)


def _attended(tensors: Architecture, size: int, resolutions: tuple[int, ...]) -> tuple[int, ...]:
    """The levels of images of a size that have one of these resolutions."""
    return tuple(level for level in range(len(tensors.multipliers)) if size >> level in resolutions)


def _network(
    reader: Reader, tensors: Architecture, name: str, process: unet_process.Process, shape: tuple[int, int]
) -> dict[str, Any]:
    """The arguments of `UNet` apart from the channels and the attention."""
    config, fir, rescale = reader.config, False, False
    if name == "ncsnpp":
        published = reader.family == "NCSN++" if tensors.block == "biggan" else None
        if len(tensors.multipliers) > 1:  # else nothing is resampled
            fir = reader.take("model.fir", config.switch("model.fir"), published, tensors.fir)
        kernel = config.whole_numbers("model.fir_kernel")
        if fir and kernel not in (None, (1, 3, 3, 1)):
            raise config.refuse("model.fir_kernel", list(kernel), "the filter is [1, 3, 3, 1].")
        published = True if tensors.block == "biggan" else None
        rescale = reader.take("model.skip_rescale", config.switch("model.skip_rescale"), published)
    dropout = 0.1 if min(shape) <= _LARGEST_WITH_DROPOUT else 0.0
    scale, initial = config.number("model.fourier_scale"), config.number("model.init_scale")
    embedding = {"fourier": "log_fourier"}.get(tensors.embedding, tensors.embedding)
    return {
        "filters": tensors.filters,
        "multipliers": tensors.multipliers,
        "blocks": tensors.blocks,
        "block": tensors.block,
        "resampling": "fir" if fir else "plain",
        "resampling_convolution": tensors.resampling_convolution is not False,
        "progressive_input": tensors.progressive_input or "none",
        "progressive_output": tensors.progressive_output or "none",
        "combiner": tensors.combiner or "sum",
        "embedding": embedding if tensors.conditional else "none",
        "fourier_scale": 16.0 if scale is None else scale,
        "dropout": reader.take("model.dropout", config.number("model.dropout"), dropout),
        "rescale_skips": rescale,
        "init_scale": 0.0 if initial is None else initial,
        "groups": 32 if name == "ddpm" else None,
        "output_sigmas": process.output_sigmas(tensors.embedding),
        "centre_input": process.sde == "ve",
    }


def _section(network: Mapping[str, Any]) -> dict[str, Any]:
    """The `network` section of our configuration with these arguments; the levels are those of its times."""
    sigmas = network["output_sigmas"]
    return {
        "name": "unet",
        **network,
        "output_sigmas": "none" if sigmas is None else sigmas if isinstance(sigmas, str) else "levels",
    }
