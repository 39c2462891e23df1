"""Interpretation of a dataset's name: the digits, a path, or a dataset of TensorFlow Datasets."""

import difflib
import glob
import os
import re

from ncsn_tf import files
from ncsn_tf.data import listing

DIGITS = "digits"
# A TFDS name: dataset, then perhaps a configuration and a version, as in "lsun/church" or "mnist:3.0.1".
_TFDS_NAME = re.compile(r"[A-Za-z]\w*(/[\w.\-+]+)*(:[\d.*]+)?")


def checked_name(name: str | os.PathLike) -> str:
    """Returns a dataset's name as text; raises ValueError if it is neither text nor a path, or is empty."""
    if not isinstance(name, str | bytes | os.PathLike) or not os.fsdecode(name).strip():
        raise ValueError(f"A dataset has a name or a path. Received: {name!r}.")
    return os.fsdecode(name)


def is_path(name: str) -> bool:
    """Returns whether a name is read as a path rather than as the name of a dataset.

    A folder of the working directory comes before a dataset of the same name, unless it is a run's directory: a run on
    "mnist" may be in a folder "mnist".
    """
    if name == DIGITS:
        return False
    if files.is_address(name) or (os.path.isdir(os.path.expanduser(name)) and not _is_run(name)):
        return True
    of_file = listing.stem_of_records(name) is not None or name.lower().endswith(listing.ARRAYS)
    if of_file or name.startswith(("~", ".")):
        return True
    if "/" not in name and os.sep not in name and not glob.has_magic(name):
        return False
    # A TFDS name with a configuration, "lsun/church", has a separator too: it is read as one if no such path exists.
    return os.path.exists(name) or not _TFDS_NAME.fullmatch(name)


def _is_run(folder: str) -> bool:
    """Returns whether a job has begun to train in a folder: it has locked it, before it writes anything else."""
    return os.path.isfile(os.path.join(folder, "lock"))


def located(name: str) -> str:
    """Returns a dataset's name as it is recorded: a local path made absolute, anything else unchanged."""
    return str(files.local_path(name)) if is_path(name) and not files.is_address(name) else name


def unknown_name(name: str, known: list[str]) -> ValueError:
    """Returns the error for an unknown dataset name, with the nearest known names."""
    near = difflib.get_close_matches(name, [DIGITS, *known], n=4, cutoff=0.5)
    hint = f" Nearest known names: {', '.join(near)}." if near else ""
    return ValueError(
        f"Unknown dataset {name!r}, and there is no folder {os.path.abspath(name)}.{hint} "
        f"Give '{DIGITS}', the name of a TensorFlow Datasets image dataset, or a path: an existing folder of images or "
        "TFRecords, a TFRecord file, a glob of them, an .npz or an .npy. A name with a path separator or the suffix of "
        f"such a file is read as a path; write './{name}' for one in the working directory."
    )
