"""Runs a launcher with many command lines, each in a child of one process that has imported TensorFlow once.

python -m tests.support.forked VERB reads a JSON list of {"arguments", "environment", "errors"} from standard input, the
last a file for the child's standard error, and prints the list of exit codes. The parent runs nothing but imports, so
there is no thread that a child would miss.
"""

import importlib
import json
import os
import sys
import traceback


def main() -> None:
    """Forks once a case."""
    verb, cases = sys.argv[1], json.load(sys.stdin)
    for name in ("tensorflow", "ncsn_tf.runs", "ncsn_tf.evaluation.classifier", f"launch.{verb}"):
        importlib.import_module(name)
    launcher = sys.modules[f"launch.{verb}"]
    codes = []
    for case in cases:
        child = os.fork()
        if not child:
            _child(launcher, verb, case)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))


def _child(launcher, verb: str, case: dict) -> None:
    errors = os.open(case["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.update(case["environment"])
    sys.argv = [f"launch/{verb}.py", *case["arguments"]]
    code = 1
    try:
        launcher.entry_point()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - what escapes is shown as Python would show it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
