"""Measures how many evaluations, and how much time, each sampler needs to reach a given error.

python -m benchmarks.samplers --data_name=digits
python -m benchmarks.samplers --data_name=mnist --num_images=1000 --num_samples=512 \
    --figure=docs/mnist_solvers.png

The data are the images of a dataset, noised by an SDE, whose score is known exactly. All samplers walk from the same
noise to the last time, without the step that denoises. One line per sampler and budget has

  evaluations, ms   per sample, on average; the time without that of tracing, in batches of --batch_size
  error             for solvers of the probability flow, the distance to the fine solution from the same start: the root
                    mean square over dimensions in units of the noise that is left, and of this the median over samples
  other image, %    the samples whose nearest image is another one than that of the fine solution. The flow has jumps
                    where it chooses between images, so that a small error there can lead to another one
  law               the Frechet distance in pixels, of x / alpha, to the exact moments of the noised images. It is not
                    0 for as many exact draws either: a line has its mean over sets of them, and its deviation

The fine solution is that of the probability flow in float64 with tolerances of 1e-7; a line compares it with Heun's
method in float32 with 500 steps. Annealed Langevin dynamics walks along the levels that Song & Ermon 2020 choose from
the images, with 1, 3 and 10 steps at each.
"""

import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from launch.flags import cli, data, paths

_IMAGES = data.define()
flags.set_default(_IMAGES.name, "digits")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 2000, "The first images of the training set, at most.", 2)
_SDE = flags.DEFINE_enum("sde", "ve", ["ve", "vp", "subvp"], "The SDE; of VE the noise is from 50 to 0.01.")
_GRID = flags.DEFINE_enum("grid", "karras", ["uniform", "karras", "log_snr"], "The times of the walks.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1024, "Samples of each walk, a multiple of --batch_size.", 2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Samples drawn together.", 1)
_BUDGETS = flags.DEFINE_list("budgets", ["6", "10", "20", "50", "100"], "Evaluations per sample of fixed steps.")
_TOLERANCES = flags.DEFINE_list("tolerances", ["1e-1", "1e-2", "1e-3", "1e-4"], "Tolerances of adaptive samplers.")
_LANGEVIN = flags.DEFINE_list("langevin", ["1", "3", "10"], "Steps per level of annealed Langevin dynamics.")
_ONLY = flags.DEFINE_list("only", [], "What to measure, by name; all by default.")
_FIGURE = paths.define("figure", None, "A PNG to write, of errors and laws over evaluations.")

_LAST_TIME = 1e-3
_FINE_TOLERANCE = 1e-7
_FINE_STEPS = 500
_EXACT_SETS = 8
_LANGEVIN_NAME = "annealed_langevin"
_TICKS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_SHOWN = 8.0
"""The largest distance that the figure shows, relative to that of exact draws."""


class Solver(NamedTuple):
    """A sampler of the tables.

    Attributes:
      name: its name for `samplers.make`.
      follows_flow: whether it solves the probability flow, without noise.
      per_step: evaluations per step.
      options: its options.
      grid: the times of its walk, grid(sde, num_levels, last_time); None for those of --grid.
    """

    name: str
    follows_flow: bool = True
    per_step: int = 1
    options: dict[str, Any] = {}
    grid: Callable | None = None


SOLVERS = {
    "ddim": Solver("ddim"),
    "heun": Solver("heun", per_step=2),
    "dpm_solver": Solver("dpm_solver"),
    "unipc": Solver("unipc"),
    "adams_bashforth": Solver("adams_bashforth"),
    "adams_bashforth:log": Solver("adams_bashforth", options={"clock": "log_noise_ratio"}),
    "adams_bashforth:time": Solver("adams_bashforth", options={"clock": "time"}),
    "adams_bashforth:fixed": Solver("adams_bashforth", options={"weights": "fixed"}),
    "reverse_diffusion:flow": Solver("reverse_diffusion", options={"flow": True}),
    "probability_flow": Solver("probability_flow"),
    "euler_maruyama": Solver("euler_maruyama", follows_flow=False),
    "reverse_diffusion": Solver("reverse_diffusion", follows_flow=False),
    "ancestral": Solver("ancestral", follows_flow=False),
    "predictor_corrector": Solver("predictor_corrector", follows_flow=False, per_step=2),
    "dpm_solver_sde": Solver("dpm_solver_sde", follows_flow=False),
    "adaptive_sde": Solver("adaptive_sde", follows_flow=False),
}
"""The samplers by the names of the tables. One of `methods.ADAPTIVE` is given tolerances, the others steps."""


