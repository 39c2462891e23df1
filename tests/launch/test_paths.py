"""Paths on the command line: one rule for all flags, and any name that the system accepts."""

import errno
import json
import os
import pathlib
import re

import pytest
import tensorflow as tf
from absl import flags

from launch.flags import cli, config, paths
from ncsn_tf.evaluation import classifier, features
from ncsn_tf.serving import export
from tests.support import tiny
from tests.support.processes import ROOT, launch

HOSTILE = f"new[1]*? {{a,b}}\\%s$x{os.fsdecode(bytes([0xE9]))}"


@pytest.fixture
def defined():
    """Defines flags, and removes them at the end."""
    names = []

    def define(function, name, *arguments, **options):
        names.append(name)
        return function(name, *arguments, **options)

    yield define
    for name in names:
        delattr(flags.FLAGS, name)


def parsed(holder, value):
    flags.FLAGS[holder.name].parse(value)
    return flags.FLAGS[holder.name].value


def test_every_flag_that_takes_a_string_and_is_no_path_is_known():
    """A new flag of a path must be made by `paths.define`."""
    strings = set()
    for file in pathlib.Path(ROOT, "launch").rglob("*.py"):
        strings |= set(re.findall(r'DEFINE_string\(\s*"(\w+)"', file.read_text(encoding="utf-8")))
    assert strings == {"cluster", "measurement", "method", "sampler", "split", "tpu"}


def test_a_path_is_absolute_and_a_word_is_not_a_path(defined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    holder = defined(paths.define, "tested_path", "left", "help", words=("left", "right"))
    assert flags.FLAGS["tested_path"].default == "left"
    given = {"right": "right", "./right": f"{tmp_path}/right", "~/m.png": "/home/somebody/m.png", "m": f"{tmp_path}/m"}
    assert {value: parsed(holder, value) for value in given} == given
    for value in ("", "gs://bucket/m", "~nobody_of_this_name/m"):
        with pytest.raises(flags.IllegalFlagValueError, match="tested_path"):
            parsed(holder, value)


def test_a_remote_folder_stays_as_it_is(defined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    holder = defined(paths.define, "tested_folder", None, "help", remote=True)
    assert parsed(holder, "gs://bucket/tfds") == "gs://bucket/tfds"
    assert parsed(holder, "tfds") == str(tmp_path / "tfds")


def test_a_dataset_is_a_word_or_an_absolute_path(defined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pics").mkdir()
    holder = defined(paths.define_dataset, "tested_dataset", "help")
    pics = str(tmp_path / "pics")
    given = {"digits": "digits", "mnist:3.0.1": "mnist:3.0.1", "pics": pics, "./pics": pics, "~/pics": pics}
    assert {value: parsed(holder, value) for value in given} == given


def test_a_configuration_is_recorded_with_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pics").mkdir()
    content = {"data": {"name": "pics", "data_dir": "~/tfds", "channels": 1}, "seed": 3}
    resolved = config.resolved(content)
    located = {"name": str(tmp_path / "pics"), "data_dir": str(tmp_path / "tfds"), "channels": 1}
    assert resolved == {"data": located, "seed": 3} and content["data"]["name"] == "pics"
    assert config.resolved(resolved) == resolved
    untouched = {"data": {"name": "mnist", "data_dir": "gs://bucket/tfds"}}
    assert config.resolved(untouched) == untouched
    assert config.resolved({"data": {"name": "mnist", "data_dir": None}})["data"]["data_dir"] is None
    with pytest.raises(ValueError, match="config.data: A path is empty"):
        config.resolved({"data": {"name": "mnist", "data_dir": ""}})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/c:d.py", ("{home}/c:d.py", [])),
        ("~/c:d.py:sliced", ("{home}/c:d.py", ["sliced"])),
        ("c.py:x:y", ("{home}/c.py", ["x:y"])),
        ("./a[1]/c.py", ("{home}/a[1]/c.py", [])),
        ("digits:sliced", (f"{ROOT}/configs/digits.py", ["sliced"])),
    ],
)
def test_a_configuration_file_may_be_anywhere(tmp_path, monkeypatch, given, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a[1]").mkdir()
    for name in ("c:d.py", "c.py", "a[1]/c.py"):
        (tmp_path / name).touch()
    assert config._located(given) == (expected[0].format(home=tmp_path), expected[1])


def test_a_missing_configuration_file_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"no configuration file '{tmp_path}/c.py'"):
        config._located("c.py:x")


@pytest.mark.parametrize(
    ("number", "code", "room"),
    [
        (errno.ENOSPC, cli.FAILURE, True),
        (errno.EDQUOT, cli.FAILURE, True),
        (errno.EIO, cli.FAILURE, False),
        (errno.EROFS, cli.USAGE_ERROR, False),
        (errno.EACCES, cli.USAGE_ERROR, False),
        (errno.ENOTDIR, cli.USAGE_ERROR, False),
        (errno.ENAMETOOLONG, cli.USAGE_ERROR, False),
    ],
)
def test_a_launcher_asks_for_room_only_on_a_full_disk(capsys, number, code, room):
    with pytest.raises(SystemExit) as ended, cli.usage_errors():
        raise OSError(number, os.strerror(number), "/r")
    said = capsys.readouterr().err
    assert ended.value.code == code and os.strerror(number) in said and ("Make room" in said) == room


def test_a_run_may_have_any_name(tmp_path, monkeypatch):
    """It is written here and opened by a launcher; every path is given with a tilde."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("ncsn_tf.config.choices.NETWORKS", {"ncsn": tiny.stand_in})
    tiny.save_run(f"~/{HOSTILE}/run")
    place = tmp_path / HOSTILE / "run"
    assert sorted(file.suffix for file in (place / "checkpoints").iterdir()) == [".data-00000-of-00001", ".index"]
    arguments = [f"--workdir=~/{HOSTILE}/run", f"--output=~/{HOSTILE}/out", "--num_samples=2", "--nojit_compile"]
    environment = {"HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    sampled = launch("sample", *arguments, stand_in=True, environment=environment)
    assert sampled.returncode == 0, sampled.stderr
    about = json.loads((tmp_path / HOSTILE / "out" / "about.json").read_text())
    assert about["checkpoint"] == str(place / "checkpoints" / "checkpoint-2")
    assert not (ROOT / "~").exists()


def test_a_feature_network_and_statistics_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / HOSTILE).mkdir()
    network = classifier.Classifier(2, 2, seed=0)
    network.build((None, 8, 8, 1))
    about = {"dataset": {"name": "digits", "shape": [8, 8, 1]}}
    classifier.export(network, f"~/{HOSTILE}/c", about)
    assert features.load_classifier(f"~/{HOSTILE}/c").path == tmp_path / HOSTILE / "c"
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/x")):
        features.load_classifier("~/x")


class Served(tf.Module):
    """The least that can be exported."""

    def signatures(self):
        return {"twice": tf.function(lambda x: {"y": 2.0 * x}, input_signature=[tf.TensorSpec([None], name="x")])}


def test_an_export_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written = export.save(Served(), f"~/{HOSTILE}/export", {"step": 7})
    assert written == tmp_path / HOSTILE / "export" / "1"
    loaded, about = export.load(f"~/{HOSTILE}/export")
    assert loaded.signatures["twice"](tf.constant([3.0]))["y"].numpy() == [6.0] and about["step"] == 7
