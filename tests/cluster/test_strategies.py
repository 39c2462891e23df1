"""Creating a strategy: each in a process of its own, because it must be created before TensorFlow starts."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.cluster import strategies
from tests.support import processes


def in_a_process(expression, prepare=""):
    """The value of an expression of `create` and `describe`, in a new process."""
    imports = "import json; from ncsn_tf.cluster.strategies import create, describe"
    program = f"{imports}\n{prepare}\nprint(json.dumps({expression}))"
    ended = processes.run_program(program)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_one_process_uses_the_devices_of_the_machine():
    assert in_a_process("describe(create())") == "DefaultDistributionStrategy, 1 replica on CPU"
    described = in_a_process("[describe(create(logical_devices=3)), describe(create('one_device'))]")
    assert described == ["MirroredStrategy, 3 replicas on CPU", "DefaultDistributionStrategy, 1 replica on CPU"]


MISTAKES = {
    "create('mirored')": "one of auto, one_device, mirrored",
    "create(logical_devices=0)": "at least 1 logical device",
    "create('mirrored', tpu='local')": "Only the strategies tpu and auto take a TPU",
    "create(timeout=0)": "must be positive",
    "create('one_device', cluster='tf_config')": "Only the strategies multi_worker and auto take a cluster",
    "create('mirrored', num_workers=2)": "num_workers=2 with 'mirrored'",
    "create(tpu='local', cluster='tf_config')": "with a TPU",
    "create('multi_worker')": "multi_worker needs a cluster",
    "create(cluster='tf_config')": "TF_CONFIG is not set",
    "create(num_workers=2)": "Expected 2 workers, found no cluster",
    "create(tpu='local')": "No TPU 'local' can be used",
    "create(logical_devices=2)": "before TensorFlow's first operation",
}


def test_wrong_arguments_are_refused():
    """All in one process; the last comes after the missing TPU has started TensorFlow."""
    said = in_a_process(f"[refusal(mistake) for mistake in {list(MISTAKES)}]", prepare=REFUSAL)
    for message, (mistake, expected) in zip(said, MISTAKES.items(), strict=True):
        assert expected in message, mistake


def test_a_cluster_of_one_worker_trains_alone():
    """The number of workers of a job can be 1, with the same command."""
    alone = json.dumps({"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}})
    calls = ["cluster='tf_config'", "name='multi_worker', cluster='tf_config', num_workers=1"]
    for call in calls:
        described = in_a_process(f"describe(create({call}))", f"import os; os.environ['TF_CONFIG'] = {alone!r}")
        assert described == "DefaultDistributionStrategy, 1 replica on CPU"


def test_a_cpu_is_not_split_for_one_device():
    """It is refused before the CPU is split, so that a later strategy has one device."""
    said = in_a_process(
        "[refusal(\"create('one_device', logical_devices=2)\"), describe(create())]",
        REFUSAL,
    )
    assert "Only the strategy mirrored takes several logical devices" in said[0] and "1 replica on CPU" in said[1]


REFUSAL = """
def refusal(mistake):
    try:
        eval(mistake)
    except ValueError as error:
        return str(error)
    return "nothing"
"""


def test_a_tpu_that_does_not_answer_ends_the_process_in_time():
    program = "from ncsn_tf.cluster import strategies; strategies.create(tpu='grpc://127.0.0.1:1', timeout=3)"
    ended = processes.run_program(program)
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
    """Two workers, from the two sources that need no service: their messages arrive bit for bit."""
    ports = processes.free_ports(2)
    program = """
import json, os, sys
import numpy as np
from ncsn_tf.cluster import sources, strategies
sources._SLURM_PORT = int(sys.argv[1])
strategy = strategies.create(timeout=60)
task, workers = strategies.place(strategy)
odd = np.array([-0.0, np.nan, np.inf, 1e-45, 3.0], np.float32)
arrays = [odd, np.array(2**40 + 3), np.arange(6, dtype=np.int32).reshape(2, 3)]
sent = arrays if task == 0 else [np.zeros_like(array) for array in arrays]
got = strategies.from_chief(strategy, sent)
strategies.require_agreement(strategy, same=5)
try:
    strategies.require_agreement(strategy, same=5, the_seed=task)
    refused = None
except ValueError as error:
    refused = str(error)
strategies.wait_for_everyone(strategy)
print(json.dumps([task, workers, strategies.describe(strategy), [a.tobytes() == b.tobytes() and a.shape == b.shape
      and a.dtype == b.dtype for a, b in zip(arrays, got)], refused]))
"""
    base = ports[0] if ports[0] % 2 == 0 else ports[0] + 1
    environments = []
    for task in (0, 1):
        cluster = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": task},
        }
        environments.append(slurm(task) if source == "slurm" else {"TF_CONFIG": json.dumps(cluster)})
    for task, ended in enumerate(processes.finish([(processes.execute, program, base)] * 2, environments)):
        assert ended.returncode == 0, ended.stderr
        number, workers, described, same, refused = json.loads(ended.stdout.splitlines()[-1])
        assert (number, workers) == (task, 2)
        assert described == f"MultiWorkerMirroredStrategy, 2 replicas on CPU, worker {task} of 2"
        assert same == [True, True, True]
        assert "the seed of worker 1 differs from the chief's" in refused


def test_a_single_process_is_the_chief_and_agrees_with_itself():
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        assert strategies.place(strategy) == (0, 1) and strategies.is_chief(strategy)
        strategies.require_agreement(strategy, anything=3)
        arrays = [np.float32([1, 2])]
        assert strategies.from_chief(strategy, arrays)[0] is arrays[0]
