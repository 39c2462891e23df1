"""Conventional names of a dataset's parts, and the division of files by the names of folders and files."""

import collections
import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence

_TRAIN = ("train", "training", "trn")
_HELD_OUT = (
    ("test", "testing", "tst"),
    ("held_out", "heldout", "hold_out", "holdout"),
    ("validation", "validate", "valid", "val", "dev", "eval", "evaluation"),
)
"""The names of held-out parts, in order of preference where a dataset has several."""
_SHORT = {"tr": ("train", 0), "te": ("held_out", 0), "ts": ("held_out", 0), "va": ("held_out", 2)}
"""Names that mean a part only beside others: languages and classes have them too."""
_KNOWN = (("train", 0, _TRAIN), *(("held_out", rank, names) for rank, names in enumerate(_HELD_OUT)))
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_ENDINGS = ("set", "data", "images", "imgs")
"""Endings that may follow such a name without a separator, as in "testset"."""

Groups = Mapping[str, Sequence[str]]
"""Files by their topmost folder."""


@dataclasses.dataclass(frozen=True)
class Role:
    """The part that a name denotes.

    Attributes:
      part: "train" or "held_out".
      rank: the preference among held-out parts, 0 first; 0 for "train".
      exact: whether the whole name denotes the part, as "Train" does, not only a word of it, as in "train2017".
    """

    part: str
    rank: int
    exact: bool


def role(name: str) -> Role | None:
    """Returns the part that the name of a folder, a file, an array or a split denotes; None if it denotes none.

    Neither case nor punctuation matters: "Test", "held-out", "val2017", "x_train" and "trainA" are understood.
    """
    words = [_without_ending(word.lower()) for word in _WORDS.findall(name)]
    pairs = ["_".join(pair) for pair in zip(words, words[1:], strict=False)]
    whole = "_".join(word for word in words if word)
    for part, rank, known in _KNOWN:
        if not {*words, *pairs}.isdisjoint(known):
            return Role(part, rank, whole in known and not re.search(r"\d", name))
    return Role(*_SHORT[whole], exact=False) if whole in _SHORT else None


def _without_ending(word: str) -> str:
    """The word without one of the endings; "" if it is one."""
    return next((word.removesuffix(ending) for ending in _ENDINGS if word.endswith(ending)), word)


def divide(names: Sequence[str], part: str, where: str, *, by_file_name: bool) -> tuple[list[int], bool]:
    """Divides files between "train" and "held_out" by the names of their topmost folders, or by their own names.

    If several held-out parts exist, "test" comes before "held_out", and this before "validation"; a warning tells
    which files belong to neither part.

    Args:
      names: relative paths with "/" between their components, without the files' suffixes.
      part: "train" or "held_out".
      where: names the dataset in messages.
      by_file_name: whether the files' own names may divide them, as those of shards do: "x-train", "x.val-0".

    Returns:
      The positions of the part's files, and True; or all positions, and False, if no names divide them.

    Raises:
      ValueError: if a division is suggested but not clear: "train" beside folders that are not understood, a held-out
        part without "train", two training parts, or parts within a subfolder.
    """
    folders, loose = _by_top_folder(names)
    if _are_parts(folders, loose):
        chosen = _choose(folders, where)
        if chosen is not None:
            unused = {name: files for name, files in folders.items() if name not in chosen.values()}
            _warn_unused(unused, len(loose), chosen, where)
            if not all(found.exact for name in chosen.values() if (found := role(name)) is not None):
                warnings.warn(
                    f"{where} is divided by a part of its folders' names: {chosen['train']!r} for training, "
                    f"{chosen['held_out']!r} held out. If they are classes, rename them.",
                    stacklevel=2,
                )
            top = f"{chosen[part]}/"
            return [i for i, name in enumerate(names) if name.startswith(top)], True
        if len(folders) > 1 or loose:
            raise ValueError(_unclear(folders, loose, where))
    _refuse_inner_parts(names, where)
    alike = {name: found for name in folders if (found := role(name)) is not None}
    if len(alike) < len(folders) and any(found.part == "train" for found in alike.values()):
        warnings.warn(
            f"{where}: its folders {', '.join(map(repr, alike))} look like parts, but others do not: all are read as "
            "one dataset. If they are parts, name them 'train' and 'test'.",
            stacklevel=2,
        )
    return _by_own_names(names, part, where, by_file_name)


