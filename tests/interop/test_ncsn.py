"""Weights and outputs of the official PyTorch program (ermongroup/ncsn, random weights), kept in tests/official."""

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
import torch

from ncsn_tf import objectives, times
from ncsn_tf.interop import ncsn
from ncsn_tf.score import ScoreModel, nearest_level
from ncsn_tf.sde import VE

DATA = pathlib.Path(__file__).parents[1] / "official"
SMALL = DATA / "ncsn_28x28x1.pth"
SDE = VE(sigma_max=1.0, sigma_min=0.01)


@pytest.fixture(scope="module", params=["ncsn_28x28x1", "ncsn_32x32x3"])
def official(request):
    network = ncsn.network_from_torch(DATA / f"{request.param}.pth")
    return network, np.load(DATA / f"{request.param}.npz")


def adapted(network, reference):
    grid = times.uniform(network.num_levels)
    np.testing.assert_allclose(SDE.marginal(grid)[1], reference["sigmas"], rtol=1e-5)
    model = ScoreModel(network, SDE, condition=nearest_level(grid))
    return model.score, tf.gather(grid, reference["level"])


def test_widths_are_read_from_the_tensors(official):
    network, reference = official
    assert (network.channels, network.num_levels, network.filters) == (reference["x"].shape[-1], 10, 8)


def test_scores_agree(official):
    network, reference = official
    score_fn, t = adapted(network, reference)
    difference = np.abs(score_fn(tf.constant(reference["x"]), t) - reference["score"]).max()
    assert difference < 1e-4 * reference["score"].std()


def test_losses_and_the_gradients_norm_agree(official):
    network, reference = official
    score_fn, t = adapted(network, reference)
    x, z = tf.constant(reference["x"]), tf.constant(reference["z"])
    with tf.GradientTape() as tape:
        losses = objectives.annealed_denoising(score_fn, SDE, x, t, z)
        loss = tf.reduce_mean(losses)
    np.testing.assert_allclose(losses, reference["dsm_loss"], rtol=1e-4)
    norm = tf.linalg.global_norm(tape.gradient(loss, network.trainable_variables))
    np.testing.assert_allclose(norm, reference["grad_norm"], rtol=1e-4)


def test_every_weight_is_taken_from_the_file():
    """A weight left at its random start could go unnoticed if its effect is small."""
    state = ncsn.read_state_dict(SMALL)
    ours = ncsn.network_from_state_dict(state).get_weights()
    assert sum(w.size for w in ours) == sum(w.size for w in state.values())
    assert sorted(float(np.sum(w, dtype=np.float64)) for w in ours) == pytest.approx(
        sorted(float(np.sum(w, dtype=np.float64)) for w in state.values()), abs=1e-5
    )


def tensors():
    return {name: torch.tensor(value) for name, value in ncsn.read_state_dict(SMALL).items()}


def test_the_average_is_taken_from_what_the_authors_program_writes(tmp_path):
    """In halves: names are read with prefixes, and half precision is converted."""
    raw = {f"module._orig_mod.{name}": tensor.half() for name, tensor in tensors().items()}
    average = {name: tensor + 1.0 for name, tensor in tensors().items()}
    optimizer = {"state": {}, "param_groups": []}
    torch.save([raw, optimizer, 3, 100, average], tmp_path / "c.pth")
    read = ncsn.read_checkpoint(tmp_path / "c.pth")
    assert (read.kind, read.also) == ("average", "raw") and read.weights.startswith("[4] (average")
    assert "sde" not in read.sections, "the program writes no noise levels"
    state = ncsn.read_state_dict(SMALL)
    np.testing.assert_allclose(read.network.norm.table[0, 0], state["normalizer.embed.weight"][0, :8] + 1.0, rtol=1e-6)
    for name, tensor in ncsn.read_state_dict(tmp_path / "c.pth", "raw").items():
        np.testing.assert_allclose(tensor, state[name], rtol=1e-3, atol=1e-6)


SIGMAS = torch.tensor(np.geomspace(25.0, 0.01, 10))


@pytest.mark.parametrize("wrap", ["a buffer", "a buffer that has no average", "beside"])
def test_noise_levels_in_the_file_are_read(tmp_path, monkeypatch, wrap):
    monkeypatch.setattr(ncsn, "network_from_state_dict", lambda state: None)  # not needed, and slow
    state = tensors()
    content = {
        "a buffer": {**state, "sigmas": SIGMAS.half()},
        "a buffer that has no average": {"model": {**state, "sigmas": SIGMAS}, "ema": {"shadow": state}},
        "beside": {"model": state, "sigmas": SIGMAS},
    }[wrap]
    torch.save(content, tmp_path / "c.pth")
    told = ncsn.read_checkpoint(tmp_path / "c.pth", {"sigma_begin": 25, "num_classes": 10}).sections
    assert told["sde"]["sigma_max"] == 25.0 and told["times"]["num_levels"] == 10
    assert told["sde"]["sigma_min"] == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(ValueError, match=r"sigma_max=50 contradicts the noise levels of the file, which have 25\."):
        ncsn.read_checkpoint(tmp_path / "c.pth", {"sigma_max": 50})


