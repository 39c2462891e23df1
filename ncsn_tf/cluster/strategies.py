"""Creates distribution strategies, and exchanges small messages between the workers of a cluster."""

import signal
import threading
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ncsn_tf.cluster import rendezvous, sources
from ncsn_tf.cluster.description import Cluster, ClusterError
from ncsn_tf.cluster.names import STRATEGIES

LOST_PEER_ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
"""The errors of an operation of all workers when one of them is lost."""


def create(
    name: str = "auto",
    *,
    cluster: str = "auto",
    tpu: str | None = None,
    num_workers: int | None = None,
    logical_devices: int | None = None,
    timeout: float = 300.0,
) -> tf.distribute.Strategy:
    """Creates the strategy; must be called before any operation of TensorFlow.

    Args:
      name: one of
        "one_device": TensorFlow's default strategy, on the first GPU or the CPU;
        "mirrored": MirroredStrategy over all GPUs, or all logical devices of the CPU;
        "multi_worker": MultiWorkerMirroredStrategy over the workers of `cluster`;
        "tpu": TPUStrategy;
        "auto": tpu if `tpu` is given, multi_worker in a cluster of two or more workers, mirrored if there are two or
        more GPUs or logical devices, else one_device.
      cluster: the source of the cluster's description, as for `sources.read`.
      tpu: the name or address of a TPU, or "local" for the TPUs of this machine.
      num_workers: the number of workers that the cluster must have; None for any number.
      logical_devices: the number of devices into which the CPU is split, to try several replicas.
      timeout: seconds to wait for the workers of the cluster, or for a TPU. TensorFlow cannot be interrupted while it
        waits for a TPU: the process then ends with code 1.

    Raises:
      ValueError: if the name is unknown, if the devices do not exist, or if TensorFlow has started already.
      ClusterError: a ValueError, if the cluster is wrong.
      AbsentWorkersError: if workers do not arrive in time.
    """
    if name not in STRATEGIES:
        raise ValueError(f"A strategy is one of {', '.join(STRATEGIES)}. Received: {name!r}.")
    if not 0.0 < timeout <= threading.TIMEOUT_MAX:
        raise ValueError(f"The timeout of the cluster, in seconds, must be positive and finite. Received: {timeout}.")
    if logical_devices is not None and logical_devices < 1:
        raise ValueError(f"The CPU is split into at least 1 logical device. Received: {logical_devices}.")
    found = None
    if name == "multi_worker" or (name == "auto" and tpu is None):
        found = sources.read(cluster, workers=num_workers, timeout=timeout)
        if name == "multi_worker" and found is None and cluster == "auto":
            raise ClusterError("multi_worker needs a cluster. Set TF_CONFIG, start with srun, or give --cluster=...")
    elif cluster != "auto" or num_workers not in (None, 1):
        # Otherwise, hosts that should train together would train alone.
        raise ValueError(
            f"Only the strategies multi_worker and auto take a cluster. Received: cluster={cluster!r}, "
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
        raise ValueError(f"Only the strategies tpu and auto take a TPU. Received: tpu={tpu!r} with {name!r}.")
    if name in ("one_device", "mirrored", "tpu"):
        return name
    if tpu is not None:
        return "tpu"
    if cluster is not None:
        return "multi_worker"
    # This includes a cluster of one worker, for which `sources.read` returns None.
    return "mirrored" if max(len(_local_devices()), logical_devices or 1) > 1 else "one_device"


def _split_cpu(count: int, name: str) -> None:
    """Splits the CPU; raises ValueError if the strategy or a GPU would make the parts unused."""
    if count > 1 and name != "mirrored":
        raise ValueError(f"Only the strategy mirrored takes several logical devices. Received: {count} with {name!r}.")
    if tf.config.list_physical_devices("GPU"):
        raise ValueError("logical_devices splits the CPU, but this machine has GPUs, which would be used instead.")
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    except RuntimeError as error:
        raise ValueError("The CPU can only be split before TensorFlow's first operation.") from error


def _local_devices() -> list[str]:
    """The names of this machine's GPUs; if it has none, of its logical CPUs."""
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
    late = f"after {timeout:g} s worker {cluster.task} still waits for a worker that was there and then ended"
    with rendezvous.ends_process_after(timeout, late):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver())
        wait_for_everyone(strategy)
    if threading.current_thread() is threading.main_thread():
        # TensorFlow's server installs a handler of SIGTERM that does not end the process.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    return strategy


