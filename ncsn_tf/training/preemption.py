"""Requests to stop: signals and preemption notices, to which a training loop responds at the end of its step.

A Python signal handler runs between two bytecodes of the main thread. The main thread waits for a whole loop of steps
inside one call of TensorFlow, for minutes, but a machine that is about to be preempted may leave only half a minute. So
the interpreter writes the signal to a pipe at once, a thread reads the pipe, and sets a variable that the compiled loop
checks.

TensorFlow's `PreemptionCheckpointHandler` is not used: it acts between calls and expects calls of one step, it restores
checkpoints by itself without verifying them, and on Google Compute Engine it supports only GPUs. Its sources of notices
are used: `maintenance_notice`, and `tf.distribute.experimental.PreemptionWatcher` under a TPUStrategy.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A request that a training loop stop at the end of the running step; any thread may make it.

    Attributes:
      variable: float32 scalar on the host, 0 before the request is made, 1 afterwards; compiled loops read it.
      reason: the reason for the request, for the log; None before it is made.
      signal_number: the signal that made the request; None if it was not a signal.
    """

    def __init__(self):
        with tf.init_scope(), tf.device("CPU:0"):
            self.variable = tf.Variable(tf.constant(0.0), trainable=False, name="stop_requested")
        self.reason: str | None = None
        self.signal_number: int | None = None

    def make(self, reason: str, signal_number: int | None = None) -> None:
        """Makes the request; only the first call has an effect."""
        if self.reason is None:
            self.reason, self.signal_number = reason, signal_number
            self.variable.assign(1.0)

    @property
    def made(self) -> bool:
        """True if the request has been made in this process."""
        return self.reason is not None

    def raise_if_made(self) -> None:
        """Raises StopMade if the request has been made, to end long work other than training."""
        if self.made:
            raise StopMade(self.reason)


class StopMade(Exception):
    """A request to stop was made."""


class Preempted(Exception):
    """Training stopped at a request, with its last step saved.

    Attributes:
      reason: the reason for the request.
      signal_number: the signal that made the request; None if it was a notice or another worker.
    """

    def __init__(self, step: int, reason: str, signal_number: int | None):
        super().__init__(f"Stopped at step {step}, which is saved: {reason}.")
        self.reason = reason
        self.signal_number = signal_number


@contextlib.contextmanager
def watch_signals(request: StopRequest | None) -> Iterator[None]:
    """Makes the request at SIGTERM or SIGINT; a second signal ends the process at once.

    Without a request, the first signal ends the process: this is for the time before training begins, while a worker
    waits for others inside TensorFlow.

    Enter it on the main thread and after the strategy is created: MultiWorkerMirroredStrategy installs a handler of
    SIGTERM with which the process would ignore the signal. This context replaces that handler.

    Args:
      request: the request to make; None ends the process with the code 128 plus the signal's number.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # as signal.set_wakeup_fd requires

    def watch() -> None:
        while numbers := os.read(reader, 1):
            number = numbers[0]
            if number not in _SIGNALS:
                continue
            if request is None or request.made:
                os._exit(128 + number)
            request.make(f"received {signal.Signals(number).name}", number)

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    # The pipe is set before the handlers and reset after them, so that no signal is lost in between.
    previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_writer)
        os.close(writer)
        thread.join()
        os.close(reader)


@contextlib.contextmanager
def watch_notice(notice: Callable[[], object], request: StopRequest, interval: float = 1.0) -> Iterator[None]:
    """Polls a notice, and makes the request when it comes.

    Args:
      notice: returns a true value once the machine is about to be preempted. After an exception it is called again.
      request: the request to make.
      interval: seconds between two calls.
    """
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(interval):
            with contextlib.suppress(Exception):
                if notice():
                    request.make("the machine is about to be preempted")
                    return

    thread = threading.Thread(target=poll, name="notice", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=interval)


def maintenance_notice() -> bool:
    """Tells whether Google Compute Engine announces maintenance of the host, by TensorFlow's own watcher."""
    from tensorflow.python.distribute.failure_handling import failure_handling_util  # has no public name

    return failure_handling_util.termination_watcher_function_gce()


def notices(strategy: tf.distribute.Strategy, compute_engine: bool) -> list[Callable[[], object]]:
    """The notices to poll besides signals, for `watch_notice`.

    Args:
      strategy: the strategy in use; under a TPUStrategy, TensorFlow's `PreemptionWatcher` is one of the notices.
      compute_engine: whether to ask Compute Engine's metadata server about maintenance of the host.
    """
    found: list[Callable[[], object]] = [maintenance_notice] if compute_engine else []
    if isinstance(strategy, tf.distribute.TPUStrategy):
        watcher = tf.distribute.experimental.PreemptionWatcher()
        found.append(lambda: watcher.preemption_message)
    return found
