"""launch.train --init_from: a new run starts from another's averaged weights."""

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.support import processes

TINY = [
    "--config=configs/digits.py",
    "--config.network.filters=2",
    "--config.training.batch_size=4",
    "--config.training.held_out_examples=0",
    "--config.training.sample_every=0",
]
launch = functools.partial(processes.launch, "train", *TINY, stand_in=True)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "other"
    ended = launch(f"--workdir={path}", "--config.training.steps=2", "--config.seed=7")
    assert ended.returncode == 0, ended.stderr
    return path


@pytest.fixture(scope="module")
def new(other):
    """A run of two steps that started from the other one."""
    path = other.with_name("new")
    ended = launch(f"--init_from={other}", f"--workdir={path}", "--config.training.steps=2")
    assert ended.returncode == 0, ended.stderr
    assert f"averaged weights of {other}/checkpoints/checkpoint-2" in ended.stdout
    return path


def weights(run, part, step):
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / f"checkpoint-{step}"))
    names = sorted(name for name in reader.get_variable_to_shape_map() if name.startswith(f"{part}/"))
    return np.concatenate([reader.get_tensor(name).ravel() for name in names])


def test_init_from_is_repeatable(other, new, tmp_path):
    again = launch(f"--init_from={other}", f"--workdir={tmp_path}", "--config.training.steps=2")
    assert again.returncode == 0, again.stderr
    for part in ("network", "average"):
        np.testing.assert_array_equal(weights(new, part, 0), weights(other, "average", 2))
        np.testing.assert_array_equal(weights(new, part, 2), weights(tmp_path, part, 2))
    assert (weights(new, "network", 2) != weights(new, "network", 0)).any()
    record = json.loads((new / "init.json").read_text())
    assert record["given"] == str(other) and record["step"] == 2


def test_it_resumes_without_the_other(new, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(new, copy)
    record = json.loads((copy / "init.json").read_text())
    gone = {"given": str(tmp_path / "gone"), "checkpoint": str(tmp_path / "gone" / "checkpoints" / "checkpoint-2")}
    (copy / "init.json").write_text(json.dumps(record | gone))
    resumed = launch(f"--init_from={tmp_path / 'gone'}", f"--workdir={copy}", "--config.training.steps=3")
    assert resumed.returncode == 0 and "from step 2 to 3" in resumed.stdout, resumed.stderr


def test_mistakes_end_with_code_2_and_one_line_and_leave_no_run(other, tmp_path):
    mistakes = {
        f"--init_from={tmp_path / 'none'}": "There is nothing at",
        f"--init_from={other}/checkpoints/checkpoint-9": "There are: [2]",
        f"--init_from={tmp_path / 'new'}": "its own weights",
    }
    for flag, words in mistakes.items():
        ended = launch(flag, f"--workdir={tmp_path / 'new'}", "--config.training.steps=1")
        lines = ended.stderr.strip().splitlines()
        assert ended.returncode == 2 and len(lines) == 1 and words in lines[0], ended.stderr
        assert not (tmp_path / "new" / "config.json").exists()
    ended = launch(f"--init_from={tmp_path}", f"--workdir={other}", "--config.training.steps=3", "--config.seed=7")
    assert ended.returncode == 2 and "started from random weights" in ended.stderr


def test_a_dry_run_reads_the_weights_and_writes_nothing(other, tmp_path):
    dry = launch(f"--init_from={other}", f"--workdir={tmp_path / 'new'}", "--dry_run")
    assert dry.returncode == 0 and f"averaged weights of {other}" in dry.stdout and "Dry run" in dry.stdout
    dry = launch(f"--init_from={tmp_path}", f"--workdir={tmp_path / 'new'}", "--dry_run")
    assert dry.returncode == 2 and "holds no checkpoint to start from" in dry.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.soak  # two more workers; the rest is tested by one
def test_only_the_chief_of_a_cluster_sees_the_other_run(other, new, tmp_path):
    def arguments(index):
        seen = other if index == 0 else tmp_path / "none"
        return [*TINY, f"--init_from={seen}", f"--workdir={tmp_path / str(index)}", "--config.training.steps=2"]

    addresses = [f"127.0.0.1:{port}" for port in processes.free_ports(2)]
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    workers = processes.finish(
        [(processes.run_launcher, "train", arguments(index), True) for index in (0, 1)],
        [{"TF_CONFIG": json.dumps(task)} for task in tasks],
        seconds=300.0,
    )
    assert [worker.returncode for worker in workers] == [0, 0], workers
    together, single = weights(tmp_path / "0", "network", 2), weights(new, "network", 2)
    # Adam's first steps have the size of the learning rate whatever the gradient: another start would differ by that.
    np.testing.assert_allclose(together, single, rtol=0.0, atol=1e-4)
