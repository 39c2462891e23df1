"""Finds the weights of a network in what PyTorch programs save around them.

A file may hold a state dict, or lists and dicts that hold several: the raw weights, their average, the optimizer. The
tensors of a network are recognised by their names, whatever is written before them, so no list of the usual wrappers is
needed: `model.state_dict.begin_conv.weight` and `[4].module.begin_conv.weight` are the `begin_conv.weight` of two sets.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ncsn_tf.interop.torch_files import CheckpointFormatError, describe, is_tensor

RAW, AVERAGE = "raw", "average"

# Parts that PyTorch puts into names when it wraps a module: for several devices, a compiler, less memory.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
# Words in keys and prefixes. The innermost one counts: `ema.online_model` holds raw weights.
_AVERAGE_WORDS = {"ema", "emas", "shadow", "average", "averaged", "averages", "avg", "swa", "polyak"}
_RAW_WORDS = {"online", "raw", "collected", "backup"}
_MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}  # of optimizers
_OTHER_WORDS = {"optimizer", "optimizers", "optim", "opt", "scheduler", "schedulers", "scaler", "rng"}
# Bookkeeping beside averaged weights, and in the list that ermongroup/ncsnv2 writes.
_AVERAGE_MARKS = ("n_averaged", "num_updates")
_BOOKKEEPING = {*_AVERAGE_MARKS, "decay", "step", "steps", "initted", "num_batches_tracked"}


@dataclasses.dataclass(frozen=True)
class Weights:
    """One set of a network's weights in a file.

    Attributes:
      place: where it is in the file: "model.state_dict", "[4]"; "" if the file holds nothing else.
      kind: "raw" or "average".
      tensors: by name, what the place holds: torch tensors.
      matched: the number of tensors whose names are known.
    """

    place: str
    kind: str
    tensors: Mapping[str, Any]
    matched: int

    def describe(self) -> str:
        """The place, the kind and the number of tensors, for people."""
        return f"{self.place or 'the whole file'} ({self.kind}, {len(self.tensors)} tensors)"


@dataclasses.dataclass(frozen=True)
class Found:
    """The content of a file, sorted by kind.

    Attributes:
      where: the file, for messages.
      example: a name that is known.
      sets: the sets of weights that have known names.
      loose: by path, the other tensors.
      unnamed: by path, lists of tensors without names.
      content: the file's content.
      untrained: the names of tensors that no average holds, because they are not trained.
    """

    where: str
    example: str
    sets: Sequence[Weights]
    loose: Mapping[str, Any]
    unnamed: Mapping[tuple[str, ...], Sequence[Any]]
    content: Any
    untrained: Collection[str] = ()

    def choose(self, wanted: str | None) -> Weights:
        """The averaged weights if there are any, else the raw ones; or those that are wanted.

        Tensors that are not trained have no average: they are taken from the raw weights.

        Args:
          wanted: "raw", "average", or None for the choice above.

        Raises:
          CheckpointFormatError: if there are none, or several; the message lists what there is.
          ValueError: if `wanted` is something else.
        """
        if wanted not in (None, RAW, AVERAGE):
            raise ValueError(f"weights must be 'raw', 'average' or None. Received: {wanted!r}.")
        if not self.sets:
            lacks = f"weights with names such as {self.example}" if self.loose or self.unnamed else "state dict"
            raise CheckpointFormatError(f"{self.where} holds no {lacks}. It holds: {describe(self.content)}.")
        listed = "; ".join(found.describe() for found in self.sets)
        kinds = [wanted] if wanted else [AVERAGE, RAW]
        pool = next((chosen for kind in kinds if (chosen := self._of_kind(kind))), [])
        if not pool:
            raise CheckpointFormatError(f"{self.where} holds no {_adjective(wanted)} weights. There are: {listed}.")
        if len(pool) > 1:
            raise CheckpointFormatError(
                f"{self.where} holds {len(pool)} sets of {_adjective(pool[0].kind)} weights. There are: {listed}. "
                "Save the one that you want to a file of its own."
            )
        return self._completed(pool[0]) if pool[0].kind == AVERAGE else pool[0]

    def other_kind(self, kind: str) -> str | None:
        """The other kind of weights if the file holds it as well."""
        other = RAW if kind == AVERAGE else AVERAGE
        there = any(found.kind == other for found in self.sets) or (other == AVERAGE and bool(self.unnamed))
        return other if there else None

    def _of_kind(self, kind: str) -> list[Weights]:
        """The sets of a kind; lists without names are matched to the raw set's names here."""
        sets = [found for found in self.sets if found.kind == kind]
        if kind == AVERAGE and not sets:
            raw = self._of_kind(RAW)
            sets = [_with_names(path, tensors, raw, self.untrained) for path, tensors in self.unnamed.items()]
        most = max((found.matched for found in sets), default=0)
        return [found for found in sets if 2 * found.matched >= most]  # another network may share a few names

    def _completed(self, average: Weights) -> Weights:
        """An average with the tensors that are not trained, from the raw weights if the file holds one set of them."""
        raw = self._of_kind(RAW)
        lent = {name: raw[0].tensors[name] for name in self.untrained if len(raw) == 1 and name in raw[0].tensors}
        return dataclasses.replace(average, tensors={**lent, **average.tensors})


