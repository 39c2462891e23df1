"""How far from the posterior are guided samples, and what does guidance cost?

python -m benchmarks.guidance --config=configs/digits.py:vp --image_shape=28,28,1 --batch_size=32

First, normal data of a few pixels whose posterior and score are known exactly, for each measurement and method: the
root mean square of the error of the mean, in deviations of the data, and the variance that is made over that of the
posterior, both with the standard error of so many walks. The rows "exact" follow the score of the posterior itself:
what is left there is the error of the steps. Then, for the network of the configuration, the evaluations and the time
of each method's walk, as multiples of those of a walk without guidance, whose turns alternate: medians over the rounds.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from launch.flags import cli, config

_CONFIG = config.define("The configuration whose network to measure.", required=True)
_SHAPE = flags.DEFINE_list("image_shape", ["28", "28", "1"], "Height, width and channels of its samples.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Its samples drawn together.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds in which each walk is timed once.", 1)
_WALKS = flags.DEFINE_integer("walks", 4_000, "Walks on the normal data, 0 to leave them out.", 0)
_STEPS = flags.DEFINE_integer("steps", 300, "Steps of these walks.", 1)

_SHAPES = {"mask": (4, 4, 1), "grey": (2, 2, 3), "downsample": (4, 4, 1), "blur": (4, 4, 1)}
_MEASUREMENTS = flags.DEFINE_list("measurements", ["mask:left", "grey", "downsample:2", "blur:1"], "Of that data.")
_NOISES = flags.DEFINE_list("noises", ["0", "0.1"], "The standard deviations of their noise.")
_DEVIATION = 0.5
_PIGDM = "pigdm"
_OWN = f"{_PIGDM},data_deviation={_DEVIATION}"
_SAMPLERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "ancestral": ({}, ("replacement,reference=step", _PIGDM, _OWN, "dps,zeta=0.002")),
    "predictor_corrector": ({"corrector": "annealed", "corrections": 4}, ("replacement,reference=step",)),
    "heun": ({}, ("replacement,reference=walk", _PIGDM, _OWN)),
}
"""The samplers with their options, and the methods that are tried with each."""
_TIMED = ("replacement", "pigdm", "dps")
_TIMED_STEPS = 6


def main() -> None:
    """Measures."""
    if _WALKS.value:
        _biases()
    _costs()


def _biases() -> None:
    """Prints the table of biases."""
    from ncsn_tf import samplers
    from ncsn_tf.guidance import restoring
    from ncsn_tf.sde import VP

    sde = VP()
    print("| measurement | noise | sampler | method | error of the mean | variance made / true |")
    print("|---|---|---|---|---|---|")
    for text in _MEASUREMENTS.value:
        shape = _SHAPES[text.partition(":")[0]]
        measurement = restoring.measurement(text, shape)
        for noise in map(float, _NOISES.value):
            posed = _Problem(shape, measurement, noise)
            for name, (own, tried) in _SAMPLERS.items():
                made = samplers.make(name, sde, _STEPS.value, grid="log_snr", **own)
                print(f"| {text} | {noise:g} | {name} | exact | {posed.errors(made, sde, None)} |", flush=True)
                for method in tried:
                    found, options = restoring.options(method)
                    guidance = restoring.make(found, sde, measurement, noise, **options)
                    shown = posed.errors(made, sde, guidance)
                    print(f"| {text} | {noise:g} | {name} | {method} | {shown} |", flush=True)


class _Problem:
    """Normal data whose pixels are correlated, and one measurement of a draw of them."""

    def __init__(self, shape: tuple[int, int, int], measurement: Any, noise: float):
        import tensorflow as tf

        height, width, channels = shape
        rows, columns = (axis.ravel() for axis in np.mgrid[:height, :width])
        pixels = np.exp(-np.hypot(rows[:, None] - rows, columns[:, None] - columns) / 1.5)
        self._shape, size = shape, height * width * channels
        self._covariance = _DEVIATION**2 * np.kron(pixels, 0.5 * np.eye(channels) + 0.5)
        self._mean = np.zeros(size)
        unit = tf.constant(np.eye(size).reshape(size, *shape))
        present = measurement.present.ravel() > 0.0
        matrix = measurement.forward(unit).numpy().reshape(size, -1).T[present]
        draw = np.random.default_rng(0)
        y = matrix @ draw.multivariate_normal(self._mean, self._covariance) + noise * draw.normal(size=len(matrix))
        seen = matrix @ self._covariance @ matrix.T + noise**2 * np.eye(len(matrix))
        gain = self._covariance @ matrix.T @ np.linalg.pinv(seen, rcond=1e-10, hermitian=True)
        self._posterior = gain @ y, self._covariance - gain @ matrix @ self._covariance
        whole = np.zeros(present.size)
        whole[present] = y
        self._y = whole.reshape(1, *measurement.measured_shape).astype(np.float32)

    def _score(self, sde: Any, mean: np.ndarray, covariance: np.ndarray) -> Callable:
        """The score of normal data under the SDE."""
        import tensorflow as tf

        values, vectors = np.linalg.eigh(covariance)
        basis = tf.constant(vectors, tf.float32)

        def score_fn(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            alpha, sigma = (part[:, None] for part in sde.marginal(t))
            flat = tf.reshape(x, [-1, len(mean)]) - alpha * tf.constant(mean, tf.float32)
            along = flat @ basis / (alpha**2 * tf.constant(np.maximum(values, 0.0), tf.float32) + sigma**2)
            return tf.reshape(-along @ tf.transpose(basis), tf.shape(x))

        return score_fn

    def errors(self, sampler: Any, sde: Any, guidance: Any) -> str:
        """The two cells of a row; without guidance, of walks that follow the posterior's own score."""
        import tensorflow as tf

        from ncsn_tf import random
        from ncsn_tf.samplers.driver import NO_GUIDANCE

        seeds = random.per_example(random.seed(0), tf.range(_WALKS.value))
        x = sde.prior_sample(random.fold_each(seeds, random.Stream.PRIOR), self._shape)
        mean, covariance = self._posterior
        if guidance is None:
            drawn = sampler(self._score(sde, mean, covariance), x, seeds, NO_GUIDANCE)
        else:
            given = (tf.repeat(tf.constant(self._y), _WALKS.value, axis=0),)
            drawn = sampler(self._score(sde, self._mean, self._covariance), x, seeds, guidance, given)
        found = drawn.x.numpy().reshape(_WALKS.value, -1).astype(np.float64)
        missed = np.sqrt(np.mean((found.mean(axis=0) - mean) ** 2)) / _DEVIATION
        error = np.sqrt(np.mean(found.var(axis=0)) / _WALKS.value) / _DEVIATION
        if np.trace(covariance) < 1e-6:
            return f"{missed:.3f} ({error:.3f}) | no variance"
        squares = np.sum((found - found.mean(axis=0)) ** 2, axis=1) / np.trace(covariance)
        return f"{missed:.3f} ({error:.3f}) | {squares.mean():.3f} ({squares.std() / np.sqrt(len(squares)):.3f})"


