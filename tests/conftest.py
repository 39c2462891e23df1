"""Two logical CPUs for every test process, so that replicas can be tried anywhere; the longest files first."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402 - the log level is read at import

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# Two processes that share the files end together only if the longest begin first.
_LONGEST = (
    "launch/test_train.py",
    "training/test_distributed.py",
    "launch/test_evaluate.py",
    "launch/test_guidance.py",
    "test_tpu_readiness.py",
    "config/test_build.py",
    "training/test_trainer.py",
    "networks/test_ncsn.py",
    "test_runs.py",
    "serving/test_export.py",
)


def pytest_collection_modifyitems(items):
    """Sorts whole files, whose own order stays."""
    place = {name: number for number, name in enumerate(_LONGEST)}
    root = pathlib.Path(__file__).parent
    items.sort(key=lambda item: place.get(item.path.relative_to(root).as_posix(), len(place)))
