"""The flags that say which devices and machines to use; import it to have them."""

import contextlib
from collections.abc import Iterator

from absl import flags

from launch.flags import cli

_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "How to distribute; auto takes a TPU that is named, a cluster that it finds, or all the GPUs of this machine.",
)
_CLUSTER = flags.DEFINE_string(
    "cluster",
    "auto",
    "Where to read the cluster: tf_config, slurm, kubernetes:SELECTOR[:PORT], gce:PROJECT/ZONE/GROUP[:PORT], or auto: "
    "TF_CONFIG, else Slurm.",
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "How many workers the cluster must have; Kubernetes and Compute Engine are waited for.", 1
)
_TPU = flags.DEFINE_string("tpu", None, "A TPU's name or address, or local.")
_LOGICAL_DEVICES = flags.DEFINE_integer(
    "logical_devices", None, "Split the CPU into so many devices, to try many replicas anywhere.", 1
)
_TIMEOUT = flags.DEFINE_float("cluster_timeout", 300.0, "Seconds for the workers to come together.", 1.0)


def strategy():
    """The strategy of the flags; to be made before any operation of TensorFlow.

    Raises:
      ValueError: if it cannot be had.
    """
    from ncsn_tf.cluster import strategies

    return strategies.create(
        _STRATEGY.value,
        cluster=_CLUSTER.value,
        num_workers=_NUM_WORKERS.value,
        tpu=_TPU.value,
        logical_devices=_LOGICAL_DEVICES.value,
        timeout=_TIMEOUT.value,
    )


@contextlib.contextmanager
def evaluating() -> Iterator:
    """Yields the strategy of the flags; what goes wrong within ends the program with one line and its code."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.cluster.rendezvous import AbsentWorkersError
    from ncsn_tf.evaluation import EvaluationError
    from ncsn_tf.evaluation.generation import DivergedError
    from ncsn_tf.training.checkpoints import CheckpointError

    made = None
    try:
        with cli.user_mistakes():
            made = strategy()
        yield made
    except (AbsentWorkersError, DivergedError) as error:
        cli.fail(error, cli.FAILURE)
    except (EvaluationError, CheckpointError, OSError):
        with cli.user_mistakes():
            raise
    except strategies.LOST_PEER_ERRORS:
        if made is None or strategies.place(made)[1] == 1:
            raise
        cli.fail("Another worker is gone: its log may say why. The same command, on all, goes on.", cli.STOPPED)
