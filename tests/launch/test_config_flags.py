"""--config and its values on the command line: every form, every mistake in one line, and launchers run as files."""

import pathlib
import subprocess
import sys

import pytest

from launch.flags import cli, config
from tests.support.processes import ROOT, launch

VERBS = sorted(path.stem for path in pathlib.Path(ROOT, "launch").glob("*.py") if path.stem != "__init__")


def read(*arguments, file="digits"):
    """The configuration of a command line."""
    parser = config._Parser()
    assert parser.take_overrides(["program", *arguments, f"--config={file}"]) == ["program", f"--config={file}"]
    return parser.parse(file).to_dict()


@pytest.mark.parametrize(
    ("arguments", "section", "key", "expected"),
    [
        (["--config.optim.learning_rate=1"], "optim", "learning_rate", 1.0),
        (["-config.optim.learning_rate", "1e-4"], "optim", "learning_rate", 1e-4),
        (["--config.objective.sigma_power", "-1"], "objective", "sigma_power", -1.0),
        (["--config.training.steps=4", "--config.training.steps=5"], "training", "steps", 5),
        (["--config.data.download"], "data", "download", True),
        (["--config.data.dequantize", "false"], "data", "dequantize", False),
        (["--noconfig.data.dequantize"], "data", "dequantize", False),
        (["--config.optim.clip_norm=2", "--config.optim.clip_norm=None"], "optim", "clip_norm", None),
        (["--config.data.data_dir=None"], "data", "data_dir", None),
        (["--config.data.image_size=8,12"], "data", "image_size", (8, 12)),
        (["--config.objective.num_slices=3", "--config.objective.name=sliced"], "objective", "num_slices", 3),
        (
            ["-config.objective.name", "exact", "--config.objective.directions_at_once", "2"],
            "objective",
            "name",
            "exact",
        ),
    ],
)
def test_a_value_is_set(arguments, section, key, expected):
    assert read(*arguments)[section][key] == expected


MISTAKES = {
    "--config.optim.lr=1": ("Nothing reads config.optim.lr", "learning_rate"),
    "--config.optim.learning_rat=1": ("Did you mean config.optim.learning_rate?",),
    "--config.training.learning_rate=1": ("Did you mean config.optim.learning_rate?",),
    "--config.learning_rate=1": ("Did you mean config.optim.learning_rate?",),
    "--config.optm.learning_rate 1": ("Did you mean config.optim?",),
    "--config.evaluation.num_levels=1": ("config.times.num_levels or config.sampler.num_levels",),
    "--config.objective.num_slices=3": ("objective.name=denoising", "belongs to sliced"),
    "--config.optim=1": ("config.optim is a section", "learning_rate"),
    "--config.optim=": ("config.optim is a section",),
    "--config.=1": ("names no key",),
    "--config.optim..x=1": ("names no key",),
    "--config.seed.x=1": ("config.seed is a value",),
    "--config.optim.decay.x=1": ("config.optim.decay is a value",),
    "--config.optim.learning_rate=": ("config.optim.learning_rate is given no value",),
    "--config.optim.learning_rate": ("config.optim.learning_rate is given no value",),
    "--config.optim.learning_rate --config.seed=1": ("config.optim.learning_rate is given no value",),
    "--config.training.steps=1e3": ("config.training.steps must be an integer", "'1e3'"),
    "--config.training.steps=None": ("config.training.steps must be an integer", "'None'"),
    "--config.data.name=None": ("config.data.name must be text",),
    "--noconfig.optim.epsilon": ("config.optim.epsilon", "not a true-or-false key"),
    "--noconfig.data.download=1": ("takes no value",),
    "--config.sampler.name=euler": ("config.sampler.name must be one of", "annealed_langevin"),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_names_the_section_and_what_there_is(line):
    with pytest.raises(ValueError) as raised:
        read(*line.split())
    message = str(raised.value)
    assert all(words in message for words in MISTAKES[line]) and "\n" not in message, message


FILES = {
    "x = 1": "has no function get_config()",
    "def get_config():\n    pass": "A return statement may be missing",
    "def get_config():\n    return [1]": "Received: list",
    "def get_config():\n    return {'seed': 0}": "config lacks sde",
    "def get_config(:": "SyntaxError: invalid syntax (FILE, line 1)",
    "def get_config():\n    return {}['lr']": "KeyError: 'lr' (FILE, line 2)",
    "def get_config():\n    raise RuntimeError": "RuntimeError (FILE, line 2)",
    "def get_config():\n    return open('/no/file')": "No such file or directory: '/no/file' (FILE, line 2)",
    "import sys\nsys.exit(3)": "SystemExit: 3 (FILE, line 2)",
    "def get_config():\n    return int('four')": "'four' (FILE, line 2)",
    "from ncsn_tf.config import sections\nget_config = sections.ncsn\nsections.ncsn().optim.steps": "AttributeError",
}


@pytest.mark.parametrize("text", FILES)
def test_a_mistake_in_a_file_is_one_line_with_its_place(text, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        read(file=str(file))
    message = str(raised.value)
    assert FILES[text].replace("FILE", str(file)) in message and str(file) in message and "\n" not in message, message


def test_a_file_is_found_by_its_path_alone(tmp_path):
    (tmp_path / "mine.py").mkdir()
    with pytest.raises(ValueError, match="It is a folder"):
        read(file=str(tmp_path / "mine.py"))
    text = "from ncsn_tf.config import sections\ndef get_config(steps='7'):\n    c = sections.ncsn()\n"
    text += "    c.data.name, c.training.steps = 'digits', int(steps)\n    return c\n"
    (tmp_path / "a:b").mkdir()
    for name in ("plain", "a:b/mine.py"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read(file=str(tmp_path / name))["training"]["steps"] == 7
    assert read(file=f"{tmp_path / 'plain'}:9")["training"]["steps"] == 9


def test_errors_are_described_as_sentences():
    assert cli.described(OSError(20, "Not a directory", "/a/b")) == "Not a directory: '/a/b'"
    assert cli.described(KeyError("lr")) == "KeyError: 'lr'"
    assert cli.described(RuntimeError()) == "RuntimeError"
    assert cli.described(ValueError("steps must be positive.")) == "steps must be positive."


def test_a_flag_file_has_values_too(tmp_path):
    (tmp_path / "flags").write_text("--config=digits\n# a comment\n--config.optim.lr=1\n", encoding="utf-8")
    for name, words in (("flags", "Nothing reads config.optim.lr"), ("none", "No such file or directory")):
        ended = launch("train", f"--flagfile={tmp_path / name}", f"--workdir={tmp_path / 'run'}")
        assert ended.returncode == 2 and words in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    ended = launch("train", "--config.seed=1", f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2 and "--config, which is not given" in ended.stderr, ended.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_launcher_that_is_run_as_a_file_says_how_it_is_started(verb, tmp_path):
    command = [sys.executable, "-S", str(ROOT / "launch" / f"{verb}.py"), "--help"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert f"python -m launch.{verb}," in ended.stderr and f"ncsn-{verb.replace('_', '-')} " in ended.stderr
