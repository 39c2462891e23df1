"""Inpainting, interpolation and denoising as a person runs them: files, exit codes, mistakes."""

import functools
import json

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.config import choices
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
