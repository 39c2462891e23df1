"""The files, commands and flags that the README and the pages of docs/ name exist."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_and_named_path_exists(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    linked = [page.parent / path for path in re.findall(r"\]\(([^)#:]+)\)", text)]
    named = [
        ROOT / path for path in re.findall(r"`((?:ncsn_tf|launch|configs|tests|benchmarks|docs)/[\w/.]*)[^`]*`", text)
    ]
    assert len(linked) + len(named) >= 5
    assert [path for path in linked + named if not path.exists()] == []


def test_every_configuration_has_its_row():
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem == "__init__":
            continue
        assert f"| `configs/{path.name}` |" in README, path.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_name_launchers_and_flags_that_exist(page):
    for verb, arguments in re.findall(r"-m launch\.(\w+)([^\n&`]*)", page.read_text()):
        source = (ROOT / "launch" / f"{verb}.py").read_text()
        shared = re.findall(r"^from (?:\.flags|\.) import (.+)$", source, re.MULTILINE)
        names = {name for found in shared for name in found.split(", ")}
        if "run" in names:
            names |= {"devices", "sampler"}
        source += "".join((ROOT / "launch" / "flags" / f"{name}.py").read_text() for name in sorted(names))
        for flag in re.findall(r"--(\w+)=", arguments):
            defined = re.search(rf'(?:DEFINE_\w+|paths\.define\w*|size\.define)\(\s*"{flag}"', source)
            assert defined or flag.split(".")[0] == "config", f"launch.{verb} --{flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_be_filled_in(page):
    assert "TODO" not in page.read_text()
    assert (
        re.findall(r"\b[A-Z]+[0-9]?_(?:TIME|RESULT|PARAMETERS|TABLE|SECTION|NUMBERS|SENTENCE|ROWS)\b", page.read_text())
        == []
    )
