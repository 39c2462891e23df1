"""Compares the speed of an exported model with that of the one in the training process, and times the export.

python -m benchmarks.export --config=configs/digits.py --image_shape=8,8,1 --batch_size=64

Prints, for `score` and for `sample`, the median seconds of a call in the process and of the same call of the loaded
SavedModel, taken in turns, and their ratio; then the seconds of exporting and of loading, and the export's bytes. The
weights are random. Both sides run without XLA, whatever the configuration says: an export is not compiled for one batch
size.
"""

import functools
import pathlib
import statistics
import tempfile
import time

from absl import flags

from launch.flags import cli, config

_CONFIG = config.define("The configuration to measure.", required=True)
_SHAPE = flags.DEFINE_list("image_shape", ["28", "28", "1"], "Height, width and channels of the images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images per call.", 1)
_STEPS = flags.DEFINE_integer("steps_per_level", 3, "Steps at each level of `sample`.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Calls of either side, in turns.", 1)


def main() -> None:
    """Measures."""
    import tensorflow as tf

    from benchmarks import measure
    from ncsn_tf import random
    from ncsn_tf.samplers import blocks
    from ncsn_tf.serving import export

    values = _CONFIG.value.to_dict()
    values["sampler"] |= {"jit_compile": False, "steps_per_level": _STEPS.value}
    builder, source = measure.builder_for(values, _SHAPE.value)
    network, shape, batch = builder.network(source.shape), source.shape, _BATCH_SIZE.value
    score_fn = builder.score_model(network).score
    model = export.ServedModel(
        network,
        builder.score_model,
        sampler=functools.partial(builder.sampler, jit_compile=False),
        tunable=builder.tunable,
        prior=builder.prior,
        sde=builder.sde,
        grid=builder.grid,
        value_range=builder.value_range,
        shape=shape,
    )
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        path = export.save(model, pathlib.Path(folder), {})
        saved = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        begun = time.perf_counter()
        loaded, _ = export.load(path)
        read = time.perf_counter() - begun

        x = random.uniform(random.per_example(random.seed(0), tf.range(batch)), shape)
        sigma = tf.fill([batch], float(builder.sigmas[0]))
        inside = tf.function(lambda x, sigma: score_fn(x, builder.sde.time(sigma)), autograph=False)
        sampler = builder.sampler()
        signatures = loaded.signatures

        @tf.function(autograph=False)
        def whole():
            rows, start, _ = blocks.start_samples(tf.range(batch), builder.prior, shape, run_seed=0)
            return sampler(score_fn, start, rows).x

        def draw():
            return whole().numpy()

        seeds = tf.range(batch, dtype=tf.int64)
        calls = {
            "score": (
                lambda: inside(x, sigma).numpy(),
                lambda: signatures["score"](x=x, sigma=sigma)["score"].numpy(),
            ),
            "sample": (draw, lambda: signatures["sample"](seed=seeds)["samples_float"].numpy()),
        }
        for name, (here, there) in calls.items():
            in_process, exported = _in_turns(here, there)
            print(
                f"{name}: {1e3 * in_process:.1f} ms in the process, {1e3 * exported:.1f} ms exported, "
                f"ratio {exported / in_process:.3f}",
                flush=True,
            )
    print(f"export {saved:.1f} s, load {read:.1f} s, {size / 2**20:.1f} MiB")


def _in_turns(first, second) -> tuple[float, float]:
    """Median seconds of two calls, one after the other in each round; the first round traces and is not counted."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS.value + 1):
        for call, seconds in zip((first, second), taken, strict=True):
            begun = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begun)
    return statistics.median(taken[0][1:]), statistics.median(taken[1][1:])


if __name__ == "__main__":
    cli.run(main)