def test_noise_levels_of_a_configuration_are_those_of_a_file_without_any(monkeypatch):
    monkeypatch.setattr(ncsn, "network_from_state_dict", lambda state: None)
    config = {"model": {"sigma_begin": 2.0, "sigma_end": 0.02}, "data": {"image_size": 28}}
    read = ncsn.read_checkpoint(SMALL, config)
    assert read.sections["sde"] == {"name": "ve", "sigma_max": 2.0, "sigma_min": 0.02}
    assert read.image_size == (28, 28)


CONTRADICTIONS = {
    "width": ({"ngf": 64}, r"config: model\.ngf=64 contradicts the tensors, which have 8\. Give"),
    "levels": ({"num_classes": 12}, r"model\.num_classes=12 contradicts .* which have 10\."),
    "a name": ({"name": "ncsnpp"}, r'model\.name="ncsnpp" contradicts the tensors, which have "ncsn"\.'),
    "range": ({"data": {"rescaled": True}}, r"data\.rescaled=true is not supported: data .* are in \[0, 1\]"),
    "spacing": ({"sigma_dist": "uniform"}, r'model\.sigma_dist="uniform" is not supported: noise levels are geometric'),
}


@pytest.mark.parametrize("key", CONTRADICTIONS)
def test_a_configuration_of_another_network_is_refused(key):
    config, match = CONTRADICTIONS[key]
    with pytest.raises(ValueError, match=match):
        ncsn.read_checkpoint(SMALL, config)


def damaged(tmp_path, kind):
    path = tmp_path / "checkpoint.pth"
    state = tensors()
    if kind == "missing tensor":
        del state["refine3.crp.convs.1.weight"]
    elif kind == "misspelt tensor":
        state["refine3.crp.conv.1.weight"] = state.pop("refine3.crp.convs.1.weight")
    elif kind == "superfluous tensor":
        state["refine5.extra"] = torch.zeros(3)
    elif kind == "wrong kernel":
        state["res3.0.conv1.weight"] = torch.zeros(16, 16, 5, 5)
    elif kind == "overflow":
        state = {name: tensor.double() for name, tensor in state.items()}
        state["end_conv.bias"][0] = 1e300
    elif kind == "levels":
        state["sigmas"] = torch.ones(12)
    elif kind == "equally spaced levels":
        state["sigmas"] = torch.linspace(1.0, 0.1, 10)
    elif kind == "no state dict":
        state = 3
    elif kind == "another network":
        state = {"conv.weight": torch.zeros(3, 3)}
    elif kind == "another norm":
        state["normalizer.weight"] = state.pop("normalizer.embed.weight")
    elif kind == "NCSNv2":
        state = {name: tensor for name, tensor in state.items() if "norm" not in name}
        state["normalizer.alpha"] = torch.zeros(8)
    elif kind == "score_sde":
        state = {"model": {"module.all_modules.0.weight": torch.zeros(3, 3)}}
    elif kind == "deeper":
        state["res5.0.normalize1.embed.weight"] = torch.zeros(10, 24)
    elif kind == "spectral":
        state["res1.0.conv1.weight_orig"] = state.pop("res1.0.conv1.weight")
    torch.save([state], path)
    return path


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("missing tensor", r"Missing: refine3\.crp\.convs\.1\.weight"),
        ("misspelt tensor", r"Missing: refine3\.crp\.convs\.1\.weight \(closest: refine3\.crp\.conv\.1\.weight\)"),
        ("superfluous tensor", r"Superfluous: refine5\.extra"),
        ("wrong kernel", r"conv1\.weight does not fit. Expected: \(16, 16, 3, 3\), .* Received: \(16, 16, 5, 5\)"),
        ("overflow", r"end_conv\.bias does not fit: it holds 1 values that are not finite"),
        ("levels", r"sigmas does not fit. Expected 10 .* Received: shape \(12,\)"),
        ("equally spaced levels", r"10 noise levels of the file, from 1 to 0\.1, are not a decreasing geometric seq"),
        ("no state dict", "holds no state dict"),
        ("another network", r"begin_conv\.weight.*conv\.weight"),
        ("another norm", r"no normalizer\.embed\.weight of rank 2 \(it is missing\). Closest: normalizer\.weight"),
        ("NCSNv2", r"it looks like NCSNv2. ncsn_tf\.interop\.ncsnv2 reads that network"),
        ("score_sde", r"it looks like a U-Net of score_sde. ncsn_tf\.interop\.score_sde reads"),
        ("deeper", "it looks like NCSNdeeper of ermongroup/ncsnv2, .*Nothing here reads that network"),
        ("spectral", "it looks like an NCSN with spectral normalisation"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, kind, match):
    with pytest.raises(ncsn.CheckpointFormatError, match=rf"checkpoint\.pth.*{match}"):
        ncsn.network_from_torch(damaged(tmp_path, kind))


def test_a_missing_file_and_a_missing_torch_are_reported(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        ncsn.network_from_torch(tmp_path / "nothing.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'ncsn_tf\[torch\]'"):
        ncsn.network_from_torch(SMALL)
