"""Measures the speed of a network alone, also relative to matrix products and to the authors' PyTorch program.

python -m benchmarks.networks --config=configs/cifar10.py:ncsnpp --image_shape=32,32,3 --batch_size=8
python -m benchmarks.networks --config=configs/cifar10.py:ncsnpp --image_shape=32,32,3 --batch_size=8 --peer=DIR

Prints, for the forward pass and for the gradient of all weights, on random images and with the dropout of training:
seconds, images/s, the convolutions' FLOP/s, also as a fraction of a matrix product's in the same process and dtype, the
FLOP of the other matrix products, which that fraction leaves out (attention, dense layers, the filters of resampling),
seconds to trace, and peak memory. `benchmarks.train_step` and `benchmarks.sample_step` measure whole steps.

With --peer=DIR, a checkout of ermongroup/ncsn, ermongroup/ncsnv2 or yang-song/score_sde_pytorch, both sides are timed
in turns on the same cores, and the ratio of their seconds, ours over theirs, is printed. That needs PyTorch. All
figures are medians over the rounds.
"""

import importlib
import os
import pathlib
import sys
import time
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

from absl import flags

from launch.flags import cli, config

_CONFIG = config.define("The configuration whose network to measure.", required=True)
_SHAPE = flags.DEFINE_list("image_shape", ["32", "32", "3"], "Height, width and channels of the random images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per call.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Calls of either side, in turns.", 1)
_PEER = flags.DEFINE_string("peer", None, "Folder of the authors' PyTorch program, to compare with.")


def main() -> None:
    """Measures."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import measure
    from ncsn_tf import random

    with cli.usage_errors():
        builder, source = measure.builder_for(_CONFIG.value.to_dict(), _SHAPE.value)
        network: Any = builder.network(source.shape)
    dtype = network.compute_dtype
    if _PEER.value and (dtype != "float32" or tf.config.list_physical_devices("GPU")):
        cli.fail(
            f"--peer compares float32 on CPUs: hide the GPUs, and leave network.dtype as it is. Received: {dtype}."
        )
    batch = _BATCH_SIZE.value
    x = tf.random.stateless_uniform((batch, *source.shape), (0, 0))
    # Times of all noise levels, from the first to the last.
    t = tf.constant(builder.grid[np.linspace(0, len(builder.grid) - 1, batch).astype(int)])
    condition = builder.score_model(network).condition(builder.sde, t)
    # All are arguments: what depends on constants alone would be computed only once.
    arguments = [x, random.per_example(random.seed(0), tf.range(batch)), *([] if condition is None else [condition])]
    traced = {kind: _traced(function, arguments) for kind, function in _functions(network).items()}
    with cli.usage_errors():
        theirs = _peer_calls(pathlib.Path(_PEER.value), network, x, condition) if _PEER.value else {}
    measure.report(trainable_weights=_size(network.trainable_variables))
    for kind, (call, figures) in traced.items():
        seconds, rates, peer_seconds = _in_turns(call, theirs.get(kind), dtype)
        flops = 1e9 * figures["convolution_GFLOP"]
        figures |= {
            "seconds": np.median(seconds),
            "images_per_second": batch / np.median(seconds),
            "convolution_GFLOP_per_second": flops / np.median(seconds) / 1e9,
            "matrix_product_GFLOP_per_second": np.median(rates) / 1e9,
            "fraction_of_the_matrix_product": np.median(flops / seconds / rates),
        }
        if theirs:
            ratios = seconds / peer_seconds
            figures |= {"seconds_of_the_peer": np.median(peer_seconds), "ratio_to_the_peer": np.median(ratios)}
            figures |= {"least_ratio": ratios.min(), "greatest_ratio": ratios.max()}
        print(f"\n{kind}", flush=True)
        measure.report(**figures)


# Our side


def _functions(network: Any) -> dict[str, Callable]:
    """The functions to measure: the output, and the norm of the gradient, which waits for all of it."""
    import tensorflow as tf

    def forward(x, seeds, condition=None):
        return network(x, condition)

    def gradient(x, seeds, condition=None):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(x, condition, dropout_seeds=seeds) ** 2)
        return tf.linalg.global_norm(tape.gradient(loss, [weight.value for weight in network.trainable_variables]))

    return {"forward": forward, "gradient": gradient}


def _traced(function: Callable, arguments: list) -> tuple[Callable[[], object], dict[str, float]]:
    """A call that waits for its result, taken once, and figures of its tracing, its memory and its graph."""
    import tensorflow as tf

    from benchmarks import measure
    from ncsn_tf import determinism

    specs = [tf.TensorSpec(argument.shape, argument.dtype) for argument in arguments]
    begun = time.perf_counter()
    compiled = tf.function(function, autograph=False).get_concrete_function(*specs)
    figures = {"seconds_to_trace": time.perf_counter() - begun}

    def call():
        with determinism.repeatable_gradients():  # as in training
            return compiled(*arguments).numpy()

    call()
    figures["peak_memory_GiB"] = measure.peak_memory_gib()
    figures["convolution_GFLOP"] = measure.convolution_flops(function, *specs) / 1e9
    figures["other_matrix_products_GFLOP"] = _matrix_product_flops(compiled.graph) / 1e9
    return call, figures


def _matrix_product_flops(graph) -> int:
    """Floating-point operations of all matrix products in a graph."""
    total = 0
    for op in graph.get_operations():
        if op.type in ("MatMul", "BatchMatMulV2", "BatchMatMulV3"):
            transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            inner = op.inputs[0].shape[-2 if transposed else -1]
            total += 2 * inner * op.outputs[0].shape.num_elements()
    return total


def _in_turns(ours: Callable, theirs: Callable | None, dtype: str):
    """Seconds of our calls, FLOP/s of matrix products and seconds of the peer's calls, one of each per round.

    Each round has its own matrix product, because the rate of a shared machine changes. The first round warms up.
    """
    import numpy as np

    from benchmarks import measure

    rows = []
    for _ in range(_ROUNDS.value + 1):
        rows.append([_seconds(ours), measure.matrix_product_rate(dtype), _seconds(theirs) if theirs else 0.0])
    return np.array(rows[1:]).T


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _size(weights) -> int:
    """The number of elements of all weights."""
    return sum(weight.value.shape.num_elements() for weight in weights)


# The peer's side


def _peer_calls(folder: pathlib.Path, network, x, condition) -> dict[str, Callable[[], object]]:
    """The calls of the authors' program that correspond to ours."""
    import numpy as np
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    peer = _peer(folder, network, x.shape[1:])
    weights = sum(weight.numel() for weight in peer.parameters() if weight.requires_grad)
    if weights != (own := _size(network.trainable_variables)):
        raise ValueError(f"The network in {folder} is another: it has {weights} trainable weights, ours has {own}.")
    images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x.numpy(), -1, 1)))
    given = torch.zeros(len(images), dtype=torch.long) if condition is None else torch.from_numpy(condition.numpy())
    given = given if given.is_floating_point() else given.long()

    def forward():
        with torch.no_grad():
            return peer.eval()(images, given)

    def gradient():
        peer.train().zero_grad()
        (peer(images, given) ** 2).sum().backward()

    return {"forward": forward, "gradient": gradient}