def _costs() -> None:
    """Prints the table of costs."""
    import tensorflow as tf

    from benchmarks import measure
    from ncsn_tf import random, samplers
    from ncsn_tf.guidance import restoring
    from ncsn_tf.samplers.driver import NO_GUIDANCE

    with cli.usage_errors():
        builder, source = measure.builder_for(_CONFIG.value.to_dict(), _SHAPE.value)
        score_fn = builder.score_model(builder.network(source.shape)).score
    sampler = samplers.make("ddim", builder.sde, _TIMED_STEPS, grid="log_snr", denoise=False)
    measurement = restoring.measurement("downsample:2", source.shape)
    seeds = random.per_example(random.seed(0), tf.range(_BATCH_SIZE.value))
    x = builder.sde.prior_sample(seeds, source.shape)
    given = (tf.zeros([_BATCH_SIZE.value, *measurement.measured_shape]),)
    guided = {name: restoring.make(name, builder.sde, measurement, 0.1) for name in _TIMED}
    plain = int(sampler(score_fn, x, seeds, NO_GUIDANCE, given).evaluations[0])
    print("\n| method | evaluations | time | least | greatest |\n|---|---|---|---|---|")
    for name, guidance in guided.items():
        evaluations = int(sampler(score_fn, x, seeds, guidance, given).evaluations[0])
        ratios = []
        for _ in range(_ROUNDS.value):
            taken = []
            for each in (NO_GUIDANCE, guidance):
                begun = time.perf_counter()
                sampler(score_fn, x, seeds, each, given).x.numpy()
                taken.append(time.perf_counter() - begun)
            ratios.append(taken[1] / taken[0])
        cells = f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f}"
        print(f"| {name} | {evaluations / plain:g} | {cells} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
