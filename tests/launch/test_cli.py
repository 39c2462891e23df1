"""The frame of all launchers: their help."""

import pathlib

import pytest

from tests.support.processes import ROOT, launch

VERBS = sorted(path.stem for path in pathlib.Path(ROOT, "launch").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_every_flag_of_the_launcher(verb):
    ended = launch(verb, "--help")
    assert ended.returncode == 0 and ended.stderr == ""
    assert f"python -m launch.{verb} " in ended.stdout, "the command"
    own = {"reference_statistics": "data_name", "train_classifier": "data_name", "choose": "config"}
    for flag in ("dry_run", own.get(verb, "workdir")):
        assert ended.stdout.count(f"  --{flag}: ") + ended.stdout.count(f"  --[no]{flag}: ") == 1, flag


def test_full_help_ends_without_an_error():
    ended = launch("sample", "--helpfull")
    assert (
        ended.returncode == 0 and "--workdir: " in ended.stdout and "--logtostderr" in ended.stdout.replace("[no]", "")
    )


def test_a_dry_run_trains_no_classifier(tmp_path):
    environment = {"NCSN_TF_CACHE": str(tmp_path / "cache")}
    arguments = ["--data_name=digits", f"--output={tmp_path / 'digits.npz'}", "--dry_run"]
    ended = launch("reference_statistics", *arguments, environment=environment)
    assert ended.returncode == 0 and "would train the classifier" in ended.stdout, ended.stderr
    assert not list(tmp_path.iterdir())
