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


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: [s], lambda s: {f"module.{k}": v for k, v in s.items()}])
def test_a_bare_state_dict_a_list_and_the_module_prefix_are_read(tmp_path, wrap):
    state = {name: torch.tensor(value) for name, value in ncsn.read_state_dict(SMALL).items()}
    torch.save(wrap(state), tmp_path / "checkpoint.pth")
    assert ncsn.ncsn_from_torch(tmp_path / "checkpoint.pth").filters == 8


def damaged(tmp_path, kind):
    path = tmp_path / "checkpoint.pth"
    state = {name: torch.tensor(value) for name, value in ncsn.read_state_dict(SMALL).items()}
    if kind == "truncated":
        path.write_bytes(SMALL.read_bytes()[:300_000])
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing tensor":
        del state["refine3.crp.convs.1.weight"]
        torch.save([state], path)
    elif kind == "superfluous tensor":
        torch.save([{**state, "refine5.extra": torch.zeros(3)}], path)
    elif kind == "wrong shape":
        torch.save([{**state, "res3.0.conv1.bias": torch.zeros(17)}], path)
    elif kind == "NaN":
        torch.save([{**state, "res3.0.conv1.bias": torch.full((16,), float("nan"))}], path)
    elif kind == "no state dict":
        torch.save([1, 2, 3], path)
    elif kind == "another network":
        torch.save([{"conv.weight": torch.zeros(3, 3)}], path)
    elif kind == "code":
        torch.save(pathlib.PurePosixPath("a"), path)
    return path


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("truncated", "cannot be read"),
        ("text", "cannot be read"),
        ("empty", "cannot be read"),
        ("code", "cannot be read"),
        ("missing tensor", r"Missing: refine3\.crp\.convs\.1\.weight"),
        ("superfluous tensor", r"Superfluous: refine5\.extra"),
        ("wrong shape", r"res3\.0\.conv1\.bias does not fit"),
        ("NaN", r"res3\.0\.conv1\.bias does not fit"),
        ("no state dict", "holds no state dict"),
        ("another network", r"begin_conv\.weight"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, kind, match):
    with pytest.raises(ncsn.CheckpointFormatError, match=match):
        ncsn.ncsn_from_torch(damaged(tmp_path, kind))


def test_a_missing_file_and_a_missing_torch_are_reported(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        ncsn.ncsn_from_torch(tmp_path / "nothing.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'ncsn_tf\[torch\]'"):
        ncsn.ncsn_from_torch(SMALL)
