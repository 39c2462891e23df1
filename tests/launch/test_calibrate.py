"""launch.calibrate as a person runs it: what it measures is used by other verbs, and kept with an export."""

import json

import numpy as np
import pytest

from tests.support import processes, tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a small U-Net on the digits in continuous time."""
    path = tmp_path_factory.mktemp("runs") / "vp"
    tiny.save_run(path, config=tiny.flow_config())
    return path


def test_a_grid_is_fitted_and_used(workdir, tmp_path):
    options = [f"--workdir={workdir}", "--sampler=ddim,last_time=0.2", "--num_steps=2"]
    refused = processes.launch("sample", *options, "--grid=fitted")
    assert refused.returncode == 2 and "no fitted grid for ddim" in refused.stderr
    ended = processes.launch("calibrate", *options, "--num_samples=4")
    assert ended.returncode == 0, ended.stderr
    assert "fitted" in ended.stdout and "Kept in" in ended.stdout
    (entry,) = json.loads((workdir / "calibration.json").read_text())["grids"]
    assert entry["of"]["name"] == "ddim" and entry["checkpoint"] and entry["num_samples"] == 4
    assert entry["errors"]["fitted"] <= min(entry["errors"].values())
    drawn = processes.launch("sample", *options, "--grid=fitted", "--num_samples=2", f"--output={tmp_path}")
    assert drawn.returncode == 0 and "calibration is of step" not in drawn.stderr, drawn.stderr
    about = json.loads((tmp_path / "about.json").read_text())["sampler"]
    np.testing.assert_allclose(about["times"], entry["times"], rtol=1e-7)


def test_norms_are_measured_used_and_exported(workdir, tmp_path):
    options = [f"--workdir={workdir}", "--sampler=predictor_corrector", "--num_steps=3"]
    ended = processes.launch("calibrate", *options, "--num_samples=4")
    assert ended.returncode == 0 and "Norms times sigma / sqrt(D)" in ended.stdout, ended.stderr
    options[1] += ",norms=expected"
    exported = processes.launch("export", *options, f"--output={tmp_path}")
    assert exported.returncode == 0, exported.stderr
    (record,) = tmp_path.rglob("*.json")
    found = json.loads(record.read_text())
    assert len(found["sampler"]["norm_table"]) == 33


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sampler=ancestral", "--num_steps=3"], "nothing to measure for this sampler"),
        (["--sampler=predictor_corrector,corrector=annealed"], "nothing to measure for this sampler"),
        (["--sampler=ddim"], "give --num_steps"),
        (["--sampler=ddim", "--grid=fitted", "--num_steps=7"], "is what launch.calibrate makes: leave it out"),
        (["--sampler=heun,churn=10", "--num_steps=3"], "leave out churn. Received: churn=10"),
        (["--sampler=probability_flow"], "nothing to measure"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(workdir, options, message):
    ended = processes.launch("calibrate", f"--workdir={workdir}", *options)
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr
