"""Choosing a strategy: each in a process of its own, as it must be made before TensorFlow starts."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.cluster import strategies
from tests.support.processes import ROOT, free_ports


def in_a_process(expression, prepare=""):
    """The value of an expression of `s`, the strategies module, in a fresh process."""
    program = f"import json; from ncsn_tf.training import strategy as s\n{prepare}\nprint(json.dumps({expression}))"
    clean = {key: value for key, value in os.environ.items() if key != "TF_CONFIG" and not key.startswith("SLURM")}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**clean, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_one_process_takes_the_devices_that_there_are():
    assert in_a_process("s.describe(s.create())") == "DefaultDistributionStrategy, 1 replica on CPU"
    described = in_a_process("[s.describe(s.create(logical_devices=3)), s.describe(s.create('one_device'))]")
    assert described == ["MirroredStrategy, 3 replicas on CPU", "DefaultDistributionStrategy, 1 replica on CPU"]


MISTAKES = {
    "s.create('mirored')": "one of auto, one_device, mirrored",
    "s.create(logical_devices=0)": "1 or more logical devices",
    "s.create('mirrored', tpu='local')": "A TPU is for the strategies tpu and auto",
    "s.create(timeout=0)": "must be positive",
    "s.create('one_device', cluster='tf_config')": "A cluster is for the strategies multi_worker and auto",
    "s.create('mirrored', num_workers=2)": "num_workers=2 with 'mirrored'",
    "s.create(tpu='local', cluster='tf_config')": "with a TPU",
    "s.create('multi_worker')": "multi_worker needs a cluster",
    "s.create(cluster='tf_config')": "TF_CONFIG is not set",
    "s.create(num_workers=2)": "Expected 2 workers, found no cluster",
    "s.create(tpu='local')": "No TPU 'local' can be used",
    "s.create(logical_devices=2)": "before TensorFlow's first operation",
}


def test_what_cannot_be_is_refused_with_its_reason():
    """All in one process, the last after the TPU that is not there has started TensorFlow."""
    said = in_a_process(f"[s.refusal(mistake) for mistake in {list(MISTAKES)}]", prepare=REFUSAL)
    for words, (mistake, expected) in zip(said, MISTAKES.items(), strict=True):
        assert expected in words, mistake


def test_a_cluster_of_one_worker_is_a_machine_like_any_other():
    """So that a job's number of workers can be 1, with the same command."""
    alone = json.dumps({"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}})
    calls = ["cluster='tf_config'", "name='multi_worker', cluster='tf_config', num_workers=1"]
    for call in calls:
        described = in_a_process(f"s.describe(s.create({call}))", f"import os; os.environ['TF_CONFIG'] = {alone!r}")
        assert described == "DefaultDistributionStrategy, 1 replica on CPU"


def test_a_split_cpu_is_for_replicas():
    """Refused before the CPU is split, or what comes next would find it in two."""
    said = in_a_process("[s.refusal(\"s.create('one_device', logical_devices=2)\"), s.describe(s.create())]", REFUSAL)
    assert "logical devices are for the strategy mirrored" in said[0] and "1 replica on CPU" in said[1]


REFUSAL = """
def refusal(mistake):
    try:
        eval(mistake)
    except ValueError as error:
        return str(error)
    return "nothing"
s.refusal = refusal
"""


def test_a_tpu_that_does_not_answer_ends_the_process_in_time():
    program = "from ncsn_tf.training import strategy as s; s.create(tpu='grpc://127.0.0.1:1', timeout=3)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "error: after 3 s the TPU grpc://127.0.0.1:1 has not answered" in ended.stderr


def slurm(task):
    return {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURMD_NODENAME": "localhost",
        "SLURM_LOCALID": str(task),
        "SLURM_PROCID": str(task),
    }


@pytest.mark.parametrize("source", ["tf_config", "slurm"])
def test_two_workers_exchange_numbers_bit_for_bit(source):
    """A cluster from each of the two sources that can be had anywhere; what workers tell each other arrives."""
    ports = free_ports(2)
    program = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
from ncsn_tf.cluster import sources, strategies as s
cluster_sources._SLURM_PORT = int(sys.argv[1])
strategy = s.create(timeout=60)
task, workers = s.place(strategy)
odd = np.array([-0.0, np.nan, np.inf, 1e-45, 3.0], np.float32)
arrays = [odd, np.array(2**40 + 3), np.arange(6, dtype=np.int32).reshape(2, 3)]
sent = arrays if task == 0 else [np.zeros_like(array) for array in arrays]
got = s.from_chief(strategy, sent)
s.require_agreement(strategy, same=5)
try:
    s.require_agreement(strategy, same=5, the_seed=task)
    refused = None
except ValueError as error:
    refused = str(error)
s.wait_for_everyone(strategy)
print(json.dumps([task, workers, s.describe(strategy), [a.tobytes() == b.tobytes() and a.shape == b.shape
      and a.dtype == b.dtype for a, b in zip(arrays, got)], refused]))
"""
    base = ports[0] if ports[0] % 2 == 0 else ports[0] + 1
    processes = []
    for task in (0, 1):
        environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG" and not k.startswith("SLURM")}
        if source == "slurm":
            environment |= slurm(task)
        else:
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": task}})
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, str(base)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for task, process in enumerate(processes):
        try:
            said, errors = process.communicate(timeout=100)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        number, workers, described, same, refused = json.loads(said.splitlines()[-1])
        assert (number, workers) == (task, 2)
        assert described == f"MultiWorkerMirroredStrategy, 2 replicas on CPU, worker {task} of 2"
        assert same == [True, True, True]
        assert "the seed of worker 1 differs from the chief's" in refused


def test_one_process_is_the_chief_and_agrees_with_itself():
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        assert strategies.place(strategy) == (0, 1) and strategies.is_chief(strategy)
        strategies.require_agreement(strategy, anything=3)
        arrays = [np.float32([1, 2])]
        assert strategies.from_chief(strategy, arrays)[0] is arrays[0]
