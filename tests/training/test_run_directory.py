"""A run's directory: its path, and which images a run may continue with."""

import json
import os
import pathlib

import pytest

from ncsn_tf.config import sections
from ncsn_tf.training.run_directory import RunDirectory, RunDirectoryError

IMAGES = {"name": "pics", "images": 3, "shape": [8, 8, 1], "checksum": 17}


def configured(name):
    config = sections.ncsn().to_dict()
    config["data"]["name"] = name
    return config


def trained(path, dataset=IMAGES):
    """A run that has a checkpoint."""
    directory = RunDirectory(path)
    directory.open(configured(dataset["name"]), dataset, devices="none")
    directory.checkpoints.mkdir()
    (directory.checkpoints / "checkpoint-1.index").touch()
    return directory


def test_the_path_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert RunDirectory("r").path == RunDirectory(pathlib.Path("r")).path == tmp_path / "r"
    assert RunDirectory("~/r").checkpoints == tmp_path / "home" / "r" / "checkpoints"
    with pytest.raises(RunDirectoryError, match=f"{tmp_path}/home/r is not a run directory"):
        RunDirectory("~/r").config()


@pytest.mark.parametrize("name", ["/moved/pics", "digits", "./pics"])
def test_the_same_images_may_have_another_name(tmp_path, name):
    directory = trained(tmp_path)
    directory.check(configured(name), IMAGES | {"name": name})
    with pytest.raises(RunDirectoryError, match="checksum 17; .* checksum 18"):
        directory.check(configured(name), IMAGES | {"name": name, "checksum": 18})


def test_without_a_checksum_the_name_decides(tmp_path, monkeypatch):
    """An imported run has seen no images; a relative name that an older release recorded is the same as its place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    directory = trained(tmp_path / "run", IMAGES | {"checksum": None})
    directory.check(configured(str(tmp_path / "pics")), IMAGES)
    with pytest.raises(RunDirectoryError, match="data.name: 'pics' there, 'digits' now"):
        directory.check(configured("digits"), IMAGES)


def test_a_name_that_is_not_text_is_recorded_and_read(tmp_path, monkeypatch):
    name = str(tmp_path / os.fsdecode(b"\xe9"))
    monkeypatch.setattr("sys.argv", ["train.py", f"--workdir={name}"])
    directory = trained(name, IMAGES | {"name": name})
    assert directory.config()["data"]["name"] == name
    assert json.loads((pathlib.Path(name) / "environment.json").read_text())[0]["command"][1] == f"--workdir={name}"
