"""The names can be read without importing TensorFlow."""

import subprocess
import sys

from tests.support.processes import ROOT


def test_importing_the_names_does_not_import_tensorflow():
    program = "import sys, ncsn_tf.evaluation.names; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["False", "False"], ended.stderr
