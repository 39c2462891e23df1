"""The names of the distribution strategies; importing this module does not import TensorFlow."""

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
"""The strategies that `strategies.create` describes."""