class Point(NamedTuple):
    """One line of the table; error and other_image are None for samplers with noise."""

    name: str
    setting: str
    evaluations: float
    milliseconds: float
    error: float | None
    other_image: float | None
    law: float


class Run(NamedTuple):
    """A sampler of one setting, and the walk that it takes; alpha is that of its end."""

    name: str
    setting: str
    follows_flow: bool
    sampler: Any
    score_fn: Callable
    start: Any
    alpha: float


class Problem:
    """The noised images of a data set, the start of all walks, and what is known of their ends.

    Args:
      images: uint8 [N, H, W, C].
      process: the SDE.
    """

    def __init__(self, images: np.ndarray, process: Any):
        import tensorflow as tf

        from ncsn_tf import random, sde
        from ncsn_tf.data.value_range import ValueRange
        from ncsn_tf.densities.empirical import Empirical
        from ncsn_tf.evaluation import frechet
        from ncsn_tf.evaluation.moments import Moments

        self.images, self.process = images, process
        self.range = ValueRange(*process.data_range)
        self.density = Empirical(self.range.encode(images.astype(np.float32) / 255.0))
        self.score_fn = self.density.score_fn(process)
        last = tf.constant([_LAST_TIME])
        self.alpha = float(process.marginal(last)[0][0])
        self.noise_ratio = float(sde.noise_ratio(process, last)[0])
        self.seeds = random.per_example(random.seed(0), tf.range(_NUM_SAMPLES.value))
        priors = random.fold_each(self.seeds, random.Stream.PRIOR)
        self.start = process.prior_sample(priors, self.density.shape)
        self._flat = self.density.points.reshape(len(images), -1).astype(np.float64)
        centred = self._flat - self._flat.mean(axis=0)
        covariance = centred.T @ centred / len(images) + self.noise_ratio**2 * np.eye(self._flat.shape[1])
        self._law = frechet.FactoredMoments(Moments(len(images), self._flat.mean(axis=0), covariance))

    def law(self, x: np.ndarray) -> float:
        """The Frechet distance of clean-scaled samples x / alpha, [n, D], to the exact moments."""
        from ncsn_tf.evaluation.moments import Moments

        return self._law.distance(Moments.of(x))

    def exact_laws(self) -> list[float]:
        """The distances of as many exact draws as there are samples, for several sets of them."""
        generator = np.random.default_rng(0)
        found = []
        for _ in range(_EXACT_SETS):
            points = self._flat[generator.integers(0, len(self._flat), _NUM_SAMPLES.value)]
            found.append(self.law(points + self.noise_ratio * generator.standard_normal(points.shape)))
        return found

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """The number of the image that is nearest to each sample, [n]."""
        return np.argmin(0.5 * np.sum(self._flat**2, axis=1) - x @ self._flat.T, axis=1)

    def errors(self, x: np.ndarray, fine: np.ndarray) -> tuple[float, float]:
        """The median distance of samples to fine solutions in units of the noise, and the share at another image."""
        distances = np.sqrt(np.mean((x - fine) ** 2, axis=1)) / self.noise_ratio
        return float(np.median(distances)), float(np.mean(self.nearest(x) != self.nearest(fine)))


def drawn(run: Run, seeds: Any) -> tuple[np.ndarray, float, float]:
    """Draws samples in batches, after one batch that traces the graphs and is not counted.

    Returns:
      The samples on the scale of the data, float64 [n, D], the mean of their evaluations, and the milliseconds per
      sample, the median over the batches.
    """
    size = _BATCH_SIZE.value
    run.sampler(run.score_fn, run.start[:size], seeds[:size])
    found, evaluations, seconds = [], [], []
    for first in range(0, len(run.start), size):
        begun = time.perf_counter()
        samples = run.sampler(run.score_fn, run.start[first : first + size], seeds[first : first + size])
        found.append(samples.x.numpy().astype(np.float64).reshape(size, -1))
        seconds.append(time.perf_counter() - begun)
        evaluations.append(samples.evaluations.numpy())
    return np.concatenate(found) / run.alpha, float(np.mean(evaluations)), 1e3 * statistics.median(seconds) / size


