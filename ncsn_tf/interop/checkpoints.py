"""A checkpoint of the authors' programs, read: what the readers of all families share."""

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ncsn_tf.interop import containers, torch_files
from ncsn_tf.interop.torch_files import CheckpointFormatError

SIGMAS = "sigmas"
"""The buffer in which the authors' programs keep their noise levels, from the largest to the smallest."""

Section = Mapping[str, Any]
"""A section of our configuration; `name` is its choice, and the others are keys of that choice."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the authors' programs.

    Attributes:
      family: the network, for people: "NCSN++".
      network: the network with its weights, built.
      weights: which weights of the file these are, for people: "[4] (average, 84 tensors)".
      kind: "raw" or "average".
      also: the kind that the file holds as well, or None.
      sections: the sections of our configuration that the file and the authors' configuration determine, by name:
        `network`, `times`, `output`, `condition`, and `sde` if the noise levels are known.
      image_size: (height, width) in pixels, if the network is built for one or the authors' configuration gives it.
      assumed: what neither of the two tells and is taken from the published models, each as KEY=VALUE of the authors'
        configuration.
    """

    family: str
    network: keras.Model
    weights: str
    kind: str
    also: str | None
    sections: Mapping[str, Section]
    image_size: tuple[int, int] | None = None
    assumed: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The weights that are taken from a file, as arrays.

    Attributes:
      where: the file, for messages.
      place: the weights' place in it.
      weights: the same, with the kind and the number of tensors, for people.
      kind: "raw" or "average".
      also: the kind that the file holds as well, or None.
      tensors: float32 arrays by name.
      sigmas: the noise levels that the file holds, as they are, or None.
    """

    where: str
    place: str
    weights: str
    kind: str
    also: str | None
    tensors: Mapping[str, np.ndarray]
    sigmas: np.ndarray | None

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Within it, the message of a CheckpointFormatError begins with the file and the place of the weights."""
        with _named(self.where, self.place, self.also):
            yield


def choose(
    content: Any, where: str, known: Collection[str], weights: str | None, *, untrained: Collection[str] = ()
) -> Chosen:
    """Takes the averaged weights of a network from a file's content if there are any, else the raw ones.

    Args:
      content: dicts and lists of tensors and plain values, in any nesting.
      where: the file, for messages.
      known: names of the network's tensors, at least one.
      weights: "raw" or "average"; None for the choice above.
      untrained: names of tensors of which no average is kept.

    Raises:
      CheckpointFormatError: if there are none, or several, or if they are no arrays of real numbers.
      ValueError: if `weights` is something else.
    """
    found = containers.find(content, known, where, untrained=untrained)
    chosen = found.choose(weights)
    also = found.other_kind(chosen.kind)
    beside = {name.rpartition(".")[2]: value for name, value in found.loose.items()}
    holders = [chosen.tensors, *(one.tensors for one in found.sets), beside]
    sigmas = next((holder[SIGMAS] for holder in holders if SIGMAS in holder), None)
    with _named(where, chosen.place, also):
        arrays = torch_files.to_arrays(chosen.tensors)
        levels = None if sigmas is None else torch_files.to_arrays({SIGMAS: sigmas})[SIGMAS]
    return Chosen(where, chosen.place, chosen.describe(), chosen.kind, also, arrays, levels)


def read(path: str | os.PathLike) -> tuple[str, Any]:
    """(the file's name for messages, its content); errors as for `torch_files.read`."""
    place, content = torch_files.read(path)
    return str(place), content


@contextlib.contextmanager
def _named(where: str, place: str, also: str | None) -> Iterator[None]:
    try:
        yield
    except CheckpointFormatError as error:
        remedy = f" The file also has {also} weights: weights={also} (--weights={also}) takes them." if also else ""
        raise CheckpointFormatError(f"{where}{f', {place}' if place else ''}: {error}{remedy}") from error
