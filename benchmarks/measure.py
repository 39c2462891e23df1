"""Functions that the benchmarks share: timing, counting the FLOP of convolutions, and the machine's peak rate."""

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from keras import ops

from ncsn_tf.config import build
from ncsn_tf.data.images import ImageSource
from ncsn_tf.networks import layers


def builder_for(config: dict, image_shape: list[str]) -> tuple[build.Builder, ImageSource]:
    """The objects of a configuration over random images of a shape, so that no data set is needed."""
    shape = tuple(int(side) for side in image_shape)
    pixels = np.random.default_rng(0).integers(0, 256, (2048, *shape), np.uint8)
    return build.Builder(config), ImageSource("random", pixels)


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of a call that waits for its result, after one call that is not counted."""
    function()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def matrix_product_rate(dtype: str, size: int = 2048) -> float:
    """FLOP/s of a square matrix product, the peak rate that convolutions are compared with."""
    a = tf.cast(tf.random.stateless_normal((size, size), (0, 0)), dtype)
    multiply = tf.function(lambda a: tf.reduce_sum(tf.cast(a @ a, tf.float32)))
    return 2.0 * size**3 / seconds(lambda: multiply(a).numpy())


def convolution_flops(function: Callable, *specs: tf.TensorSpec) -> int:
    """Floating-point operations of all convolutions, forward and backward, in the graph that a function traces to."""
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    total = 0
    for op in graph.get_operations():
        if op.type == "Conv2D":
            kernel, outputs = op.inputs[1].shape, op.outputs[0].shape
        elif op.type == "Conv2DBackpropInput":
            kernel, outputs = op.inputs[1].shape, op.inputs[2].shape
        elif op.type == "Conv2DBackpropFilter":
            kernel, outputs = op.outputs[0].shape, op.inputs[2].shape
        else:
            continue
        height, width, in_filters, _ = kernel
        total += 2 * outputs.num_elements() * height * width * in_filters
    return total


@contextlib.contextmanager
def normalisation_op_by_op() -> Iterator[None]:
    """Traces instance norm++ in this context as its formula is written, to measure the gain of folding it."""

    def call(self, x, encoding):
        gamma, alpha, beta = (ops.matmul(encoding, self.table[:, part])[:, None, None, :] for part in range(3))
        mean, variance = ops.moments(x, axes=(1, 2), keepdims=True)
        m = ops.mean(mean, axis=-1, keepdims=True)
        v = ops.sum((mean - m) ** 2, axis=-1, keepdims=True) / (self.features - 1)
        h = (x - mean) / ops.sqrt(variance + self.epsilon) + alpha * (mean - m) / ops.sqrt(v + self.epsilon)
        return gamma * h + beta

    folded = layers.ConditionalInstanceNormPlusPlus.call
    layers.ConditionalInstanceNormPlusPlus.call = call
    try:
        yield
    finally:
        layers.ConditionalInstanceNormPlusPlus.call = folded


def peak_memory_gib() -> float:
    """The largest resident set of this process so far, or of the first GPU's memory where there is one."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_memory_info(gpus[0].name)["peak"] / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def report(**figures: float) -> None:
    """Prints one line per figure."""
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):48s} {value:12.4g}")
