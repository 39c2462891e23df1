"""Bit for bit, with NCSN itself at its default width and threads: small networks do not show what is lost."""

import json
import subprocess
import sys
import time

import pytest

from tests.support.processes import ROOT

PROGRAM = """
import json, sys, zlib
import numpy as np, tensorflow as tf
from ncsn_tf.cluster import strategies
from ncsn_tf.config import build, sections
from ncsn_tf.training.checkpoints import Checkpoints
import pathlib

folder, steps, replicas = pathlib.Path(sys.argv[1]), [int(step) for step in sys.argv[2].split(",")], int(sys.argv[3])
strategy = strategies.create(logical_devices=replicas)
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
    """What a process prints that trains to each of some steps; nothing if it is killed after its first checkpoint."""
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


def test_two_processes_and_one_that_was_killed_end_with_the_same_bits(tmp_path):
    """30 steps of NCSN: twice, and once more with a SIGKILL after step 10."""
    first = train(tmp_path / "first", [30])
    assert first["losses"][0] < 0.9 * 32, "half the number of pixels is the loss of a score of zero"
    assert train(tmp_path / "second", [30]) == first
    train(tmp_path / "killed", [10, 100_000], kill_after=10)
    resumed = train(tmp_path / "killed", [30])
    assert resumed["start"] == 10 and resumed["crc"] == first["crc"]


@pytest.mark.soak
def test_two_replicas_repeat_themselves(tmp_path):
    first = train(tmp_path / "first", [30], replicas=2)
    assert train(tmp_path / "second", [30], replicas=2) == first
