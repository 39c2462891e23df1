"""Choosing how training is distributed over devices and machines, and what the workers of a cluster tell each other."""

import signal
import threading
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ncsn_tf.cluster import rendezvous, sources
from ncsn_tf.cluster.description import Cluster, ClusterError

NAMES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
LOST_PEER_ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
"""What an operation that all workers take part in raises when one of them is gone."""


def create(
    name: str = "auto",
    *,
    cluster: str = "auto",
    tpu: str | None = None,
    num_workers: int | None = None,
    logical_devices: int | None = None,
    timeout: float = 300.0,
) -> tf.distribute.Strategy:
    """Makes the strategy; to be called before any operation of TensorFlow.

    Args:
      name: one of
        "one_device": TensorFlow's default strategy, on the first GPU or the CPU;
        "mirrored": MirroredStrategy over all GPUs, or all logical devices of the CPU;
        "multi_worker": MultiWorkerMirroredStrategy over the workers of `cluster`;
        "tpu": TPUStrategy;
        "auto": the last with `tpu` given, the one before in a cluster of two or more, mirrored where there are two or
        more GPUs or logical devices, else one device.
      cluster: where to read the cluster from, as `sources.read` takes it.
      num_workers: how many workers the cluster must have; None for any number.
      tpu: name or address of a TPU, or "local" for those of this machine.
      logical_devices: splits the CPU into so many devices, on which many replicas can be tried.
      timeout: seconds for the workers of a cluster, or a TPU, to come together. TensorFlow cannot be interrupted while
        it waits for a TPU: the process then ends with code 1.

    Raises:
      ValueError: if the name is unknown, the devices are not there, or TensorFlow has started already.
      ClusterError: a ValueError, for a cluster that is wrong.
      AbsentWorkersError: if workers did not come in time.
    """
    if name not in NAMES:
        raise ValueError(f"A strategy is one of {', '.join(NAMES)}. Received: {name!r}.")
    if timeout <= 0:
        raise ValueError(f"The seconds for a cluster to come together must be positive. Received: {timeout}.")
    if logical_devices is not None and logical_devices < 1:
        raise ValueError(f"The CPU is split into 1 or more logical devices. Received: {logical_devices}.")
    found = None
    if name == "multi_worker" or (name == "auto" and tpu is None):
        found = sources.read(cluster, workers=num_workers, timeout=timeout)
        if name == "multi_worker" and found is None and cluster == "auto":
            raise ClusterError("multi_worker needs a cluster. Set TF_CONFIG, start through srun, or say --cluster=...")
    elif cluster != "auto" or num_workers not in (None, 1):
        # Hosts that were meant to train together would train alone.
        raise ValueError(
            f"A cluster is for the strategies multi_worker and auto. Received: cluster={cluster!r}, "
            f"num_workers={num_workers} with {'a TPU' if tpu else repr(name)}; leave one of them out."
        )
    name = _resolved(name, tpu, found, logical_devices)
    if logical_devices is not None:
        _split_cpu(logical_devices, name)
    if name == "tpu":
        with rendezvous.ends_process_after(timeout, f"after {timeout:g} s the TPU {tpu or 'local'} has not answered"):
            return _tpu(tpu or "local")
    if found is not None:
        return _multi_worker(found, timeout)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_local_devices())
    return tf.distribute.get_strategy()


def _resolved(name: str, tpu: str | None, cluster: Cluster | None, logical_devices: int | None) -> str:
    if tpu is not None and name not in ("auto", "tpu"):
        raise ValueError(f"A TPU is for the strategies tpu and auto. Received: tpu={tpu!r} with the strategy {name!r}.")
    if name in ("one_device", "mirrored", "tpu"):
        return name
    if tpu is not None:
        return "tpu"
    if cluster is not None:
        return "multi_worker"
    # Also a cluster of one worker, which is a machine like any other.
    return "mirrored" if max(len(_local_devices()), logical_devices or 1) > 1 else "one_device"


def _split_cpu(count: int, name: str) -> None:
    """Splits the CPU, unless the strategy or a GPU would have the parts ignored."""
    if count > 1 and name != "mirrored":
        raise ValueError(f"{count} logical devices are for the strategy mirrored. Received them with {name!r}.")
    if tf.config.list_physical_devices("GPU"):
        raise ValueError("logical_devices splits the CPU, but there are GPUs here, which would be used instead.")
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    except RuntimeError as error:
        raise ValueError("The CPU can be split only before TensorFlow's first operation.") from error


def _local_devices() -> list[str]:
    """The names of this machine's GPUs, or else of its logical CPUs."""
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "GPU":
        count = len(tf.config.list_physical_devices("GPU"))
    else:
        parts = tf.config.get_logical_device_configuration(tf.config.list_physical_devices("CPU")[0])
        count = len(parts or [None])
    return [f"{kind}:{number}" for number in range(count)]


