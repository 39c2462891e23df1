"""Parts of a dataset, "train" or "held_out", whole or a slice, and the division of items that have no split."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence

_BOUND = r"(\d+%?)?"
_SPLIT = re.compile(rf"(train|held_out)(?:\[{_BOUND}:{_BOUND}\])?")


@dataclasses.dataclass(frozen=True)
class Split:
    """A parsed split: `part` is "train" or "held_out", `first` and `last` bound a slice: "100", "10%" or None."""

    part: str
    first: str | None = None
    last: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Split":
        """Reads "train", "held_out", or either with a slice: "train[:50000]", "train[10%:20%]".

        Raises:
          ValueError: if `text` is none of these.
        """
        match = _SPLIT.fullmatch(text)
        if match is None:
            raise ValueError(
                f"split must be 'train' or 'held_out', or a part of one such as 'train[:50000]' or 'train[:10%]'. "
                f"Received: {text!r}."
            )
        return cls(*match.groups())

    def bounds(self, count: int) -> tuple[int, int]:
        """Returns the range [start, stop) of `count` images that the slice keeps; percentages round to whole images.

        Raises:
          ValueError: if it keeps none.
        """

        def absolute(bound: str | None, default: int) -> int:
            if bound is None:
                return default
            return min(count, round(int(bound[:-1]) * count / 100) if bound.endswith("%") else int(bound))

        start, stop = absolute(self.first, 0), absolute(self.last, count)
        if start >= stop:
            raise ValueError(
                f"The slice [{self.first or ''}:{self.last or ''}] of the {count} images of split {self.part!r} is "
                "empty; widen it, or check that the dataset has images for this split."
            )
        return start, stop


def some_by_hash(keys: Sequence[str], part: str, where: str) -> list[int]:
    """Returns what `by_hash` does; raises ValueError if that is nothing, since there are too few items."""
    chosen = by_hash(keys, part)
    if not chosen:
        raise ValueError(
            f"{where} has {len(keys)} image{'s' * (len(keys) != 1)}, too few to hold any out. Add images, or divide "
            "them into parts 'train' and 'test'."
        )
    return chosen


def by_hash(keys: Sequence[str], part: str) -> list[int]:
    """Divides items by their names: about one in ten, those whose SHA-256 is 0 modulo 10, is held out.

    The name alone decides, so adding a file moves no other file. The exception: if one part would be empty, a single
    element moves. The one with the smallest hash is held out, or the one with the largest is used for training.

    Args:
      keys: distinct names, such as relative paths.
      part: "train" or "held_out".

    Returns:
      The positions in `keys` that belong to `part`, in order.
    """
    hashes = [
        int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") for key in keys
    ]
    held_out = {i for i, value in enumerate(hashes) if value % 10 == 0}
    if len(keys) > 1 and not held_out:
        held_out = {min(range(len(keys)), key=hashes.__getitem__)}
    elif len(keys) > 1 and len(held_out) == len(keys):
        held_out.remove(max(range(len(keys)), key=hashes.__getitem__))
    return [i for i in range(len(keys)) if (i in held_out) == (part == "held_out")]
