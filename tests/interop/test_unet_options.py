"""Options of U-Nets: what tensors tell, what a configuration tells, what was published, and what contradicts it."""

import pytest

from ncsn_tf.interop import configuration, unet_options, unet_tensors
from tests.support.score_sde import SIGMAS, shapes


def options(config=None, image_size=8, sigmas=SIGMAS, **listed):
    architecture = unet_tensors.architecture(shapes(**listed))
    return unet_options.resolve(architecture, configuration.read(config), sigmas, image_size)


SECTIONS = ("sde", "times", "output", "condition")
DDPMPP = {"fourier": False, "multipliers": (1, 1)}
PROCESSES = {
    "NCSN++": ({}, None, ["ve", "uniform", "score", "sigma"]),
    "DDPM++": (DDPMPP, None, ["vp", "uniform", "noise", "scaled_time"]),
    "DDPM": (
        {"fourier": False, "block": "ddpm", "filters": 32},
        None,
        ["vp", "ddpm_levels", "noise", "ddpm_step"],
    ),
    "levels of VE": (
        {"fourier": False, "inputs": "residual"},
        {"model": {"scale_by_sigma": True}},
        ["ve", "levels", "score", "nearest_level"],
    ),
    "levels of VE, of a DDPM": (
        {"fourier": False, "block": "ddpm", "filters": 32},
        {"model": {"name": "ddpm"}, "training": {"sde": "vesde", "continuous": False}},
        ["ve", "levels", "score", "nearest_level"],
    ),
    "NCSN++ of VP": (
        {"fourier": False, "inputs": "residual"},
        {"training": {"sde": "vpsde", "continuous": True}},
        ["vp", "uniform", "noise", "scaled_time"],
    ),
    "steps of an NCSN++": (
        {"fourier": False, "inputs": "residual"},
        {"training": {"sde": "vpsde", "continuous": False}},
        ["vp", "ddpm_levels", "noise", "ddpm_step"],
    ),
    "sub-VP": (DDPMPP, {"training": {"sde": "subvpsde"}}, ["subvp", "uniform", "noise", "scaled_time"]),
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_process_follows_from_the_network_and_the_configuration(kind):
    listed, config, expected = PROCESSES[kind]
    found = options(config, **listed)
    assert [found.sections[name]["name"] for name in SECTIONS] == expected
    process = found.sections["sde"]
    if process["name"] == "ve":
        assert (process["sigma_max"], process["sigma_min"]) == (50.0, 0.01)
    else:
        assert (process["beta_min"], process["beta_max"]) == (0.1, 20.0)
    assert found.sections["times"].get("num_levels", 1000) == 1000
    divides = (50.0, 0.01, 1000) if expected[1] == "levels" else "condition" if expected[3] == "sigma" else None
    assert found.network["output_sigmas"] == divides
    assert found.network["centre_input"] == (expected[0] == "ve")


def test_assumptions_are_those_that_neither_tells():
    found = options(inputs="residual", fir=True)
    assert found.assumed == (
        'training.sde="vesde"',
        "model.scale_by_sigma=true",
        "data.centered=false",
        "model.skip_rescale=true",
        "model.dropout=0.1",
    )
    told = {
        "model": {"scale_by_sigma": True, "skip_rescale": False, "dropout": 0.0, "fourier_scale": 4},
        "data": {"centered": False, "image_size": 128},
        "training": {"sde": "vesde"},
    }
    found = options(told, None, inputs="residual", fir=True)
    assert found.assumed == () and found.image_size == (128, 128)
    network = found.network
    assert (network["rescale_skips"], network["dropout"], network["fourier_scale"]) == (False, 0.0, 4.0)
    assert (network["resampling"], network["attention"]) == ("fir", (64,))
    assert options(image_size=128).assumed[-1] == "model.dropout=0", "large models had none"


def test_the_size_is_told_by_attention():
    for resolutions, size in (((8,), 16), ((32, 8), 64)):
        found = options({"attn_resolutions": resolutions}, None, multipliers=(1, 1, 1), attention=(1,))
        assert found.image_size == (size, size)


def test_images_need_not_be_square():
    found = options(image_size=(16, 8))
    assert found.image_size == (16, 8) and found.network["attention"] == (4,)


REFUSED = {
    "nf": ({"nf": 128}, {}, r"model\.nf=128 contradicts the tensors, which have 4"),
    "ch_mult": ({"ch_mult": [1, 2, 2]}, {}, r"model\.ch_mult=\[1, 2, 2\] contradicts the tensors, which have \[1, 2\]"),
    "blocks": ({"num_res_blocks": 4}, {}, r"num_res_blocks=4 contradicts the tensors, which have 1"),
    "block": ({"resblock_type": "ddpm"}, {}, r'resblock_type="ddpm" contradicts the tensors, which have "biggan"'),
    "embedding": ({"embedding_type": "positional"}, {}, r'embedding_type="positional" contradicts .*"fourier"'),
    "pyramid": ({"progressive_input": "residual"}, {}, r'progressive_input="residual" contradicts .* "none"'),
    "conditional": ({"conditional": False}, {}, r"conditional=false contradicts the tensors, which have true"),
    "name": ({"name": "ddpm"}, {}, r'model\.name="ddpm" contradicts the tensors, which have "ncsnpp"'),
    "NCSNv2": ({"name": "ncsnv2_64"}, {}, r'model\.name="ncsnv2_64" contradicts the tensors, which have "ncsnpp"'),
    "unknown name": ({"name": "adm"}, {}, r"model\.name must be one of ncsnpp, ddpm, .*Received: 'adm'"),
    "sigma_max": ({"sigma_max": 90}, {}, r"sigma_max=90 contradicts the noise levels of the file, which have 50"),
    "num_scales": ({"num_scales": 2000}, {}, r"num_scales=2000 contradicts .* which have 1000"),
    "activation": ({"nonlinearity": "elu"}, {}, r'nonlinearity="elu" is not supported: the network has swish alone'),
    "filter": ({"fir": True, "fir_kernel": [1, 2, 1]}, {}, r"fir_kernel=\[1, 2, 1\] is not supported"),
    "levels": ({}, {"training": {"continuous": False}}, r"continuous=false contradicts the Fourier features"),
    "range": ({}, {"training": {"sde": "vesde"}, "data": {"centered": True}}, r"centered=true is not supported: .*\[0"),
    "no SDE": ({}, {"training": {"sde": "edm"}}, r"training\.sde must be one of vesde, vpsde, subvpsde"),
    "channels": ({}, {"data": {"num_channels": 1}}, r"data\.num_channels=1 contradicts the tensors, which have 3"),
    "no such resolution": (
        {"attn_resolutions": [16]},
        {},
        r"\[16\] contradicts .* images of 8 pixels have 8, 4, .* at 4",
    ),
    "scaled VP": (
        {"scale_by_sigma": True},
        {"training": {"sde": "vpsde"}},
        "scale_by_sigma=true is not supported",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_configuration_that_does_not_fit_is_refused(kind):
    model, others, match = REFUSED[kind]
    with pytest.raises(ValueError, match=match) as refused:
        options({"model": model, **others})
    assert len(str(refused.value).splitlines()) == 1


def test_where_published_models_differ_a_configuration_is_needed():
    with pytest.raises(ValueError, match=r"Nothing tells training\.sde of this NCSN\+\+: .* published models differ"):
        options(fourier=False, inputs="residual")
    with pytest.raises(ValueError, match=r"size of the images is unknown.*--image_size"):
        options(image_size=None)
    with pytest.raises(ValueError, match=r"Nothing tells model\.sigma_max"):
        options({"scale_by_sigma": True}, sigmas=None, fourier=False, inputs="residual")
    assert "sde" not in options(sigmas=None).sections, "a network that is told sigma does without"