def _tpu(name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"No TPU {name!r} can be used ({type(error).__name__}: {reason}). Check --tpu.") from error


def _multi_worker(cluster: Cluster, timeout: float) -> tf.distribute.MultiWorkerMirroredStrategy:
    rendezvous.meet(cluster, timeout)
    late = f"after {timeout:g} s worker {cluster.task} still waits for one that met the others and then went away"
    with rendezvous.ends_process_after(timeout, late):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver())
        wait_for_everyone(strategy)
    if threading.current_thread() is threading.main_thread():
        # TensorFlow's server takes SIGTERM for itself, and does nothing on it that would end a process.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    return strategy


def place(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(this process's number among the workers, the number of workers); (0, 1) outside a cluster."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id or 0, max(1, len(resolver.cluster_spec().as_dict().get("worker", [])))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    return place(strategy)[0] == 0


def _sum_over_workers(strategy: tf.distribute.Strategy, values: np.ndarray) -> np.ndarray:
    """Sums int32 vectors over the workers; all must call it with as long a vector."""

    @tf.function(autograph=False)
    def add(vector):
        def on_replica():
            context = tf.distribute.get_replica_context()
            share = tf.identity(vector) if _is_first_here(strategy, context) else tf.zeros_like(vector)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, share)

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    return add(tf.constant(values)).numpy()


def _is_first_here(strategy: tf.distribute.Strategy, context: tf.distribute.ReplicaContext) -> bool:
    """Whether a replica is the first of its worker; known while a graph is traced."""
    local = strategy.num_replicas_in_sync // place(strategy)[1]
    return int(tf.get_static_value(context.replica_id_in_sync_group)) % local == 0


def _ask_everyone(strategy: tf.distribute.Strategy, values: np.ndarray) -> np.ndarray:
    """What every worker passed, int32 [workers, n]; all must call it with as long a vector."""
    task, workers = place(strategy)
    if workers == 1:
        return values[None]
    table = np.zeros([workers, len(values)], np.int32)
    table[task] = values
    return _sum_over_workers(strategy, table.reshape(-1)).reshape(table.shape)


def exchange_codes(strategy: tf.distribute.Strategy, code: int) -> list[int]:
    """The exit codes that all workers are about to end with, in order; all call it, and so wait for each other."""
    return [int(other) for other in _ask_everyone(strategy, np.array([code], np.int32))[:, 0]]


def require_agreement(strategy: tf.distribute.Strategy, **fingerprints: int) -> None:
    """Refuses to go on unless every worker passes the same numbers.

    Args:
      strategy: the strategy in use; outside a cluster there is nothing to compare.
      **fingerprints: numbers in [0, 2^31), under the names of what they stand for.

    Raises:
      ClusterError: on every worker, naming what differs and on which workers.
    """
    table = _ask_everyone(strategy, np.array(list(fingerprints.values()), np.int32))
    for name, column in zip(fingerprints, table.T, strict=True):
        others = np.flatnonzero(column != column[0])
        if others.size:
            raise ClusterError(
                f"The workers do not agree: {name.replace('_', ' ')} of worker {', '.join(map(str, others))} differs "
                "from the chief's, worker 0. Start all with the same command, on the same data."
            )


def wait_for_everyone(strategy: tf.distribute.Strategy) -> None:
    """Returns once every worker has called it."""
    _ask_everyone(strategy, np.zeros([1], np.int32))


def from_chief(strategy: tf.distribute.Strategy, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The chief's arrays, on every worker, bit for bit.

    Args:
      strategy: the strategy in use; outside a cluster the arrays come back as they are.
      arrays: on the chief, the values; on the others, anything of the same shapes and dtypes, whose items have a
        multiple of four bytes.
    """
    if place(strategy)[1] == 1:
        return list(arrays)
    # As integers, since a sum of floats with zero would turn -0.0 into 0.0 and may change the bits of a NaN.
    words = [np.ascontiguousarray(array).reshape(-1).view(np.int32) for array in arrays]
    vector = np.concatenate(words) if is_chief(strategy) else np.zeros([sum(map(len, words))], np.int32)
    vector = _sum_over_workers(strategy, vector)
    parts = np.split(vector, np.cumsum([len(part) for part in words])[:-1])
    return [part.view(a.dtype).reshape(a.shape) for part, a in zip(parts, arrays, strict=True)]


def describe(strategy: tf.distribute.Strategy) -> str:
    """One line for people: the strategy's kind, its replicas, their devices and workers."""
    replicas, (task, workers) = strategy.num_replicas_in_sync, place(strategy)
    kind = type(strategy).__name__.lstrip("_").replace("CollectiveAllReduce", "MultiWorkerMirrored")
    if isinstance(strategy, tf.distribute.TPUStrategy):
        device = "TPU"
    else:
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    where = f", worker {task} of {workers}" if workers > 1 else ""
    return f"{kind}, {replicas} replica{'s' if replicas > 1 else ''} on {device}{where}"
