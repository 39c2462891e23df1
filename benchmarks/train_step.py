"""Measures the speed of a training step, also relative to the machine's rate of matrix products.

python -m benchmarks.train_step --config=configs/mnist.py --image_shape=28,28,1 --config.network.filters=64

Prints images/s of whole steps (data, noise, gradient, Adam, average), the convolutions' FLOP/s in such a step as a
fraction of a matrix product's in the same process and dtype, seconds to trace and compile, and peak memory.
"""

import time

from absl import flags

from launch.flags import cli, config, devices

_CONFIG = config.define("The configuration to measure.", required=True)
_DEVICES = devices.define()
_SHAPE = flags.DEFINE_list("image_shape", ["28", "28", "1"], "Height, width and channels of the random images.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps in each of the five timed loops.", 1)


def main() -> None:
    """Measures."""
    import tensorflow as tf

    from benchmarks import measure

    strategy = _DEVICES.create()
    builder, source = measure.builder_for(_CONFIG.value.to_dict(), _SHAPE.value)
    trainer = builder.trainer(strategy, source.shape)
    iterator = iter(builder.batches(source, strategy, 0))
    begun = time.perf_counter()
    trainer.run(iterator, 1)
    first = time.perf_counter() - begun
    step = measure.seconds(lambda: trainer.run(iterator, _STEPS.value)) / _STEPS.value

    batch = builder.training.batch_size
    network = trainer.network

    def gradients(x, level):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(x, level) ** 2)
        return tape.gradient(loss, network.trainable_variables)

    specs = tf.TensorSpec((batch, *source.shape)), tf.TensorSpec((batch,), tf.int32)
    flops = measure.convolution_flops(gradients, *specs)
    ceiling = measure.matrix_product_rate(network.compute_dtype)
    measure.report(
        images_per_second=batch / step,
        milliseconds_per_step=1e3 * step,
        convolution_GFLOP_per_step=flops / 1e9,
        convolution_GFLOP_per_second=flops / step / 1e9,
        matrix_product_GFLOP_per_second=ceiling / 1e9,
        fraction_of_the_matrix_product=flops / step / ceiling,
        seconds_to_trace_and_compile=first - step,
        peak_memory_GiB=measure.peak_memory_gib(),
    )


if __name__ == "__main__":
    cli.run(main)
