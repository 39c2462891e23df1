"""The description of a cluster: the workers that train together, and the index of this process among them."""

import dataclasses
import re
import socket
from collections.abc import Sequence

import tensorflow as tf

_ADDRESS = re.compile(r"([^\s:/]+):([0-9]{1,5})")


class ClusterError(ValueError):
    """The description of the cluster is wrong or incomplete, or a worker's port is taken."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training cluster.

    Attributes:
      workers: ("host:port", ...), the same on every worker; the first is the chief.
      task: this process's index among them.

    Raises:
      ClusterError: if an address is not host:port or occurs twice, or if there is no worker of that index.
    """

    workers: tuple[str, ...]
    task: int

    def __post_init__(self):
        check_addresses(self.workers)
        if not 0 <= self.task < len(self.workers):
            raise ClusterError(f"Tasks of {len(self.workers)} workers are counted from 0. Received: task {self.task}.")

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """The cluster as tf.distribute.MultiWorkerMirroredStrategy takes it, with all GPUs of this machine."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.workers)}),
            task_type="worker",
            task_id=self.task,
            rpc_layer="grpc",
            num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        )


def check_addresses(addresses: Sequence[str], remedy: str = "Give every worker its own host and port.") -> None:
    """Raises ClusterError, with the remedy for duplicates, if an address is not host:port or occurs twice."""
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        if not match or not 1 <= int(match[2]) <= 65535:
            raise ClusterError(
                f"A worker's address must be host:port with a port from 1 to 65535. Received: {address!r}."
            )
    duplicates = [address for number, address in enumerate(addresses) if address in addresses[:number]]
    if duplicates:
        raise ClusterError(f"{duplicates[0]} is the address of two workers. {remedy}")


def split(address: str) -> tuple[str, int]:
    """Splits "host:port" into host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def is_local(host: str) -> bool:
    """Tells whether a host name or address belongs to this machine: whether a socket can be bound to it."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
        except OSError:
            continue
        return True
    return False
