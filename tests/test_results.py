"""Tables of trained runs, made of handmade records."""

import json

import numpy as np
import pytest

from ncsn_tf import results
from ncsn_tf.config import sections
from ncsn_tf.training import history
from ncsn_tf.training.results import LoopResult
from ncsn_tf.training.run_directory import RunDirectory, RunDirectoryError
from tests.support.processes import launch

IMAGES = {"name": "digits", "images": 3, "shape": [8, 8, 1], "checksum": 17}
EVALUATION = {
    "metrics": {
        "classifier_fid": {"value": 0.2146, "num_samples": 1000},
        "classifier_fid_infinity": {"value": 0.05, "standard_error": 0.11},
    },
    "copies": {"pixels": {"probability_nearer": 0.46, "standard_error": 0.02}},
    "step": 3000,
    "seed": 5,
    "num_samples": 1000,
    "score_evaluations_per_sample": 19,
    "seconds": {"sampling": 61.5},
    "sampler": {"name": "heun", "num_steps": 9, "grid": "karras", "denoise": True, "times": None},
    "commit": "0123456789abcdef+changes",
}
LIKELIHOOD = {
    "bits_per_dimension": {"mean": 4.5678, "standard_error": 0.04},
    "nats": {"mean": -12.0, "standard_error": None},
    **{"images": 100, "dequantizations": 2, "probes": 4, "score_evaluations_per_image": 106.25, "step": 3000},
}


@pytest.fixture
def run(tmp_path):
    """A run of two starts, with one evaluation, one damaged evaluation and one likelihood."""
    directory = RunDirectory(tmp_path / "edm")
    config = sections.ncsn().to_dict()
    for _ in range(2):
        directory.open(config, IMAGES, devices="none")
    starts = json.loads((directory.path / "environment.json").read_text())
    starts[0] |= {"command": ["/somewhere/launch/train.py", "--config=configs/digits.py:edm", "--workdir=my runs"]}
    starts[0] |= {"commit": "fedcba9876543210"}
    (directory.path / "environment.json").write_text(json.dumps(starts))
    curve = history.History(directory.path / history.NAME)
    curve.training(1500, LoopResult(1500, np.array([3.0]), np.array([2.0]), norm_sum=1.0, seconds=60.0))
    curve.held_out(1500, 8.75)
    curve.training(3000, LoopResult(1500, np.array([3.0]), np.array([2.0]), norm_sum=1.0, seconds=30.0))
    curve.write()
    for path, text in (
        ("evaluation/own/results.json", json.dumps(EVALUATION)),
        ("evaluation/damaged/results.json", "{"),
        ("likelihood/a/likelihood.json", json.dumps(LIKELIHOOD)),
    ):
        (directory.path / path).parent.mkdir(parents=True)
        (directory.path / path).write_text(text)
    return directory


def cells(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_a_training_has_its_first_command_its_time_and_its_last_held_out_loss(run):
    (row,) = cells(results.trainings([run]))
    assert row["command"] == "`python -m launch.train --config=configs/digits.py:edm '--workdir=my runs'`"
    assert row["commit"] == "fedcba9876" and row["seed"] == "0" and row["step"] == "3,000"
    assert row["minutes"] == "1.5" and row["held-out loss"] == "8.75"


def test_an_evaluation_has_its_sampler_and_the_errors_that_are_known(run):
    (row,) = cells(results.evaluations([run]))
    assert row["sampler"] == "heun,num_steps=9,grid=karras"
    assert row["evaluations"] == "19" and row["seconds"] == "61.5" and row["samples"] == "1,000" and row["seed"] == "5"
    assert row["classifier_fid"] == "0.215" and row["classifier_fid_infinity"] == "0.05 +- 0.11"
    assert row["nearer, in pixels"] == "0.46 +- 0.02" and row["commit"] == "0123456789+changes"
    assert row["fid"] == ""  # by Inception, with which a classifier's must never be compared


def test_a_likelihood_has_its_errors_and_what_it_rests_on(run):
    (row,) = cells(results.likelihoods([run]))
    assert row["bits/dim"] == "4.57 +- 0.04" and row["nats"] == "-12"
    assert [row[key] for key in ("images", "dequantizations", "probes", "evaluations")] == ["100", "2", "4", "106.2"]


def test_markdown_leaves_out_columns_without_a_number_and_keeps_its_cells_apart():
    table = results.Table(("a", "b", "c"), [("1|2", "", "3"), ("", "", "4")])
    assert table.markdown().splitlines() == ["| a | c |", "| --- | --- |", "| 1\\|2 | 3 |", "|  | 4 |"]


def test_a_new_run_has_a_row_without_numbers(tmp_path):
    directory = RunDirectory(tmp_path / "new")
    directory.open(sections.ncsn().to_dict(), IMAGES, devices="none")
    (directory.path / "environment.json").write_text("damaged")
    (row,) = cells(results.trainings([directory]))
    assert row["run"] == "new" and row["command"] == row["minutes"] == row["step"] == row["held-out loss"] == ""
    assert not results.evaluations([directory]).rows and not results.likelihoods([directory]).rows
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        results.trainings([RunDirectory(tmp_path)])


def test_the_launcher_prints_and_writes_the_tables(run, tmp_path):
    ended = launch("summarize", f"--workdir={run.path}", f"--output={tmp_path}/page/tables.md")
    assert ended.returncode == 0, ended.stderr
    written = (tmp_path / "page" / "tables.md").read_text()
    assert written.count("| edm |") == 3 and written.strip() in ended.stdout


def test_the_launcher_refuses_a_folder_without_a_run(run, tmp_path):
    ended = launch("summarize", f"--workdir={run.path}", f"--workdir={tmp_path}", f"--output={tmp_path}/tables.md")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "is not a run directory" in ended.stderr
    assert not (tmp_path / "tables.md").exists()
