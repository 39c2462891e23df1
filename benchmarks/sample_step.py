"""Measures the speed of a sampler step, also relative to the machine's rate of matrix products.

python -m benchmarks.sample_step --config=configs/digits.py --image_shape=8,8,1 --batch_size=64

Prints images/s for one step (score, noise and update inside the compiled loop), the convolutions' FLOP/s as a fraction
of a matrix product's, seconds to trace and compile, and peak memory; and, in the same process, the network alone: in a
plain `tf.function` with its normalisation written op by op, as it is, and as it is under XLA.
"""

import time

from absl import flags

from launch.flags import cli, config

_CONFIG = config.define("The configuration to measure.", required=True)
_SHAPE = flags.DEFINE_list("image_shape", ["28", "28", "1"], "Height, width and channels of the samples.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Samples drawn together.", 1)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps in each of the five timed loops.", 1)


def main() -> None:
    """Measures."""
    import tensorflow as tf

    from benchmarks import measure
    from ncsn_tf import random, times
    from ncsn_tf.samplers import driver, langevin

    builder, source = measure.builder_for(_CONFIG.value.to_dict(), _SHAPE.value)
    network = builder.network(source.shape)
    batch = _BATCH_SIZE.value
    sampler = driver.FixedSteps(
        builder.sde,
        langevin.Langevin(langevin.annealed(builder.sde, builder.sampler_options.epsilon)),
        times.repeat_times(builder.grid[:1], _STEPS.value),
        jit_compile=builder.sampler_options.jit_compile,
    )
    score_fn = builder.score_model(network).score
    rows = random.per_example(random.seed(0), tf.range(batch))
    x = driver.uniform_prior(rows, source.shape)
    begun = time.perf_counter()
    sampler(score_fn, x, rows).x.numpy()
    first = time.perf_counter() - begun
    step = measure.seconds(lambda: sampler(score_fn, x, rows).x.numpy()) / _STEPS.value

    level = tf.zeros([batch], tf.int32)

    def forward(jit_compile=False):
        compiled = tf.function(lambda x: network(x, level), autograph=False, jit_compile=jit_compile)
        return 1e3 * measure.seconds(lambda: compiled(x).numpy(), repeats=_STEPS.value)

    with measure.normalisation_op_by_op():
        unfolded = forward()
    specs = tf.TensorSpec((batch, *source.shape)), tf.TensorSpec((batch,), tf.int32)
    flops = measure.convolution_flops(network, *specs)
    ceiling = measure.matrix_product_rate(network.compute_dtype)
    measure.report(
        images_per_second=batch / step,
        milliseconds_per_step=1e3 * step,
        milliseconds_of_the_network_op_by_op=unfolded,
        milliseconds_of_the_network=forward(),
        milliseconds_of_the_network_under_XLA=forward(jit_compile=True),
        convolution_GFLOP_per_step=flops / 1e9,
        convolution_GFLOP_per_second=flops / step / 1e9,
        matrix_product_GFLOP_per_second=ceiling / 1e9,
        fraction_of_the_matrix_product=flops / step / ceiling,
        seconds_to_trace_and_compile=first - _STEPS.value * step,
        peak_memory_GiB=measure.peak_memory_gib(),
    )


if __name__ == "__main__":
    cli.run(main)
