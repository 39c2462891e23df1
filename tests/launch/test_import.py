"""Checkpoints of the authors' programs as runs: launch.import_checkpoint and what it prints."""

import functools
import json
import pathlib

import numpy as np
import pytest

from ncsn_tf import noise_levels
from tests.support import processes
from tests.support.score_sde import checkpoint

OFFICIAL = pathlib.Path("tests/official")
launch = functools.partial(processes.launch, "import_checkpoint")


def config_of(workdir):
    return json.loads((workdir / "config.json").read_text())


def test_an_ncsnpp_becomes_a_run_that_draws(tmp_path):
    checkpoint(tmp_path / "c.pth", multipliers=(1,), attention=())
    workdir = tmp_path / "run"
    imported = launch(f"--torch_checkpoint={tmp_path / 'c.pth'}", "--image_size=8", f"--workdir={workdir}")
    assert imported.returncode == 0, imported.stderr
    for words in (
        "NCSN++ of width 4, images (8, 8, 3): ",
        "Weights: ema.shadow_params (average, ",
        "--weights=raw takes the others",
        "Process: ve (sigma_max=50.0, sigma_min=0.01); times uniform, output score, condition sigma",
        'Assumed, as in the published models of NCSN++: training.sde="vesde", model.scale_by_sigma=true',
        f"Sample: python -m launch.sample --workdir={workdir}",
    ):
        assert words in imported.stdout, imported.stdout
    config = config_of(workdir)
    assert config["optim"]["learning_rate"] == 2e-4 and config["optim"]["warmup_steps"] == 5_000
    assert config["sampler"]["last_time"] == 1e-5 and config["data"]["image_size"] == 8
    drawn = processes.launch("sample", f"--workdir={workdir}", "--num_samples=2", "--num_steps=3")
    assert drawn.returncode == 0, drawn.stderr
    (samples,) = workdir.glob("samples/*/samples.npz")
    assert np.load(samples)["samples"].shape == (2, 8, 8, 3)
    other = ["--sampler=heun,churn=1", "--grid=karras", "--num_steps=2", f"--output={tmp_path / 'other'}"]
    drawn = processes.launch("sample", f"--workdir={workdir}", "--num_samples=2", *other)
    assert drawn.returncode == 0, drawn.stderr
    about = json.loads((tmp_path / "other" / "about.json").read_text())
    assert (about["sampler"]["name"], about["sampler"]["churn"], about["sampler"]["num_steps"]) == ("heun", 1.0, 2)
    assert about["score_evaluations_per_sample"] == 5.0
    refused = processes.launch("denoise", f"--workdir={workdir}", "--sampler=probability_flow")
    assert refused.returncode == 2 and "Denoising needs a sampler with fixed steps" in refused.stderr


def test_the_likelihood_of_an_imported_run(tmp_path):
    """A U-Net in continuous time on the digits; runs at noise levels have no flow."""
    checkpoint(tmp_path / "c.pth", multipliers=(1,), attention=(), channels=1)
    workdir = tmp_path / "run"
    given = [f"--torch_checkpoint={tmp_path / 'c.pth'}", "--image_size=8", "--config=configs/digits.py:ve"]
    imported = launch(*given, f"--workdir={workdir}")
    assert imported.returncode == 0, imported.stderr
    options = ["--num_images=2", "--probes=2", "--rtol=0.01", "--atol=0.01", "--first_time=0.3"]
    ended = processes.launch("likelihood", f"--workdir={workdir}", *options)
    assert ended.returncode == 0, ended.stderr
    assert "bits per dimension" in ended.stdout and "Offset: 8 bits" in ended.stdout
    (file,) = workdir.glob("likelihood/*/likelihood.json")
    about = json.loads(file.read_text())
    assert (about["images"], about["probes"], about["rtol"], about["offset_bits"]) == (2, 2, 0.01, 8.0)
    arrays = np.load(file.with_suffix(".npz"))
    assert arrays["nats"].shape == (2, 1, 2) and np.isfinite(arrays["bits_per_dimension"]).all()
    refused = processes.launch("likelihood", f"--workdir={workdir}", "--rtol=0")
    assert refused.returncode == 2 and "rtol must be at least" in refused.stderr


