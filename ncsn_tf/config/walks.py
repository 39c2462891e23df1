"""The samplers behind the names of the `sampler` section: their steps, schedules and starts."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import sde, times
from ncsn_tf.config import choices, samplers
from ncsn_tf.samplers import correctors, driver, langevin, methods

_NOISE_ALONE = 2.0
"""The sigma / alpha at t=1 below which the density of the perturbed data is certainly not that of the noise alone."""
_STEPS = 1_000
"""The default number of steps of a walk in continuous time, as in Song et al. 2021."""


@dataclasses.dataclass(frozen=True)
class Walk:
    """A sampler's step and its schedule.

    Attributes:
      step: the step.
      rows: float32 [N, 2], the schedule, an array or a tensor of a graph.
      starts: float32 [K], the times at which the segments of the schedule start.
      prior: draws the start.
      caveats: one line per oddity of the values.
    """

    step: driver.Step
    rows: Any
    starts: np.ndarray
    prior: driver.Prior
    caveats: tuple[str, ...] = ()

    def sampler(self, process: sde.SDE, **options: Any) -> driver.Sampler:
        """The sampler; `options` are `finish`, `jit_compile` and `strategy`."""
        return driver.FixedSteps(process, self.step, self.rows, segments=len(self.starts), **options)


@dataclasses.dataclass(frozen=True)
class AdaptiveWalk:
    """A sampler that chooses its own steps.

    Attributes:
      make: the sampler of `options`, as `Walk.sampler` has them.
      prior: draws the start.
      caveats: one line per oddity of the values.
      starts: float32 [1], the time at which it starts.
    """

    make: Callable[..., driver.Sampler]
    prior: driver.Prior
    caveats: tuple[str, ...] = ()
    starts: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(1, np.float32))

    def sampler(self, process: sde.SDE, **options: Any) -> driver.Sampler:
        """The sampler; see `Walk.sampler`."""
        return self.make(process, **options)


def _levels_visited(keys: Any, process: sde.SDE, run_times: choices.Times) -> np.ndarray:
    """The levels that Langevin dynamics visits, float32 [K], decreasing."""
    if keys.num_levels is None:
        return run_times.grid
    if run_times.continuous:
        return times.uniform(keys.num_levels, process.first_time)
    if keys.num_levels > len(run_times.grid):
        raise ValueError(
            f"sampler.num_levels must be at most times.num_levels={len(run_times.grid)}. Received: {keys.num_levels}."
        )
    return times.subsample(run_times.grid, keys.num_levels)


def _any_langevin(keys: Any, process: sde.SDE, run_times: choices.Times, noise: langevin.Noise, anneals: bool) -> Walk:
    levels = _levels_visited(keys, process, run_times)
    last, caveats = float(levels[-1]), []
    if not tf.is_tensor(keys.epsilon):
        with tf.init_scope():  # also where a graph makes the sampler
            smallest = float(process.marginal(tf.constant([last]))[1][0])
        steps = None if tf.is_tensor(keys.steps_per_level) else keys.steps_per_level * len(levels)
        caveats = langevin.check_stability(float(keys.epsilon), smallest, steps)
    size = langevin.annealed(process, keys.epsilon, last) if anneals else langevin.constant(keys.epsilon)
    grid = levels if anneals else np.repeat(levels[-1:], len(levels))
    prior = driver.uniform_prior if keys.prior == "uniform" else process.prior_sample
    rows = times.repeat_times(grid, keys.steps_per_level)
    return Walk(langevin.Langevin(size, noise), rows, levels, prior, tuple(caveats))


def _fitted(keys: Any) -> np.ndarray:
    """The fitted times."""
    grid = times.check(np.array(keys.times))
    if grid[0] != 1.0 or grid[-1] != np.float32(keys.last_time):
        raise ValueError(
            f"sampler.times must go from 1 to sampler.last_time={keys.last_time}. Received: {grid[0]} to {grid[-1]}."
        )
    return grid


def _times_of_walk(keys: Any, process: sde.SDE, run_times: choices.Times) -> np.ndarray:
    """The times of a walk from noise to data, float32 [N + 1], decreasing."""
    if keys.grid == "fitted" and not run_times.continuous:
        raise ValueError("sampler.grid=fitted needs a run in continuous time: its times are between noise levels.")
    if run_times.continuous:
        methods.check_last_time(process, keys.last_time)
        if keys.grid == "fitted":
            return _fitted(keys)
        return times.GRIDS[keys.grid](process, (keys.num_steps or _STEPS) + 1, keys.last_time)
    levels = run_times.grid
    if keys.num_steps is None:
        return levels
    if keys.num_steps >= len(levels):
        raise ValueError(
            f"sampler.num_steps must be below the number of levels, {len(levels)}. Received: {keys.num_steps}."
        )
    if keys.grid == "uniform":
        return times.subsample(levels, keys.num_steps + 1)
    wanted = times.GRIDS[keys.grid](process, keys.num_steps + 1, float(levels[-1]))
    found = levels[np.unique(np.abs(levels[None] - wanted[:, None]).argmin(axis=1))]
    if len(found) <= keys.num_steps:
        raise ValueError(
            f"sampler.grid={keys.grid} meets only {len(found)} of the {len(levels)} noise levels in "
            f"{keys.num_steps + 1} times: give fewer sampler.num_steps, or sampler.grid=uniform."
        )
    return found


def _signal_left(process: sde.SDE) -> tuple[str, ...]:
    """A line if much of the data is left at t=1, where walks start from noise alone."""
    with tf.init_scope():  # also where a graph makes the sampler
        ratio = float(sde.noise_ratio(process, tf.constant([1.0]))[0])
    if ratio >= _NOISE_ALONE:
        return ()
    return (
        f"at t=1 the noise is only {ratio:.3g} times the signal: samples start from noise alone, and lack what is left "
        "of the data there. Annealed Langevin dynamics does not need pure noise; or train with a larger sde.sigma_max",
    )


def _options(name: str, keys: Any, process: sde.SDE) -> dict[str, Any]:
    """The options of a method, as `methods.step` takes them."""
    options = {key: getattr(keys, key) for key in samplers.WALKS[name]().options}
    if "norm_table" in options:
        table, options["norms"] = options.pop("norm_table"), None
        if table is not None:
            grid = times.log_snr(process, len(table), keys.last_time)
            options["norms"] = correctors.ScoreNorms(grid, np.array(table))
    return options


def _walk(name: str) -> Callable[..., Walk]:
    """The walk of a method of `samplers.methods`."""

    def walk(keys: Any, process: sde.SDE, run_times: choices.Times, noise: langevin.Noise) -> Walk:
        if getattr(keys, "churn", 0.0) > 0.0 and not run_times.continuous:
            raise ValueError(
                "sampler.churn visits noise between the levels, where a run at noise levels is not trained: give "
                f"sampler.churn=0. Received: {keys.churn}."
            )
        rows = times.pairs(_times_of_walk(keys, process, run_times))
        starts = rows[driver.segment_starts(len(rows), min(methods.FRAMES, len(rows))), 0]
        step = methods.step(name, process, len(rows), noise, **_options(name, keys, process))
        return Walk(step, rows, starts, process.prior_sample, _signal_left(process))

    return walk


def _adaptive(name: str) -> Callable[..., AdaptiveWalk]:
    """The walk of a method of `samplers.methods` that chooses its own steps."""

    def walk(keys: Any, process: sde.SDE, run_times: choices.Times, noise: langevin.Noise) -> AdaptiveWalk:
        if not run_times.continuous:
            raise ValueError(
                f"sampler.name={name} needs a run in continuous time, because its times are between noise levels: "
                "choose a sampler with fixed steps, such as heun, or train with times.name=uniform."
            )
        methods.check_last_time(process, keys.last_time)
        options = {key: getattr(keys, key) for key in samplers.ADAPTIVE[name]().options}
        make = functools.partial(methods.adaptive, name, noise=noise, **options)
        return AdaptiveWalk(make, process.prior_sample, _signal_left(process))

    return walk


SAMPLERS: dict[str, Callable[[Any, sde.SDE, choices.Times, langevin.Noise], Walk | AdaptiveWalk]] = {
    "annealed_langevin": lambda *arguments: _any_langevin(*arguments, anneals=True),
    "langevin": lambda *arguments: _any_langevin(*arguments, anneals=False),
    **{name: _walk(name) for name in samplers.WALKS},
    **{name: _adaptive(name) for name in samplers.ADAPTIVE},
}
