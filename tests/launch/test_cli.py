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
    for flag in ("dry_run", "workdir" if verb not in ("reference_statistics", "train_classifier") else "data_name"):
        assert ended.stdout.count(f"  --{flag}: ") + ended.stdout.count(f"  --[no]{flag}: ") == 1, flag
