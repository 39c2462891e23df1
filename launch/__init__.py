"""Launchers, one per verb: `python -m launch.VERB`, or `ncsn-VERB` once installed."""

import os

# Set before TensorFlow and Keras are imported: notes about CPU features are of no use to the user of a command, and
# another backend of Keras, set for other programs, is not meant for this one.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
