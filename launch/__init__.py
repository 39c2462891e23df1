"""Launchers, one per verb: `python -m launch.VERB`, or `ncsn-VERB` once installed."""

import os

# Set before TensorFlow is imported anywhere: its notes about CPU features are of no use to the user of a command.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
