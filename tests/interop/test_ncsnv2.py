"""Weights and outputs of the official PyTorch program (ermongroup/ncsnv2, random weights), kept in tests/official."""

import pathlib

import numpy as np
import pytest
import torch

from ncsn_tf.interop import ncsnv2
from ncsn_tf.interop.torch_files import CheckpointFormatError

DATA = pathlib.Path(__file__).parents[1] / "official"
SMALL = DATA / "ncsnv2_32x32x3.pth"
FILES = {
    "ncsnv2_32x32x3": ("NCSNv2", 4, 8, 50.0),
    "ncsnv2_deeper_64x64x3": ("NCSNv2Deeper", 5, 4, 90.0),
    "ncsnv2_deepest_64x64x3": ("NCSNv2Deepest", 6, 4, 90.0),
}


@pytest.mark.parametrize("name", FILES)
def test_every_depth_is_read(name):
    family, cascades, filters, sigma_max = FILES[name]
    read = ncsnv2.read_checkpoint(DATA / f"{name}.pth")
    assert (read.family, read.kind, read.also) == (family, "average", "raw")
    network = read.network
    assert (network.cascades, network.filters, network.channels) == (cascades, filters, 3)
    assert read.sections["sde"] == {"name": "ve", "sigma_max": sigma_max, "sigma_min": 0.01}
    assert read.sections["times"] == {"name": "levels", "num_levels": 20}
    reference = np.load(DATA / f"{name}.npz")
    sigmas = reference["sigmas"][reference["level"]][:, None, None, None]
    expected = reference["score"] * sigmas  # the program divides by sigma
    assert np.abs(network(reference["x"]) - expected).max() < 1e-4 * expected.std()
    state = torch.load(DATA / f"{name}.pth", weights_only=True)[4]
    ours = sorted(float(np.sum(w, dtype=np.float64)) for w in network.get_weights())
    assert ours == pytest.approx(sorted(float(w.double().sum()) for w in state.values()), abs=1e-5)


@pytest.fixture
def content():
    return torch.load(SMALL, weights_only=True)


def test_the_average_and_the_raw_weights_differ(content, tmp_path):
    raw, average = content[0], content[4]
    content[4] = {name: tensor + 1.0 for name, tensor in average.items()}
    torch.save(content, tmp_path / "c.pth")
    for weights, expected in (("raw", raw["module.normalizer.beta"]), (None, average["normalizer.beta"] + 1.0)):
        np.testing.assert_array_equal(ncsnv2.network_from_torch(tmp_path / "c.pth", weights).norm.beta, expected)


def test_the_average_of_score_sde_has_no_names(content, tmp_path):
    """Its program writes these networks too, with the average as a list in the order of the parameters."""
    state = content[0]
    shadow = [tensor + 1.0 for name, tensor in state.items() if not name.endswith("sigmas")]
    torch.save({"model": state, "ema": {"decay": 0.9, "num_updates": 3, "shadow_params": shadow}}, tmp_path / "c.pth")
    network = ncsnv2.network_from_torch(tmp_path / "c.pth")
    np.testing.assert_array_equal(network.end_conv.bias, state["module.end_conv.bias"] + 1.0)


def change(content, kind):
    state = {name.removeprefix("module."): tensor for name, tensor in content[0].items()}
    match kind:
        case "missing":
            del state["res3.0.shortcut.weight"]
        case "superfluous":
            state["res3.2.conv1.weight"] = torch.zeros(3)
        case "another depth":
            state["res5.0.conv1.weight"] = torch.zeros(16, 16, 3, 3)
        case "another width":
            state["res2.0.conv2.conv.weight"] = torch.zeros(12, 8, 3, 3)
        case "no first convolution":
            state["begin_conv.weight"] = torch.zeros(3)
        case "equally spaced levels":
            state["sigmas"] = torch.linspace(50.0, 0.01, 20)
        case "increasing levels":
            state["sigmas"] = state["sigmas"].flip(0)
        case "conditional":
            state["normalizer.embed.weight"] = torch.zeros(20, 24)
            state["res5.0.normalize1.embed.weight"] = torch.zeros(20, 24)
        case "NCSN":
            state = {name: tensor for name, tensor in state.items() if ".normalize" not in name and "alpha" not in name}
            state["normalizer.embed.weight"] = torch.zeros(20, 24)
        case "batch norm":
            state["res1.0.normalize1.running_mean"] = torch.zeros(8)
    return state


DAMAGES = {
    "missing": r"not those of an NCSNv2 of width 8\. Missing: res3\.0\.shortcut\.weight.*Superfluous: none",
    "superfluous": r"Missing: none\. Superfluous: res3\.2\.conv1\.weight",
    "another depth": r"not those of an NCSNv2Deeper of width 8\. Missing: .*Superfluous: res3\.0\.conv2\.weight",
    "another width": r"res2\.0\.conv2\.conv\.weight does not fit\. Expected: \(16, 8, 3, 3\), .* Received: \(12, 8,",
    "no first convolution": r"not an NCSNv2 checkpoint: it has no begin_conv\.weight of rank 4",
    "equally spaced levels": r"20 noise levels of the file, from 50 to 0\.01, are not a decreasing geometric sequence",
    "increasing levels": r"from 0\.01 to 50, are not a decreasing geometric sequence",
    "conditional": r"it looks like NCSNdeeper of ermongroup/ncsnv2",
    "NCSN": r"is not a checkpoint of NCSNv2: it looks like NCSN\. ncsn_tf\.interop\.ncsn reads",
    "batch norm": r"it looks like a RefineNet with batch normalisation",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_or_foreign_file_is_refused(content, tmp_path, kind):
    torch.save(change(content, kind), tmp_path / "c.pth")
    with pytest.raises(CheckpointFormatError, match=rf"c\.pth.*{DAMAGES[kind]}") as refused:
        ncsnv2.network_from_torch(tmp_path / "c.pth")
    assert len(str(refused.value).splitlines()) == 1


CONTRADICTIONS = {
    "width": ({"model": {"ngf": 128}, "data": {}}, r"model\.ngf=128 contradicts the tensors, which have 8"),
    "levels": ({"num_classes": 232}, r"model\.num_classes=232 contradicts the noise levels .* which have 20"),
    "sigma_begin": ({"sigma_begin": 190}, r"model\.sigma_begin=190 contradicts the noise levels .* which have 50"),
    "depth": ({"name": "ncsnv2_256"}, r'model\.name="ncsnv2_256" contradicts the tensors, which have "ncsnv2_64"'),
    "another family": ({"name": "ddpm"}, r'model\.name="ddpm" contradicts the tensors, which have "ncsnv2_64"'),
    "range": ({"data": {"centered": True}}, r"data\.centered=true is not supported"),
}


@pytest.mark.parametrize("key", CONTRADICTIONS)
def test_a_configuration_of_another_network_is_refused(key):
    config, match = CONTRADICTIONS[key]
    with pytest.raises(ValueError, match=match):
        ncsnv2.read_checkpoint(SMALL, config)
