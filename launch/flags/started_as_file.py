"""Ends a launcher that was run as a file, `python launch/VERB.py`, where its relative imports would fail.

Python then has the folder launch/ on its path, so that the launcher finds this module as `flags.started_as_file`.
"""

import pathlib
import sys

verb = pathlib.Path(sys.argv[0]).stem
print(
    f"error: start this launcher as a module, python -m launch.{verb}, from the repository's root, "
    f"or as ncsn-{verb.replace('_', '-')} once the package is installed.",
    file=sys.stderr,
)
sys.exit(2)
