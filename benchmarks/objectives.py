"""Measures the cost of a gradient step of each objective: time, memory, and variance of the gradient.

python -m benchmarks.objectives --objectives=sliced_1,sliced_1_reduced,sliced_1_forward_mode,sliced_4,sliced_4_apart
python -m benchmarks.objectives --model=mlp --dimensions=2,8,64,512,4096
python -m benchmarks.objectives --model=mlp --ways --directions=32
python -m benchmarks.objectives --what=memory
python -m benchmarks.objectives --what=variance --dimensions=2,64

time: seconds of the loss and of its gradient with respect to all weights, for given noise and slices, relative to
denoising. The objectives take turns, so that both sides of a ratio are measured close in time; the table has the
median, least and greatest over the rounds. Exact score matching in more than 64 dimensions is timed on --directions
of them and extrapolated. With --ways the table compares the alternatives of the library: slices and directions
together or in a loop.

memory: the growth of the peak resident set when a process that has taken a step with one example takes one with the
whole batch. Each objective has its own process, because the peak never falls.

variance: on a network fitted to a mixture of two Gaussians, at one sigma. The examples stay the same, while z and the
slices are redrawn; v(g) is the sum over all weights of the variance of the gradient, per example. Given the examples,
all objectives have the same mean gradient (by Stein's lemma the cross term of denoising is the trace of exact), so
v(g) times the time of a step is the time for equal precision. The part of the slices is measured as the mean square
distance to the gradient of `exact` at the same z; the rest is due to z, as for `exact`.
"""

import functools
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

from absl import flags

from launch.flags import cli

_WHAT = flags.DEFINE_enum("what", "time", ["time", "memory", "variance"], "What to measure.")
_MODEL = flags.DEFINE_enum("model", "ncsn", ["ncsn", "mlp"], "The score network; for the variance always the MLP.")
_SHAPE = flags.DEFINE_list("image_shape", ["28", "28", "1"], "Height, width and channels of NCSN's images.")
_FILTERS = flags.DEFINE_integer("filters", 64, "NCSN's width.", 2)
_DIMENSIONS = flags.DEFINE_list("dimensions", ["2", "8", "64", "512", "4096"], "Lengths of the MLP's vectors.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Examples per step; by default 32 for NCSN, 128 for the MLP.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds in which each objective is timed once.", 1)
_JIT = flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles the steps.")
_DIRECTIONS = flags.DEFINE_integer("directions", 4, "Number of directions of `exact` to time if D is above 64.", 2)
_WAYS = flags.DEFINE_bool("ways", False, "Whether to compare alternative implementations in the library.")
_OBJECTIVES = flags.DEFINE_list("objectives", [], "Time and memory of these beside denoising; by default of all.")
_ONLY = flags.DEFINE_string("only", None, "The one objective whose memory this process is to print, as JSON.")
_SIGMAS = flags.DEFINE_list("sigmas", ["0.1", "1", "3"], "Noise levels at which to measure the variance.")
_REDRAWS = flags.DEFINE_integer("redraws", 400, "Redraws of the noise; the variance is taken over pairs of them.", 4)
_FRESH = flags.DEFINE_bool("fresh_data", False, "Whether to draw the examples anew as well.")

_SLICES = 4
_TIMEOUT = 450  # seconds that a process may take to measure its memory


def measured(dimensions: int) -> int:
    """The number of directions of `exact` that are measured."""
    return dimensions if dimensions <= 64 else min(dimensions, _DIRECTIONS.value)


