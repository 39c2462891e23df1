"""The main of every Bazel test: runs pytest on the test files it is given, relative to the repository's root."""

import os
import sys

import pytest

if __name__ == "__main__":
    root = os.getcwd()  # Bazel starts a test in the root of its copy of the repository
    # Programs that a test starts find the project as the test itself does.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # Nothing is written beside the sources, which Bazel may hold read-only.
    sys.exit(pytest.main(["--rootdir", root, "-p", "no:cacheprovider", *sys.argv[1:]]))
