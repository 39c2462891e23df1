"""Weights of the official PyTorch checkpoints (github.com/ermongroup/ncsn) in our networks.

torch is an optional extra: only reading a checkpoint needs it. Only tensors are ever unpickled.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from ncsn_tf.networks.layers import ConditionalInstanceNormPlusPlus
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock, ResidualConvolutionUnits

_CASCADES = "res"
_REFINEMENTS = "refine"


class CheckpointFormatError(ValueError):
    """A file is not a valid checkpoint of the expected network."""


def ncsn_from_torch(path: str | os.PathLike) -> NCSN:
    """Reads a checkpoint that ermongroup/ncsn writes for its `CondRefineNetDilated`.

    Args:
      path: a `.pth` file: a state dict, or a list whose first entry is one; names may begin with `module.`.

    Returns:
      A built `NCSN` with these weights; its width, channels and level count are read from the tensors. It takes
      images in [0, 1] and maps them to [-1, 1] itself, which the official program does outside its network.

    Raises:
      CheckpointFormatError: if the file cannot be read as tensors, or tensors are missing, superfluous or misshapen;
        the message names the first of them.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    return ncsn_from_state_dict(read_state_dict(path))


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint as arrays, by name without `module.`; raises as `ncsn_from_torch` does."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Reading a PyTorch checkpoint needs torch, an optional extra of this package: pip install 'ncsn_tf[torch]'."
        ) from error
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged or hostile file
        # Without torch's own message, which advises loading content other than tensors anyway.
        raise CheckpointFormatError(
            f"{path} cannot be read as a PyTorch file: damaged, or more than tensors ({type(error).__name__})."
        ) from error
    if isinstance(content, list | tuple) and content:
        content = content[0]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointFormatError(
            f"{path} holds no state dict. Expected a dict of tensors, or a list that begins with one. "
            f"Received: {type(content).__name__}."
        )
    return {str(name).removeprefix("module."): value.float().numpy() for name, value in content.items()}


def ncsn_from_state_dict(state: Mapping[str, np.ndarray]) -> NCSN:
    """Builds an `NCSN` with the weights of a `CondRefineNetDilated` state dict, names without `module.`.

    Raises:
      CheckpointFormatError: as `ncsn_from_torch` does.
    """
    for name, rank in (("begin_conv.weight", 4), ("normalizer.embed.weight", 2)):
        if name not in state or np.ndim(state[name]) != rank:
            raise CheckpointFormatError(f"This is not an NCSN checkpoint: it has no {name} of rank {rank}.")
    filters, channels = state["begin_conv.weight"].shape[:2]
    network = NCSN(channels=channels, num_levels=state["normalizer.embed.weight"].shape[0], filters=filters)
    network.build((None, None, None, channels), (None,))

    expected = {name: variable for prefix, layer in _layers(network) for name, variable in _tensors(prefix, layer)}
    missing = [name for name in expected if name not in state]
    superfluous = [name for name in state if name not in expected]
    if missing or superfluous:
        raise CheckpointFormatError(
            f"The tensors are not those of an NCSN of width {filters}. Missing: {_few(missing)}. "
            f"Superfluous: {_few(superfluous)}."
        )
    for name, variable in expected.items():
        value = _to_keras(np.asarray(state[name]), variable)
        if value.shape != tuple(variable.shape) or not np.isfinite(value).all():
            raise CheckpointFormatError(
                f"{name} does not fit. Expected finite values that become {tuple(variable.shape)}. "
                f"Received: {state[name].shape}."
            )
        variable.assign(value)
    return network


def _to_keras(value: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """A PyTorch tensor in Keras's layout: kernels [out, in, h, w] -> [h, w, in, out], tables [L, 3 C] -> [L, 3, C]."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and len(variable.shape) == 3 and value.shape[1] % 3 == 0:
        return value.reshape(value.shape[0], 3, -1)
    return value


def _tensors(prefix: str, layer: keras.layers.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the official names of a layer's tensors, with the variables."""
    if isinstance(layer, ConditionalInstanceNormPlusPlus):
        yield f"{prefix}.embed.weight", layer.table
        return
    yield f"{prefix}.weight", layer.kernel
    if layer.use_bias:
        yield f"{prefix}.bias", layer.bias


def _layers(network: NCSN) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields every convolution and normalisation of the network with its name in the official one."""
    yield "begin_conv", network.begin_conv
    for number, cascade in enumerate(network.cascades, start=1):
        for index, block in enumerate(cascade):
            yield from _residual_block(f"{_CASCADES}{number}.{index}", block)
    for number, block in enumerate(network.refinements, start=1):
        yield from _refine_block(f"{_REFINEMENTS}{number}", block)
    yield "normalizer", network.norm
    yield "end_conv", network.end_conv


def _residual_block(prefix: str, block: ResidualBlock) -> Iterator[tuple[str, keras.layers.Layer]]:
    # The official network wraps a convolution that averages over cells in a module of its own.
    inner = ".conv" if block.downsample else ""
    yield f"{prefix}.normalize1", block.norm1
    yield f"{prefix}.conv1", block.conv1
    yield f"{prefix}.normalize2", block.norm2
    yield f"{prefix}.conv2{inner}", block.conv2
    if block.shortcut is not None:
        yield f"{prefix}.shortcut{inner}", block.shortcut


def _refine_block(prefix: str, block: RefineBlock) -> Iterator[tuple[str, keras.layers.Layer]]:
    for index, adapter in enumerate(block.adapters):
        yield from _units(f"{prefix}.adapt_convs.{index}", adapter)
    parts = [("crp", block.pooling)] + ([("msf", block.fusion)] if block.fusion is not None else [])
    for name, part in parts:
        for index, (norm, conv) in enumerate(zip(part.norms, part.convs, strict=True)):
            yield f"{prefix}.{name}.norms.{index}", norm
            yield f"{prefix}.{name}.convs.{index}", conv
    yield from _units(f"{prefix}.output_convs", block.output_convs)


def _units(prefix: str, units: ResidualConvolutionUnits) -> Iterator[tuple[str, keras.layers.Layer]]:
    for stage, (norm, conv) in enumerate(zip(units.norms, units.convs, strict=True)):
        name = f"{prefix}.{stage // 2 + 1}_{stage % 2 + 1}"
        yield f"{name}_norm", norm
        yield f"{name}_conv", conv


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
