"""Runs a module as `python -m MODULE` does: the main file of every program and test under Bazel.

Bazel starts files. A module that is started as a file belongs to no package, so its relative imports fail.
"""

import os
import runpy
import sys

if __name__ == "__main__":
    root = os.getcwd()  # the root of Bazel's copy of the repository
    sys.path.insert(0, root)
    # Programs that this one starts find the project too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
