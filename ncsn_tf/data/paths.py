"""The reader of a dataset that is given by a path."""

import fnmatch
import glob
import os
import tarfile
import zipfile

from ncsn_tf.data import arrays, decoding, folder, listing, parts
from ncsn_tf.data.names import located
from ncsn_tf.data.readers import Reader
from ncsn_tf.files import is_address

_DATASETS = "a dataset is a folder of images, TFRecords, an .npz or .npy of images, 'digits', or a TFDS name"


def open_path(name: str) -> Reader:
    """Returns the reader of a folder, a file or a glob, by what is there.

    A path that exists is taken literally, whatever characters it has; only otherwise is it a pattern.

    Raises:
      ValueError: if nothing is there, or what is there is no dataset; the message says what was looked for, and what a
        folder holds.
    """
    if name.startswith("file:"):
        raise ValueError(f"Give the plain path in place of an address of this machine. Received: {name!r}.")
    if is_address(name):
        return _records(name, None)
    path = located(name)
    if os.path.isdir(path):
        return _open_folder(path)
    matching = [path] if os.path.lexists(path) else expand(path)
    if not matching and glob.has_magic(name):
        raise ValueError(f"No file matches {path!r}. Check the pattern, or the path; {_DATASETS}.")
    if not matching:
        raise ValueError(f"There is no folder or file {path!r}. Check the path; {_DATASETS}.")
    kinds = {file: _kind(file) for file in matching}
    if all(kind == "arrays" for kind in kinds.values()):
        root = os.path.commonpath([os.path.dirname(file) for file in matching])
        return arrays.Arrays(path, root, [os.path.relpath(file, root) for file in matching])
    for file, kind in kinds.items():
        if kind != "records":
            raise ValueError(f"{file!r} is {kind}; {_DATASETS}.")
    return _records(path, matching)


def _kind(file: str) -> str:
    """The kind of a file, "arrays" or "records", or in words what it is instead."""
    if not os.path.isfile(file):  # opening a pipe would block
        return "neither a file nor a folder"
    name = os.path.basename(file)
    if name.lower().endswith(listing.ARRAYS):
        return "arrays"
    if listing.stem_of_records(name) is not None:
        return "records"
    with open(file, "rb") as stream:
        start = stream.read(8)
    if start.startswith(b"\x93NUMPY"):
        return "arrays"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            is_npz = all(member.endswith(".npy") for member in archive.namelist())
        return "arrays" if is_npz else "a zip archive: unpack it and give the folder"
    if tarfile.is_tarfile(file):
        return "a tar archive: unpack it and give the folder"
    if decoding.recognises(file) or os.path.splitext(name)[1].lower() in decoding.suffixes():
        return "one picture: give the folder of the pictures"
    # A record begins with its length, of 64 bits.
    if 0 < int.from_bytes(start, "little") < os.path.getsize(file) or start[:1] in (b"\x1f", b"\x78"):
        return "records"
    return "neither a picture nor an array nor TFRecords"


def _open_folder(path: str) -> Reader:
    found = listing.read(path)
    if found.records and found.pictures:
        raise ValueError(
            f"The folder {path!r} holds both TFRecords and pictures ({found.describe()}), such as {found.records[0]!r} "
            f"and {found.pictures[0]!r}: it is not clear which are the dataset. Move one kind elsewhere, or give a "
            "pattern of TFRecords, such as 'DIR/*.tfrecord*'."
        )
    if found.records:
        _refuse_empty_parts(found, found.records)
        found.warn_passed_over("records")
        return _records(path, [os.path.join(path, file) for file in found.records])
    if found.arrays and not found.pictures:
        _refuse_empty_parts(found, found.arrays)
        found.warn_passed_over("arrays")
        return arrays.Arrays(path, path, found.arrays)
    folder.require_pictures(found)
    _refuse_empty_parts(found, found.pictures)
    return folder.Pictures(found)


def _refuse_empty_parts(found: listing.Listing, files: list[str]) -> None:
    """Raises ValueError if a part has folders, but no file in them: the other part would be divided anew."""
    filled = {file.partition("/")[0] for file in files if "/" in file}
    roles = {name: role for name in found.folders if (role := parts.role(name)) is not None and role.exact}
    for name, role in roles.items():
        same = [other for other, theirs in roles.items() if theirs.part == role.part]
        if filled.isdisjoint(same):
            raise ValueError(
                f"The folder {found.path!r} has a part {name!r} without a file that can be read; it holds "
                f"{found.describe()}. Fill it, or remove it: then a tenth of the rest is held out."
            )


def _records(where: str, files: list[str] | None) -> Reader:
    from ncsn_tf.data import tfrecords  # here: only TFRecords need TensorFlow, whose import takes seconds

    return tfrecords.Records(where, tfrecords.remote_files(where) if files is None else files)


def expand(pattern: str) -> list[str]:
    """Returns the files that match a local glob, sorted; folders of it that exist are taken literally.

    "br[1]/*.tfrecord" means the folder "br[1]" if there is one, otherwise "br1".
    """
    found = [os.path.sep]
    for component in os.path.abspath(pattern).split(os.path.sep)[1:]:
        if all(os.path.lexists(os.path.join(parent, component)) for parent in found):
            found = [os.path.join(parent, component) for parent in found]
            continue
        inside = ((parent, name) for parent in found if os.path.isdir(parent) for name in os.listdir(parent))
        hidden = component.startswith(".")
        found = [
            os.path.join(parent, name)
            for parent, name in inside
            if fnmatch.fnmatchcase(name, component) and (hidden or not name.startswith("."))
        ]
    return sorted(path for path in found if os.path.isfile(path))
