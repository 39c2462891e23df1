"""Puts the named tensors of a checkpoint into the variables of a network: all of them, or none."""

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import keras
import numpy as np

from ncsn_tf.interop.torch_files import CheckpointFormatError, few

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The arrangement of a tensor in PyTorch.

    Attributes:
      to_keras: an array in PyTorch's arrangement -> the same in Keras's.
      to_torch: a shape in Keras's arrangement -> the same in PyTorch's.
    """

    to_keras: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[Shape], Shape]


PLAIN = Layout(lambda value: value, lambda shape: shape)
"""The same in both: vectors, and the matrices [in, out] of score_sde's 1x1 layers ("NIN")."""
CONVOLUTION = Layout(lambda value: value.transpose(2, 3, 1, 0), lambda shape: (shape[3], shape[2], shape[0], shape[1]))
"""[out, in, height, width] -> [height, width, in, out]."""
LINEAR = Layout(lambda value: value.transpose(), lambda shape: shape[::-1])
"""[out, in] -> [in, out]."""
TABLE = Layout(lambda value: value.reshape(value.shape[0], 3, -1), lambda shape: (shape[0], shape[1] * shape[2]))
"""gamma, alpha and beta of each level, [levels, 3 features] -> [levels, 3, features]."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A variable of a network and the tensor that belongs in it.

    Attributes:
      name: the tensor's name in the authors' program, without prefix.
      layer: the layer that holds the variable once it is built.
      attribute: the layer's attribute of the variable.
      layout: the arrangement of the tensor.
    """

    name: str
    layer: keras.layers.Layer
    attribute: str
    layout: Layout = PLAIN

    @property
    def variable(self) -> keras.Variable:
        """The variable."""
        return getattr(self.layer, self.attribute)


def convolution(name: str, layer: keras.layers.Conv2D) -> Iterator[Target]:
    """The targets of a convolution that PyTorch calls `name`."""
    yield Target(f"{name}.weight", layer, "kernel", CONVOLUTION)
    if layer.use_bias:
        yield Target(f"{name}.bias", layer, "bias")


def assign(
    targets: Sequence[Target], tensors: Mapping[str, np.ndarray], network: str, *, ignored: Collection[str] = ()
) -> None:
    """Assigns tensors to variables, once all of them are found to fit.

    Args:
      targets: the variables of a network and their names in the authors' program.
      tensors: arrays by name.
      network: says what the network is, for messages: "an NCSN of width 128".
      ignored: names of tensors for which the network has no place and needs none.

    Raises:
      CheckpointFormatError: if a tensor is missing, superfluous, misshapen or not finite; the message names the first.
        No variable has changed then.
    """
    check_names([target.name for target in targets], tensors, network, ignored=ignored)
    values = []
    for target in targets:
        given, expected = np.asarray(tensors[target.name]), target.layout.to_torch(tuple(target.variable.shape))
        if given.shape != expected:
            raise CheckpointFormatError(
                f"{target.name} does not fit. Expected: {expected}, of {network}. Received: {given.shape}."
            )
        if bad := int(given.size - np.isfinite(given).sum()):
            raise CheckpointFormatError(
                f"{target.name} does not fit: it holds {bad} values that are not finite (of {given.size})."
            )
        values.append(target.layout.to_keras(given))
    for target, value in zip(targets, values, strict=True):
        target.variable.assign(value)


def check_names(
    expected: Sequence[str], given: Collection[str], network: str, *, ignored: Collection[str] = ()
) -> None:
    """Raises CheckpointFormatError, as `assign` does, if names are missing or superfluous."""
    known = {*expected, *ignored}
    missing = [name for name in expected if name not in given]
    superfluous = [name for name in given if name not in known]
    if missing or superfluous:
        near = f" (closest: {closest(missing[0], superfluous)})" if missing and superfluous else ""
        raise CheckpointFormatError(
            f"The tensors are not those of {network}. Missing: {few(missing) or 'none'}{near}. "
            f"Superfluous: {few(superfluous) or 'none'}."
        )


def closest(name: str, names: Collection[str]) -> str:
    """The three most similar names, for people."""
    return ", ".join(difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)) or "none"