def find(content: Any, known: Collection[str], where: str = "The file", *, untrained: Collection[str] = ()) -> Found:
    """Finds the sets of weights in the content of a file.

    Args:
      content: dicts and lists of tensors and plain values, in any nesting.
      known: names of the network's tensors, at least one.
      where: names the file in messages.
      untrained: those of them that are not trained, so that an average may lack them.
    """
    named: dict[tuple[str, ...], Any] = {}
    unnamed: dict[tuple[str, ...], Sequence[Any]] = {}
    for path, value in _leaves(content):
        if isinstance(value, list | tuple):
            unnamed[path] = value
        else:
            short = tuple(part for part in path if part not in _WRAPPERS)
            named[path if short in named else short] = value
    # Some programs leave the dots out of names: `model_ema.begin_convweight`.
    by_letters = {name.replace(".", ""): name for name in known}
    sets: dict[tuple[str, ...], dict[str, Any]] = {}
    others, marks = {}, set()
    for path, value in named.items():
        if not path:
            continue  # the whole content is one value
        place, name = _split(path, by_letters)
        if not is_tensor(value) or (name is None and path[-1] in (*_AVERAGE_MARKS, "decay")):
            marks.add(path)
        elif name is not None:
            sets.setdefault(place, {})[name] = value
        else:
            others[path] = value
    matched = {place: len(tensors) for place, tensors in sets.items()}
    late = _late_entries(content, sets)
    loose = {}
    for path, value in others.items():
        homes = [place for place in sets if path[: len(place)] == place]
        if homes and not (path[-1] in _BOOKKEEPING and _size(value) == 1):
            home = max(homes, key=len)
            sets[home][".".join(path[len(home) :])] = value
        else:
            loose[_written(path)] = value
    found = [
        Weights(_written(place), _kind(place, marks, late), tensors, matched[place]) for place, tensors in sets.items()
    ]
    averaged = {path: tensors for path, tensors in unnamed.items() if _kind(path, marks, late) == AVERAGE}
    return Found(where, next(iter(known)), _distinct(found), loose, averaged, content, untrained)


def names(content: Any, known: Collection[str]) -> set[str]:
    """Those of some tensors' names that occur in the content of a file, whatever is written before them."""
    return {name for found in find(content, known).sets for name in found.tensors if name in known}


