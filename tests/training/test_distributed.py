"""Training as processes: on one device, on two, by two workers over loopback; killed and resumed.

They train a tiny network (`tests/support/train_tiny.py`), so that a start costs seconds. `tests/launch` tests the
launcher, `test_determinism.py` the real network.
"""

import os
import random
import signal
import time

import numpy as np
import pytest

from tests.support.processes import Processes

STEPS = 20


def finished(folder, workers=1, *arguments):
    processes = Processes(folder, workers, *arguments)
    assert processes.wait() == [0] * workers, processes.everything()
    return result(folder)


def result(folder):
    with np.load(folder / "worker_0" / "result.npz") as archive:
        return dict(archive)


def checkpoints(folder):
    return sorted(int(path.stem.rsplit("-", 1)[1]) for path in folder.glob("worker_0/checkpoints/*.index"))


def assert_same_bits(ours, theirs):
    """All that training changes, and what is drawn from it."""
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"losses"}:
        assert ours[name].dtype == theirs[name].dtype and ours[name].tobytes() == theirs[name].tobytes(), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """20 steps at a batch of 64: on one replica, on two at 32, by two workers at 32."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    steps = f"--steps={STEPS}"
    return {
        "one replica": finished(folder / "one", 1, steps),
        "two replicas": finished(folder / "two", 1, steps, "--logical_devices=2"),
        "two workers": finished(folder / "workers", 2, steps),
    }


@pytest.mark.parametrize("where", ["two replicas", "two workers"])
def test_training_is_the_same_on_any_number_of_replicas_and_workers(uninterrupted, where):
    ours, theirs = uninterrupted[where], uninterrupted["one replica"]
    assert len(ours["losses"]) == STEPS
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-5)
    # Samples and weights: 20 of Adam's steps of 1e-2, whose rounding is divided by the root of a small second moment.
    np.testing.assert_allclose(ours["samples"], theirs["samples"], atol=1e-4)
    for name in ours.keys() - {"losses", "samples"}:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert np.ptp(theirs["losses"]) > 0.1 * theirs["losses"].mean(), "losses that hardly move show nothing"


@pytest.mark.parametrize("kills, every", [(2, 3), pytest.param(8, 1, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_at_random_instants_ends_with_the_same_bits(uninterrupted, tmp_path, kills, every):
    """SIGKILL and SIGTERM at seeded moments, some while it starts, some while it trains or writes."""
    rng = random.Random(kills)
    slow = ("--steps_per_loop=4", "--seconds_per_step=0.3")
    arguments = (f"--steps={STEPS}", f"--checkpoint_every={every}", *slow)
    reached = []
    for _ in range(kills):
        processes = Processes(tmp_path, 1, *arguments)
        number = rng.choice([signal.SIGKILL, signal.SIGTERM])
        if rng.random() < 0.8:
            before = checkpoints(tmp_path)
            processes.wait_for(lambda p=processes, b=before: checkpoints(tmp_path) != b or p.processes[0].exitcode == 0)
        time.sleep(rng.uniform(0.0, 0.3))
        os.kill(processes.processes[0].pid, number)
        code = processes.wait()[0]
        assert code in (0, 75, -number), processes.everything()
        reached.append(max(checkpoints(tmp_path), default=0))
    assert reached == sorted(reached), "a later start lost what an earlier one had saved"
    if reached[-1] < STEPS:
        assert_same_bits(finished(tmp_path, 1, *arguments), uninterrupted["one replica"])
    else:
        raise AssertionError("every step was taken before the last kill: nothing was shown")


def test_workers_that_are_killed_asked_to_stop_and_started_again_end_with_the_same_bits(uninterrupted, tmp_path):
    arguments = (f"--steps={STEPS}", "--checkpoint_every=3", "--seconds_per_step=0.1")

    first = Processes(tmp_path, 2, *arguments)
    first.wait_for(lambda: checkpoints(tmp_path))
    first.processes[1].kill()
    begun = time.monotonic()
    assert first.wait(60) == [76, -signal.SIGKILL], first.everything()
    assert time.monotonic() - begun < 45, "a worker that is gone was noticed too late"
    assert "lost a peer" in first.said(0)

    second = Processes(tmp_path, 2, *arguments)
    before = checkpoints(tmp_path)
    second.wait_for(lambda: checkpoints(tmp_path) != before)
    os.kill(second.processes[1].pid, signal.SIGTERM)
    assert second.wait(60) == [75, 75], second.everything()
    assert "received SIGTERM" in second.said(1) and "another worker was asked to" in second.said(0)
    stopped = max(checkpoints(tmp_path))
    assert f"Stopped at step {stopped}, which is saved" in second.said(0)
    assert 0 < stopped < STEPS

    assert_same_bits(finished(tmp_path, 2, *arguments), uninterrupted["two workers"])
    assert not (tmp_path / "worker_1" / "checkpoints").exists(), "only the chief writes"


def test_a_worker_whose_peer_never_comes_ends_with_its_address(tmp_path):
    """Each of two workers, while the other is not there; in parallel, with addresses of their own."""
    alone = [Processes(tmp_path / str(index), 2, "--steps=1", "--cluster_timeout=2") for index in (0, 1)]
    for index, processes in enumerate(alone):
        processes.processes[1 - index].kill()
    for index, processes in enumerate(alone):
        assert processes.wait(60)[index] == 1, processes.everything()
        said = processes.said(index)
        assert f"cannot reach worker {1 - index} (127.0.0.1:" in said and "Traceback" not in said
