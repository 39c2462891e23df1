"""Samples of classes as a person draws them: files, what is recorded, resuming, mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

from ncsn_tf import runs
from ncsn_tf.guidance import classifiers
from ncsn_tf.sde import VE
from ncsn_tf.training.checkpoints import Checkpoints
from ncsn_tf.training.run_directory import RunDirectory
from tests.support import tiny
from tests.support.processes import launch


def class_config(**network):
    """A small U-Net with the classes of the digits, in continuous time."""
    config = tiny.flow_config()
    config["network"] |= {"num_classes": 10, **network}
    config["sampler"] |= {"num_steps": 2, "jit_compile": False}
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with classes, whose class table is not 0 as it is at first, and one without."""
    folder = tmp_path_factory.mktemp("classes")
    trainer = tiny.save_run(folder / "run", steps=(1,), config=class_config())
    table = trainer.average.class_table.table
    table.assign(np.random.default_rng(0).normal(size=table.shape))
    for weight in trainer.average.weights:
        if not np.any(weight.numpy()) or np.abs(weight.numpy()).max() < 1e-3:  # outputs of branches start at 0
            weight.assign(np.random.default_rng(1).normal(scale=0.2, size=weight.shape))
    trainer.optimizer.iterations.assign(2)
    Checkpoints(RunDirectory(folder / "run").checkpoints, trainer, keep=9).save()
    ve = classifiers.make(10, 4, (8, 8, 1), VE(sigma_max=1.0, sigma_min=0.1), seed=0)
    classifiers.save(ve, folder / "ve", {"sde.name": "ve", "sde.sigma_max": 1.0}, {})
    tiny.save_run(folder / "plain", config=class_config(num_classes=None))
    with pytest.warns(UserWarning, match="the score without a class is not trained"):
        tiny.save_run(folder / "undropped", config=class_config(label_dropout=0.0))
    return folder


def test_samples_of_classes_are_drawn_recorded_and_resumed(folder, tmp_path):
    flags = [f"--workdir={folder / 'run'}", f"--output={tmp_path}", "--batch_size=4"]
    drawn = launch("sample", *flags, "--num_samples=7", "--labels=3,0,8", "--guidance_scale=2")
    assert drawn.returncode == 0, drawn.stderr
    with np.load(tmp_path / "samples.npz") as arrays:
        np.testing.assert_array_equal(arrays["labels"][:7], [3, 0, 8, 3, 0, 8, 3])
        samples = arrays["samples_float"][:7]
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (2 * 33 + 1, 3 * 33 + 1), "one row per class"
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["labels"] == [3, 0, 8] and about["guidance_scale"] == 2.0
    assert about["score_evaluations_per_sample"] == 2 * (2 * 2 + 1), "Heun's two, the denoising, twice each"
    assert json.loads((tmp_path / "samples.json").read_text())["sampling_key"]["labels"] == [3, 0, 8]
    for other in (["--labels=3,0"], ["--labels=3,0,8"], []):
        refused = launch("sample", *flags, "--num_samples=9", *other)
        assert refused.returncode == 2 and "holds other samples" in refused.stderr, refused.stderr
    opened = runs.TrainedRun(RunDirectory(folder / "run"))
    opened.load()
    # Row by row, from the run itself: rows 3 and 6 have the labels of row 0, and noise of their own.
    own = opened.of_classes([3, 0, 8], 2.0).sample_drawer(0, 7).draw_rows(7)["x"]
    np.testing.assert_allclose(opened.builder.value_range.decode(own), samples, atol=2e-4)
    unguided = opened.sample_drawer(0, 7).draw_rows(7)["x"]
    assert np.abs(unguided - own).max() > 0.05
    without = opened.of_classes([3, 0, 8], 0.0).sample_drawer(0, 7).draw_rows(7)["x"]
    np.testing.assert_array_equal(without, unguided)
    assert opened.sampling_key(0, 7).keys() == {"step", "weights", "seed", "batch_size", "sampler"}