def candidates(dimensions: int) -> dict[str, Callable]:
    """Losses, (score_fn, sde, x, t, z, v) -> [B], by the names that the tables give them; the unit first."""
    import tensorflow as tf

    from ncsn_tf import objectives, weightings

    count = measured(dimensions)
    partial = functools.partial

    def sliced(*arguments, slices, together=objectives._FEW_DIMENSIONS, **options):
        *others, v = arguments
        with mock.patch.object(objectives, "_FEW_DIMENSIONS", together):
            return objectives.annealed_sliced(*others, v[:, :slices], **options)

    def sliced_apart(score_fn, sde, x, t, z, v, slices):  # a copy of each example for each slice
        x, t, z = (tf.repeat(part, slices, axis=0) for part in (x, t, z))
        v = tf.reshape(v[:, :slices], [-1, 1, *x.shape[1:]])
        losses = objectives.annealed_sliced(score_fn, sde, x, t, z, v)
        return tf.reduce_mean(tf.reshape(losses, [-1, slices]), axis=1)

    def sliced_forward_mode(score_fn, sde, x, t, z, v):
        x, v = objectives.perturb(sde, x, t, z), v[:, 0]
        axes = tuple(range(1, x.shape.rank))
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            score = score_fn(x, t)
        curvature = tf.reduce_sum(v * accumulator.jvp(score), axis=axes)
        return weightings.sigma_squared(sde, t) * (curvature + 0.5 * tf.reduce_sum(v * score, axis=axes) ** 2)

    def exact(score_fn, sde, x, t, z, v, at_once=None):
        if count == dimensions:
            return objectives.annealed_exact(score_fn, sde, x, t, z, directions_at_once=at_once)
        flat = tf.reshape(objectives.perturb(sde, x, t, z), [-1, dimensions])

        def part(first, t):  # the score of the values to measure, the others given
            whole = tf.concat([first, flat[:, count:]], axis=1)
            return tf.reshape(score_fn(tf.reshape(whole, [-1, *x.shape[1:]]), t), [-1, dimensions])[:, :count]

        losses = objectives.exact(part, flat[:, :count], t, directions_at_once=at_once or 1)
        return weightings.sigma_squared(sde, t) * losses

    table: dict = {"denoising": lambda *arguments: objectives.annealed_denoising(*arguments[:-1])}
    if _WAYS.value:
        for name, limit in (("together", math.inf), ("in_a_loop", 0)):
            table[f"sliced_4_{name}"] = partial(sliced, slices=4, together=limit)
        # No more than half of what is measured, or it would be no sweep; all where that is all there is.
        ways = [n for n in (1, 4, 16, 64, 256) if 2 * n <= count] + [dimensions] * (count == dimensions)
        return table | {f"exact_{n}_at_once": partial(exact, at_once=n) for n in ways}
    for slices in (1, 2, _SLICES):
        table[f"sliced_{slices}"] = partial(sliced, slices=slices)
        table[f"sliced_{slices}_reduced"] = partial(sliced, slices=slices, variance_reduced=True)
        table[f"sliced_{slices}_apart"] = partial(sliced_apart, slices=slices)
    del table["sliced_1_apart"]
    return table | {"sliced_1_forward_mode": sliced_forward_mode, "exact": exact}


def chosen(name: str) -> bool:
    """Returns whether an objective is to be measured."""
    return not _OBJECTIVES.value or name == "denoising" or name in _OBJECTIVES.value


def model(shape: tuple[int, ...], ve, grid):
    """A network with random weights for vectors or images, and its score function."""
    from ncsn_tf import score
    from ncsn_tf.networks.mlp import MLP
    from ncsn_tf.networks.ncsn import NCSN
    from ncsn_tf.score import ScoreModel

    if len(shape) == 1:
        network = MLP(*shape, len(grid), seed=0)
    else:
        network = NCSN(shape[-1], len(grid), _FILTERS.value, centre_input=False, seed=0)
    network.build((None, *shape), (None,))
    return network, ScoreModel(network, ve, condition=score.nearest_level(grid)).score


def loss_and_gradients(network, loss: Callable, *arguments) -> list:
    """The mean loss and its gradient in each of the weights."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = tf.reduce_mean(loss(*arguments))
    return [value, *tape.gradient(value, network.trainable_variables, unconnected_gradients="zero")]


def batch_of(shape: tuple[int, ...], batch: int):
    """The arguments of a step: x, t, z and v."""
    import tensorflow as tf

    from ncsn_tf import random

    rows = random.per_example(random.seed(0), tf.range(batch))
    x, z = (random.normal(random.fold_each(rows, n), shape) for n in (1, 2))
    return x, tf.cast(tf.range(batch) % 10, tf.float32) / 9.0, z, random.normal(rows, (_SLICES, *shape))


def compiled_step(shape: tuple[int, ...], batch: int | None, loss: Callable) -> Callable:
    """step(x, t, z, v) -> [2], the loss and its gradient's norm, so that waiting for it waits for everything."""
    import tensorflow as tf

    from ncsn_tf import sde, times

    ve = sde.VE(sigma_max=1.0, sigma_min=0.01)
    network, score_fn = model(shape, ve, times.uniform(10))

    def step(x, t, z, v):
        value, *gradients = loss_and_gradients(network, loss, score_fn, ve, x, t, z, v)
        return tf.stack([value, tf.linalg.global_norm(gradients)])

    specs = [tf.TensorSpec((batch, *rest)) for rest in (shape, (), shape, (_SLICES, *shape))]
    return tf.function(step, specs, autograph=False, jit_compile=_JIT.value)


def seconds(step: Callable[[], object], least: float = 0.0) -> float:
    """Seconds of a call; short ones are repeated for as long as `least`."""
    begun, calls, taken = time.perf_counter(), 0, 0.0
    while not calls or taken < least:
        step()
        calls, taken = calls + 1, time.perf_counter() - begun
    return taken / calls


def report_time(shape: tuple[int, ...], batch: int) -> None:
    """Prints the table of one network."""
    arguments = batch_of(shape, batch)
    dimensions = math.prod(shape)

    def waiting(loss):
        step = compiled_step(shape, batch, loss)
        return lambda: step(*arguments).numpy()

    steps = {name: waiting(loss) for name, loss in candidates(dimensions).items() if chosen(name)}
    first = {name: seconds(step) for name, step in steps.items()}
    rounds = [{name: seconds(step, 0.2) for name, step in steps.items()} for _ in range(_ROUNDS.value)]
    print(f"{'objective':24s} {'ms':>10s} {'ratio':>9s} {'least':>9s} {'greatest':>9s} {'first call, s':>14s}")
    for name in steps:
        # Besides its directions, `exact` takes the score and the gradient of its square: as much as denoising.
        scale = dimensions / measured(dimensions) if name.startswith("exact") else 1.0
        ratios = [1.0 + scale * (one[name] / one["denoising"] - 1.0) for one in rounds]
        taken = statistics.median(ratio * one["denoising"] for ratio, one in zip(ratios, rounds, strict=True))
        spread = " ".join(f"{value:9.2f}" for value in (statistics.median(ratios), min(ratios), max(ratios)))
        label = f"{name} *" if scale > 1.0 else name
        print(f"{label:24s} {1e3 * taken:10.2f} {spread} {first[name]:14.1f}", flush=True)
    if measured(dimensions) < dimensions and any(name.startswith("exact") for name in steps):
        print(f"* extrapolated from {measured(dimensions)} of {dimensions} directions")


def added_memory(shape: tuple[int, ...], batch: int, name: str) -> float:
    """MiB by which the peak grows from a step with one example, which compiles, to one with the whole batch."""
    from benchmarks import measure

    step = compiled_step(shape, None, candidates(math.prod(shape))[name])
    peaks = []
    for arguments in [batch_of(shape, size) for size in (1, batch)]:  # all drawn first: that takes memory too
        step(*arguments).numpy()
        peaks.append(measure.peak_memory_gib())
    return 1024.0 * (peaks[1] - peaks[0])


def report_memory(shape: tuple[int, ...], batch: int) -> None:
    """Prints the table of one network; each objective is measured in its own process."""
    unit = None
    print(f"{'objective':24s} {'MiB':>10s} {'ratio':>9s}")
    for name in filter(chosen, candidates(math.prod(shape))):
        command = [sys.executable, "-m", "benchmarks.objectives", *sys.argv[1:]]
        command += [f"--dimensions={shape[0]}", f"--only={name}"]  # of a flag that is given twice the last counts
        printed = subprocess.check_output(command, text=True, timeout=_TIMEOUT)
        added = json.loads(printed.splitlines()[-1])["MiB"]
        unit = added if unit is None else unit
        print(f"{name:24s} {added:10.1f} {added / unit:9.2f}", flush=True)


def fitted(mixture, ve, grid):
    """An MLP that has learned the mixture's scores at the grid's times, and its score function."""
    import keras
    import tensorflow as tf

    from ncsn_tf import objectives, random

    network, score_fn = model(mixture.shape, ve, grid)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(network.trainable_variables)

    @tf.function(autograph=False)
    def train(number):
        rows = random.fold_each(random.per_example(random.seed(1), tf.range(512)), number)
        x, z = mixture.sample(rows), random.normal(random.fold_each(rows, 9), mixture.shape)
        t = tf.gather(tf.constant(grid), tf.range(512) % len(grid))
        _, *gradients = loss_and_gradients(network, objectives.annealed_denoising, score_fn, ve, x, t, z)
        optimizer.apply(gradients, network.trainable_variables)

    for number in range(3000):
        train(tf.constant(number))
    return network, score_fn


