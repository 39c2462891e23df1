"""Latent codes as a person makes them: files, exit codes, mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support import processes, tiny

QUICK = ["--num_images=3", "--batch_size=2", "--rtol=1e-3", "--atol=1e-3", "--first_time=0.3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of small U-Nets on the digits in continuous time, `vp` and `narrow`, of another SDE, and one at levels."""
    folder = tmp_path_factory.mktemp("runs")
    for name, beta_max in (("vp", 20.0), ("narrow", 10.0)):
        tiny.save_run(folder / name, config=tiny.flow_config(), sde={"beta_max": beta_max})
    tiny.save_run(folder / "levels", steps=(2,))
    return folder


def test_images_are_encoded_decoded_mixed_and_compared(folder, tmp_path):
    """A run compared with itself: codes of one image are equal. Three images make one pair."""
    options = ["--interpolate=3", "--temperatures=1,0.5", f"--compare={folder / 'vp'}", f"--output={tmp_path}"]
    ended = processes.launch("encode", f"--workdir={folder / 'vp'}", *QUICK, *options)
    assert ended.returncode == 0, ended.stderr
    for words in (
        "Round trip: error ",
        "Evaluations per image: ",
        "correlation: 1.0000 (1.0000 to 1.0000)",
        "control: ",
    ):
        assert words in ended.stdout, ended.stdout
    about = json.loads((tmp_path / "encodings.json").read_text())
    assert (about["images"], about["split"], about["rtol"], about["first_time"]) == (3, "held_out", 1e-3, 0.3)
    assert about["round_trip_error"]["worst"] < 0.05 and about["dequantized"] is False and about["weights"]
    assert about["identifiability"]["distance"]["maximum"] == pytest.approx(0.0, abs=1e-6)
    assert about["identifiability"]["other"]["checkpoint"] == about["checkpoint"]
    found = {name: np.load(tmp_path / f"{name}.npz") for name in ("encodings", "interpolation", "temperature")}
    codes, path, warm = found.values()
    assert codes["latents"].dtype == codes["reconstructions_float"].dtype == np.float32
    assert codes["latents"].shape == codes["images"].shape == codes["reconstructions"].shape == (3, 8, 8, 1)
    assert codes["images"].dtype == codes["reconstructions"].dtype == np.uint8
    assert codes["encoding_evaluations"].mean() == about["score_evaluations_per_image"]["encoding"]
    floats = codes["reconstructions_float"]
    assert path["images"].shape == (1, 3, 8, 8, 1) and warm["temperatures"].tolist() == [1.0, 0.5]
    np.testing.assert_allclose(path["images_float"][0, [0, -1]], floats[:2], atol=1e-4)
    np.testing.assert_allclose(warm["images_float"][:, 0], floats, atol=1e-4)
    assert np.abs(warm["images_float"][:, 1] - floats).max() > 0.01
    np.testing.assert_allclose(np.load(tmp_path / "identifiability.npz")["latents"], codes["latents"], atol=1e-4)
    for name, size in (("encodings", (3, 3)), ("interpolation", (3, 1)), ("temperature", (2, 3))):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (size[0] * 33 + 1, size[1] * 33 + 1), name
    assert (tmp_path / "identifiability.png").exists()
    refused = processes.launch("encode", f"--workdir={folder / 'vp'}", *QUICK, f"--output={tmp_path}")
    assert refused.returncode == 2 and "holds encodings already" in refused.stderr


def test_a_dry_run_writes_nothing(folder, tmp_path):
    options = ["--dry_run", "--dequantize", "--split=train", f"--output={tmp_path / 'out'}"]
    ended = processes.launch("encode", f"--workdir={folder / 'vp'}", *options)
    assert ended.returncode == 0 and "16 images (8, 8, 1) of digits, train" in ended.stdout, ended.stderr
    assert not (tmp_path / "out").exists()


MISTAKES = {
    "a run at noise levels": (["--workdir=FOLDER/levels"], "Encoding needs a run in continuous time"),
    "another SDE": (["--compare=FOLDER/narrow"], "with one SDE; give another run"),
    "a comparison with a run at levels": (["--compare=FOLDER/levels"], "levels was trained at levels"),
    "a path of one point": (["--interpolate=1"], "--interpolate=1"),
    "a pair of one image": (["--interpolate=3", "--num_images=1"], "need two images or more"),
    "no images": (["--num_images=0"], "--num_images=0"),
    "a temperature of zero": (["--temperatures=1,0"], "give positive numbers"),
    "a temperature that is no number": (["--temperatures=warm"], "'warm'"),
    "no tolerance": (["--rtol=0"], "rtol must be at least"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usage_error_exits_with_code_2_and_one_line(name, folder):
    arguments, expected = MISTAKES[name]
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    ended = processes.launch("encode", f"--workdir={folder / 'vp'}", *arguments)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], ended.stderr
    assert not (folder / "vp" / "encodings").exists(), "a mistake leaves nothing"
