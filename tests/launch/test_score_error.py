"""launch.score_error as a person runs it: files, exit codes, mistakes."""

import csv
import json

import pytest

from tests.support import processes, tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a small U-Net on the digits in continuous time, under the VP SDE."""
    path = tmp_path_factory.mktemp("runs") / "vp"
    tiny.save_run(path, config=tiny.flow_config(), times={"num_bins": 3})
    return path


def test_a_score_is_compared_at_each_time(workdir, tmp_path):
    options = [f"--workdir={workdir}", "--num_images=12", "--batch_size=5", f"--output={tmp_path}"]
    ended = processes.launch("score_error", *options)
    assert ended.returncode == 0, ended.stderr
    assert "12 images (8, 8, 1) of each set" in ended.stdout and "exact held out" in ended.stdout
    found = json.loads((tmp_path / "score_error.json").read_text())
    assert found["images"] == {"train": 12, "held_out": 12} and found["weights"] and found["checkpoint"]
    assert len(found["levels"]) == 3 and found["levels"][0]["time"] == 1.0
    with open(tmp_path / "score_error.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["share"]) for row in rows] == [row["share"] for row in found["levels"]]
    # The noise of the last time is narrow beside the images: the exact score is certain there.
    assert float(rows[-1]["exact_train_loss"]) < 1e-3 < 10.0 < float(rows[-1]["exact_held_out_loss"])
    assert (tmp_path / "score_error.png").exists()
    refused = processes.launch("score_error", *options)
    assert refused.returncode == 2 and "Give another --output, or --replace" in refused.stderr
    dry = processes.launch("score_error", *options, "--replace", "--dry_run")
    assert dry.returncode == 0 and "Dry run: would write into" in dry.stdout, dry.stderr


MISTAKES = {
    "one image": (["--num_images=1"], "--num_images=1"),
    "a sampler where nothing is drawn": (["--sampler=ddim"], "--sampler: samples are drawn only with --by_time"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usage_error_exits_with_code_2_and_one_line(name, workdir):
    arguments, expected = MISTAKES[name]
    ended = processes.launch("score_error", f"--workdir={workdir}", *arguments)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], ended.stderr
    assert not (workdir / "score_error").exists(), "a mistake leaves nothing"