def report_variance(shape: tuple[int, ...], batch: int) -> None:
    """Prints one table per sigma."""
    import numpy as np
    import tensorflow as tf

    from ncsn_tf import random, sde
    from ncsn_tf.densities import toy

    sigmas = np.array(sorted(map(float, _SIGMAS.value), reverse=True))
    ve = sde.VE(sigma_max=1.01 * sigmas[0], sigma_min=0.99 * sigmas[-1])
    grid = ve.time(sigmas).numpy()
    mean = np.full(shape, 5.0 * math.sqrt(2.0 / shape[0]))  # as far apart as the two modes of the plane
    mixture = toy.Mixture(np.array([0.2, 0.8]), np.stack([-mean, mean]))
    network, score_fn = fitted(mixture, ve, grid)
    spherical = functools.partial(random.spherical, event_rank=1)
    laws = {"normal": random.normal, "rademacher": random.rademacher, "spherical": spherical}
    rows = random.per_example(random.seed(2), tf.range(batch))

    @tf.function(autograph=False)
    def draw(number):
        again = random.fold_each(rows, number)
        x = mixture.sample(again if _FRESH.value else rows)
        v = {
            name: law(random.fold_each(again, 10 + n), (_SLICES, *shape)) for n, (name, law) in enumerate(laws.items())
        }
        return x, random.normal(random.fold_each(again, 9), shape), v

    def gradient_of(loss):
        def gradient(*arguments):
            _, *parts = loss_and_gradients(network, loss, score_fn, ve, *arguments)
            return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)

        return tf.function(gradient, autograph=False, jit_compile=_JIT.value)

    table = candidates(*shape)
    compiled = {name: ("normal", gradient_of(table[name])) for name in ("exact", "denoising")}
    for law, name in itertools.product(laws, ("sliced_1", "sliced_1_reduced", "sliced_4", "sliced_4_reduced")):
        compiled[f"{name}_{law}"] = law, gradient_of(table[name])
    for sigma, t in zip(sigmas, grid, strict=True):
        print(f"\nsigma = {sigma:g}, relative to one normal slice")
        print_variances(redrawn(compiled, draw, tf.fill([batch], t)), batch)


def redrawn(compiled, draw, t) -> dict:
    """For each name, a row for each pair of redraws.

    A row has half the squared distance between the two gradients, the mean squared distance to those of `exact`, and
    the seconds of the second.
    """
    import numpy as np
    import tensorflow as tf

    rows = {name: [] for name in compiled}
    both = {}
    for pair in range(1 + _REDRAWS.value // 2):
        drawn = [draw(tf.constant(2 * pair + n)) for n in range(2)]
        for name, (law, gradient) in compiled.items():
            calls = [functools.partial(gradient, x, t, z, v[law]) for x, z, v in drawn]
            first = calls[0]().numpy()  # not timed: it bears what the objective before has left
            begun = time.perf_counter()
            second = calls[1]().numpy()
            taken = time.perf_counter() - begun
            both[name] = np.stack([first, second])
            apart = 0.5 * np.sum((first - second) ** 2)
            rows[name].append([apart, 0.5 * np.sum((both[name] - both["exact"]) ** 2), taken])
    return {name: np.array(own[1:], np.float64) for name, own in rows.items()}  # the first call compiles


def print_variances(figures: dict, batch: int) -> None:
    """Prints one line per objective; the standard error is that of v(g)."""
    unit = figures["sliced_1_normal"]
    variance = unit[:, 0].mean()
    print(f"one normal slice: v(g) = {batch * variance:.4g} an example, {1e3 * statistics.median(unit[:, 2]):.3g} ms")
    print(f"{'objective':30s} {'v(g)':>9s} {'st. error':>9s} {'of slices':>9s} {'time':>6s} {'v(g) time':>9s}")
    for name, own in figures.items():
        relative, of_slices, _ = own.mean(0) / variance
        error = own[:, 0].std() / math.sqrt(len(own)) / variance
        duration = statistics.median(own[:, 2] / unit[:, 2])
        share = f"{of_slices:9.3f}" if name.startswith("sliced") else f"{'-':>9s}"
        print(f"{name:30s} {relative:9.3f} {error:9.3f} {share} {duration:6.2f} {relative * duration:9.3f}")


def main() -> None:
    """Measures."""
    mlp = _MODEL.value == "mlp" or _WHAT.value == "variance"
    batch = _BATCH_SIZE.value or (128 if mlp else 32)
    if _WHAT.value == "memory" and _JIT.value:
        cli.fail("XLA's own memory would hide that of a step. Measure memory without --jit_compile.")
    sizes = [(int(text),) for text in _DIMENSIONS.value] if mlp else [tuple(map(int, _SHAPE.value))]
    if _ONLY.value:
        print(json.dumps({"MiB": added_memory(sizes[0], batch, _ONLY.value)}))
        return
    report = {"time": report_time, "memory": report_memory, "variance": report_variance}[_WHAT.value]
    for shape in sizes:
        title = f"MLP, D = {shape[0]}" if mlp else f"NCSN, {'x'.join(_SHAPE.value)}, {_FILTERS.value} filters"
        print(f"\n{title}, {batch} examples" + ", XLA" * _JIT.value)
        report(shape, batch)


if __name__ == "__main__":
    cli.run(main)
