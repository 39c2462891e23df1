"""The reader of a dataset that is given by a path."""

import fnmatch
import glob
import os

from ncsn_tf.data import arrays, decoding, folder, listing
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
    if all(file.lower().endswith(listing.ARRAYS) for file in matching):
        root = os.path.commonpath([os.path.dirname(file) for file in matching])
        return arrays.Arrays(path, root, [os.path.relpath(file, root) for file in matching])
    pictures = [file for file in matching if decoding.recognises(file)]
    if pictures:
        raise ValueError(f"{pictures[0]!r} is one picture. Give the folder of the pictures; {_DATASETS}.")
    return _records(path, matching)


def _open_folder(path: str) -> Reader:
    found = listing.read(path)
    if found.records and found.pictures:
        raise ValueError(
            f"The folder {path!r} holds both TFRecords and pictures ({found.describe()}), such as {found.records[0]!r} "
            f"and {found.pictures[0]!r}: it is not clear which are the dataset. Move one kind elsewhere, or give a "
            "pattern of TFRecords, such as 'DIR/*.tfrecord*'."
        )
    if found.records:
        found.warn_passed_over("records")
        return _records(path, [os.path.join(path, file) for file in found.records])
    if found.arrays and not found.pictures:
        found.warn_passed_over("arrays")
        return arrays.Arrays(path, path, found.arrays)
    folder.require_pictures(found)
    return folder.Pictures(found)


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
