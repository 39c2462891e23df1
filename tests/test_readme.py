"""What the README shows and says is there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_linked_file_and_named_path_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    named = re.findall(r"`((?:ncsn_tf|launch|configs|tests|benchmarks|docs)/[\w/.]*)`", README)
    assert len(linked) >= 4 and len(named) >= 5
    assert [path for path in linked + named if not (ROOT / path).exists()] == []


def test_every_configuration_has_its_row():
    for path in (ROOT / "configs").glob("*.py"):
        assert f"| `configs/{path.name}` |" in README, path.name


def test_the_commands_name_launchers_and_flags_that_exist():
    for verb, arguments in re.findall(r"-m launch\.(\w+)([^\n&]*)", README):
        source = (ROOT / "launch" / f"{verb}.py").read_text()
        for flag in re.findall(r"--(\w+)=", arguments):
            assert f'("{flag}"' in source or flag.startswith("config"), f"launch.{verb} --{flag}"


def test_nothing_is_left_to_be_filled_in():
    assert re.findall(r"\b[A-Z]+_(?:TIME|RESULT|PARAMETERS|TABLE)\b", README) == []
