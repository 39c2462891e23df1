"""The files of a dataset's folder, sorted by what they hold; none of them is left out without a word."""

import collections
import dataclasses
import os
import re
import warnings
from collections.abc import Iterator

from ncsn_tf.data import decoding

RECORDS = re.compile(r"\.tf-?rec(ord)?s?\b|\.tfr\b", re.IGNORECASE)
"""In the name of every TFRecord file: ".tfrecord", and the spellings of other programs, as in "a.tfrec.gz"."""
ARRAYS = (".npz", ".npy")
"""The suffixes of NumPy's files."""
_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini", ".ds_store", ".directory")
_NAMED = 8


@dataclasses.dataclass
class Listing:
    """The files below a folder, as sorted relative paths with "/" between their components.

    Attributes:
      path: the folder.
      pictures: files that Pillow reads, by their suffix or their content.
      records: TFRecord files.
      arrays: `.npz` and `.npy` files.
      others: the number of other files by their kind, such as ".txt" or "hidden".
    """

    path: str
    pictures: list[str] = dataclasses.field(default_factory=list)
    records: list[str] = dataclasses.field(default_factory=list)
    arrays: list[str] = dataclasses.field(default_factory=list)
    others: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def describe(self) -> str:
        """Returns the number of files of each kind, in words: "3 pictures, 2 .txt"."""
        kinds = {"pictures": self.pictures, "TFRecord files": self.records, ".npz or .npy": self.arrays}
        counts = [f"{len(files)} {kind}" for kind, files in kinds.items() if files]
        return ", ".join([*counts, *self._others()]) or "no files"

    def warn_passed_over(self, read: str) -> None:
        """Warns of the files that are not read where those of one kind are, "pictures", "records" or "arrays"."""
        rest = [] if read == "arrays" or not self.arrays else [f"{len(self.arrays)} .npz or .npy"]
        rest += self._others()
        if rest:
            what = {"pictures": "pictures that Pillow reads", "records": "TFRecords", "arrays": "arrays"}[read]
            warnings.warn(
                f"Files in {self.path} are passed over, since they are not {what}: {', '.join(rest)}.", stacklevel=3
            )

    def _others(self) -> list[str]:
        common = self.others.most_common()
        rest = sum(count for _, count in common[_NAMED:])
        return [f"{count} {kind}" for kind, count in common[:_NAMED]] + ([f"{rest} of other kinds"] if rest else [])


def read(path: str) -> Listing:
    """Lists the files below a local folder; links to folders are followed.

    Hidden files and folders, whose names begin with a dot, and all that is neither a file nor a folder, count among
    the others. A broken link counts as the file that its name says: the reader's message names it.

    Raises:
      ValueError: if a folder cannot be listed, or links to folders form a loop.
    """
    found = Listing(path)
    for relative, full in _walk(path, "", ()):
        name = os.path.basename(relative)
        suffix = os.path.splitext(name)[1].lower()
        if name.lower() in _OF_THE_SYSTEM:
            continue
        if name.startswith("."):
            found.others["hidden"] += 1
        elif os.path.exists(full) and not os.path.isfile(full):
            found.others["pipes, sockets or devices"] += 1  # opening a pipe would block
        elif RECORDS.search(name):
            found.records.append(relative)
        elif suffix in ARRAYS:
            found.arrays.append(relative)
        elif suffix in decoding.suffixes() or decoding.recognises(full):
            found.pictures.append(relative)
        elif not os.path.exists(full):
            found.others["broken links"] += 1
        else:
            found.others[suffix or "without a suffix"] += 1
    for files in (found.pictures, found.records, found.arrays):
        files.sort()
    return found


def _walk(folder: str, relative: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Relative and full paths of all files below a folder; a hidden folder is passed on as one file."""
    here = os.path.realpath(folder)
    if here in above:
        raise ValueError(f"{folder} is a link to a folder that contains it. Remove the link.")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be listed: {error.strerror}. Check the path and the access to it."
        ) from error
    for entry in entries:
        inner = f"{relative}{entry.name}"
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _walk(entry.path, f"{inner}/", (*above, here))
        else:
            yield inner, entry.path