def _by_top_folder(paths: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Files by topmost folder, and the files in none."""
    folders: dict[str, list[str]] = collections.defaultdict(list)
    loose = []
    for path in paths:
        top, slash, _ = path.partition("/")
        (folders[top] if slash else loose).append(path)
    return dict(sorted(folders.items())), loose


def _are_parts(folders: Groups, loose: Sequence[str]) -> bool:
    """Returns whether folders are the parts of a dataset: one has such a name, or all names contain such a word.

    One word alone means little: "bullet_train" and "test_tube" beside "cat" are classes.
    """
    roles = [role(name) for name in folders]
    both = {found.part for found in roles if found is not None} == {"train", "held_out"}
    return any(found is not None and found.exact for found in roles) or (both and None not in roles and not loose)


def _choose(folders: Groups, where: str) -> dict[str, str] | None:
    """The folder of each part; None if one part has none."""
    chosen = {}
    for part in ("train", "held_out"):
        found = [(name, known) for name in folders if (known := role(name)) is not None and known.part == part]
        exact = [(name, known) for name, known in found if known.exact] or found
        best = [name for name, known in exact if known.rank == min(other.rank for _, other in exact)]
        if len(best) > 1:
            raise ValueError(
                f"{where} has several folders that may be its part {part!r}: {', '.join(map(repr, best))}. Rename all "
                "but one, or give the folder of one dataset."
            )
        if not best:
            return None
        chosen[part] = best[0]
    return chosen


def _warn_unused(unused: Groups, loose: int, chosen: Mapping[str, str], where: str) -> None:
    parts = [f"{len(files)} in {name!r}" for name, files in unused.items()]
    parts += [f"{loose} beside the folders"] if loose else []
    if parts:
        warnings.warn(
            f"{where} is divided into {chosen['train']!r} and {chosen['held_out']!r}; other files belong to neither "
            f"part and are not read: {', '.join(parts)}.",
            stacklevel=4,
        )


def _unclear(folders: Groups, loose: Sequence[str], where: str) -> str:
    named = next(name for name in folders if (found := role(name)) is not None and found.exact)
    others = [repr(name) for name in folders if name != named] + ([f"{len(loose)} files"] if loose else [])
    shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    found = role(named)
    lacking = "held-out part, such as 'test'" if found is not None and found.part == "train" else "folder 'train'"
    return (
        f"{where} has a folder {named!r} beside {shown}, but no {lacking}: it is not clear what to hold out. Name the "
        f"parts 'train' and 'test', give one of the folders, or rename {named!r} if it is a class."
    )


def _refuse_inner_parts(names: Sequence[str], where: str) -> None:
    """Raises ValueError if there seem to be parts within a subfolder, as in "images/train" and "images/val"."""
    inner: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            inner["/".join(folders[:depth])].append("/".join(name.split("/")[depth:]))
    for parent, below in sorted(inner.items()):
        folders, loose = _by_top_folder(below)
        roles = [found for folder in folders if (found := role(folder)) is not None]
        both = len({found.part for found in roles}) == 2 and _are_parts(folders, loose)
        beside_others = len(folders) > 1 or loose
        if both or (beside_others and any(found.part == "train" and found.exact for found in roles)):
            raise ValueError(
                f"{where} seems to have parts within its subfolder {parent!r}: {', '.join(map(repr, folders))}. Give "
                "that folder as the dataset, or make 'train' and 'test' the topmost folders."
            )


def _by_own_names(names: Sequence[str], part: str, where: str, divides: bool) -> tuple[list[int], bool]:
    roles = [role(name.rpartition("/")[2]) for name in names]
    parts = {found.part for found in roles if found is not None}
    if parts != {"train", "held_out"} or not divides:
        if len(parts) == 2 or (divides and "train" in parts and None in roles):
            _warn_pooled(names[next(i for i, found in enumerate(roles) if found is not None)], where)
        return list(range(len(names))), False
    best = min(found.rank for found in roles if found is not None and found.part == "held_out")
    unused = [i for i, found in enumerate(roles) if found is None or (found.part != "train" and found.rank != best)]
    if unused:
        warnings.warn(
            f"{where} is divided by the names of its files or arrays; {len(unused)} of them are in neither part and "
            f"not read, such as {names[unused[0]]!r}.",
            stacklevel=3,
        )
    return [i for i, found in enumerate(roles) if found and found.part == part and i not in unused], True


def _warn_pooled(example: str, where: str) -> None:
    warnings.warn(
        f"{where}: names of files, such as {example!r}, speak of parts, but do not divide it: it is read as a whole, "
        "and a tenth of it is held out. Put the files into folders 'train' and 'test' to divide it.",
        stacklevel=4,
    )