def _leaves(content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields (path, tensor, plain value or list of tensors); not those of optimizers.

    A container that is met again, as in a cycle, is skipped unless its path says another kind.
    """
    seen = set()
    stack: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, list | tuple) and value and all(map(is_tensor, value)):
            yield path, value
        elif isinstance(value, Mapping | list | tuple):
            visit = (id(value), _word(path))
            if visit not in seen and not _is_other(path, value):
                seen.add(visit)
                stack.extend(reversed([(path + parts, item) for parts, item in _items(value)]))
        else:
            yield path, value


def _items(container: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(container, Mapping):
        yield from ((tuple(str(key).split(".")), value) for key, value in container.items())
    else:
        yield from (((f"[{number}]",), value) for number, value in enumerate(container))


def _size(tensor: Any) -> int:
    return math.prod(tensor.shape)


def _is_other(path: tuple[str, ...], value: Any) -> bool:
    """Tells whether a container belongs to an optimizer or the like."""
    if isinstance(value, Mapping) and "param_groups" in value:
        return True
    return any(part in _MOMENTS or not _OTHER_WORDS.isdisjoint(_words(part)) for part in path)


def _words(part: str) -> list[str]:
    """The words of a key in lower case: "netEMA" and "net_ema" have the same."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)]


def _word(path: tuple[str, ...]) -> str | None:
    """The kind that the innermost word of a path says, if one does."""
    for part in reversed(path):
        words = _words(part)
        if not _RAW_WORDS.isdisjoint(words):
            return RAW
        if not _AVERAGE_WORDS.isdisjoint(words):
            return AVERAGE
    return None


def _kind(place: tuple[str, ...], marks: Collection[tuple[str, ...]], late: Collection[str]) -> str:
    """The kind of the weights at a place: by the words of its path, by what is beside it, by its number in a list."""
    said = _word(place)
    if said is not None:
        return said
    marked = any((*place, mark) in marks for mark in _AVERAGE_MARKS)
    return AVERAGE if marked or (place and place[0] in late) else RAW


def _late_entries(content: Any, places: Iterable[tuple[str, ...]]) -> set[str]:
    """The entries of a list after its first set of weights and an optimizer.

    ermongroup/ncsnv2 writes [model, optimizer, epoch, step, average].
    """
    firsts = {place[0] for place in places if place}
    if not isinstance(content, list | tuple):
        return set()
    numbers = [number for number in range(len(content)) if f"[{number}]" in firsts]
    start = numbers[0] if numbers else len(content)
    return {
        f"[{number}]"
        for number in range(start + 1, len(content))
        if any(_is_other((), item) for item in content[start + 1 : number])
    }


def _split(path: tuple[str, ...], by_letters: Mapping[str, str]) -> tuple[tuple[str, ...], str | None]:
    """A path as the place of a set and a known name; the name is None if there is none."""
    for start in range(len(path)):
        name = by_letters.get("".join(path[start:]))
        if name is not None:
            return path[:start], name
    return path[:-1], None


def _distinct(sets: Sequence[Weights]) -> list[Weights]:
    """The sets without those that another of the same kind equals, tensor by tensor."""
    kept: list[Weights] = []
    for found in sets:
        if not any(found.kind == other.kind and _equal(found.tensors, other.tensors) for other in kept):
            kept.append(found)
    return kept


def _equal(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    import torch

    def same(one: Any, other: Any) -> bool:
        return one is other or (one.dtype == other.dtype and torch.equal(one, other))

    try:
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    except (RuntimeError, NotImplementedError):  # tensors of a kind that cannot be compared
        return False


def _with_names(
    path: tuple[str, ...], tensors: Sequence[Any], raw: Sequence[Weights], untrained: Collection[str]
) -> Weights:
    """Gives a list of averaged parameters the names of the raw ones, which are in the same order.

    Raises:
      CheckpointFormatError: unless there is one raw set whose shapes fit; buffers and untrained parameters, which have
        no average, are left out.
    """
    where = f"{_written(path)} is a list of {len(tensors)} averaged tensors without names"
    if len(raw) != 1:
        named = " or ".join(found.place or "the whole file" for found in raw) or "no raw weights"
        raise CheckpointFormatError(f"{where}, to be named in the order of one set of raw weights. Received: {named}.")
    held, skipped = list(raw[0].tensors), {name for name in raw[0].tensors if name in untrained}
    # The tensors with unknown names, such as buffers, come last; some programs average them too.
    every = held[: max(len(tensors), raw[0].matched)]
    trained = [name for name in held if name not in skipped][: max(len(tensors), raw[0].matched - len(skipped))]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    for names in (trained, every):
        if [tuple(raw[0].tensors[name].shape) for name in names] == shapes:
            return Weights(_written(path), AVERAGE, dict(zip(names, tensors, strict=True)), len(names))
    reason = "their number differs"
    for number, (name, given) in enumerate(zip(trained, shapes, strict=False)):
        if (expected := tuple(raw[0].tensors[name].shape)) != given:
            reason = f"number {number}, {name}, must be {expected}, but is {given}"
            break
    raise CheckpointFormatError(
        f"{where}, which do not fit the {len(trained)} tensors of {raw[0].place or 'the file'}: {reason}. "
        "weights=raw takes the raw ones."
    )


def _written(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(".[", "[")


def _adjective(kind: str | None) -> str:
    return "averaged" if kind == AVERAGE else "raw"
