"""Weights of the official PyTorch checkpoints (github.com/ermongroup/ncsn) in our networks."""

import dataclasses
import difflib
import functools
import os
from collections.abc import Collection, Iterator, Mapping

import keras
import numpy as np

from ncsn_tf.interop import containers, torch_files
from ncsn_tf.interop.torch_files import CheckpointFormatError
from ncsn_tf.networks.layers import ConditionalInstanceNormPlusPlus
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock, ResidualConvolutionUnits

_CASCADES = "res"
_REFINEMENTS = "refine"
_SIGMAS = "sigmas"
# Names that tell the official networks that are not read from this one.
_OTHER_NETWORKS = {
    "normalizer.alpha": "NCSNv2, which has no noise level as its condition",
    "all_modules.0.weight": "a network of score_sde",
    "time_embedding.linear_1.weight": "a U-Net of diffusers",
    "time_embed.0.weight": "a U-Net of guided-diffusion",
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the official program, read.

    Attributes:
      network: the network with its weights, as `ncsn_from_torch` returns it.
      weights: which weights of the file these are, for people: "[4] (average, 84 tensors)".
      kind: "raw" or "average".
      also: the kind that the file holds as well, or None.
      sigmas: float32 [L], the noise levels that the file holds, or None; the official program writes none.
    """

    network: NCSN
    weights: str
    kind: str
    also: str | None
    sigmas: np.ndarray | None

    def check_sigmas(self, expected: np.ndarray) -> None:
        """Raises CheckpointFormatError if the file holds other noise levels than these, [L]; half precision is enough.

        The message gives the SDE that the file was trained with.
        """
        if self.sigmas is None or (
            self.sigmas.shape == expected.shape and np.allclose(self.sigmas, expected, rtol=1e-2, atol=0.0)
        ):
            return
        first, last = (float(f"{sigma:.3g}") for sigma in self.sigmas[[0, -1]])
        geometric = np.allclose(self.sigmas, np.geomspace(first, last, len(self.sigmas)), rtol=2e-2)
        remedy = (
            f"Give config.sde.sigma_max={first:g} and config.sde.sigma_min={last:g}."
            if geometric and first > last
            else "They are not a decreasing geometric sequence, so no configuration can give them."
        )
        raise CheckpointFormatError(
            f"The noise levels that the checkpoint holds, {self.sigmas.size} from {first:g} to {last:g}, are not those "
            f"of the configuration, {expected.size} from {expected[0]:.3g} to {expected[-1]:.3g}. {remedy}"
        )


def ncsn_from_torch(path: str | os.PathLike, weights: str | None = None) -> NCSN:
    """Reads a checkpoint that ermongroup/ncsn writes for its `CondRefineNetDilated`.

    Args:
      path: a `.pth` file: a state dict, or dicts and lists that hold one, whatever their keys. Prefixes of the names,
        such as `module.`, `_orig_mod.` or `model.`, do not matter.
      weights: "raw" or "average"; by default the averaged weights if the file has any, else the raw ones.

    Returns:
      A built `NCSN` with these weights; its width, channels and level count are read from the tensors. It takes
      images in [0, 1] and maps them to [-1, 1] itself, which the official program does outside its network.

    Raises:
      CheckpointFormatError: if the file cannot be read as tensors, or holds no such weights or several, or if tensors
        are missing, superfluous or misshapen; the message says what there is.
      ValueError: if `weights` is something else.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    return read_checkpoint(path, weights).network


def read_checkpoint(path: str | os.PathLike, weights: str | None = None) -> Checkpoint:
    """Reads a checkpoint, and says which of its weights were taken; arguments and errors as for `ncsn_from_torch`."""
    found, chosen = _find(path, weights)
    also = found.other_kind(chosen.kind)
    try:
        network = ncsn_from_state_dict(torch_files.to_arrays(chosen.tensors))
        sigmas = _sigmas(found, chosen, network.num_levels)
    except CheckpointFormatError as error:
        place = f", {chosen.place}" if chosen.place else ""
        remedy = f" The file also has {also} weights: weights={also} (--weights={also}) takes them." if also else ""
        raise CheckpointFormatError(f"{found.where}{place}: {error}{remedy}") from error
    return Checkpoint(network, chosen.describe(), chosen.kind, also, sigmas)


def read_state_dict(path: str | os.PathLike, weights: str | None = None) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint as float32 arrays, by official name without prefix.

    Arguments and errors as for `ncsn_from_torch`.
    """
    return torch_files.to_arrays(_find(path, weights)[1].tensors)


def _find(path: str | os.PathLike, weights: str | None) -> tuple[containers.Found, containers.Weights]:
    place, content = torch_files.read(path)
    found = containers.find(content, official_names(), str(place))
    if not found.sets and (other := _other_network(found.loose)):
        raise CheckpointFormatError(f"{place} is not an NCSN checkpoint: it looks like {other}.")
    return found, found.choose(weights)


@functools.cache
def official_names() -> tuple[str, ...]:
    """The names of all tensors of `CondRefineNetDilated`; they do not depend on its sizes."""
    network = NCSN(channels=1, num_levels=1, filters=2)
    return tuple(name for prefix, layer in _layers(network) for name, _ in _tensors(prefix, layer))


def ncsn_from_state_dict(state: Mapping[str, np.ndarray]) -> NCSN:
    """Builds an `NCSN` with the weights of a `CondRefineNetDilated` state dict, names without prefix.

    `sigmas`, the noise levels, may be among them; the network has no place for them.

    Raises:
      CheckpointFormatError: as `ncsn_from_torch` does.
    """
    for name, rank in (("begin_conv.weight", 4), ("normalizer.embed.weight", 2)):
        if name not in state or np.ndim(state[name]) != rank:
            other = _other_network(state)
            is_there = f"its shape is {np.shape(state[name])}" if name in state else "it is missing"
            raise CheckpointFormatError(
                f"This is not an NCSN checkpoint: it has no {name} of rank {rank} ({is_there}). "
                + (f"It looks like {other}." if other else f"Closest: {_closest(name, state)}.")
            )
    filters, channels = state["begin_conv.weight"].shape[:2]
    _check_names(filters, state)
    network = NCSN(channels=channels, num_levels=state["normalizer.embed.weight"].shape[0], filters=filters)
    network.build((None, None, None, channels), (None,))

    expected = {
        name: getattr(layer, attribute)
        for prefix, layer in _layers(network)
        for name, attribute in _tensors(prefix, layer)
    }
    for name, variable in expected.items():
        given = np.asarray(state[name])
        value = _to_keras(given, variable)
        if value.shape != tuple(variable.shape):
            raise CheckpointFormatError(
                f"{name} does not fit. Expected: {_to_torch(tuple(variable.shape))}, of a network of width {filters}. "
                f"Received: {given.shape}."
            )
        if bad := int(value.size - np.isfinite(value).sum()):
            raise CheckpointFormatError(
                f"{name} does not fit: it holds {bad} values that are not finite (of {value.size})."
            )
        variable.assign(value)
    return network


def _other_network(names: Collection[str]) -> str | None:
    """The official network of another kind that has such names, whatever is before them."""
    for sign, kind in _OTHER_NETWORKS.items():
        if any(f".{name}".endswith(f".{sign}") for name in names):
            return kind
    return None


def _check_names(filters: int, state: Mapping[str, np.ndarray]) -> None:
    expected = official_names()
    missing = [name for name in expected if name not in state]
    superfluous = [name for name in state if name not in expected and name != _SIGMAS]
    if missing or superfluous:
        closest = f" (closest: {_closest(missing[0], superfluous)})" if missing and superfluous else ""
        raise CheckpointFormatError(
            f"The tensors are not those of an NCSN of width {filters}. Missing: {torch_files.few(missing)}{closest}. "
            f"Superfluous: {torch_files.few(superfluous)}."
        )


def _sigmas(found: containers.Found, chosen: containers.Weights, num_levels: int) -> np.ndarray | None:
    """The noise levels that a file holds, a buffer of the network or beside it; None if there are none."""
    beside = {name.rpartition(".")[2]: value for name, value in found.loose.items()}
    holder = next(
        (held for held in (chosen.tensors, *(one.tensors for one in found.sets), beside) if _SIGMAS in held), {}
    )
    sigmas = torch_files.to_arrays({name: value for name, value in holder.items() if name == _SIGMAS}).get(_SIGMAS)
    if sigmas is not None and not (sigmas.shape == (num_levels,) and (np.isfinite(sigmas) & (sigmas > 0.0)).all()):
        raise CheckpointFormatError(
            f"{_SIGMAS} does not fit. Expected {num_levels} positive numbers, one per noise level. "
            f"Received: shape {sigmas.shape}, first {np.array2string(sigmas.reshape(-1)[:3], precision=4)}."
        )
    return sigmas


def _closest(name: str, names: Collection[str]) -> str:
    """The three most similar names."""
    return ", ".join(difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)) or "none"


def _to_torch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the PyTorch tensor that becomes a variable of this shape."""
    if len(shape) == 4:
        return shape[3], shape[2], shape[0], shape[1]
    return (shape[0], shape[1] * shape[2]) if len(shape) == 3 else shape


def _to_keras(value: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """A PyTorch tensor in Keras's layout: kernels [out, in, h, w] -> [h, w, in, out], tables [L, 3 C] -> [L, 3, C]."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and len(variable.shape) == 3 and value.shape[1] % 3 == 0:
        return value.reshape(value.shape[0], 3, -1)
    return value


def _tensors(prefix: str, layer: keras.layers.Layer) -> Iterator[tuple[str, str]]:
    """Yields the official names of a layer's tensors, with the layer's attributes that hold the variables."""
    if isinstance(layer, ConditionalInstanceNormPlusPlus):
        yield f"{prefix}.embed.weight", "table"
        return
    yield f"{prefix}.weight", "kernel"
    if layer.use_bias:
        yield f"{prefix}.bias", "bias"


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
