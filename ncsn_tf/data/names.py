"""Interpretation of a dataset's name: the digits, a path, or a dataset of TensorFlow Datasets."""

import difflib
import glob
import os
import re

DIGITS = "digits"
# A TFDS name: dataset, then perhaps a configuration and a version, as in "lsun/church" or "mnist:3.0.1".
_TFDS_NAME = re.compile(r"[A-Za-z]\w*(/[\w.\-+]+)*(:[\d.*]+)?")


def is_path(name: str) -> bool:
    """Returns whether a name is read as a path rather than as the name of a dataset."""
    if os.path.isdir(os.path.expanduser(name)):
        return True
    has_separator = "/" in name or os.sep in name
    if not has_separator and not glob.has_magic(name) and ".tfrecord" not in name:
        return False
    # A TFDS name with a configuration, "lsun/church", has a separator too: it is read as one if no such path exists.
    return os.path.exists(name) or ".tfrecord" in name or not _TFDS_NAME.fullmatch(name)


def unknown_name(name: str, known: list[str]) -> ValueError:
    """Returns the error for an unknown dataset name, with the nearest known names."""
    near = difflib.get_close_matches(name, [DIGITS, *known], n=4, cutoff=0.5)
    hint = f" Nearest known names: {', '.join(near)}." if near else ""
    return ValueError(
        f"Unknown dataset {name!r}, and no such path exists.{hint} "
        f"Give '{DIGITS}', the name of a TensorFlow Datasets image dataset, or a path: "
        "an existing folder of images or TFRecords, a TFRecord file, or a glob of them. A name with a path separator "
        f"or '.tfrecord' in it is read as a path; write './{name}' for one in the working directory."
    )
