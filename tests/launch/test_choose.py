"""Choosing noise levels as a person does: the printed arguments, what they rest on, mistakes."""

import functools

import numpy as np
import pytest

from ncsn_tf import noise_levels
from ncsn_tf.data import distances, images
from tests.support import processes

launch = functools.partial(processes.launch, "choose")


@pytest.fixture(scope="module")
def digits():
    return images.load("digits", "train").images


def arguments_of(ended):
    """The printed arguments, as a mapping from keys to texts."""
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    *_, title, line = ended.stdout.splitlines()
    assert title == "Arguments of launch.train:"
    return dict(argument.removeprefix("--config.").split("=") for argument in line.split())


def test_the_digits_get_levels_that_training_takes(digits, tmp_path):
    ended = launch("--config=digits", "--config.sampler.num_levels=5")
    chosen = arguments_of(ended)
    value = distances.largest_distance(digits).value
    choice = noise_levels.choose(value, 64)
    assert choice.sigma_max - 0.01 <= value <= float(chosen["sde.sigma_max"]) == choice.sigma_max
    assert chosen == {
        "sde.sigma_max": repr(choice.sigma_max),
        "sde.sigma_min": "0.01",
        "times.num_levels": str(choice.num_levels),
        "sampler.steps_per_level": "5",
        "sampler.epsilon": repr(choice.epsilon),
        "sampler.num_levels": "None",
    }
    for said in (
        "digits: 1501 training images (8, 8, 1)",
        f"largest distance between two images is {value:.6g}",
        "1,125,750 pairs: all 1,501 images were compared",
        "images of 64 values",
        f"overlap {choice.overlap:.4g}",
        f"{choice.variance_ratio:.4g} times",
    ):
        assert said in ended.stdout
    line = ended.stdout.splitlines()[-1].split()
    trained = processes.launch("train", "--config=digits", f"--workdir={tmp_path}", "--dry_run", *line, stand_in=True)
    assert trained.returncode == 0 and trained.stderr == "", trained.stderr


def test_a_sample_of_a_users_own_images(digits, tmp_path):
    np.savez(tmp_path / "own.npz", images=digits[:300])
    train = images.load(str(tmp_path / "own.npz"), "train").images
    found = distances.largest_distance(train, sample=40, seed=3)
    choice = noise_levels.choose(found.value, 64, sigma_min=0.02, overlap=0.3, steps_per_level=6)
    enough_for_seven = 7 * choice.num_levels  # but for the denoising step
    own = ("--config=digits", f"--config.data.name={tmp_path / 'own.npz'}", "--config.sampler.denoise=True")
    rest = ("--sample=40", "--seed=3", "--sigma_min=0.02", "--overlap=0.3", f"--max_evaluations={enough_for_seven}")
    ended = launch(*own, *rest)
    chosen = arguments_of(ended)
    assert chosen == dict(argument.removeprefix("--config.").split("=") for argument in choice.overrides())
    assert f"780 pairs: 40 of {len(train)} images, drawn at random, so a lower bound" in ended.stdout


def test_a_configuration_gets_only_what_it_has():
    other_walk = launch("--config=digits", "--config.sampler.name=langevin", "--sample=100")
    assert list(arguments_of(other_walk)) == ["sde.sigma_max", "sde.sigma_min", "times.num_levels"]
    assert "Technique 4" not in other_walk.stdout
    continuous = ("--config.times.name=uniform", "--config.network.name=ncsnv2", "--config.condition.name=none")
    without_levels = launch("--config=digits", *continuous, "--sample=100")
    assert list(arguments_of(without_levels)) == ["sde.sigma_max", "sde.sigma_min"]


def test_a_dry_run_computes_nothing():
    ended = launch("--config=digits", "--sample=100", "--dry_run")
    assert ended.returncode == 0 and ended.stdout.endswith("Dry run: would compare 100 of them\n"), ended.stderr


def test_one_image_is_not_enough(tmp_path):
    np.save(tmp_path / "one.npy", np.full([1, 8, 8, 1], 200, np.uint8))
    ended = launch("--config=digits", f"--config.data.name={tmp_path / 'one.npy'}")
    assert ended.returncode == 2 and "error: A distance needs 2 or more images" in ended.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sigma_min=9"], "Noise levels need 0 < sigma_min < sigma_max, both finite. Received: sigma_max=4.82"),
        (["--sample=1502"], "A sample of 1501 images has 2 to 1501 of them"),
        (["--steps_per_level=5", "--max_evaluations=500"], "Give either steps_per_level or max_evaluations"),
        (
            ["--config.sampler.denoise=true", "--max_evaluations=22"],
            "22 levels need 23 evaluations or more per sample, 1 of them to denoise; "
            "a smaller overlap makes fewer levels. Received: max_evaluations=22",
        ),
        (
            ["--config.times.name=uniform", "--config.condition.name=sigma", "--overlap=0.3"],
            "--overlap needs times.name=levels",
        ),
        (["--max_evaluations=21"], "22 levels need 22 evaluations or more per sample"),
        (["--overlap=1.5"], "The overlap is a probability in (0, 0.9973)"),
        (["--config.sampler.name=langevin", "--steps_per_level=5"], "--steps_per_level and --max_evaluations need"),
        (["--config.sde.name=vp"], "Noise levels are chosen for the VE SDE"),
        (["--sample=1"], "flag --sample=1"),
        (["--steps_per_level=0"], "flag --steps_per_level=0"),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    ended = launch("--config=digits", *arguments)
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert message in ended.stderr and "Arguments of" not in ended.stdout
