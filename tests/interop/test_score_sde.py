"""Weights and outputs of the official PyTorch program (yang-song/score_sde_pytorch), and files of the same form."""

import pathlib

import numpy as np
import pytest
import torch

from ncsn_tf.interop import score_sde
from ncsn_tf.interop.torch_files import CheckpointFormatError
from tests.support.score_sde import checkpoint

DATA = pathlib.Path(__file__).parents[1] / "official"
OFFICIAL = {"ncsnpp": "NCSN++", "ddpmpp": "DDPM++", "ddpm": "DDPM"}
ONE_LEVEL = {"multipliers": (1,), "attention": ()}
"""The smallest network."""


@pytest.mark.parametrize("name", OFFICIAL)
def test_outputs_agree_without_a_configuration(name):
    (file,) = DATA.glob(f"{name}_*.npz")
    reference = np.load(file)
    size = reference["x"].shape[1]
    found = score_sde.read_checkpoint(file.with_suffix(".pth"), image_size=size)
    assert (found.family, found.kind, found.also) == (OFFICIAL[name], "average", "raw")
    assert found.image_size == (size, size) and found.weights.startswith("ema.shadow_params (average")
    difference = np.abs(found.network(reference["x"], reference["noise_label"]) - reference["output"]).max()
    assert difference < 1e-4 * reference["output"].std()


def test_the_average_has_no_names_and_lacks_the_frequencies(tmp_path):
    raw = checkpoint(tmp_path / "c.pth", average=1.0)
    for weights, more in ((None, 1.0), ("average", 1.0), ("raw", 0.0)):
        parts = score_sde.network_from_torch(tmp_path / "c.pth", weights=weights, image_size=8).parts
        np.testing.assert_array_equal(parts[0].frequencies, raw["all_modules.0.W"])
        np.testing.assert_array_equal(parts[1].kernel, (raw["all_modules.1.weight"] + more).T)
        np.testing.assert_array_equal(parts[-1].bias, raw[f"all_modules.{len(parts) - 1}.bias"] + more)


def test_an_average_by_name_gets_the_frequencies_of_the_raw_weights(tmp_path):
    raw = checkpoint(tmp_path / "c.pth", **ONE_LEVEL)
    average = {name: tensor + 1.0 for name, tensor in raw.items() if name != "all_modules.0.W"}
    torch.save({"model": raw, "ema": average}, tmp_path / "c.pth")
    found = score_sde.read_checkpoint(tmp_path / "c.pth", image_size=8)
    np.testing.assert_array_equal(found.network.parts[0].frequencies, raw["all_modules.0.W"])
    np.testing.assert_array_equal(
        found.network.parts[-1].bias, average[f"all_modules.{len(found.network.parts) - 1}.bias"]
    )
    torch.save({"ema": average}, tmp_path / "c.pth")
    with pytest.raises(CheckpointFormatError, match=r"all_modules\.0 has no tensors"):
        score_sde.read_checkpoint(tmp_path / "c.pth", image_size=8)


def test_a_network_without_a_condition_has_tensors_that_it_does_not_use(tmp_path):
    raw = checkpoint(tmp_path / "c.pth", conditional=False)
    found = score_sde.read_checkpoint(tmp_path / "c.pth", weights="raw", image_size=8)
    assert found.network.embedding == "none" and found.sections["condition"]["name"] == "none"
    assert found.sections["output"]["name"] == "score_over_sigma", "the program's network divides by sigma"
    np.testing.assert_array_equal(found.network.parts[0].bias, raw["all_modules.1.bias"])


# Damaged and foreign files


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, value):
    return lambda tensors: tensors.update({name: value})


DAMAGES = {
    "missing": (drop("all_modules.4.Conv_0.weight"), r"Missing: all_modules\.4\.Conv_0\.weight"),
    "superfluous": (put("all_modules.4.Conv_3.weight", torch.zeros(3)), r"Superfluous: all_modules\.4\.Conv_3\.weight"),
    "another width": (
        put("all_modules.2.weight", torch.zeros(8, 8)),
        r"all_modules\.2\.weight does not fit\. Expected: \(16, 16\), of the NCSN\+\+ .* Received: \(8, 8\)",
    ),
    "another kernel": (
        put("all_modules.4.Conv_1.weight", torch.zeros(4, 4, 5, 5)),
        r"all_modules\.4\.Conv_1\.weight does not fit\. Expected: \(4, 4, 3, 3\)",
    ),
    "not finite": (
        put("all_modules.4.Conv_0.bias", torch.tensor([0.0, torch.nan, 1.0, torch.inf])),
        r"all_modules\.4\.Conv_0\.bias does not fit: it holds 2 values that are not finite",
    ),
    "no attention": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("all_modules.6.")],
        r"Expected ",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_refused(kind, tmp_path):
    damage, match = DAMAGES[kind]
    checkpoint(tmp_path / "c.pth", changes=damage, **ONE_LEVEL)
    with pytest.raises(CheckpointFormatError, match=rf"c\.pth, model: .*{match}.*average weights"):
        score_sde.network_from_torch(tmp_path / "c.pth", weights="raw", image_size=8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda shadow: shadow[:-1], r"ema\.shadow_params is a list of \d+ averaged tensors .*their number differs"),
        (lambda shadow: [*shadow, torch.zeros(2)], r"their number differs.*weights=raw takes the raw ones"),
        (lambda shadow: shadow[::-1], r"number 0, all_modules\.1\.weight, must be \(16, 8\), but is \(3,\)"),
    ],
)
def test_an_average_of_another_network_is_refused(change, match, tmp_path):
    checkpoint(tmp_path / "c.pth", sigmas=None, **ONE_LEVEL)
    content = torch.load(tmp_path / "c.pth", weights_only=False)
    content["ema"]["shadow_params"] = change(content["ema"]["shadow_params"])
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointFormatError, match=match):
        score_sde.network_from_torch(tmp_path / "c.pth", image_size=8)
    score_sde.network_from_torch(tmp_path / "c.pth", weights="raw", image_size=8)


def test_absent_weights_and_other_networks_are_named(tmp_path):
    raw = checkpoint(tmp_path / "c.pth", **ONE_LEVEL)
    torch.save({"ema": raw}, tmp_path / "c.pth")
    with pytest.raises(CheckpointFormatError, match=r"c\.pth holds no raw weights\. There are: ema \(average"):
        score_sde.network_from_torch(tmp_path / "c.pth", weights="raw", image_size=8)
    with pytest.raises(CheckpointFormatError, match=r"it looks like NCSNv2\. ncsn_tf\.interop\.ncsnv2 reads"):
        score_sde.network_from_torch(DATA / "ncsnv2_32x32x3.pth", image_size=32)
    with pytest.raises(CheckpointFormatError, match=r"3 noise levels of the file, from 3 to 1, are not a decr"):
        torch.save({**raw, "sigmas": torch.tensor([3.0, 2.0, 1.0])}, tmp_path / "c.pth")
        score_sde.network_from_torch(tmp_path / "c.pth", image_size=8)
