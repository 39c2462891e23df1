"""The launchers of evaluation as a person runs them: processes, exit codes, files; a kill, two devices, mistakes."""

import csv
import functools
import json
import subprocess
import time

import numpy as np
import pytest

from ncsn_tf.config import choices
from ncsn_tf.data import images
from ncsn_tf.evaluation import classifier
from tests.support import processes, tiny

launch = functools.partial(processes.launch, stand_in=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two checkpoints, a classifier of the digits, and images: copies of training images among them."""
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
        tiny.save_run(folder / "run", steps=(2, 4), evaluation={"num_samples": 20})
    train = images.load("digits", "train")
    trained = classifier.train(train.images[:64], np.arange(64) % 10, 10, seed=0, steps=2, batch_size=32)
    about = classifier.record(train, held_out_images=1, held_out_accuracy=0.1, seed=0, steps=2, batch_size=32)
    classifier.export(trained, folder / "classifier", about)
    np.savez(folder / "copies.npz", samples=train.images[:40])
    np.savez(folder / "nan.npz", np.full([20, 8, 8, 1], np.nan, np.float32))
    np.savez(folder / "coloured.npz", tiny.random_pixels(20, 8, 8, 3))
    np.savez(folder / "small.npz", tiny.random_pixels(20, 7, 7, 1))
    np.savez(folder / "wide.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    (folder / "empty").mkdir()
    return folder


def test_a_killed_evaluation_resumes_on_other_devices_and_loses_a_batch_at_most(folder):
    common = [f"--workdir={folder / 'run'}", f"--classifier_path={folder / 'classifier'}"]
    output = folder / "run" / "evaluation" / "step_00000004_seed_0"
    # The second command draws 20 samples in blocks of 4; the first has so much to draw that it is killed at work.
    first = subprocess.Popen(
        processes.command("evaluate", *common, "--num_samples=1000000", stand_in=True),
        cwd=processes.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 200
        while not (output / "samples.json").exists():
            assert first.poll() is None and time.monotonic() < deadline, "no batch was ever written"
            time.sleep(0.05)
    finally:
        first.kill()
        first.wait()
    journal = json.loads((output / "samples.json").read_text())
    drawn = np.fromfile(output / "samples.raw", np.uint8)[: journal["done"] * 64].reshape(-1, 8, 8, 1)
    assert 4 <= len(drawn)

    result = launch("evaluate", *common, "--follow", "--strategy=mirrored", "--logical_devices=2")
    assert result.returncode == 0, result.stderr
    assert "2 replicas on CPU" in result.stdout and f"Results: {output / 'results.json'}" in result.stdout
    samples = np.load(output / "samples.npz")["samples"]
    assert samples.dtype == np.uint8 and len(samples) >= 20
    np.testing.assert_array_equal(samples[: len(drawn)], drawn)
    content = json.loads((output / "results.json").read_text())
    assert content["step"] == 4 and content["num_samples"] == 20 and "--follow" in content["command"]
    assert any("20 samples" in line for line in content["metrics"]["classifier_fid"]["warnings"])
    assert content["held_out_denoising_loss"]["images"] == 10
    assert list((folder / "run" / "tensorboard").glob("events*")), "no scalars"


def test_images_of_any_program_are_evaluated_and_copies_found(folder, tmp_path):
    statistics = tmp_path / "digits.npz"
    network = f"--classifier_path={folder / 'classifier'}"
    made = launch("reference_statistics", "--data_name=digits", network, f"--output={statistics}")
    assert made.returncode == 0, made.stderr
    with np.load(statistics) as archive:
        assert archive["mu"].shape == (64,) and archive["sigma"].shape == (64, 64)

    common = [f"--samples={folder / 'copies.npz'}", network, f"--output={tmp_path / 'evaluated'}"]
    result = launch("evaluate", *common, "--data_name=digits", f"--reference={statistics}")
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    assert content["copies"]["pixels"]["copies"] == 40 and content["num_samples"] == 40
    assert content["metrics"]["classifier_fid"]["num_reference"] == 1501
    assert "checkpoint" not in content and content["samples"].endswith("copies.npz")


def test_a_sweep_names_the_best_combination(folder, tmp_path):
    arguments = [f"--workdir={folder / 'run'}", f"--classifier_path={folder / 'classifier'}", "--num_samples=4"]
    result = launch("sweep", *arguments, "--epsilons=1e-3", "--metric=precision", f"--output={tmp_path / 'sweep'}")
    assert result.returncode == 0, result.stderr
    assert "Best: epsilon_0.001_steps_2_levels_all, classifier_precision " in result.stdout
    assert {"sweep.csv", "sweep.json", "sweep.png"} < {path.name for path in (tmp_path / "sweep").iterdir()}


def test_a_sweep_compares_samplers_and_draws_no_combination_twice(folder, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
        tiny.save_run(tmp_path / "run", times={"num_levels": 4})
    output = tmp_path / "sweep"
    arguments = [f"--workdir={tmp_path / 'run'}", f"--classifier_path={folder / 'classifier'}", "--num_samples=4"]
    arguments += ["--sampler=ddim", "--sampler=heun,denoise=false", "--metric=precision", f"--output={output}"]
    result = launch("sweep", *arguments, "--num_steps=1,2")
    assert result.returncode == 0, result.stderr
    assert "4 combinations, 4 samples each" in result.stdout and "Best: " in result.stdout
    with open(output / "sweep.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["sampler"], row["num_steps"], row["keys"]) for row in table] == [
        ("ddim", "1", ""),
        ("ddim", "2", ""),
        ("heun", "1", "denoise=false"),
        ("heun", "2", "denoise=false"),
    ]
    assert [row["evaluations"] for row in table] == ["2", "3", "2", "4"]  # with one for denoising, and two per step
    assert all(row["classifier_precision"] and row["standard_error"] for row in table)
    assert (output / "sweep.png").stat().st_size > 1000
    files = {name: output / name / "samples.npz" for name in ("ddim_steps_2_grid_uniform", "ddim_steps_1_grid_uniform")}
    drawn = {name: file.stat().st_mtime_ns for name, file in files.items()}
    again = launch("sweep", *arguments, "--num_steps=1,2")
    assert again.returncode == 0, again.stderr
    assert again.stdout == result.stdout
    assert {name: file.stat().st_mtime_ns for name, file in files.items()} == drawn
    results = {path.parent.name for path in output.glob("*/results.json")}
    assert results == {*files, *(f"heun_steps_{steps}_grid_uniform_denoise_false" for steps in (1, 2))}


SAMPLES = ["--data_name=digits", "--output=DIR/evaluated"]
MISTAKES = {
    "nothing to evaluate": ("evaluate", [], "Give --workdir"),
    "a run and a dataset": ("evaluate", ["--workdir=FOLDER/run", "--data_name=digits"], "with its own data"),
    "an empty list of checkpoints": ("evaluate", ["--workdir=FOLDER/run", "--checkpoint="], "--checkpoint takes steps"),
    "two datasets": (
        "evaluate",
        ["--samples=FOLDER/copies.npz", "--workdir=FOLDER/run", *SAMPLES],
        "each name some",
    ),
    "a seed for images that are there": (
        "evaluate",
        ["--samples=FOLDER/copies.npz", "--seed=1", *SAMPLES],
        "--seed: for samples that are drawn",
    ),
    "statistics of another width": (
        "evaluate",
        ["--samples=FOLDER/copies.npz", "--reference=FOLDER/wide.npz", "--classifier_path=FOLDER/classifier", *SAMPLES],
        "have 2048 features",
    ),
    "no such checkpoint": ("evaluate", ["--workdir=FOLDER/run", "--checkpoint=3"], "No checkpoint of step 3"),
    "an unknown metric": ("evaluate", ["--workdir=FOLDER/run", "--metrics=fit"], "--metrics are some of"),
    "no images": ("evaluate", ["--samples=FOLDER/empty", *SAMPLES], "empty"),
    "NaN": ("evaluate", ["--samples=FOLDER/nan.npz", *SAMPLES], "NaN"),
    "other channels": ("evaluate", ["--samples=FOLDER/coloured.npz", *SAMPLES], "(8, 8, 3)"),
    "another size": ("evaluate", ["--samples=FOLDER/small.npz", *SAMPLES], "(7, 7, 1)"),
    "no Inception": (
        "evaluate",
        ["--samples=FOLDER/copies.npz", "--features=inception", *SAMPLES],
        "--inception_path",
    ),
    "a classifier in Inception's place": (
        "reference_statistics",
        ["--data_name=digits", "--inception_path=FOLDER/classifier", "--output=DIR/statistics.npz"],
        "nception",
    ),
    "a sweep over words": ("sweep", ["--workdir=FOLDER/run", "--epsilons=small"], "--epsilons takes numbers"),
    "a sweep over steps that no sampler takes": (
        "sweep",
        ["--workdir=FOLDER/run", "--num_steps=5"],
        "No sampler that is compared takes num_steps",
    ),
    "more steps than levels": (
        "sweep",
        ["--workdir=FOLDER/run", "--sampler=ddim", "--num_steps=1,2"],
        "ddim_steps_2_grid_uniform: sampler.num_steps must be below the number of levels, 2",
    ),
    "the probability flow of a run at levels": (
        "sweep",
        ["--workdir=FOLDER/run", "--sampler=ddim", "--sampler=probability_flow"],
        "probability_flow: sampler.name=probability_flow needs a run in continuous time",
    ),
    "an unknown grid": ("sweep", ["--workdir=FOLDER/run", "--sampler=ddim", "--grid=karas"], "--grid takes some of"),
    "a negative step size": ("sweep", ["--workdir=FOLDER/run", "--epsilons=-1"], "epsilon"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usage_error_exits_with_code_2_and_one_line(name, folder, tmp_path):
    verb, arguments, expected = MISTAKES[name]
    arguments = [argument.replace("FOLDER", str(folder)).replace("DIR", str(tmp_path)) for argument in arguments]
    # Downloads go to an address where nobody listens, whatever the machine's network.
    environment = {"NCSN_TF_CACHE": str(tmp_path / "cache"), "https_proxy": "http://127.0.0.1:9"}
    ended = processes.launch(verb, *arguments, environment=environment)
    lines = [line for line in ended.stderr.strip().splitlines() if not line.startswith("warning: ")]
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], ended.stderr