def fine_solution(problem: Problem) -> np.ndarray:
    """The ends of the flow on the scale of the data, float64 [n, D]; prints how far another solution is from them."""
    import tensorflow as tf

    from ncsn_tf import ode, samplers, score

    velocity = score.flow_velocity(problem.score_fn, problem.process)

    @tf.function(autograph=False)
    def solve(x):
        found = ode.solve(velocity, x, 1.0, _LAST_TIME, rtol=_FINE_TOLERANCE, atol=_FINE_TOLERANCE)
        return found.y

    size = _BATCH_SIZE.value
    starts = [tf.cast(problem.start[k : k + size], tf.float64) for k in range(0, len(problem.start), size)]
    ends = [solve(x).numpy() for x in starts]
    fine = np.concatenate(ends).reshape(len(problem.start), -1) / problem.alpha
    heun = samplers.make("heun", problem.process, _FINE_STEPS, grid="log_snr", last_time=_LAST_TIME, denoise=False)
    found = heun(problem.score_fn, problem.start[:size], problem.seeds[:size]).x.numpy().astype(np.float64)
    error, other = problem.errors(found.reshape(size, -1) / problem.alpha, fine[:size])
    print(
        f"Two fine solutions of {size} samples: median distance {error:.2g}, {100 * other:.2g} % at another image.\n",
        flush=True,
    )
    return fine


