"""The rendezvous of workers, in threads over loopback: all meet or none, and absent workers are named."""

import concurrent.futures
import socket
import subprocess
import sys
import threading
import time

import pytest

from ncsn_tf.cluster import rendezvous
from ncsn_tf.cluster.description import Cluster, ClusterError
from ncsn_tf.cluster.rendezvous import AbsentWorkersError, meet
from tests.support.processes import ROOT, free_ports


def addresses(count):
    return tuple(f"127.0.0.1:{port}" for port in free_ports(count))


def all_meet(clusters, timeout=10.0):
    """The result of each worker: None, or its exception."""
    with concurrent.futures.ThreadPoolExecutor(len(clusters)) as pool:
        return [future.exception() for future in [pool.submit(meet, cluster, timeout) for cluster in clusters]]


def test_all_workers_meet_in_any_order():
    workers = addresses(4)
    clusters = [Cluster(workers, task) for task in range(4)]
    begun = time.monotonic()
    assert all_meet(clusters[::-1]) == [None] * 4
    assert time.monotonic() - begun < 5


def test_a_late_worker_is_waited_for():
    workers = addresses(2)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, Cluster(workers, 0), 10.0)
        time.sleep(1.0)
        assert not first.done()
        meet(Cluster(workers, 1), 10.0)
        first.result(5.0)


def test_absent_workers_are_named_on_every_worker():
    workers = addresses(4)
    begun = time.monotonic()
    errors = all_meet([Cluster(workers, task) for task in (0, 2)], timeout=1.0)
    assert time.monotonic() - begun < 6
    for error in errors:
        assert isinstance(error, AbsentWorkersError)
        assert f"cannot reach worker 1 ({workers[1]}), 3 ({workers[3]})." in str(error)


def test_another_server_at_a_workers_port_is_not_a_worker():
    """Such as the server of an earlier start, with another protocol, or a server that does not answer."""
    workers = addresses(3)
    ports = [int(address.rsplit(":", 1)[1]) for address in workers]
    with socket.create_server(("127.0.0.1", ports[1])) as stranger, socket.create_server(("127.0.0.1", ports[2])):

        def answer():
            for _ in range(100):
                try:
                    connection, _ = stranger.accept()
                    with connection:
                        connection.sendall(b"\x00\x00\x12\x04 settings\n")
                except OSError:
                    return

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(AbsentWorkersError, match="cannot reach worker 1 .*, 2 "):
            meet(Cluster(workers, 0), 1.0)


def test_another_client_is_not_a_worker():
    workers = addresses(2)
    host, port = workers[0].split(":")
    stop = threading.Event()

    def call():
        while not stop.is_set():
            try:
                with socket.create_connection((host, int(port)), 1.0) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            except OSError:
                pass
            stop.wait(0.05)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        assert all_meet([Cluster(workers, 0), Cluster(workers, 1)]) == [None, None]
    finally:
        stop.set()
        thread.join()


def test_another_list_of_workers_is_refused_on_both():
    first, second, third = addresses(3)
    errors = all_meet([Cluster((first, second), 0), Cluster((first, second, third), 1)], timeout=5.0)
    assert all(isinstance(error, ClusterError) and "another list of workers" in str(error) for error in errors), errors


def test_a_port_that_is_in_use_is_refused_at_once():
    workers = addresses(2)
    with socket.socket() as server:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as gRPC sets them
            server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind(("", int(workers[0].rsplit(":", 1)[1])))
        server.listen()
        with pytest.raises(ClusterError, match=f"Worker 0 cannot listen at {workers[0]} .*same index or of an earlier"):
            meet(Cluster(workers, 0), 5.0)


def test_the_port_is_free_for_tensorflow_at_once():
    workers = addresses(2)
    for _ in range(2):
        assert all_meet([Cluster(workers, 0), Cluster(workers, 1)]) == [None, None]


def test_two_workers_of_one_index_are_refused():
    """The third worker is absent: the first must not mistake another process of its own index for it."""
    workers = addresses(3)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, Cluster(workers, 0), 3.0)
        second = pool.submit(meet, Cluster(workers, 1), 3.0)
        host, port = workers[0].split(":")
        time.sleep(0.5)
        with socket.create_connection((host, int(port)), 2.0) as duplicate:
            duplicate.sendall(rendezvous._greeting(Cluster(workers, 0)))
            assert duplicate.recv(100)
        assert "Another process is worker 0 too" in str(first.exception())
        assert isinstance(second.exception(), AbsentWorkersError)


def test_a_call_that_holds_the_interpreters_lock_is_ended_in_time_with_a_line():
    program = "import ctypes; from ncsn_tf.cluster import rendezvous\n"
    program += "with rendezvous.ends_process_after(1.0, 'it took too long'):\n"
    program += "    ctypes.PyDLL(None).sleep(30)"  # PyDLL keeps the lock while the function runs
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and time.monotonic() - begun < 25
    assert ended.stderr.splitlines()[-1] == "error: it took too long" and "Traceback" not in ended.stderr


def test_a_call_that_ends_in_time_is_not_interrupted(capfd):
    with rendezvous.ends_process_after(0.3, "nothing"):
        pass
    time.sleep(1.2)
    assert "nothing" not in capfd.readouterr().err
