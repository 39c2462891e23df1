"""The files of a dataset's folder, sorted by what they hold; none of them is left out without a word."""

import collections
import dataclasses
import os
import re
import warnings
from collections.abc import Iterator

from ncsn_tf.data import decoding

_RECORDS = re.compile(r"\.(?:tf-?rec(?:ord)?s?|tfr)(?![a-z])", re.IGNORECASE)
_BESIDE_RECORDS = (".json", ".idx", ".index", ".txt", ".csv", ".md5", ".sha256", ".labels")
"""The suffixes of files about TFRecords, which have the names of these: "a.tfrecord.idx"."""
ARRAYS = (".npz", ".npy")
"""The suffixes of NumPy's files."""
_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini", ".ds_store", ".directory")
_NAMED = 8


def stem_of_records(name: str) -> str | None:
    """The name of a TFRecord file before ".tfrecord", or ".tfrecords", ".tfrec", ".tfr"; None for other files."""
    found = _RECORDS.search(name)
    return None if found is None or name.lower().endswith(_BESIDE_RECORDS) else name[: found.start()]


@dataclasses.dataclass
class Listing:
    """The files below a folder, as sorted relative paths with "/" between their components.

    Attributes:
      path: the folder.
      pictures: files that Pillow reads, by their suffix or their content.
      records: TFRecord files.
      arrays: `.npz` and `.npy` files.
      others: the number of other files by their kind, such as ".txt" or "hidden".
      folders: the names of its folders, without hidden ones.
    """

    path: str
    pictures: list[str] = dataclasses.field(default_factory=list)
    records: list[str] = dataclasses.field(default_factory=list)
    arrays: list[str] = dataclasses.field(default_factory=list)
    others: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    folders: list[str] = dataclasses.field(default_factory=list)

    def describe(self) -> str:
        """Returns the number of files of each kind, in words: "pictures: 3, .txt: 2"."""
        kinds = {"pictures": self.pictures, "TFRecord files": self.records, ".npz or .npy": self.arrays}
        counts = [f"{kind}: {len(files)}" for kind, files in kinds.items() if files]
        return ", ".join([*counts, *self._others()]) or "no files"

    def warn_passed_over(self, read: str) -> None:
        """Warns of the files that are not read where those of one kind are, "pictures", "records" or "arrays"."""
        rest = [] if read == "arrays" or not self.arrays else [f".npz or .npy: {len(self.arrays)}"]
        rest += self._others()
        if rest:
            what = {"pictures": "pictures that Pillow reads", "records": "TFRecords", "arrays": "arrays"}[read]
            warnings.warn(
                f"Files in {self.path} are passed over, since they are not {what}: {', '.join(rest)}.", stacklevel=3
            )

    def _others(self) -> list[str]:
        common = self.others.most_common()
        rest = sum(count for _, count in common[_NAMED:])
        return [f"{kind}: {count}" for kind, count in common[:_NAMED]] + ([f"other kinds: {rest}"] if rest else [])


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
        elif stem_of_records(name) is not None:
            found.records.append(relative)
        elif suffix in ARRAYS:
            found.arrays.append(relative)
        elif suffix in decoding.suffixes() or decoding.recognises(full):
            found.pictures.append(relative)
        elif not os.path.exists(full):
            found.others["broken links"] += 1
        else:
            found.others[suffix or "without a suffix"] += 1
    found.folders = [entry.name for entry in os.scandir(path) if _is_folder(entry) and not entry.name.startswith(".")]
    for files in (found.pictures, found.records, found.arrays, found.folders):
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
        if _is_folder(entry) and not entry.name.startswith("."):
            yield from _walk(entry.path, f"{inner}/", (*above, here))
        else:
            yield inner, entry.path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