def place(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """The index of this process among the workers, and the number of workers; (0, 1) outside a cluster."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id or 0, max(1, len(resolver.cluster_spec().as_dict().get("worker", [])))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process is the chief, the worker that writes."""
    return place(strategy)[0] == 0


def _sum_over_workers(strategy: tf.distribute.Strategy, values: np.ndarray) -> np.ndarray:
    """Sums int32 vectors over the workers; all must call it with vectors of equal length."""

    @tf.function(autograph=False)
    def add(vector):
        def on_replica():
            context = tf.distribute.get_replica_context()
            share = tf.identity(vector) if _is_first_here(strategy, context) else tf.zeros_like(vector)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, share)

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    return add(tf.constant(values)).numpy()


def _is_first_here(strategy: tf.distribute.Strategy, context: tf.distribute.ReplicaContext) -> bool:
    """Tells whether a replica is the first of its worker; this is known at tracing time."""
    local = strategy.num_replicas_in_sync // place(strategy)[1]
    return int(tf.get_static_value(context.replica_id_in_sync_group)) % local == 0


def _gather_over_workers(strategy: tf.distribute.Strategy, values: np.ndarray) -> np.ndarray:
    """The vectors of all workers, int32 [workers, n]; all must call it with vectors of equal length."""
    task, workers = place(strategy)
    if workers == 1:
        return values[None]
    table = np.zeros([workers, len(values)], np.int32)
    table[task] = values
    return _sum_over_workers(strategy, table.reshape(-1)).reshape(table.shape)


def exchange_codes(strategy: tf.distribute.Strategy, code: int) -> list[int]:
    """The exit codes with which the workers will end, in order. All must call it, and so wait for each other."""
    return [int(other) for other in _gather_over_workers(strategy, np.array([code], np.int32))[:, 0]]


def require_agreement(strategy: tf.distribute.Strategy, **fingerprints: int) -> None:
    """Checks that every worker passes the same numbers.

    Args:
      strategy: the strategy in use; outside a cluster there is nothing to compare.
      **fingerprints: numbers in [0, 2^31) by the names of the things that they identify.

    Raises:
      ClusterError: on every worker; the message says what differs and on which workers.
    """
    table = _gather_over_workers(strategy, np.array(list(fingerprints.values()), np.int32))
    for name, column in zip(fingerprints, table.T, strict=True):
        others = np.flatnonzero(column != column[0])
        if others.size:
            raise ClusterError(
                f"The workers do not agree: {name.replace('_', ' ')} of worker {', '.join(map(str, others))} differs "
                "from the chief's, worker 0. Start all workers with the same command, on the same data."
            )


def wait_for_everyone(strategy: tf.distribute.Strategy) -> None:
    """Returns once every worker has called it."""
    _gather_over_workers(strategy, np.zeros([1], np.int32))


def from_chief(strategy: tf.distribute.Strategy, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The chief's arrays, on every worker, bit for bit.

    Args:
      strategy: the strategy in use; outside a cluster the arrays are returned as they are.
      arrays: on the chief, the values; on the others, any arrays of the same shapes and dtypes. The item size must be a
        multiple of four bytes.
    """
    if place(strategy)[1] == 1:
        return list(arrays)
    # As integers, because adding zero to floats turns -0.0 into 0.0 and may change the bits of a NaN.
    words = [np.ascontiguousarray(array).reshape(-1).view(np.int32) for array in arrays]
    vector = np.concatenate(words) if is_chief(strategy) else np.zeros([sum(map(len, words))], np.int32)
    vector = _sum_over_workers(strategy, vector)
    parts = np.split(vector, np.cumsum([len(part) for part in words])[:-1])
    return [part.view(a.dtype).reshape(a.shape) for part, a in zip(parts, arrays, strict=True)]


def describe(strategy: tf.distribute.Strategy) -> str:
    """One line for people: the kind of the strategy, its replicas, devices and workers."""
    replicas, (task, workers) = strategy.num_replicas_in_sync, place(strategy)
    kind = type(strategy).__name__.lstrip("_").replace("CollectiveAllReduce", "MultiWorkerMirrored")
    if isinstance(strategy, tf.distribute.TPUStrategy):
        device = "TPU"
    else:
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    where = f", worker {task} of {workers}" if workers > 1 else ""
    return f"{kind}, {replicas} replica{'s' if replicas > 1 else ''} on {device}{where}"
