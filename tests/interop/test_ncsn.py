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
    network = ncsn.ncsn_from_torch(DATA / f"{request.param}.pth")
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
    ours = ncsn.ncsn_from_state_dict(state).get_weights()
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
    assert (read.kind, read.also, read.sigmas) == ("average", "raw", None) and read.weights.startswith("[4] (average")
    expected = ncsn.ncsn_from_torch(SMALL).get_weights()
    for ours, theirs in zip(read.network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs + 1.0, rtol=1e-6)
    for ours, theirs in zip(ncsn.ncsn_from_torch(tmp_path / "c.pth", "raw").get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


SIGMAS = torch.tensor(np.geomspace(25.0, 0.01, 10))


@pytest.mark.parametrize("wrap", ["a buffer", "a buffer that has no average", "beside"])
def test_noise_levels_in_the_file_are_compared(tmp_path, wrap):
    state = tensors()
    content = {
        "a buffer": {**state, "sigmas": SIGMAS.half()},
        "a buffer that has no average": {"model": {**state, "sigmas": SIGMAS}, "ema": {"shadow": state}},
        "beside": {"model": state, "sigmas": SIGMAS},
    }[wrap]
    torch.save(content, tmp_path / "c.pth")
    read = ncsn.read_checkpoint(tmp_path / "c.pth")
    read.check_sigmas(np.geomspace(25.0, 0.01, 10))
    with pytest.raises(ncsn.CheckpointFormatError, match=r"from 25 to 0\.01, .*from 1 to 0\.01\. Give .*sigma_max=25 "):
        read.check_sigmas(np.geomspace(1.0, 0.01, 10))


def damaged(tmp_path, kind):
    path = tmp_path / "checkpoint.pth"
    state = tensors()
    if kind == "missing tensor":
        del state["refine3.crp.convs.1.weight"]
    elif kind == "misspelt tensor":
        state["refine3.crp.conv.1.weight"] = state.pop("refine3.crp.convs.1.weight")
    elif kind == "superfluous tensor":
        state["refine5.extra"] = torch.zeros(3)
    elif kind == "wrong shape":
        state["res3.0.conv1.bias"] = torch.zeros(17)
    elif kind == "wrong kernel":
        state["res3.0.conv1.weight"] = torch.zeros(16, 16, 5, 5)
    elif kind == "NaN":
        state["res3.0.conv1.bias"][3:5] = torch.tensor([np.nan, -np.inf])
    elif kind == "overflow":
        state = {name: tensor.double() for name, tensor in state.items()}
        state["end_conv.bias"][0] = 1e300
    elif kind == "levels":
        state["sigmas"] = torch.ones(12)
    elif kind == "no state dict":
        state = 3
    elif kind == "another network":
        state = {"conv.weight": torch.zeros(3, 3)}
    elif kind == "NCSNv2":
        state["normalizer.alpha"] = state.pop("normalizer.embed.weight")[0]
    elif kind == "score_sde":
        state = {"model": {"module.all_modules.0.weight": torch.zeros(3, 3)}}
    torch.save([state], path)
    return path


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("missing tensor", r"Missing: refine3\.crp\.convs\.1\.weight"),
        ("misspelt tensor", r"Missing: refine3\.crp\.convs\.1\.weight \(closest: refine3\.crp\.conv\.1\.weight\)"),
        ("superfluous tensor", r"Superfluous: refine5\.extra"),
        ("wrong shape", r"res3\.0\.conv1\.bias does not fit. Expected: \(16,\), .* Received: \(17,\)"),
        ("wrong kernel", r"conv1\.weight does not fit. Expected: \(16, 16, 3, 3\), .* Received: \(16, 16, 5, 5\)"),
        ("NaN", r"res3\.0\.conv1\.bias does not fit: it holds 2 values that are not finite \(of 16\)"),
        ("overflow", r"end_conv\.bias does not fit: it holds 1 values that are not finite"),
        ("levels", r"sigmas does not fit. Expected 10 .* Received: shape \(12,\)"),
        ("no state dict", "holds no state dict"),
        ("another network", r"begin_conv\.weight.*conv\.weight"),
        ("NCSNv2", "it is missing.*It looks like NCSNv2"),
        ("score_sde", "it looks like a network of score_sde"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, kind, match):
    with pytest.raises(ncsn.CheckpointFormatError, match=rf"checkpoint\.pth.*{match}"):
        ncsn.ncsn_from_torch(damaged(tmp_path, kind))


def test_a_missing_file_and_a_missing_torch_are_reported(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        ncsn.ncsn_from_torch(tmp_path / "nothing.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'ncsn_tf\[torch\]'"):
        ncsn.ncsn_from_torch(SMALL)