# Technique 4, at the 20 levels of the file and the published 5 steps per level.
EPSILON = noise_levels.epsilon_for(5, 5000.0 ** (1.0 / 19.0), 0.01)
DRY_RUNS = {
    "NCSNv2": (
        [f"--torch_checkpoint={OFFICIAL}/ncsnv2_32x32x3.pth", "--image_size=32"],
        "NCSNv2 of width 8, images (32, 32, 3): 117,323 parameters",
        f"Sampler: annealed_langevin (denoise=True, epsilon={EPSILON:.3g}, ",
    ),
    "NCSN with the authors' configuration": (
        [f"--torch_checkpoint={OFFICIAL}/ncsn_28x28x1.pth", "--model_config=DIR/ncsn.json"],
        "NCSN of width 8, images (28, 28, 1): ",
        "Process: ve (sigma_max=2.0, sigma_min=0.01); times levels",
    ),
    "raw weights of a sub-VP model": (
        ["--torch_checkpoint=DIR/c.pth", "--model_config=DIR/subvp.json", "--weights=raw"],
        "DDPM++ of width 4, images (8, 8, 3): ",
        "Process: subvp (beta_max=20.0, beta_min=0.1); times uniform, output noise, condition scaled_time",
    ),
}


@pytest.mark.parametrize("kind", DRY_RUNS)
def test_a_dry_run_says_what_would_be_imported(kind, tmp_path):
    files(tmp_path)
    arguments, *expected = DRY_RUNS[kind]
    arguments = [argument.replace("DIR", str(tmp_path)) for argument in arguments]
    ended = launch(*arguments, f"--workdir={tmp_path / 'run'}", "--dry_run")
    assert ended.returncode == 0, ended.stderr
    for words in (*expected, "Dry run: would write into"):
        assert words in ended.stdout, ended.stdout
    assert not (tmp_path / "run").exists()


def files(folder):
    """A DDPM++ with its configuration, and configurations that fit others or nothing."""
    checkpoint(folder / "c.pth", multipliers=(1,), attention=(), fourier=False)
    ncsn = {"model": {"sigma_begin": 2.0, "sigma_end": 0.01, "num_classes": 10}, "data": {"image_size": 28}}
    subvp = {"model": {"nf": 4}, "data": {"image_size": 8}, "training": {"sde": "subvpsde", "continuous": True}}
    contents = {"ncsn": ncsn, "subvp": subvp, "wide": {"model": {"nf": 128}, "data": {"image_size": 8}}}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "damaged.json").write_text('{"model": ')


MISTAKES = {
    "a configuration of another width": (["--model_config=DIR/wide.json"], "model.nf=128 contradicts the tensors"),
    "a damaged configuration": (["--model_config=DIR/damaged.json"], "damaged.json is not valid JSON"),
    "two sizes": (
        ["--image_size=8", "--config=configs/digits.py", "--config.data.image_size=16"],
        "must be one: --image_size has 8x8, the checkpoint or --model_config has 8x8, config.data.image_size has 16x16",
    ),
    "other images": (
        ["--image_size=8", "--config=configs/digits.py:vp"],
        "The network is for images of (8, 8, 3), and digits has (8, 8, 1)",
    ),
    "another SDE": (
        [f"--torch_checkpoint={OFFICIAL}/ncsn_28x28x1.pth", "--image_size=28", "--config=configs/cifar10.py:ddpm"],
        "A checkpoint of NCSN needs sde.name=ve. Received: vp",
    ),
    "no size": ([], "Give image_size (--image_size)"),
    "levels of NCSN": (
        [f"--torch_checkpoint={OFFICIAL}/ncsn_28x28x1.pth", "--image_size=28"],
        "does not tell its noise levels. Give --config with them, or --model_config",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usage_error_exits_with_code_2_and_one_line(name, tmp_path):
    files(tmp_path)
    arguments, expected = MISTAKES[name]
    arguments = ["--torch_checkpoint=DIR/c.pth", *arguments, f"--workdir={tmp_path / 'run'}"]
    ended = launch(*(argument.replace("DIR", str(tmp_path)) for argument in arguments))
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 2 and len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ") and expected in lines[0], ended.stderr
