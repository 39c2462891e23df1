"""The flags that say which devices and machines to use."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from ncsn_tf.cluster.names import STRATEGIES

from . import cli

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Devices:
    """The flags of devices, defined."""

    strategy: flags.FlagHolder
    cluster: flags.FlagHolder
    num_workers: flags.FlagHolder
    tpu: flags.FlagHolder
    logical_devices: flags.FlagHolder
    cluster_timeout: flags.FlagHolder

    def create(self) -> "tf.distribute.Strategy":
        """The strategy of the flags; to be created before any operation of TensorFlow.

        Raises:
          ValueError: if it is unavailable.
        """
        from ncsn_tf.cluster import strategies

        return strategies.create(
            self.strategy.value,
            cluster=self.cluster.value,
            num_workers=self.num_workers.value,
            tpu=self.tpu.value,
            logical_devices=self.logical_devices.value,
            timeout=self.cluster_timeout.value,
        )

    @contextlib.contextmanager
    def using(self) -> "Iterator[tf.distribute.Strategy]":
        """Yields the strategy of the flags; an expected error inside ends the program with one line and its code."""
        from ncsn_tf.cluster import strategies
        from ncsn_tf.cluster.rendezvous import AbsentWorkersError
        from ncsn_tf.evaluation import EvaluationError
        from ncsn_tf.samplers.store import DivergedError, SamplingKeyError
        from ncsn_tf.training.checkpoints import CheckpointError

        made = None
        try:
            with cli.usage_errors():
                made = self.create()
            yield made
        except (AbsentWorkersError, DivergedError) as error:
            cli.fail(error, cli.FAILURE)
        except (EvaluationError, SamplingKeyError, CheckpointError, OSError):
            with cli.usage_errors():
                raise
        except strategies.LOST_PEER_ERRORS:
            if made is None or strategies.place(made)[1] == 1:
                raise
            cli.fail("Another worker is gone: its log may say why. The same command, on all, resumes.", cli.STOPPED)


def define() -> Devices:
    """Defines --strategy, --cluster, --num_workers, --tpu, --logical_devices and --cluster_timeout."""
    return Devices(
        strategy=flags.DEFINE_enum(
            "strategy",
            "auto",
            STRATEGIES,
            "The strategy; auto uses the TPU of --tpu, a cluster that it finds, or all GPUs of this machine.",
        ),
        cluster=flags.DEFINE_string(
            "cluster",
            "auto",
            "Where to read the cluster: tf_config, slurm, kubernetes:SELECTOR[:PORT], gce:PROJECT/ZONE/GROUP[:PORT], "
            "or auto: TF_CONFIG, else Slurm.",
        ),
        num_workers=flags.DEFINE_integer(
            "num_workers",
            None,
            "The number of workers that the cluster must have; with Kubernetes and Compute Engine, waits for them.",
            1,
        ),
        tpu=flags.DEFINE_string("tpu", None, "A TPU's name or address, or local."),
        logical_devices=flags.DEFINE_integer(
            "logical_devices", None, "Split the CPU into this many devices, to try many replicas anywhere.", 1
        ),
        cluster_timeout=flags.DEFINE_float("cluster_timeout", 300.0, "Seconds for the workers to come together.", 1.0),
    )