def _peer(folder: pathlib.Path, network: Any, shape):
    """The network of the authors' program with the arguments of ours, a `torch.nn.Module`."""
    from ncsn_tf.networks.unet import UNet

    if isinstance(network, UNet):
        module, name = ("ncsnpp", "NCSNpp") if network.groups is None else ("ddpm", "DDPM")
        model = _unet_settings(network)
    else:
        module, name = _refinenet_class(folder, network)
        model = _refinenet_settings(network)
    data = types.SimpleNamespace(
        image_size=shape[0],
        channels=shape[2],
        num_channels=shape[2],
        centered=not network.centre_input,
        rescaled=not network.centre_input,
        logit_transform=False,
    )
    training = types.SimpleNamespace(continuous=True)
    settings = types.SimpleNamespace(data=data, model=model, training=training, device="cpu")
    sys.path.insert(0, str(folder))
    # Without its CUDA kernel, which it would compile when imported, the program filters by plain operations, as it does
    # on a CPU with the kernel.
    with mock.patch("torch.utils.cpp_extension.load"):
        return getattr(importlib.import_module(f"models.{module}"), name)(settings)


def _refinenet_class(folder: pathlib.Path, network: Any) -> tuple[str, str]:
    """The program's module and class."""
    from ncsn_tf.networks.ncsnv2 import NCSNv2

    if isinstance(network, NCSNv2):
        return "ncsnv2", {4: "NCSNv2", 5: "NCSNv2Deeper", 6: "NCSNv2Deepest"}[len(network.stages)]
    if (folder / "models" / "ncsn.py").exists():
        return "ncsn", "NCSN"
    return "cond_refinenet_dilated", "CondRefineNetDilated"


def _refinenet_settings(network: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        ngf=network.filters,
        num_classes=getattr(network, "num_levels", 1),
        normalization="InstanceNorm++",
        nonlinearity="elu",
        spec_norm=False,
        sigma_dist="geometric",
        sigma_begin=1.0,
        sigma_end=1.0,
    )


def _unet_settings(network: Any) -> types.SimpleNamespace:
    sigma_max, sigma_min, levels = (50.0, 0.01, 1000)
    if isinstance(network.output_sigmas, tuple):
        sigma_max, sigma_min, levels = network.output_sigmas
    return types.SimpleNamespace(
        nf=network.filters,
        ch_mult=network.multipliers,
        num_res_blocks=network.blocks,
        attn_resolutions=network.attention,
        resblock_type=network.block,
        fir=network.resampling == "fir",
        fir_kernel=[1, 3, 3, 1],
        resamp_with_conv=network.resampling_convolution,
        progressive=network.progressive_output,
        progressive_input=network.progressive_input,
        progressive_combine=network.combiner,
        embedding_type="positional" if network.embedding == "positional" else "fourier",
        fourier_scale=network.fourier_scale,
        conditional=network.embedding != "none",
        dropout=network.dropout,
        skip_rescale=network.rescale_skips,
        init_scale=network.init_scale,
        scale_by_sigma=network.output_sigmas is not None,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        num_scales=int(levels),
        nonlinearity="swish",
        normalization="GroupNorm",
    )


if __name__ == "__main__":
    cli.run(main)
