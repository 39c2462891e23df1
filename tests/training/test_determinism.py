"""Bit for bit, with NCSN at its default width and threads, since small networks do not show what is lost.

Each process traces and optimizes the whole network, so these are soak tests.
"""

import json
import subprocess
import sys
import time

import pytest

from tests.support import processes
from tests.support.processes import ROOT

pytestmark = pytest.mark.soak

PROGRAM = """
import json, sys, zlib
import numpy as np, tensorflow as tf
from ncsn_tf.cluster import strategies
from ncsn_tf.config import build, sections
from ncsn_tf.training.checkpoints import Checkpoints
import pathlib

folder, steps, replicas = pathlib.Path(sys.argv[1]), [int(step) for step in sys.argv[2].split(",")], int(sys.argv[3])
strategy = strategies.create(logical_devices=replicas or None)
config = sections.ncsn().to_dict()
config["data"]["name"], config["network"]["filters"], config["training"]["batch_size"] = "digits", 32, 16
builder = build.Builder(config)
source = builder.load_images("train")
trainer = builder.trainer(strategy, source.shape)
checkpoints = Checkpoints(folder, trainer, keep=2)
start = checkpoints.restore()
iterator = iter(builder.batches(source, strategy, start))
losses = []
for stop in steps:
    losses.append(trainer.run(iterator, stop - trainer.step).loss)
    checkpoints.save()
value = 0
for part in trainer.state.values():
    for variable in part:
        value = zlib.crc32(np.ascontiguousarray(variable.numpy()).data, value)
print(json.dumps({"start": start, "crc": value, "losses": losses}))
"""


def train(folder, steps, replicas=1, kill_after=None):
    """The output of a process that trains to each of some steps; nothing if it is killed after its first checkpoint."""
    command = [sys.executable, "-c", PROGRAM, str(folder), ",".join(map(str, steps)), str(replicas)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if kill_after is not None:
            deadline = time.monotonic() + 200
            while not (folder / f"checkpoint-{kill_after}.index").exists():
                assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
                time.sleep(0.05)
            return {}
        output, errors = process.communicate(timeout=200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors[-2000:]
    return json.loads(output.splitlines()[-1])


def test_a_killed_and_resumed_run_is_bit_for_bit_identical_to_an_uninterrupted_one(tmp_path):
    """30 steps of NCSN in one process; in two others 10 steps and a SIGKILL, then the other 20."""
    whole = train(tmp_path / "whole", [30])
    assert whole["losses"][0] < 0.9 * 32, "half the number of pixels is the loss of a score of zero"
    train(tmp_path / "killed", [10, 100_000], kill_after=10)
    resumed = train(tmp_path / "killed", [30])
    assert resumed["start"] == 10 and resumed["crc"] == whole["crc"]


def test_training_on_two_replicas_is_repeatable(tmp_path):
    first = train(tmp_path / "first", [30], replicas=2)
    assert train(tmp_path / "second", [30], replicas=2) == first


def test_training_on_two_workers_is_repeatable(tmp_path):
    ends = []
    for name in ("first", "second"):
        addresses = [f"127.0.0.1:{port}" for port in processes.free_ports(2)]
        cluster = {"cluster": {"worker": addresses}}
        environments = [
            {"TF_CONFIG": json.dumps(cluster | {"task": {"type": "worker", "index": index}})} for index in (0, 1)
        ]
        calls = [(processes.execute, PROGRAM, tmp_path / name / str(index), 30, 0) for index in (0, 1)]
        workers = processes.finish(calls, environments, 300.0)
        assert [worker.returncode for worker in workers] == [0, 0], workers[0].stderr[-2000:]
        ends.append([json.loads(worker.stdout.splitlines()[-1])["crc"] for worker in workers])
    assert ends[0] == ends[1] and ends[0][0] == ends[0][1]
