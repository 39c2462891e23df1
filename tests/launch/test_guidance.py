"""Inpainting, interpolation and denoising as a person runs them: files, exit codes, mistakes."""

import functools
import json

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.config import choices
from ncsn_tf.data import pipeline
from tests.support import processes, tiny

launch = functools.partial(processes.launch, stand_in=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of small pictures, and a photograph of another size."""
    folder = tmp_path_factory.mktemp("conditional")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
        tiny.save_run(folder / "run", steps=(2,))
    Image.fromarray(tiny.random_pixels(30, 40, 3)).save(folder / "photograph.png")
    return folder / "run"


def test_inpainting_keeps_what_is_known(run, tmp_path):
    output = tmp_path / "out"
    result = launch("inpaint", f"--workdir={run}", "--num_images=3", "--completions=2", f"--output={output}")
    assert result.returncode == 0, result.stderr
    with np.load(output / "inpainting.npz") as arrays:
        samples, original, known = arrays["samples"], arrays["original"], arrays["known"]
        assert arrays["samples_float"].dtype == np.float32
    assert samples.shape == (3, 2, 8, 8, 1) and samples.dtype == np.uint8
    np.testing.assert_array_equal(samples[:, :, :, :4], np.repeat(original[:, None, :, :4], 2, axis=1))
    assert known[:, :, :4].all() and not known[:, :, 4:].any()
    assert np.any(samples[:, 0, :, 4:] != samples[:, 1, :, 4:])
    about = json.loads((output / "about.json").read_text())
    assert (
        about["mask"] == "left" and about["seams"]["across_original"] > 0 and about["score_evaluations_per_sample"] == 4
    )
    with Image.open(output / "inpainting.png") as picture:
        assert picture.size == (4 * 33 + 1, 3 * 33 + 1), "occluded, two completions, original"
    photograph = f"--images={run.parent / 'photograph.png'}"
    refused = launch("inpaint", f"--workdir={run}", photograph, f"--output={output}")
    assert refused.returncode == 2 and "holds other samples" in refused.stderr
    assert json.loads((output / "about.json").read_text()) == about, "a refused command leaves the results as they are"


def test_other_settings_have_a_folder_of_their_own(run):
    folders = run / "inpainting"
    for options, name in (
        ([], "step_00000002_seed_0"),
        (["--mask=top"], "step_00000002_seed_0_2"),
        (["--epsilon=1e-6"], "step_00000002_seed_0_3"),
        (["--mask=top"], "step_00000002_seed_0_2"),
    ):
        ended = launch("inpaint", f"--workdir={run}", "--num_images=1", "--completions=1", *options)
        assert ended.returncode == 0 and ended.stdout.endswith(f"{folders / name}\n"), ended.stderr
    assert len(list(folders.iterdir())) == 3


def test_restoration_keeps_what_is_measured(run, tmp_path):
    """By replacement exactly; PiGDM counts its passes back, and y has the noise that was asked for."""
    arguments = f"--workdir={run}", "--num_images=6", "--completions=2", "--measurement=downsample:2"
    result = launch("restore", *arguments, f"--output={tmp_path / 'exact'}")
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "exact" / "restoration.npz") as arrays:
        samples, original, y = arrays["samples_float"], arrays["original"], arrays["measured"]
    assert samples.shape == (6, 2, 8, 8, 1) and y.shape == (6, 4, 4, 1)
    means = samples.reshape(6, 2, 4, 2, 4, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(means, np.repeat(y[:, None, ..., 0], 2, axis=1), atol=1e-5)
    blocks = pipeline.to_float(original).reshape(6, 4, 2, 4, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(blocks, y[..., 0], atol=1e-6)
    assert np.any(samples[:, 0] != samples[:, 1])
    about = json.loads((tmp_path / "exact" / "about.json").read_text())
    assert about["residual"] < 1e-5 and about["residual_of_original"] < 1e-6 and about["psnr"] < about["psnr_of_mean"]
    assert about["score_evaluations_per_sample"] == 4
    with Image.open(tmp_path / "exact" / "restoration.png") as picture:
        assert picture.size == (4 * 33 + 1, 6 * 33 + 1), "given, two completions, original"
    result = launch("restore", *arguments, "--method=pigdm,scale=0.5", "--noise=0.1", f"--output={tmp_path / 'noisy'}")
    assert result.returncode == 0, result.stderr
    about = json.loads((tmp_path / "noisy" / "about.json").read_text())
    assert about["options"] == {"scale": 0.5} and about["score_evaluations_per_sample"] == 8
    assert abs(about["residual_of_original"] / 0.1 - 1.0) < 4.0 / np.sqrt(2 * 6 * 16)


def test_interpolation_ends_in_the_samples_of_launch_sample(run, tmp_path):
    result = launch("interpolate", f"--workdir={run}", "--num_paths=2", "--points=3", f"--output={tmp_path / 'paths'}")
    assert result.returncode == 0, result.stderr
    plain = launch("sample", f"--workdir={run}", "--num_samples=4", f"--output={tmp_path / 'samples'}")
    assert plain.returncode == 0, plain.stderr
    paths = np.load(tmp_path / "paths" / "interpolation.npz")["samples_float"]
    samples = np.load(tmp_path / "samples" / "samples.npz")["samples_float"]
    assert paths.shape == (2, 3, 8, 8, 1)
    np.testing.assert_allclose(paths[:, [0, -1]].reshape(samples.shape), samples, atol=1e-5)
    assert (tmp_path / "paths" / "interpolation.png").exists()


def test_denoising_reports_its_quality_by_level(run, tmp_path):
    result = launch("denoise", f"--workdir={run}", "--num_images=5", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    about = json.loads((tmp_path / "about.json").read_text())
    assert [round(row["sigma"], 3) for row in about["psnr"]] == [1.0, 0.1]
    assert about["psnr"][1]["noisy"][0] > about["psnr"][0]["noisy"][0]
    with np.load(tmp_path / "denoising.npz") as arrays:
        assert arrays["one_step"].shape == (2, 5, 8, 8, 1) and arrays["original"].shape == (5, 8, 8, 1)
    with Image.open(tmp_path / "denoising.png") as picture:
        assert picture.size == (3 * 33 + 1, 12 * 33 + 1), "two levels and the original; three ways of four images"


MISTAKES = {
    "a mask that is none": ("inpaint", ["--mask=half"], "half"),
    "a mask of another size": ("inpaint", ["--mask=FOLDER/photograph.png"], "(30, 40)"),
    "a mask with tones between": ("inpaint", ["--mask=FOLDER/noise.png"], "white where the image is known"),
    "no images": ("inpaint", ["--images=FOLDER/none"], "no images"),
    "all is known": ("inpaint", ["--mask=random", "--known_share=1"], "share"),
    "colours of grey images": ("colorize", [], "3 channels: take a run on colour images"),
    "blocks that do not fit": ("restore", ["--measurement=downsample:3"], "divides the images' (8, 8)"),
    "a negative zeta": ("restore", ["--method=dps,zeta=-1"], "zeta must be at least 0"),
    "moves in time, and no time": ("restore", ["--method=dps"], "annealed_langevin has steps at one time"),
    "noise that is no number": ("restore", ["--noise=nan"], "noise of a measurement must be at least 0"),
    "a path of one point": ("interpolate", ["--points=1"], "points"),
    "no run": ("denoise", ["--workdir=FOLDER/none"], "not a run directory"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the real network, which the launchers open; nothing of it is traced before a mistake is seen."""
    folder = tmp_path_factory.mktemp("mistakes")
    tiny.save_run(folder / "run", steps=(2,))
    Image.fromarray(tiny.random_pixels(30, 40, 3)).save(folder / "photograph.png")
    Image.fromarray(tiny.random_pixels(8, 8, 3)).save(folder / "noise.png")
    return folder


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usage_error_exits_with_code_2_and_one_line(name, folder):
    verb, arguments, expected = MISTAKES[name]
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    ended = processes.launch(verb, f"--workdir={folder / 'run'}", *arguments)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], ended.stderr
    assert not list((folder / "run").glob("inpainting")), "a mistake leaves nothing"
