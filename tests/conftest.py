"""Two logical CPUs for every test process, so that replicas can be tried anywhere; the longest files first."""

import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture
def unoptimized_graphs():
    """Graphs run as they were traced: optimizing that of NCSN takes longer than the few steps of a test."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


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