MISTAKES = {
    "a label that the data do not have": ("run", ["--labels=3,10"], "labels 0 to 9. Received: 10"),
    "labels that are no integers": ("run", ["--labels=1.5"], "integers with commas between them"),
    "a scale without labels": ("run", ["--guidance_scale=2"], "give --labels as well"),
    "a scale that is no number": ("run", ["--labels=1", "--guidance_scale=nan"], "Received: nan"),
    "a run without classes": ("plain", ["--labels=1"], "no classes. Give --classifier=DIR"),
    "a classifier that is none": ("run", ["--labels=1", "--classifier=FOLDER/plain"], "a classifier of noisy images"),
    "a classifier of another run's noise": ("run", ["--labels=1", "--classifier=FOLDER/ve"], "sde.name: 've' there"),
    "a classifier without labels": ("run", ["--classifier=FOLDER/ve"], "--classifier guides to classes: give --labels"),
    "no score without a class": ("undropped", ["--labels=1", "--guidance_scale=2"], "give --guidance_scale=1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, folder):
    run, arguments, expected = MISTAKES[name]
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    ended = launch("sample", f"--workdir={folder / run}", *arguments)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], ended.stderr
    assert not (folder / run / "samples" / "step_00000002_seed_0").exists()


def test_an_evaluation_draws_samples_of_classes_and_refuses_labels_for_given_images(folder):
    run = f"--workdir={folder / 'run'}"
    refused = launch("evaluate", run, "--labels=1", f"--samples={folder}", f"--output={folder / 'out'}")
    assert refused.returncode == 2 and "--labels: for samples that are drawn from a run" in refused.stderr
    for verb in ("evaluate", "sweep"):
        refused = launch(verb, run, "--labels=11", "--dry_run")
        assert refused.returncode == 2 and "labels 0 to 9. Received: 11" in refused.stderr, refused.stderr


def test_a_classifier_of_noisy_images_is_trained_for_a_run_and_guides_it(folder, tmp_path):
    run, made = f"--workdir={folder / 'plain'}", folder / "plain" / "noisy_classifier"
    trained = launch("train_classifier", "--noisy", run, "--steps=2", "--batch_size=8")
    assert trained.returncode == 0, trained.stderr
    assert f"Classifier: {made}" in trained.stdout and "accuracy" in trained.stdout
    assert {path.name for path in made.iterdir()} == {"weights.npz", "about.json", "accuracy.png"}
    about = json.loads((made / "about.json").read_text())
    assert about["perturbation"]["sde.name"] == "vp" and about["shape"] == [8, 8, 1] and about["classes"] == 10
    assert len(about["by_level"]) == 10 and about["held_out_images"] == 296 and about["steps"] == 2
    flags = [run, f"--classifier={made}", f"--output={tmp_path}", "--num_samples=2", "--labels=4,1"]
    drawn = launch("sample", *flags, "--guidance_scale=3")
    assert drawn.returncode == 0, drawn.stderr
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["score_evaluations_per_sample"] == 2 * 2 + 1 and about["labels"] == [4, 1] and about["classifier"]
    refused = launch("train_classifier", "--noisy", run, "--steps=2")
    assert refused.returncode == 2 and "is not an empty folder" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--noisy"], "give --workdir=RUN"),
        (["--noisy", "--workdir=FOLDER/plain", "--data_name=digits"], "leave --data_name out"),
        (["--workdir=FOLDER/plain"], "give --noisy as well"),
        (["--data_name=digits"], "Give --data_name and --output"),
        (["--noisy", "--workdir=FOLDER/none"], "not a run directory"),
    ],
)
def test_a_classifier_that_cannot_be_trained_is_refused(folder, arguments, expected):
    ended = launch("train_classifier", *(argument.replace("FOLDER", str(folder)) for argument in arguments))
    assert ended.returncode == 2 and expected in ended.stderr, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
