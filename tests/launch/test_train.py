"""The launchers as a person runs them: processes, exit codes, files; a run that is killed and resumes."""

import functools
import json
import os
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.support import processes

TINY = [
    "--config=configs/digits.py",
    "--config.network.filters=2",
    "--config.training.batch_size=4",
    "--config.training.held_out_examples=8",
    "--config.training.sample_count=4",
    "--config.training.steps_per_loop=2",
    "--config.training.checkpoint_every=2",
    "--config.training.evaluate_every=4",
    "--config.training.sample_every=0",
    "--config.sampler.steps_per_level=2",
]


launch = functools.partial(processes.launch, stand_in=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was asked to stop after its first checkpoint and then went on to step 12 and more."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    arguments = [*TINY, f"--workdir={workdir}"]
    first = subprocess.Popen(
        processes.command("train", *arguments, "--config.training.steps=100000", stand_in=True),
        cwd=processes.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not list(workdir.glob("checkpoints/*.index")):
            assert first.poll() is None and time.monotonic() < deadline, "no checkpoint was ever written"
            time.sleep(0.2)
        intruder = launch("train", *arguments)
        os.kill(first.pid, signal.SIGTERM)
        _, errors = first.communicate(timeout=60)
    finally:
        first.kill()
    reached = max(int(path.stem.rsplit("-", 1)[1]) for path in workdir.glob("checkpoints/*.index"))
    steps = reached + 6
    second = launch("train", *arguments, f"--config.training.steps={steps}")
    assert second.returncode == 0, second.stderr
    assert f"from step {reached} to {steps}" in second.stdout, "work was lost"
    return SimpleNamespace(
        workdir=workdir, steps=steps, reached=reached, code=first.returncode, errors=errors, intruder=intruder
    )


def test_sigterm_saves_the_running_step_and_exits_with_its_code(run):
    assert run.code == 75
    assert f"error: Stopped at step {run.reached}, which is saved: received SIGTERM." in run.errors
    assert "Traceback" not in run.errors


def test_a_second_job_in_the_directory_is_refused(run):
    assert run.intruder.returncode == 2 and "Another job trains in" in run.intruder.stderr
    assert "(process " in run.intruder.stderr and len(run.intruder.stderr.strip().splitlines()) == 1


def test_a_stopped_run_resumes_and_prints_its_paths(run):
    assert (run.workdir / "checkpoints" / f"checkpoint-{run.steps}.index").exists()
    assert list((run.workdir / "tensorboard").iterdir())
    starts = json.loads((run.workdir / "environment.json").read_text())
    assert len(starts) == 2 and {"versions", "commit", "command", "time"} <= starts[0].keys()
    assert json.loads((run.workdir / "config.json").read_text())["network"]["filters"] == 2


def test_a_run_of_an_older_release_without_newer_keys_is_read(run, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(run.workdir, older)
    config = json.loads((older / "config.json").read_text())
    for section, key in (("training", "accumulation"), ("optim", "warmup_steps"), ("network", "rematerialise")):
        del config[section][key]
    config["noise"] = {**config.pop("sde"), **config.pop("times")}
    for key in ("output", "condition"):
        del config[key]
    del config["noise"]["name"], config["noise"]["low_discrepancy"]
    (older / "config.json").write_text(json.dumps(config))
    for verb in ("train", "sample"):
        result = launch(verb, f"--workdir={older}", "--dry_run")
        assert result.returncode == 0, result.stderr


def test_a_complete_run_and_another_configuration(run):
    workdir, steps = run.workdir, run.steps
    again = launch("train", *TINY, f"--workdir={workdir}", f"--config.training.steps={steps}")
    assert again.returncode == 0 and "complete" in again.stdout
    other = launch("train", *TINY, f"--workdir={workdir}", "--config.optim.learning_rate=0.5")
    assert other.returncode == 2 and "optim.learning_rate" in other.stderr and "Traceback" not in other.stderr


def test_samples_do_not_depend_on_the_batch_size(run, tmp_path):
    workdir, steps = run.workdir, run.steps
    drawn = []
    for batch_size in (5, 2):
        output = tmp_path / str(batch_size)
        result = launch(
            "sample", f"--workdir={workdir}", "--num_samples=5", f"--batch_size={batch_size}", f"--output={output}"
        )
        assert result.returncode == 0, result.stderr
        assert str(output) in result.stdout
        with np.load(output / "samples.npz") as archive:
            drawn.append({name: archive[name] for name in archive})
    assert drawn[0]["samples"].shape == (5, 8, 8, 1) and drawn[0]["samples"].dtype == np.uint8
    # A network's rounding depends on the batch; the walk multiplies it a little.
    np.testing.assert_allclose(drawn[1]["samples_float"], drawn[0]["samples_float"], rtol=1e-3, atol=1e-3)
    about = json.loads((output / "about.json").read_text())
    assert about["score_evaluations_per_sample"] == 20 and about["checkpoint"].endswith(f"-{steps}")
    trajectory = np.load(output / "trajectory.npz")["trajectory"]
    assert trajectory.shape == (10, 5, 8, 8, 1), "the trajectory shows the first samples whatever the batch size"
    for name in ("grid.png", "trajectory.png", "trajectory.gif"):
        Image.open(output / name).verify()


def test_figures_are_reproduced_into_a_picture_and_its_numbers(run, tmp_path):
    workdir, steps = run.workdir, run.steps
    walks = launch("reproduce", "--figure=4", f"--workdir={workdir}", "--num_samples=2", f"--output={tmp_path}")
    assert walks.returncode == 0, walks.stderr
    numbers = json.loads((tmp_path / "song_ermon_2019_figure_4.json").read_text())
    assert numbers["step"] == steps and numbers["score_evaluations_per_sample"] == 20 and len(numbers["levels"]) == 10
    assert numbers["levels"][-1]["rms_distance_to_the_end"] == 0.0
    assert str(tmp_path / "song_ermon_2019_figure_4.png") in walks.stdout
    Image.open(tmp_path / "song_ermon_2019_figure_4.png").verify()


def test_a_loss_that_is_not_finite_ends_the_run_and_saves_nothing(tmp_path):
    result = launch(
        "train", *TINY, f"--workdir={tmp_path}", "--config.training.steps=50", "--config.optim.learning_rate=1e18"
    )
    assert result.returncode == 1
    assert "error: Step " in result.stderr and "Traceback" not in result.stderr
    assert "No checkpoint had been written" in result.stderr and not list(tmp_path.glob("checkpoints/*.index"))


def test_dry_runs_write_nothing(run, tmp_path):
    workdir = run.workdir
    result = launch("train", *TINY, f"--workdir={tmp_path / 'new'}", "--dry_run")
    assert result.returncode == 0 and "Dry run" in result.stdout and not (tmp_path / "new").exists()
    before = sorted(workdir.rglob("*"))
    result = launch("sample", f"--workdir={workdir}", "--dry_run")
    assert result.returncode == 0 and sorted(workdir.rglob("*")) == before
    result = launch("reproduce", "--figure=2", f"--output={tmp_path / 'figures'}", "--dry_run")
    assert result.returncode == 0 and "Dry run" in result.stdout and not (tmp_path / "figures").exists()


def test_an_official_checkpoint_becomes_a_run(tmp_path):
    arguments = [
        *TINY,
        "--config.training.steps=1",
        "--torch_checkpoint=tests/official/ncsn_28x28x1.pth",
        "--image_size=8",
    ]
    launch = processes.launch  # the real network
    imported = launch("import_checkpoint", *arguments, f"--workdir={tmp_path / 'run'}")
    assert imported.returncode == 0, imported.stderr
    sampled = launch("sample", f"--workdir={tmp_path / 'run'}", "--num_samples=1", "--steps_per_level=1")
    assert sampled.returncode == 0, sampled.stderr
    trained = launch("train", f"--workdir={tmp_path / 'run'}")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-1.index").exists()
    twice = launch("import_checkpoint", *arguments, f"--workdir={tmp_path / 'run'}")
    assert twice.returncode == 2 and "not empty" in twice.stderr


DIFFERENCES = {
    "another seed": ("--config.seed=1", "configuration of worker 1 differs", "configuration of worker 1 differs"),
    "data that are not there": ("--config.data.name=DIR/none", "Worker 1 ended with code 2", "There is no folder"),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_usage_error_on_one_worker_ends_both_with_code_2(difference, tmp_path):
    """Code 75 on the other would have an orchestrator start both again, for ever."""
    flag, *expected = DIFFERENCES[difference]
    addresses = [f"127.0.0.1:{port}" for port in processes.free_ports(2)]
    workers = []
    for index in (0, 1):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        arguments = [*TINY, f"--workdir={tmp_path / str(index)}"] + [flag.replace("DIR", str(tmp_path))] * index
        workers.append(
            subprocess.Popen(
                processes.command("train", *arguments, stand_in=True),
                cwd=processes.ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process, words in zip(workers, expected, strict=True):
        try:
            _, errors = process.communicate(timeout=100)
        finally:
            process.kill()
        assert process.returncode == 2 and words in errors and "Traceback" not in errors, errors
    assert not list(tmp_path.glob("*/config.json"))


MISTAKES = {
    "unknown key": ("train", ["--config=configs/digits.py", "--config.optim.lerning_rate=1"], "learning_rate"),
    "no such configuration": ("train", ["--config=configs/nothing.py"], "nothing.py"),
    "unknown variant": (
        "train",
        ["--config=configs/digits.py:vq"],
        "The variants are ncsn, sliced, ncsnv2, edm, ve, vp, subvp, classes. Received",
    ),
    "a configuration with a mistake": ("train", ["--config=DIR/mistake.py"], "NameError: name 'undefined' is not"),
    "no configuration": ("train", [], "no config.json"),
    "impossible sampler": (
        "train",
        ["--config=configs/digits.py", "--config.sampler.steps_per_level=0"],
        "steps_per_level",
    ),
    "impossible step size": ("train", ["--config=configs/digits.py", "--config.sampler.epsilon=-1"], "epsilon"),
    "wrong type": ("train", ["--config=configs/digits.py", "--config.training.steps=many"], "many"),
    "a batch for no number of replicas": (
        "train",
        ["--config=configs/digits.py", "--logical_devices=3"],
        "batch of 64 cannot be divided among 3 replicas",
    ),
    "parts that do not divide": (
        "train",
        ["--config=configs/digits.py", "--config.training.accumulation=5"],
        "training.accumulation=5",
    ),
    "a cluster that is not there": ("train", ["--config=configs/digits.py", "--strategy=multi_worker"], "TF_CONFIG"),
    "a TPU that is not there": ("train", ["--config=configs/digits.py", "--tpu=local"], "No TPU"),
    "a decay without its length": (
        "train",
        ["--config=configs/digits.py", "--config.optim.decay=cosine"],
        "optim.decay_steps",
    ),
    "unknown flag": ("train", ["--config=configs/digits.py", "--colour=red"], "colour"),
    "stray word": ("train", ["--config=configs/digits.py", "now"], "now"),
    "unknown dataset": ("train", ["--config=configs/digits.py", "--config.data.name=mnits"], "mnist"),
    "nothing prepared": ("train", ["--config=configs/mnist.py", "--data_dir=DIR/empty"], "download"),
    "a figure's flag for another": ("reproduce", ["--figure=3", "--steps=5"], "belongs to song_ermon_2019 1"),
    "no such figure": ("reproduce", ["--figure=7"], "figure"),
    "a figure and a table": ("reproduce", ["--figure=3", "--table=1"], "one of them"),
    "a table without a run": ("reproduce", ["--paper=song_2021", "--table=1"], "give --ve, --vp or both"),
    "a figure that another paper has": ("reproduce", ["--paper=song_2021", "--figure=4"], "--table=2, --figure=3"),
    "a table of likelihoods without a run": (
        "reproduce",
        ["--paper=song_2021", "--table=2"],
        "give --run, once for each",
    ),
    "no samples of a figure": ("reproduce", ["--figure=3", "--num_samples=0"], "leaves the samples out of table 2"),
    "a run of a table for a figure": (
        "reproduce",
        ["--paper=song_2021", "--figure=9", "--ve=DIR/run"],
        "belongs to song_2021 table 1",
    ),
    "a figure without its run": ("reproduce", ["--figure=4"], "--workdir"),
    "a figure of a run that is not there": ("reproduce", ["--figure=4", "--workdir=DIR/run"], "not a run directory"),
    "a folder without a dataset": ("reproduce", ["--figure=1", "--data_dir=DIR"], "--data_name"),
    "more patches than there are": (
        "reproduce",
        ["--paper=hyvarinen_2005", "--figure=3", "--data_name=digits", "--patches=5000"],
        "ask for 1 to 1501",
    ),
    "one sample": ("reproduce", ["--figure=3", "--num_samples=1"], "2 or more samples"),
    "no run": ("sample", [], "not a run directory"),
    "negative samples": ("sample", ["--num_samples=-3"], "num_samples"),
    "no torch file": (
        "import_checkpoint",
        ["--config=configs/mnist.py", "--torch_checkpoint=DIR/none.pth", "--image_size=28"],
        "none.pth",
    ),
    "no image size": (
        "import_checkpoint",
        ["--config=configs/mnist.py", "--torch_checkpoint=tests/official/ncsn_28x28x1.pth", "--image_size=0"],
        "image_size",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usage_error_exits_with_code_2_and_one_line(name, tmp_path):
    verb, arguments, expected = MISTAKES[name]
    (tmp_path / "mistake.py").write_text("def get_config():\n    return undefined\n")
    output = f"--{'output' if verb == 'reproduce' else 'workdir'}={tmp_path / 'run'}"
    ended = launch(verb, *(argument.replace("DIR", str(tmp_path)) for argument in arguments), output)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], ended.stderr


def test_a_program_with_a_usage_error_prints_only_that(tmp_path):
    """As a process of its own, which imports TensorFlow and silences it."""
    arguments = ["--config=configs/digits.py", "--config.optim.lerning_rate=1", f"--workdir={tmp_path}"]
    ended = subprocess.run(
        processes.command("train", *arguments), cwd=processes.ROOT, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1 and "learning_rate" in ended.stderr
