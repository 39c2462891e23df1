"""A rendezvous of the workers of a cluster before TensorFlow starts, which names absent workers.

While TensorFlow itself waits for the workers, it holds the interpreter's lock: no signal is handled, no thread runs,
and a worker whose peer was absent still waited after twenty minutes. This rendezvous exchanges greetings over the same
addresses, in Python.
"""

import contextlib
import faulthandler
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

from ncsn_tf.cluster.description import Cluster, ClusterError, split

_PAUSE = 0.2
_CONNECT = 2.0
_LONGEST = 128


def meet(cluster: Cluster, timeout: float) -> None:
    """Returns once this worker has reached every other worker and every other worker has reached it; all call it.

    An address that answers anything but the greeting counts as absent. Such an answer may come from a worker of an
    earlier start that has not noticed yet that it lost its peers.

    Args:
      cluster: the workers.
      timeout: seconds to wait for them.

    Raises:
      ClusterError: if this worker's port is taken, or if another worker was given another list of workers or the same
        index.
      AbsentWorkersError: if some workers are absent; the message names them.
    """
    others = {task: address for task, address in enumerate(cluster.workers) if task != cluster.task}
    deadline = time.monotonic() + timeout
    with _Answering(cluster) as answering:
        reached: set[int] = set()
        while not (answering.callers >= others.keys() and reached >= others.keys()):
            for task in sorted(others.keys() - reached):
                if _greet(cluster, task):
                    reached.add(task)
            if time.monotonic() > deadline:
                raise AbsentWorkersError(_absence(cluster, others, reached, answering.callers, timeout))
            time.sleep(_PAUSE)


def _absence(cluster: Cluster, others: dict[int, str], reached: set[int], callers: set[int], timeout: float) -> str:
    def names(tasks: set[int]) -> str:
        return ", ".join(f"{task} ({others[task]})" for task in sorted(tasks))

    missing = others.keys() - reached
    problem = f"cannot reach worker {names(missing)}"
    if not missing:
        problem = f"was not reached by worker {names(others.keys() - callers)}, which it could reach"
    return (
        f"After {timeout:g} s worker {cluster.task} ({cluster.workers[cluster.task]}) {problem}. Start the same "
        "command on all workers, and open their ports to each other."
    )


def _greeting(cluster: Cluster) -> bytes:
    digest = hashlib.sha256(" ".join(cluster.workers).encode()).hexdigest()[:16]
    return f"ncsn_tf {digest} {cluster.task}\n".encode()


def _sender(cluster: Cluster, greeting: bytes) -> int | None:
    """The task of the worker that sent a greeting, None if it is not a worker's; raises ClusterError on a mismatch."""
    words = greeting.split()
    if len(words) != 3 or words[0] != b"ncsn_tf" or not words[2].isdigit():
        return None
    if words[1] != _greeting(cluster).split()[1]:
        raise ClusterError(
            f"Worker {int(words[2])} was given another list of workers than worker {cluster.task}, which has "
            f"{', '.join(cluster.workers)}. Give all workers the same list, in the same order."
        )
    if int(words[2]) == cluster.task:
        raise ClusterError(
            f"Another process is worker {cluster.task} too. Give each its own index, from 0 to "
            f"{len(cluster.workers) - 1}."
        )
    return int(words[2])


def _greet(cluster: Cluster, task: int) -> bool:
    """Sends a greeting to a worker; returns whether it answered with its own."""
    try:
        with socket.create_connection(split(cluster.workers[task]), _CONNECT) as connection:
            connection.sendall(_greeting(cluster))
            return _sender(cluster, _line(connection)) == task
    except (OSError, UnicodeError):  # UnicodeError: a host name with a label that is empty or too long
        return False


def _line(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n") and len(received) < _LONGEST:
        part = connection.recv(_LONGEST)
        if not part:
            break
        received += part
    return received


class AbsentWorkersError(RuntimeError):
    """Some workers did not arrive in time."""


class _Answering:
    """Answers the other workers' greetings from a thread.

    Attributes:
      callers: the tasks that have called. Reading it raises ClusterError if a greeting did not match.
    """

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._callers: set[int] = set()
        self._mistake: ClusterError | None = None

    @property
    def callers(self) -> set[int]:
        if self._mistake is not None:
            raise self._mistake
        return set(self._callers)

    def __enter__(self) -> "_Answering":
        address = self._cluster.workers[self._cluster.task]
        try:
            # It sets SO_REUSEADDR, which ignores the closed connections of an earlier run, but not a listener.
            self._server = socket.create_server(("", split(address)[1]))
        except OSError as error:
            raise ClusterError(
                f"Worker {self._cluster.task} cannot listen at {address} ({error.strerror}). If another process "
                "listens there, it is a worker of the same index or of an earlier job: end it, or give this worker "
                "another port."
            ) from error
        self._thread = threading.Thread(target=self._answer, name="rendezvous", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._server.close()
        self._thread.join(_CONNECT)

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_CONNECT)
                try:
                    task = _sender(self._cluster, _line(connection))
                    connection.sendall(_greeting(self._cluster))
                except ClusterError as error:
                    connection.sendall(_greeting(self._cluster))  # so that the other worker finds the mismatch too
                    self._mistake = error
                else:
                    if task is not None:
                        self._callers.add(task)


@contextlib.contextmanager
def ends_process_after(seconds: float, message: str) -> Iterator[None]:
    """Ends the process, with an error line and code 1, if the body takes longer, even if it holds Python's lock.

    A Python thread cannot do that. A shell in the background writes the line, and `faulthandler`, whose timer does not
    need the lock, ends the process.

    Args:
      seconds: the time that the body may take.
      message: the line, without "error:".
    """
    # The shell checks that this process still exists: it may have been killed in the meantime.
    script = 'sleep "$1" && kill -0 "$2" && echo "error: $3" >&2'
    arguments = [f"{seconds:g}", str(os.getpid()), message]
    with open(os.devnull, "w") as null:
        shell = subprocess.Popen(["sh", "-c", script, "sh", *arguments], start_new_session=True)
        faulthandler.dump_traceback_later(seconds + 0.5, exit=True, file=null)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
