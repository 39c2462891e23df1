"""The wheel: one package, with launchers and configurations inside, that works in any folder of a fresh environment."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ncsn_tf

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Folders of the repository, by their name in the wheel.
FOLDERS = {"ncsn_tf": "ncsn_tf", "ncsn_tf/launch": "launch", "ncsn_tf/configs": "configs"}
SMALL = (
    "--config.network.filters=2",
    "--config.training.batch_size=4",
    "--config.training.steps=2",
    "--config.training.evaluate_every=0",
    "--config.training.sample_every=0",
)


def run(command, folder, **environment):
    """Runs a program that finds nothing by PYTHONPATH."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the sources, so that no `build` folder is made beside them or read."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS.values():
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source)
    made = run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", built, source],
        built,
    )
    assert made.returncode == 0, made.stderr
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The `bin` of a fresh environment with the wheel; its third-party packages are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    made = run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    assert made.returncode == 0, made.stderr
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    pathlib.Path(site, "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    options = ("--no-deps", "--no-index", "--ignore-installed")
    made = run([sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", *options, wheel], folder)
    assert made.returncode == 0, made.stderr
    return folder / "bin"


def test_the_wheel_has_one_package_with_every_file(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    about = f"{ncsn_tf.__name__}-{ncsn_tf.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"ncsn_tf", about}
    expected = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.name != "BUILD" and path.suffix != ".pyc"
    }
    assert {name for name in names if not name.startswith(about)} == expected


def test_every_launcher_is_a_command(wheel):
    verbs = {path.stem for path in (ROOT / "launch").glob("*.py")} - {"__init__"}
    assert PROJECT["scripts"] == {
        f"ncsn-{verb.replace('_', '-')}": f"ncsn_tf.launch.{verb}:entry_point" for verb in verbs
    }
    for verb in sorted(verbs):
        source = zipfile.ZipFile(wheel).read(f"ncsn_tf/launch/{verb}.py")
        functions = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        assert "entry_point" in functions, f"launch/{verb}.py"


def test_the_commands_start_in_an_empty_folder(environment, tmp_path):
    dry = run([environment / "ncsn-train", "--config=digits", "--workdir=run", "--dry_run", *SMALL], tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert f"would train to step 2 in {tmp_path / 'run'}" in dry.stdout
    helped = run([environment / "ncsn-sample", "--helpfull"], tmp_path)
    assert "--workdir" in helped.stdout and "Traceback" not in helped.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.soak  # half a minute of tracing for two steps
def test_a_training_in_an_empty_folder_leaves_a_run(environment, tmp_path):
    trained = run([environment / "ncsn-train", "--config=digits", "--workdir=run", *SMALL], tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_nothing_of_the_checkout_is_found(environment, tmp_path):
    program = 'import sys, ncsn_tf.launch as own; print(own.__file__, *sys.path, sep="\\n")'
    said = run([environment / "python", "-c", program], tmp_path)
    assert said.returncode == 0, said.stderr
    file, *paths = map(pathlib.Path, said.stdout.splitlines())
    assert file.is_relative_to(environment.parent)
    assert ROOT not in paths and ROOT.resolve() not in paths


def read(*files):
    """The requirements of files, by name."""
    lines = [line for file in files for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    found = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@pytest.mark.parametrize("lock, extras", [("requirements.txt", ()), ("requirements-dev.txt", ("torch", "dev"))])
def test_the_lock_is_within_the_ranges(lock, extras):
    texts = [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    ranges = [Requirement(text) for text in (texts if extras else PROJECT["dependencies"])]
    named = {canonicalize_name(requirement.name): requirement for requirement in ranges}
    named.pop("ncsn-tf", None)  # the extra `dev` contains the extra `torch`
    locked = read(lock)
    assert sorted(named) == sorted(locked)
    for name, requirement in locked.items():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and named[name].specifier.contains(pin.version), name
        assert named[name].extras == requirement.extras, name