def runs(problem: Problem) -> Iterator[Run]:
    """The runs of all lines of the table."""
    from ncsn_tf import samplers, times
    from ncsn_tf.samplers import methods

    options = {"last_time": _LAST_TIME, "denoise": False}
    for label, solver in SOLVERS.items():
        if _ONLY.value and label not in _ONLY.value:
            continue
        made = {}
        if solver.name in methods.ADAPTIVE:
            for tolerance in map(float, _TOLERANCES.value):
                own = solver.options | {"rtol": tolerance, "atol": tolerance}
                made[f"tolerance {tolerance:g}"] = samplers.make(solver.name, problem.process, **own, **options)
        else:
            for steps in (int(budget) // solver.per_step for budget in _BUDGETS.value):
                grid = (solver.grid or times.GRIDS[_GRID.value])(problem.process, steps + 1, _LAST_TIME)
                own = solver.options | options
                made[f"{steps} steps"] = samplers.make(solver.name, problem.process, steps, grid=grid, **own)
        for setting, sampler in made.items():
            yield Run(label, setting, solver.follows_flow, sampler, problem.score_fn, problem.start, problem.alpha)
    if not _ONLY.value or _LANGEVIN_NAME in _ONLY.value:
        yield from langevin_runs(problem)


def langevin_runs(problem: Problem) -> Iterator[Run]:
    """The runs of annealed Langevin dynamics on VE, whose last level is the noise ratio at which the others end."""
    from ncsn_tf import noise_levels, random, times
    from ncsn_tf.data import distances
    from ncsn_tf.samplers import driver, langevin
    from ncsn_tf.sde import VE

    points = problem.density.points
    distance = distances.largest_distance(points).value
    uniform = driver.uniform_prior(random.fold_each(problem.seeds, random.Stream.PRIOR), points.shape[1:])
    for steps in map(int, _LANGEVIN.value):
        chosen = noise_levels.choose(distance, points[0].size, sigma_min=problem.noise_ratio, steps_per_level=steps)
        process = VE(sigma_max=chosen.sigma_max, sigma_min=chosen.sigma_min)
        sampler = driver.FixedSteps(
            process,
            langevin.Langevin(langevin.annealed(process, chosen.epsilon)),
            times.repeat_times(times.uniform(chosen.num_levels), steps),
        )
        setting, score_fn = f"{chosen.num_levels} levels x {steps}", problem.density.score_fn(process)
        yield Run(_LANGEVIN_NAME, setting, False, sampler, score_fn, problem.range.encode(uniform), 1.0)


def measured(problem: Problem, run: Run, fine: np.ndarray) -> Point:
    """The line of a run."""
    x, evaluations, milliseconds = drawn(run, problem.seeds)
    if not np.isfinite(x).all():
        return Point(run.name, run.setting, evaluations, milliseconds, None, None, np.nan)
    error, other = problem.errors(x, fine) if run.follows_flow else (None, None)
    return Point(run.name, run.setting, evaluations, milliseconds, error, other, problem.law(x))


def _check() -> None:
    """Raises ValueError for flags that do not go together."""
    if _NUM_SAMPLES.value % _BATCH_SIZE.value:
        raise ValueError(
            "--num_samples must be a multiple of --batch_size, so that all batches cost the same. "
            f"Received: {_NUM_SAMPLES.value} and {_BATCH_SIZE.value}."
        )
    if unknown := set(_ONLY.value) - {*SOLVERS, _LANGEVIN_NAME}:
        raise ValueError(f"--only takes {'; '.join([*SOLVERS, _LANGEVIN_NAME])}. Received: {', '.join(unknown)}.")
    if min(map(int, _BUDGETS.value), default=2) < 2:
        raise ValueError(f"--budgets are 2 evaluations or more, a step of Heun's method. Received: {_BUDGETS.value}.")


def main() -> None:
    """Measures."""
    from ncsn_tf import sde

    with cli.usage_errors():
        _check()
        images = _IMAGES.load("train").images[: _NUM_IMAGES.value]
    process = {"ve": sde.VE(sigma_max=50.0, sigma_min=0.01), "vp": sde.VP(), "subvp": sde.SubVP()}[_SDE.value]
    problem = Problem(images, process)
    print(f"{len(images)} images {images.shape[1:]}, {process}, noise ratio at the end {problem.noise_ratio:.4g}")
    fine = fine_solution(problem)
    exact = problem.exact_laws()
    cells = "| {:24s} | {:16s} | {:>11s} | {:>8s} | {:>8s} | {:>14s} | {:>8s} |"
    print(cells.format("sampler", "setting", "evaluations", "ms", "error", "other image, %", "law"))
    print(cells.format(*["---"] * 7))
    floor = f"{np.mean(exact):.4g}"
    print(cells.format("exact draws", f"+- {np.std(exact, ddof=1):.2g}", "-", "-", "-", "-", floor))
    points = []
    for run in runs(problem):
        points.append(point := measured(problem, run, fine))
        error = ("-", "-") if point.error is None else (f"{point.error:.3g}", f"{100 * (point.other_image or 0):.1f}")
        numbers = f"{point.evaluations:.1f}", f"{point.milliseconds:.3g}", *error, f"{point.law:.4g}"
        print(cells.format(point.name, point.setting, *numbers), flush=True)
    if _FIGURE.value is not None:
        save_figure(pathlib.Path(_FIGURE.value), points, float(np.mean(exact)))


def save_figure(path: pathlib.Path, points: list[Point], exact: float) -> None:
    """Draws the errors of solvers of the flow, and the laws of the samplers with noise, over evaluations."""
    from ncsn_tf import pictures

    with pictures.drawn(9.5, 5.0) as picture:
        left, right = picture.subplots(1, 2)
        for axes, paths_only in ((left, True), (right, False)):
            names = dict.fromkeys(point.name for point in points if (point.error is not None) == paths_only)
            for number, name in enumerate(names):
                own = [point for point in points if point.name == name]
                values = [point.error if paths_only else point.law for point in own]
                style = {"marker": "osD^vP*Xdh"[number % 10], "ls": "-" if number < 5 else "--", "ms": 5, "lw": 1.4}
                axes.plot([point.evaluations for point in own], values, label=name, color=f"C{number % 10}", **style)
            axes.set(xscale="log", yscale="log", xlabel="evaluations per sample")
            ticks = [tick for tick in _TICKS if tick <= max(point.evaluations for point in points)]
            axes.set_xticks(ticks, map(str, ticks))
            axes.minorticks_off()
        left.set_title("solvers of the flow: median distance\nto the fine solution, in units of the noise left")
        right.axhline(exact, color="black", ls=":", label="exact draws")
        right.set_ylim(0.8 * exact, _SHOWN * exact)
        marks = [mark for mark in _TICKS if exact <= mark <= _SHOWN * exact]
        right.set_yticks(marks, map(str, marks))
        right.set_title("samplers with noise: Frechet distance in pixels\nto the noised images")
        for axes in (left, right):
            axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
        pictures.save_figure(path, picture)


if __name__ == "__main__":
    cli.run(main)
