"""Weights in containers of every kind, of a network of three tensors whose raw and averaged values are 1 and 2."""

import numpy as np
import pytest
import torch

from ncsn_tf.interop import containers, torch_files
from ncsn_tf.interop.torch_files import CheckpointFormatError

SHAPES = {"begin.weight": (4, 3), "blocks.0.conv.weight": (3, 2), "end.bias": (2,)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(4, 3)}}, "param_groups": [{"lr": 1e-3, "params": [0, 1, 2]}]}


def weights(value=1.0, prefix="", **changes):
    state = {f"{prefix}{name}": torch.full(shape, value) for name, shape in SHAPES.items()}
    return {**state, **changes}


RAW, AVERAGE = weights(1.0), weights(2.0)
SHADOW = list(AVERAGE.values())


def prefixed(prefix, state=RAW):
    return {prefix + name: tensor for name, tensor in state.items()}


def taken(content, wanted=None):
    """The kind and the value of the weights that are chosen."""
    chosen = containers.find(content, SHAPES, "c.pth").choose(wanted)
    assert {name: tuple(tensor.shape) for name, tensor in chosen.tensors.items() if name in SHAPES} == SHAPES
    values = {float(tensor.float().mean()) for name, tensor in chosen.tensors.items() if name in SHAPES}
    return chosen.kind, *values


ONE_SET = {
    "a state dict": RAW,
    "a list": [RAW],
    "model, optimizer, epoch, step": [RAW, OPTIMIZER, 3, 1000],
    "a tuple after a number": (3, RAW),
    "state_dict": {"state_dict": RAW, "epoch": 3},
    "model": {"model": RAW, "optimizer": OPTIMIZER},
    "model_state_dict": {"model_state_dict": RAW, "loss": 0.5, "args": {"lr": 1e-3}},
    "an optimizer of named states": {"net": RAW, "adam": {"state": weights(9.0), "param_groups": []}},
    "moments of an optimizer": {"model": RAW, "exp_avg": weights(9.0), "exp_avg_sq": weights(8.0)},
    "a decay beside": {**RAW, "decay": 0.5},
    "a key of one's own": {"mine": {"inner": RAW}},
    "nested": {"model": {"state_dict": RAW}},
    "twice the same": {"model": RAW, "state_dict": dict(RAW)},
    "DataParallel": prefixed("module."),
    "DataParallel, twice": prefixed("module.module."),
    "a compiler": prefixed("_orig_mod."),
    "a compiler in DataParallel": prefixed("module._orig_mod."),
    "DataParallel in a compiler": prefixed("_orig_mod.module."),
    "a compiled part": {name.replace("conv.", "conv._orig_mod."): tensor for name, tensor in RAW.items()},
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "Lightning": {"state_dict": prefixed("model."), "optimizer_states": [OPTIMIZER], "callbacks": {}},
    "Lightning and a compiler": {"state_dict": prefixed("net._orig_mod.")},
    "a diffusion around the network": {"model": {**prefixed("denoise_fn."), "betas": torch.zeros(9)}},
    "an empty average": {"model": RAW, "ema": None, "ema_model": {}},
    "buffers": {**RAW, "blocks.0.norm.num_batches_tracked": torch.tensor(7)},
    "another network beside": {
        "score": RAW,
        "discriminator": {"begin.weight": torch.zeros(1), "fc.weight": torch.ones(2)},
    },
    "gradients of history": {"model": RAW, "losses": [0.1, 0.2], "rng_state": torch.zeros(8, dtype=torch.uint8)},
}

TWO_SETS = {
    "ncsnv2": [prefixed("module."), OPTIMIZER, 3, 1000, AVERAGE],
    "a list without numbers": [RAW, OPTIMIZER, AVERAGE],
    "a list whose average has no names": [RAW, OPTIMIZER, 3, 1000, SHADOW],
    "score_sde": {
        "optimizer": OPTIMIZER,
        "model": {"module.sigmas": torch.ones(5), **prefixed("module.")},
        "ema": {"decay": 0.999, "num_updates": 9, "shadow_params": SHADOW},
        "step": 9,
    },
    "torch_ema": {"model": RAW, "ema": {"decay": 0.9, "shadow_params": SHADOW, "collected_params": list(RAW.values())}},
    "ema": {"model": RAW, "ema": {"module": AVERAGE, "num_updates": 8}},
    "ema_state_dict": {"model_state_dict": RAW, "ema_state_dict": prefixed("module.", AVERAGE)},
    "state_dict_ema": {"state_dict": RAW, "state_dict_ema": AVERAGE},
    "params_ema": {"params": RAW, "params_ema": AVERAGE},
    "capitals": {"net": RAW, "netEMA": AVERAGE},
    "shadow": {"net": RAW, "helper": {"shadow": AVERAGE, "mu": 0.999}},
    "side by side": {**prefixed("online_model."), **prefixed("ema_model.", AVERAGE), "initted": torch.tensor(True)},
    "lucidrains": {
        "step": 3,
        "model": prefixed("model."),
        "ema": {**prefixed("online_model.model."), **prefixed("ema_model.model.", AVERAGE), "step": torch.tensor([3])},
        "scaler": None,
    },
    "names without dots": {
        **prefixed("model."),
        **{"model_ema." + name.replace(".", ""): tensor for name, tensor in AVERAGE.items()},
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(3),
    },
    "AveragedModel": {"model": RAW, "swa": {**prefixed("module.", AVERAGE), "n_averaged": torch.tensor(5)}},
}


