"""Measures what the driver and the method add to a step of a sampler, besides the network's evaluations.

python -m benchmarks.driver_overhead --config=configs/digits.py:edm --image_shape=28,28,1 --batch_size=32

A walk of `driver.FixedSteps` and as many calls of the network alone, in one compiled loop, take turns on random images.
Prints for each method the milliseconds of a step, and the rest beyond the network's calls as a part of the step: the
median over the rounds, the least and the greatest.
"""

import statistics
import time

from absl import flags

from launch.flags import cli, config

_CONFIG = config.define("The configuration whose network and SDE to measure.", required=True)
_SHAPE = flags.DEFINE_list("image_shape", ["28", "28", "1"], "Height, width and channels of the samples.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Samples drawn together.", 1)
_METHODS = flags.DEFINE_list("methods", ["ddim", "heun", "unipc", "dpm_solver_sde"], "Names of `methods.STEPS`.")
_STEPS = flags.DEFINE_integer("steps", 6, "Steps of a walk.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds in which each side is timed once.", 1)


def main() -> None:
    """Measures."""
    import tensorflow as tf

    from benchmarks import measure
    from ncsn_tf import random, samplers

    batch = _BATCH_SIZE.value
    with cli.usage_errors():
        builder, source = measure.builder_for(_CONFIG.value.to_dict(), _SHAPE.value)
        model = builder.score_model(builder.network(source.shape))
        options = {"grid": "log_snr", "denoise": False}
        made = {name: samplers.make(name, builder.sde, _STEPS.value, **options) for name in _METHODS.value}
    seeds = random.per_example(random.seed(0), tf.range(batch))
    x = tf.random.stateless_normal((batch, *source.shape), (0, 0))
    condition = model.condition(builder.sde, tf.fill([batch], 0.5))

    @tf.function(autograph=False)
    def network_alone(x: tf.Tensor, calls: tf.Tensor) -> tf.Tensor:
        # Each call has the result of the one before: calls that are all the same would be taken out of the loop.
        return tf.while_loop(
            lambda k, _: k < calls, lambda k, x: (k + 1, model.network(x, condition) + x), (tf.constant(0), x)
        )[1]

    print("| method | evaluations per step | ms per step | the rest, % of the step | least | greatest |")
    print("|---|---|---|---|---|---|")
    for name, sampler in made.items():
        calls = int(sampler(model.score, x, seeds).evaluations[0])
        network_alone(x, tf.constant(calls))
        steps, parts = [], []
        for _ in range(_ROUNDS.value):
            begun = time.perf_counter()
            sampler(model.score, x, seeds).x.numpy()
            between = time.perf_counter()
            network_alone(x, tf.constant(calls)).numpy()
            step, alone = between - begun, time.perf_counter() - between
            steps.append(1e3 * step / _STEPS.value)
            parts.append(100.0 * (step - alone) / step)
        figures = statistics.median(steps), statistics.median(parts), min(parts), max(parts)
        shown = " | ".join(f"{figure:.3g}" for figure in figures)
        print(f"| {name} | {calls // _STEPS.value} | {shown} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
