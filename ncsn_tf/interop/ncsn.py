"""Weights of the checkpoints of NCSN (github.com/ermongroup/ncsn) in our network."""

import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ncsn_tf.interop import assign, checkpoints, configuration, families, levels, refinenet
from ncsn_tf.interop.checkpoints import Checkpoint
from ncsn_tf.interop.torch_files import CheckpointFormatError
from ncsn_tf.networks.ncsn import NCSN


def network_from_torch(path: str | os.PathLike, weights: str | None = None) -> NCSN:
    """Reads a checkpoint that ermongroup/ncsn writes for its `CondRefineNetDilated`.

    Checkpoints of the network `NCSN` in ermongroup/ncsnv2 are of the same form.

    Args:
      path: a `.pth` file: a state dict, or dicts and lists that hold one, whatever their keys. Prefixes of the names,
        such as `module.`, `_orig_mod.` or `model.`, do not matter.
      weights: "raw" or "average"; by default the averaged weights if the file has any, else the raw ones.

    Returns:
      A built `NCSN` with these weights; its width, channels and level count are read from the tensors. It takes
      images in [0, 1] and maps them to [-1, 1] itself, which the official program does outside its network.

    Raises:
      CheckpointFormatError: a ValueError, if the file cannot be read as tensors, or holds no such weights or several,
        or if tensors are missing, superfluous or misshapen; the message says what there is.
      ValueError: if `weights` is something else.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    return read_checkpoint(path, weights=weights).network


def read_checkpoint(path: str | os.PathLike, config: Any = None, weights: str | None = None) -> Checkpoint:
    """Reads a checkpoint, and says which of its weights were taken.

    The noise levels are among the `sections` of the result if the file has a buffer `sigmas`, which the official
    program does not write, or `config` gives them.

    Args:
      path: as for `network_from_torch`.
      config: the configuration that it was trained with, as `configuration.read` takes it, or None.
      weights: as for `network_from_torch`.

    Raises:
      ValueError: if the configuration contradicts the file; and otherwise as for `network_from_torch`.
    """
    return from_content(*checkpoints.read(path), config, weights)


def from_content(where: str, content: Any, config: Any = None, weights: str | None = None) -> Checkpoint:
    """Finds the checkpoint in the content of a file; arguments and errors otherwise as for `read_checkpoint`."""
    families.check(content, families.NCSN, where)
    told = configuration.read(config)
    chosen = checkpoints.choose(content, where, official_names(), weights)
    with chosen.named_in_errors():
        filters, channels, num_levels = _sizes(chosen.tensors)
        told.agree("model.name", told.word("model.name", configuration.NAMES), "ncsn")
        told.agree("model.nf|ngf", told.whole("model.nf|ngf"), filters)
        refinenet.check_options(told, channels)
        sections: dict[str, checkpoints.Section] = {
            "network": {"name": "ncsn", "filters": filters},
            "output": {"name": "score"},
            "condition": {"name": "nearest_level"},
            **levels.sections(chosen.sigmas, told, num_levels),
        }
        network = network_from_state_dict(chosen.tensors)
    kept = (chosen.weights, chosen.kind, chosen.also)
    return Checkpoint("NCSN", network, *kept, sections, told.image_size)


def read_state_dict(path: str | os.PathLike, weights: str | None = None) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint as float32 arrays, by official name without prefix.

    Arguments and errors as for `network_from_torch`.
    """
    where, content = checkpoints.read(path)
    families.check(content, families.NCSN, where)
    return dict(checkpoints.choose(content, where, official_names(), weights).tensors)


@functools.cache
def official_names() -> tuple[str, ...]:
    """The names of all tensors of `CondRefineNetDilated`; they do not depend on its sizes."""
    network = NCSN(channels=1, num_levels=1, filters=2)
    return tuple(target.name for target in _targets(network))


def network_from_state_dict(state: Mapping[str, np.ndarray]) -> NCSN:
    """Builds an `NCSN` with the weights of a `CondRefineNetDilated` state dict, names without prefix.

    `sigmas`, the noise levels, may be among them; the network has no place for them.

    Raises:
      CheckpointFormatError: as `network_from_torch` does.
    """
    filters, channels, num_levels = _sizes(state)
    described = f"an NCSN of width {filters}"
    assign.check_names(official_names(), state, described, ignored=(checkpoints.SIGMAS,))
    network = NCSN(channels=channels, num_levels=num_levels, filters=filters)
    network.build((None, None, None, channels), (None,))
    assign.assign(list(_targets(network)), state, described, ignored=(checkpoints.SIGMAS,))
    return network


def _sizes(state: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """(width, image channels, levels) of the network with these tensors."""
    for name, rank in (("begin_conv.weight", 4), ("normalizer.embed.weight", 2)):
        if name not in state or np.ndim(state[name]) != rank:
            is_there = f"its shape is {np.shape(state[name])}" if name in state else "it is missing"
            raise CheckpointFormatError(
                f"This is not an NCSN checkpoint: it has no {name} of rank {rank} ({is_there}). "
                f"Closest: {assign.closest(name, state)}."
            )
    return *state["begin_conv.weight"].shape[:2], state["normalizer.embed.weight"].shape[0]


def _targets(network: NCSN) -> Iterator[assign.Target]:
    """Yields the variables of the network with their official names."""
    stages = {f"res{number}": blocks for number, blocks in enumerate(network.cascades, start=1)}
    refinements = {f"refine{number}": block for number, block in enumerate(network.refinements, start=1)}
    return refinenet.targets(network, stages, refinements)