@pytest.mark.parametrize("container", ONE_SET)
def test_weights_are_found_in_every_container(container):
    assert taken(ONE_SET[container]) == taken(ONE_SET[container], "raw") == ("raw", 1.0)
    with pytest.raises(
        CheckpointFormatError, match=r"c\.pth holds no averaged weights\. There are: .*\(raw, \d+ tensors"
    ):
        taken(ONE_SET[container], "average")


@pytest.mark.parametrize("container", TWO_SETS)
def test_the_average_is_taken_unless_the_raw_weights_are_wanted(container):
    content = TWO_SETS[container]
    assert taken(content) == taken(content, "average") == ("average", 2.0)
    assert taken(content, "raw") == ("raw", 1.0)
    assert containers.find(content, SHAPES).other_kind("raw") == "average"


def test_an_average_alone_is_not_taken_for_raw_weights():
    for content in ({"ema": RAW}, {**prefixed("module."), "n_averaged": torch.tensor(5)}):
        assert taken(content)[0] == "average"
        with pytest.raises(CheckpointFormatError, match="no raw weights. There are: .*average, 3 tensors"):
            taken(content, "raw")


SEVERAL = {
    "two networks": {"generator": RAW, "discriminator": weights(3.0)},
    "two in a list": [RAW, weights(3.0)],
    "two averages": {"model": RAW, "ema_0.99": AVERAGE, "ema_0.9999": weights(3.0)},
}


@pytest.mark.parametrize("container", SEVERAL)
def test_several_of_one_kind_are_refused_and_listed(container):
    with pytest.raises(
        CheckpointFormatError, match="holds 2 sets of .* weights. There are: .*3 tensors.*; .*3 tensors"
    ):
        taken(SEVERAL[container])


def test_a_list_without_names_must_fit_in_number_and_shape():
    for tensors in (SHADOW[:2], [*SHADOW, torch.zeros(2)], [SHADOW[0], SHADOW[2], SHADOW[1]]):
        content = {"model": RAW, "ema": {"shadow_params": tensors}}
        with pytest.raises(
            CheckpointFormatError, match=r"ema\.shadow_params is a list of \d .*do not fit.*weights=raw"
        ):
            taken(content)
        assert taken(content, "raw") == ("raw", 1.0)


def test_tensors_that_are_not_trained_have_no_average():
    """Frequencies of Fourier features: the first of the raw weights, in no average, and read from the raw weights."""
    frequencies, known = torch.full((7,), 5.0), {"features.W": (7,), **SHAPES}
    raw = {"features.W": frequencies, **RAW, "sigmas": torch.ones(5)}
    averages = {"a list": SHADOW, "a list of every parameter": [frequencies + 1.0, *SHADOW], "by name": AVERAGE}
    for kind, average in averages.items():
        content = {"model": raw, "ema": average if kind == "by name" else {"shadow_params": average}}
        chosen = containers.find(content, known, untrained=("features.W",)).choose(None)
        assert chosen.kind == "average" and float(chosen.tensors["end.bias"][0]) == 2.0, kind
        assert float(chosen.tensors["features.W"][0]) == (6.0 if kind == "a list of every parameter" else 5.0), kind
    with pytest.raises(CheckpointFormatError, match="number 0, begin.weight, must be .* but is"):
        containers.find({"model": raw, "ema": SHADOW[::-1]}, known, untrained=("features.W",)).choose(None)


def test_names_are_found_under_any_prefix():
    assert containers.names([{"module.begin.weight": torch.zeros(1)}, 3], SHAPES) == {"begin.weight"}


def test_a_file_without_the_weights_is_described():
    with pytest.raises(CheckpointFormatError, match=r"no state dict. It holds: 'step' \(int\), 'note' \(str\)"):
        taken({"step": 3, "note": "none"})
    with pytest.raises(
        CheckpointFormatError, match=r"such as begin\.weight. It holds: 'net' \(dict of 1: conv\.weight\)"
    ):
        taken({"net": {"conv.weight": torch.zeros(2)}})
    with pytest.raises(ValueError, match="'raw', 'average' or None. Received: 'ema'"):
        taken(RAW, "ema")


def test_a_file_of_one_tensor_is_described():
    with pytest.raises(CheckpointFormatError, match=r"holds no state dict. It holds: nothing but tensor \(3,\)"):
        containers.find(torch.zeros(3), SHAPES).choose(None)


def test_cyclic_containers_are_searched_once():
    content = {"model": RAW}
    content["self"] = [content]
    assert taken(content) == ("raw", 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_real_dtype_becomes_float32(dtype):
    tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "b": torch.nn.Parameter(torch.ones(2))}
    arrays = torch_files.to_arrays(tensors)
    np.testing.assert_array_equal(arrays["a"], np.arange(6.0).reshape(2, 3))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, dtype=torch.int8),
        torch.zeros(2, dtype=torch.int64),
    ],
)
def test_an_unusual_tensor_is_named(tensor):
    with pytest.raises(CheckpointFormatError, match="a.weight cannot be converted. Expected a dense tensor"):
        torch_files.to_arrays({"a.weight": tensor})
