"""Two logical CPUs for every test process, so that replicas can be tried anywhere; the longest files first."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402 - the log level is read at import

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# Two processes that share the files end together only if the longest begin first.
_LONGEST = (
    "test_launch.py",
    "test_distributed.py",
    "test_launch_evaluate.py",
    "test_launch_conditional.py",
    "test_tpu_readiness.py",
    "test_build.py",
    "test_training_trainer.py",
    "test_networks_ncsn.py",
    "test_runs.py",
    "test_export.py",
)


def pytest_collection_modifyitems(items):
    """Sorts whole files, whose own order stays."""
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
