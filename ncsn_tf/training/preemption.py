"""Being asked to stop: signals and notices become a request that a training loop honours at the end of its step.

A Python signal handler runs between two bytecodes of the main thread, which waits for a whole loop of steps inside one
call of TensorFlow: minutes, where a machine that is taken away gives half of one. So the signal's arrival is written
to a pipe, which the interpreter does at once, a thread reads it, and sets a variable that the compiled loop looks at.

TensorFlow's `PreemptionCheckpointHandler` is not what stops a run here: it acts between calls and asks for calls of one
step, restores on its own, unverified, and on Google Compute Engine knows GPUs alone. The notices that it goes by are
taken: `maintenance_notice`, and `tf.distribute.experimental.PreemptionWatcher` under a TPUStrategy.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Asks a training loop to stop at the end of the running step; may be made from any thread.

    Attributes:
      variable: float32 scalar on the host, 0 until it is made, 1 after; compiled loops read it.
      reason: what asked, for the log; None until then.
      signal_number: the signal that asked, None if none did.
    """

    def __init__(self):
        with tf.init_scope(), tf.device("CPU:0"):
            self.variable = tf.Variable(tf.constant(0.0), trainable=False, name="stop_requested")
        self.reason: str | None = None
        self.signal_number: int | None = None

    def make(self, reason: str, signal_number: int | None = None) -> None:
        """Makes the request; the first one counts."""
        if self.reason is None:
            self.reason, self.signal_number = reason, signal_number
            self.variable.assign(1.0)

    @property
    def made(self) -> bool:
        """Whether it has been made in this process."""
        return self.reason is not None

    def raise_if_made(self) -> None:
        """Raises StopMade if it has been made: a way out of long work that is no training."""
        if self.made:
            raise StopMade(self.reason)


class StopMade(Exception):
    """A request to stop was made."""


class Preempted(Exception):
    """Training was asked to stop, and did, with its last step saved.

    Attributes:
      reason: what asked.
      signal_number: the signal that asked, None if it was another notice or another worker.
    """

    def __init__(self, step: int, reason: str, signal_number: int | None):
        super().__init__(f"Stopped at step {step}, which is saved: {reason}.")
        self.reason = reason
        self.signal_number = signal_number


@contextlib.contextmanager
def watch_signals(request: StopRequest | None) -> Iterator[None]:
    """Within it, SIGTERM and SIGINT make the request, and a second signal ends the process at once.

    So does the first if there is no request to make: before training begins, while a worker waits for others inside
    TensorFlow.

    Enter it on the main thread and after the strategy is made: MultiWorkerMirroredStrategy installs a handler of its
    own for SIGTERM, with which the process would ignore the signal, and which this one replaces.

    Args:
      request: the request to make; None to end the process with 128 and the signal's number.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # the interpreter asks for it

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
    # The pipe before the handlers, and after them at the end: no signal falls into a gap between the two.
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
    """Within it, a notice that is polled makes the request.

    Args:
      notice: true once the machine is to be taken away. An exception is no notice: it is tried again.
      request: the request to make.
      interval: seconds between two looks.
    """
    left = threading.Event()

    def poll() -> None:
        while not left.wait(interval):
            with contextlib.suppress(Exception):
                if notice():
                    request.make("the machine is to be taken away")
                    return

    thread = threading.Thread(target=poll, name="notice", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(timeout=interval)


def maintenance_notice() -> bool:
    """Whether Google Compute Engine announces the host's maintenance, by TensorFlow's own watcher."""
    from tensorflow.python.distribute.failure_handling import failure_handling_util  # has no public name

    return failure_handling_util.termination_watcher_function_gce()


def notices(strategy: tf.distribute.Strategy, compute_engine: bool) -> list[Callable[[], object]]:
    """What to poll besides signals, for `watch_notice`.

    Args:
      strategy: the strategy in use; under a TPUStrategy TensorFlow's `PreemptionWatcher` is one of them.
      compute_engine: whether to ask Compute Engine's metadata server for maintenance of the host.
    """
    found: list[Callable[[], object]] = [maintenance_notice] if compute_engine else []
    if isinstance(strategy, tf.distribute.TPUStrategy):
        watcher = tf.distribute.experimental.PreemptionWatcher()
        found.append(lambda: watcher.preemption_message)
    return found
