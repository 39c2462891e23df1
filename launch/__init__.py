"""Launchers, one a verb: `python -m launch.VERB`, or `ncsn-VERB` once installed."""

import os

# Before TensorFlow is imported anywhere: its notes about CPU features are not for the person who launches.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
