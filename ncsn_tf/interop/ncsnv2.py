"""Weights of the checkpoints of NCSNv2 (github.com/ermongroup/ncsnv2) in our network."""

import functools
import os
from collections.abc import Iterator
from typing import Any

from ncsn_tf.interop import assign, checkpoints, configuration, containers, families, levels, refinenet
from ncsn_tf.interop.checkpoints import Checkpoint
from ncsn_tf.interop.torch_files import CheckpointFormatError
from ncsn_tf.networks.ncsnv2 import NCSNv2

# What follows "res" and "refine" in the program's names, in the order of execution, by the number of cascades.
_NUMBERS = {4: "1 2 3 4", 5: "1 2 3 4 5", 6: "1 2 3 31 4 5"}
_REFINEMENTS = {4: "1 2 3 4", 5: "1 2 3 4 5", 6: "1 2 31 3 4 5"}
_FAMILY = {4: "NCSNv2", 5: "NCSNv2Deeper", 6: "NCSNv2Deepest"}
_DEPTH_SIGNS = {"res31.0.conv1.weight": 6, "refine31.msf.convs.0.weight": 6, "res5.0.conv1.weight": 5}
_CONFIG_NAMES = {"ncsnv2_64": 4, "ncsnv2_128": 5, "ncsnv2_256": 6}


def network_from_torch(path: str | os.PathLike, weights: str | None = None) -> NCSNv2:
    """Reads a checkpoint that ermongroup/ncsnv2 writes for `NCSNv2`, `NCSNv2Deeper` or `NCSNv2Deepest`.

    Checkpoints of score_sde's networks `ncsnv2_64`, `ncsnv2_128` and `ncsnv2_256` are read as well.

    Args:
      path: a `.pth` file: [state dict, optimizer, epoch, step, average], or dicts and lists that hold the weights,
        whatever their keys.
      weights: "raw" or "average"; by default the averaged weights if the file has any, else the raw ones.

    Returns:
      A built `NCSNv2` with these weights; depth, width and channels are read from the tensors. Its output is sigma
      times the score, whereas the program's is the score.

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

    The noise levels are among the `sections` of the result if the file has the buffer `sigmas`, which the program
    writes, or `config` gives them.

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
    families.check(content, families.NCSNV2, where)
    told = configuration.read(config)
    depth = max((_DEPTH_SIGNS[sign] for sign in containers.names(content, _DEPTH_SIGNS)), default=4)
    chosen = checkpoints.choose(content, where, _names(depth), weights)
    with chosen.named_in_errors():
        first = chosen.tensors.get("begin_conv.weight")
        if first is None or first.ndim != 4:
            raise CheckpointFormatError(
                "This is not an NCSNv2 checkpoint: it has no begin_conv.weight of rank 4. "
                f"Closest: {assign.closest('begin_conv.weight', chosen.tensors)}."
            )
        filters, channels = first.shape[:2]
        if filters < 2 or channels < 1:
            raise CheckpointFormatError(
                "begin_conv.weight does not fit. Expected (2 or more filters, channels, 3, 3). "
                f"Received: {tuple(first.shape)}."
            )
        described, ignored = f"an {_FAMILY[depth]} of width {filters}", (checkpoints.SIGMAS,)
        assign.check_names(_names(depth), chosen.tensors, described, ignored=ignored)
        name = told.word("model.name", configuration.NAMES)
        told.agree("model.name", name, next(name for name, cascades in _CONFIG_NAMES.items() if cascades == depth))
        told.agree("model.nf|ngf", told.whole("model.nf|ngf"), filters)
        refinenet.check_options(told, channels)
        sections: dict[str, checkpoints.Section] = {
            "network": {"name": "ncsnv2", "filters": filters, "cascades": depth},
            "output": {"name": "score_over_sigma"},
            "condition": {"name": "none"},
            **levels.sections(chosen.sigmas, told),
        }
        network = NCSNv2(channels=channels, filters=filters, cascades=depth)
        network.build((None, None, None, channels))
        assign.assign(list(_targets(network)), chosen.tensors, described, ignored=ignored)
    kept = (chosen.weights, chosen.kind, chosen.also)
    return Checkpoint(_FAMILY[depth], network, *kept, sections, told.image_size)


@functools.cache
def _names(cascades: int) -> tuple[str, ...]:
    """The program's names of all tensors; they do not depend on the sizes."""
    network = NCSNv2(channels=1, filters=2, cascades=cascades)
    return tuple(target.name for target in _targets(network))


def _targets(network: NCSNv2) -> Iterator[assign.Target]:
    """Yields the variables of the network with the program's names."""
    numbers, refined = _NUMBERS[network.cascades].split(), _REFINEMENTS[network.cascades].split()
    stages = {f"res{number}": blocks for number, blocks in zip(numbers, network.stages, strict=True)}
    refinements = {f"refine{number}": block for number, block in zip(refined, network.refinements, strict=True)}
    return refinenet.targets(network, stages, refinements)
