"""Requests to stop: signals while TensorFlow is busy, notices, and the loop that responds to them."""

import http.server
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

from ncsn_tf.training import preemption
from ncsn_tf.training.preemption import StopMade, StopRequest
from tests.support.tiny import batches, make


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_compiled_loop_within_a_step(number):
    """The loop would take minutes; the signal comes while the main thread waits inside TensorFlow."""
    trainer = make()
    iterator = batches(trainer)
    trainer.run(iterator, 1)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with preemption.watch_signals(trainer.stop):
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        begun = time.monotonic()
        result = trainer.run(iterator, 10_000_000)
    assert result.stopped and result.steps > 10 and trainer.step == 1 + result.steps
    assert time.monotonic() - begun < 10
    assert trainer.stop.signal_number == number and signal.Signals(number).name in str(trainer.stop.reason)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_second_signal_ends_the_process_at_once():
    program = textwrap.dedent(
        """
        import os, signal, time
        from ncsn_tf.training import preemption
        with preemption.watch_signals(preemption.StopRequest()):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
            print("still here", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
            print("and still", flush=True)
        """
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "still here\n" and ended.returncode == 128 + signal.SIGTERM


def test_before_training_a_signal_ends_a_process_that_waits_inside_a_library():
    program = textwrap.dedent(
        """
        import ctypes, os, signal, threading
        from ncsn_tf.training import preemption
        signal.signal(signal.SIGTERM, lambda *_: print("a handler that runs too late", flush=True))
        with preemption.watch_signals(None):
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            ctypes.CDLL(None).poll(None, 0, 20_000)
        """
    )
    root, begun = Path(__file__).parents[2], time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 128 + signal.SIGTERM and ended.stdout == "", ended.stderr
    assert time.monotonic() - begun < 18


def test_the_first_reason_is_kept():
    request = StopRequest()
    request.raise_if_made()
    assert not request.made and float(request.variable) == 0.0
    request.make("one")
    request.make("two", signal.SIGTERM)
    assert request.reason == "one" and request.signal_number is None and float(request.variable) == 1.0
    with pytest.raises(StopMade, match="one"):
        request.raise_if_made()


def test_a_notice_is_polled_until_it_comes_in_spite_of_errors():
    answers = iter([False, OSError("no network"), "preempted"])

    def notice():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    request = StopRequest()
    with preemption.watch_notice(notice, request, interval=0.01):
        wait_for(lambda: request.made)
    quiet = StopRequest()
    with preemption.watch_notice(lambda: False, quiet, interval=0.01):
        time.sleep(0.1)
    assert not quiet.made


def test_maintenance_of_the_host_is_read_from_compute_engine(monkeypatch):
    """A stand-in for its metadata server on loopback: GET computeMetadata/v1/instance/maintenance-event."""
    answers = {"event": "NONE"}

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/computeMetadata/v1/instance/maintenance-event"
            self.send_response(200 if known and self.headers["Metadata-Flavor"] == "Google" else 403)
            self.end_headers()
            self.wfile.write(answers["event"].encode())

        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        notices = preemption.notices(tf.distribute.get_strategy(), compute_engine=True)
        assert [notice() for notice in notices] == [False]
        answers["event"] = "TERMINATE_ON_HOST_MAINTENANCE"
        assert [notice() for notice in notices] == [True]
        server.shutdown()
    assert preemption.notices(tf.distribute.get_strategy(), compute_engine=False) == []
