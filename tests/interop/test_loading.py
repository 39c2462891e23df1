"""Checkpoints of every family as score models: scores of the authors' programs, kept in tests/official."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import torch

import ncsn_tf.interop
from ncsn_tf import times
from ncsn_tf.interop import loading
from ncsn_tf.interop.torch_files import CheckpointFormatError
from ncsn_tf.sde import VE, VP, SubVP
from tests.support.score_sde import checkpoint

DATA = pathlib.Path(__file__).parents[1] / "official"


def official(name):
    (file,) = DATA.glob(f"{name}_*.npz")
    return file.with_suffix(".pth"), np.load(file)


def agrees(model, x, t, expected):
    """Compares each row in units of its own deviation: the deviations differ with sigma."""
    scores = model.score(tf.constant(x), tf.constant(t, tf.float32)).numpy()
    scale = expected.std(axis=(1, 2, 3), keepdims=True)
    assert np.abs((scores - expected) / scale).max() < 1e-4


def test_load_is_a_function_of_the_package():
    assert ncsn_tf.interop.load is loading.load
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        ncsn_tf.interop.lode  # noqa: B018


@pytest.mark.parametrize("name", ["ncsn_28x28x1", "ncsnv2_32x32x3"])
def test_scores_at_noise_levels(name):
    reference = np.load(DATA / f"{name}.npz")
    config = None if "v2" in name else {"sigma_begin": 1.0, "sigma_end": 0.01}
    model = loading.load(DATA / f"{name}.pth", config)
    t = times.uniform(len(reference["sigmas"]))[reference["level"]]
    np.testing.assert_allclose(model.sde.marginal(t)[1], reference["sigmas"][reference["level"]], rtol=1e-5)
    agrees(model, reference["x"], t, reference["score"])


def test_scores_of_ncsnpp_in_continuous_time():
    path, reference = official("ncsnpp")
    whole = {"model": json.loads(str(reference["config"])), "data": {"centered": False}, "training": {"sde": "vesde"}}
    model = loading.load(path, whole)
    assert model.sde == VE(sigma_max=50.0, sigma_min=0.01)
    sigma = reference["noise_label"]
    t = np.log(sigma / 0.01) / np.log(50.0 / 0.01)
    agrees(model, reference["x"], t, reference["output"])


@pytest.mark.parametrize(("name", "sde"), [("ddpmpp", "subvpsde"), ("ddpm", "vpsde")])
def test_scores_of_vp_and_subvp_in_continuous_time(name, sde):
    """-output / sigma(t), sigma^2 = 1 - e^-B of the VP SDE, sigma = 1 - e^-B of the sub-VP SDE, at the label 999 t."""
    path, reference = official(name)
    training = {"sde": sde, "continuous": True}
    model = loading.load(
        path, {"model": json.loads(str(reference["config"])), "data": {"centered": True}, "training": training}
    )
    assert model.sde == {"vpsde": VP, "subvpsde": SubVP}[sde](beta_min=0.1, beta_max=20.0)
    t = reference["noise_label"].astype(np.float64) / 999.0
    faded = np.exp(-(0.1 * t + 19.9 * t**2 / 2.0))
    sigma = 1.0 - faded if sde == "subvpsde" else np.sqrt(1.0 - faded)
    agrees(model, reference["x"], t, -reference["output"] / sigma[:, None, None, None])


def test_the_steps_of_ddpm_have_its_noise_and_its_labels(tmp_path):
    """Level i of DDPM: the product of 1 - beta_j, beta_j from beta_min / N to beta_max / N; the label is i."""
    checkpoint(tmp_path / "c.pth", multipliers=(1,), attention=(), block="ddpm", fourier=False, filters=32)
    with pytest.warns(
        UserWarning, match=r'Assumed of .*c\.pth, as in the published models of DDPM: training\.sde="vpsde"'
    ):
        model = loading.load(tmp_path / "c.pth", image_size=8)
    kept = np.cumprod(1.0 - np.linspace(0.1, 20.0, 1000) / 1000)
    steps = np.array([0, 1, 499, 990])
    t = times.ddpm(1000, beta_min=0.1, beta_max=20.0)[::-1][steps]
    np.testing.assert_allclose(model.sde.marginal(t)[1], np.sqrt(1.0 - kept[steps]), rtol=1e-3)
    np.testing.assert_array_equal(model.condition(model.sde, tf.constant(t)), steps)
    x = tf.random.stateless_normal((4, 8, 8, 3), [0, 0])
    expected = -model.network(x, steps) / np.sqrt(1.0 - kept[steps])[:, None, None, None]
    np.testing.assert_allclose(model.score(x, tf.constant(t)), expected, rtol=2e-3, atol=1e-3)


def test_the_levels_of_ncsnpp_have_their_sigmas_and_their_labels(tmp_path):
    checkpoint(tmp_path / "c.pth", sigmas=(50.0, 0.01, 20), multipliers=(1,), attention=(), fourier=False)
    config = {"model": {"scale_by_sigma": True}, "training": {"sde": "vesde", "continuous": False}}
    with pytest.warns(UserWarning, match="Assumed"):
        model = loading.load(tmp_path / "c.pth", config, image_size=8)
    sigmas, levels = np.geomspace(50.0, 0.01, 20), np.array([0, 7, 19])
    t = times.uniform(20)[levels]
    np.testing.assert_allclose(model.sde.marginal(t)[1], sigmas[levels], rtol=1e-5)
    np.testing.assert_array_equal(model.condition(model.sde, tf.constant(t)), levels)
    x = tf.random.stateless_normal((3, 8, 8, 3), [0, 0])
    np.testing.assert_allclose(model.score(x, tf.constant(t)), model.network(x, levels), rtol=1e-4)


def test_the_noise_levels_of_ncsn_are_assumed():
    with pytest.warns(
        UserWarning, match=r"published models of NCSN: model\.sigma_max=1, model\.sigma_min=0\.01\. Give"
    ):
        assert loading.load(DATA / "ncsn_28x28x1.pth").sde == VE(sigma_max=1.0, sigma_min=0.01)


def test_noise_levels_of_ncsnv2_may_come_from_the_configuration(tmp_path):
    content = torch.load(DATA / "ncsnv2_32x32x3.pth", weights_only=True)[4]
    torch.save(content, tmp_path / "c.pth")
    read = loading.read_checkpoint(tmp_path / "c.pth", {"sigma_begin": 90, "sigma_end": 0.01, "num_classes": 500})
    assert loading.score_model(read).sde == VE(sigma_max=90.0, sigma_min=0.01)
    unknown = dataclasses.replace(read, sections={name: read.sections[name] for name in ("network", "output")})
    with pytest.raises(ValueError, match=r"This NCSNv2 holds no noise levels\. Give config with model\.sigma_max"):
        loading.score_model(unknown)


class Code:
    def __reduce__(self):
        return (os.mkdir, ("/nowhere/made_by_a_pickle",))


CONTENTS = {
    "nothing known": ({"net": {"conv.weight": torch.zeros(2)}}, r"holds no network of NCSN, NCSNv2, .*conv\.weight"),
    "two families": (
        [{"normalizer.alpha": torch.zeros(2)}, {"normalizer.embed.weight": torch.zeros(2, 6)}],
        r"holds networks of NCSN and NCSNv2\. Save the one",
    ),
    "diffusers": (
        {"time_embedding.linear_1.weight": torch.zeros(2, 2)},
        "looks like a U-Net of diffusers, which",
    ),
    "deeper": (
        {"normalizer.embed.weight": torch.zeros(2, 6), "res5.0.normalize1.embed.weight": torch.zeros(2, 6)},
        "looks like NCSNdeeper of ermongroup/ncsnv2, .* which is not read",
    ),
    "a pickled object": ({"model": Code()}, r"holds more than tensors \(\w+\.mkdir\)"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_of_no_known_network_is_refused(kind, tmp_path):
    content, match = CONTENTS[kind]
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointFormatError, match=rf"c\.pth .*{match}") as refused:
        loading.load(tmp_path / "c.pth")
    assert len(str(refused.value).splitlines()) == 1


def test_a_truncated_file_and_wrong_arguments_are_refused(tmp_path):
    path = tmp_path / "c.pth"
    checkpoint(path, multipliers=(1,), attention=())
    for arguments, error, match in (
        ({"weights": "ema"}, ValueError, "'raw', 'average' or None. Received: 'ema'"),
        ({"config": tmp_path / "none.json"}, FileNotFoundError, "no configuration at"),
        ({"config": {"name": "ncsn"}}, ValueError, r'model\.name="ncsn" contradicts the tensors'),
        ({}, ValueError, "size of the images is unknown"),
    ):
        with pytest.raises(error, match=match):
            loading.load(path, **arguments)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointFormatError, match="damaged, or of another kind"):
        loading.load(path)
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        loading.load(tmp_path / "none.pth")


def test_a_damaged_tensor_is_told_by_its_checksum(tmp_path):
    content = bytearray(official("ncsnpp")[0].read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=r"c\.pth .* damaged: .*/data/\d+ in it does not have its checksum"):
        loading.load(tmp_path / "c.pth", image_size=16)


@pytest.mark.parametrize("size", [0, -16, True, "16", 16.5, (16,), (16, 16, 3), (16, 0)])
def test_an_impossible_image_size_is_refused(size):
    with pytest.raises(ValueError, match=r"image_size must be a side or \(height, width\), in whole pixels"):
        loading.load(official("ncsnpp")[0], image_size=size)


NCSN_LEVELS = {"sigma_begin": 5.0, "sigma_end": 0.01}
CONTRADICTIONS = [
    ("ncsn_28x28x1", {"sigma_begin": 50.0}, r"sigma_begin=50 cannot be used: give model\.sigma_min too"),
    ("ncsn_28x28x1", {"sigma_min": 0.1}, r"sigma_min=0\.1 cannot be used: give model\.sigma_max too"),
    ("ncsn_28x28x1", {**NCSN_LEVELS, "sigma_begin": -5.0}, r"sigma_begin=-5 cannot be used: the levels fall from it"),
    ("ncsn_28x28x1", {**NCSN_LEVELS, "sigma_begin": 0.001}, "cannot be used: the levels fall from it"),
    ("ncsn_28x28x1", {"data": {"channels": 3}, "model": {}}, r"data\.channels=3 contradicts the tensors, which have 1"),
    ("ncsn_28x28x1", {"training": {"continuous": True}}, r"training\.continuous=true is not supported"),
    ("ncsnv2_32x32x3", {"nonlinearity": "relu"}, r'nonlinearity="relu" is not supported: .* have elu'),
    ("ncsnv2_32x32x3", {"normalization": "NoneNorm"}, r'normalization="nonenorm" is not supported'),
    ("ncsnv2_32x32x3", {"spec_norm": True}, r"spec_norm=true is not supported"),
    ("ncsnv2_32x32x3", {"scale_by_sigma": False}, r"scale_by_sigma=false is not supported"),
    ("ncsnv2_32x32x3", {"training": {"sde": "vpsde"}}, r'training\.sde="vpsde" is not supported'),
    ("ncsnv2_32x32x3", {"data": {"image_size": 0}}, r"data\.image_size=0 cannot be used"),
]


@pytest.mark.parametrize(("name", "config", "match"), CONTRADICTIONS)
def test_configurations_that_contradict_a_refinenet_are_refused(name, config, match):
    with pytest.raises(ValueError, match=match):
        loading.load(DATA / f"{name}.pth", config)


def test_two_sizes_of_images_are_refused():
    with pytest.raises(ValueError, match=r"data\.image_size=16 contradicts the image_size that was given, 32x32"):
        loading.load(official("ncsnpp")[0], {"model": {}, "data": {"image_size": 16}}, image_size=32)


def test_a_single_noise_level_is_refused(tmp_path):
    """Of an NCSNv2 whose file does not hold its levels."""
    content = torch.load(DATA / "ncsnv2_32x32x3.pth", weights_only=True)[0]
    torch.save({name: tensor for name, tensor in content.items() if "sigmas" not in name}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="num_classes=1 cannot be used: there must be 2 or more noise levels"):
        loading.load(tmp_path / "c.pth", {**NCSN_LEVELS, "num_classes": 1})
    with pytest.raises(ValueError, match=r"holds no noise levels. Give config with .*model\.num_scales"):
        loading.load(tmp_path / "c.pth", NCSN_LEVELS)


def test_a_network_without_filters_is_named(tmp_path):
    content = torch.load(DATA / "ncsnv2_32x32x3.pth", weights_only=True)
    for state in (content[0], content[-1]):
        key = next(name for name in state if name.endswith("begin_conv.weight"))
        state[key] = state[key][:1]
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointFormatError, match=r"begin_conv\.weight does not fit\. .*Received: \(1, 3, 3, 3\)"):
        loading.load(tmp_path / "c.pth")
