"""The objects behind the names that a configuration chooses, one table per section.

Each entry makes an object of the section's keys. `config.build` calls them; nothing else does.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, random, score, sde, times
from ncsn_tf.config import networks, samplers, schema
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.networks.ncsnv2 import NCSNv2
from ncsn_tf.networks.unet import UNet
from ncsn_tf.samplers import adaptive_flow, driver, langevin, methods

if TYPE_CHECKING:
    import keras

_BINS = 20
"""The most curves of the loss that a run has; more levels than that share curves."""
_NOISE_ALONE = 2.0
"""The sigma / alpha at t=1 below which the density of the perturbed data is certainly not that of the noise alone."""
_STEPS = 1_000
"""The default number of steps of a walk in continuous time, as in Song et al. 2021."""

SDES: dict[str, Callable[[Any], sde.SDE]] = {
    "ve": lambda keys: sde.VE(sigma_max=keys.sigma_max, sigma_min=keys.sigma_min),
    "vp": lambda keys: sde.VP(beta_min=keys.beta_min, beta_max=keys.beta_max),
    "subvp": lambda keys: sde.SubVP(beta_min=keys.beta_min, beta_max=keys.beta_max),
}
OUTPUTS: dict[str, Callable[[Any], score.Output]] = {
    "score": lambda keys: score.score,
    "score_over_sigma": lambda keys: score.score_over_sigma,
    "noise": lambda keys: score.noise,
    "clean_image": lambda keys: score.clean_image,
    "velocity": lambda keys: score.velocity,
    "edm": lambda keys: score.edm(keys.sigma_data),
}
CONDITIONS: dict[str, Callable[[Any, np.ndarray], score.Condition]] = {
    "nearest_level": lambda keys, grid: score.nearest_level(grid),
    "ddpm_step": lambda keys, grid: score.ddpm_step(grid),
    "sigma": lambda keys, grid: score.sigma,
    "log_sigma": lambda keys, grid: score.log_sigma(keys.scale),
    "scaled_time": lambda keys, grid: score.scaled_time,
    "none": lambda keys, grid: score.unconditional,
}


# Times


@dataclasses.dataclass(frozen=True)
class Times:
    """The times of a run.

    Attributes:
      grid: float32 [L], decreasing: the noise levels; in continuous time, those at which losses are reported.
      draw: draws the times of training.
      continuous: whether training draws times between those of the grid.
    """

    grid: np.ndarray
    draw: times.TimeDraw
    continuous: bool = False

    @property
    def reported(self) -> np.ndarray:
        """The times at which losses are reported, float32 [K]: the grid, or some of its times if it has many."""
        return self.grid if len(self.grid) <= _BINS else times.subsample(self.grid, _BINS)


def _at_levels(grid: np.ndarray, process: sde.SDE) -> Times:
    sigmas = process.marginal(tf.constant(grid))[1].numpy()
    names = [f"level_{index:03d}_sigma_{sigma:.4g}" for index, sigma in enumerate(sigmas)]
    if len(grid) > _BINS:  # a curve for each of some neighbouring levels, named by the first
        names = [names[-(-number * len(grid) // _BINS)] + "_and_below" for number in range(_BINS)]
    return Times(grid, times.Levels(grid, tuple(names)))


def _ddpm_levels(keys: schema.DDPMLevels, process: Any) -> Times:
    grid = times.ddpm(keys.num_levels, beta_min=process.beta_min, beta_max=process.beta_max)
    return _at_levels(grid, process)


def _uniform(keys: schema.UniformTimes, process: sde.SDE) -> Times:
    first, bins = process.first_time, keys.num_bins
    return Times(times.uniform(bins, first), times.Uniform(first, bins), continuous=True)


TIMES: dict[str, Callable[[Any, sde.SDE], Times]] = {
    "levels": lambda keys, process: _at_levels(times.uniform(keys.num_levels), process),
    "ddpm_levels": _ddpm_levels,
    "uniform": _uniform,
}


# Networks: each takes its keys, and what the images and the other sections determine.


def _ncsn(keys: networks.NCSN, *, levels: tuple[float, float, int], **common: Any) -> NCSN:
    return NCSN(num_levels=levels[-1], **common, **dataclasses.asdict(keys))


def _ncsnv2(keys: networks.NCSNv2, *, levels: tuple[float, float, int], **common: Any) -> NCSNv2:
    return NCSNv2(**common, **dataclasses.asdict(keys))


def _unet(keys: networks.UNet, *, levels: tuple[float, float, int], **common: Any) -> UNet:
    options = dataclasses.asdict(keys)
    divides = {"none": None, "condition": "condition", "levels": levels}
    options["output_sigmas"] = divides[keys.output_sigmas]
    if options["centre_input"] is None:
        del options["centre_input"]
    return UNet(**{**common, **options})


NETWORKS: "dict[str, Callable[..., keras.Model]]" = {"ncsn": _ncsn, "ncsnv2": _ncsnv2, "unet": _unet}
"""network(keys, *, channels, seed, centre_input, levels); `levels` is (the largest sigma, the smallest, how many)."""


# Objectives: each returns (objective, draw_slices), as `Trainer` takes them.

_SLICES: dict[str, Callable[..., tf.Tensor]] = {
    "normal": random.normal,
    "rademacher": random.rademacher,
    "spherical": lambda seeds, shape: random.spherical(seeds, shape, event_rank=len(shape) - 1),
}
FIRST_ORDER_OBJECTIVES = ("denoising",)


def _denoising(keys: schema.Denoising, process: sde.SDE):
    weighting = objectives.sigma_power(keys.sigma_power)

    def objective(score_fn, x, t, z):
        loss = objectives.annealed_denoising(score_fn, process, x, t, z, weighting=weighting)
        return loss * (2.0 / x.shape[1:].num_elements()) if keys.per_dimension else loss

    return objective, None


def _exact(keys: schema.Exact, process: sde.SDE):
    options = {
        "weighting": objectives.sigma_power(keys.sigma_power),
        "directions_at_once": keys.directions_at_once,
    }
    return (lambda score_fn, x, t, z: objectives.annealed_exact(score_fn, process, x, t, z, **options)), None


def _sliced(keys: schema.Sliced, process: sde.SDE):
    draw = _SLICES[keys.slices]
    options = {
        "weighting": objectives.sigma_power(keys.sigma_power),
        "variance_reduced": keys.variance_reduced,
    }
    return (
        lambda score_fn, x, t, z, v: objectives.annealed_sliced(score_fn, process, x, t, z, v, **options),
        lambda seeds, shape: draw(seeds, (keys.num_slices, *shape)),
    )


OBJECTIVES: dict[str, Callable] = {"denoising": _denoising, "exact": _exact, "sliced": _sliced}


# Samplers


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


def _levels_visited(keys: Any, process: sde.SDE, run_times: Times) -> np.ndarray:
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


def _any_langevin(keys: Any, process: sde.SDE, run_times: Times, noise: langevin.Noise, anneals: bool) -> Walk:
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


def _times_of_walk(keys: Any, process: sde.SDE, run_times: Times) -> np.ndarray:
    """The times of a walk from noise to data, float32 [N + 1], decreasing."""
    if run_times.continuous:
        methods.check_last_time(process, keys.last_time)
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


def _walk(name: str) -> Callable[..., Walk]:
    """The walk of a method of `samplers.methods`."""

    def walk(keys: Any, process: sde.SDE, run_times: Times, noise: langevin.Noise) -> Walk:
        if getattr(keys, "churn", 0.0) > 0.0 and not run_times.continuous:
            raise ValueError(
                "sampler.churn visits noise between the levels, where a run at noise levels is not trained: give "
                f"sampler.churn=0. Received: {keys.churn}."
            )
        rows = times.pairs(_times_of_walk(keys, process, run_times))
        starts = rows[driver.segment_starts(len(rows), min(methods.FRAMES, len(rows))), 0]
        options = {key: getattr(keys, key) for key in samplers.WALKS[name]().options}
        step = methods.step(name, process, len(rows), noise, **options)
        return Walk(step, rows, starts, process.prior_sample, _signal_left(process))

    return walk


def _probability_flow(keys: Any, process: sde.SDE, run_times: Times, noise: langevin.Noise) -> AdaptiveWalk:
    if not run_times.continuous:
        raise ValueError(
            "sampler.name=probability_flow needs a run in continuous time, because its times are between noise levels: "
            "choose a sampler with fixed steps, such as heun, or train with times.name=uniform."
        )
    methods.check_last_time(process, keys.last_time)
    own = {name: getattr(keys, name) for name in ("last_time", "rtol", "atol", "method")}
    make = functools.partial(adaptive_flow.AdaptiveFlow, **own)
    return AdaptiveWalk(make, process.prior_sample, _signal_left(process))


SAMPLERS: dict[str, Callable[[Any, sde.SDE, Times, langevin.Noise], Walk | AdaptiveWalk]] = {
    "annealed_langevin": lambda *arguments: _any_langevin(*arguments, anneals=True),
    "langevin": lambda *arguments: _any_langevin(*arguments, anneals=False),
    **{name: _walk(name) for name in samplers.WALKS},
    "probability_flow": _probability_flow,
}


# Choices that exclude each other


def check_composition(names: Mapping[str, str], values: Mapping[str, Any], process: sde.SDE) -> None:
    """Raises ValueError for choices that exclude each other."""
    condition, network = names["condition"], names["network"]
    if network == "ncsn" and condition != "nearest_level":
        raise ValueError(
            "The network ncsn is conditioned on the index of a noise level: give condition.name=nearest_level. "
            f"Received: condition.name={condition}."
        )
    if network == "ncsnv2" and condition != "none":
        raise ValueError(
            f"The network ncsnv2 is not told the noise level: give condition.name=none. Received: {condition}."
        )
    if network == "unet":
        _check_unet(names, values["network"])
    for chosen, needed, allowed in (
        (condition == "nearest_level", "times", ("levels", "ddpm_levels")),
        (condition == "ddpm_step", "times", ("ddpm_levels",)),
        (names["times"] == "ddpm_levels", "sde", ("vp",)),
    ):
        if chosen and names[needed] not in allowed:
            which = f"condition.name={condition}" if needed == "times" else "times.name=ddpm_levels"
            raise ValueError(f"{which} needs {needed}.name={' or '.join(allowed)}. Received: {names[needed]}.")
    for t in (0.5, 1.0):
        alpha, sigma = (float(part[0]) for part in process.marginal(tf.constant([t])))
        if names["output"] == "velocity" and abs(alpha**2 + sigma**2 - 1.0) > 1e-2:
            raise ValueError(
                "output.name=velocity needs an SDE with alpha^2 + sigma^2 = 1, a variance-preserving one. "
                f"Received: sde.name={names['sde']}, with alpha={alpha:.4g}, sigma={sigma:.4g} at t={t}."
            )


def _check_unet(names: Mapping[str, str], keys: networks.UNet) -> None:
    """Raises ValueError unless the condition is one that the U-Net can embed and divide its output by."""
    condition, needed = names["condition"], None
    if keys.embedding == "none":
        needed = "none"
    elif keys.embedding == "log_fourier" or keys.output_sigmas == "condition":
        needed = "sigma"
    elif keys.output_sigmas == "levels":
        needed = "nearest_level"
    if condition != needed and (needed is not None or condition == "none"):
        raise ValueError(
            f"network.embedding={keys.embedding} with network.output_sigmas={keys.output_sigmas} needs "
            f"condition.name={needed or 'another than none'}. Received: {condition}."
        )
    if keys.output_sigmas == "levels" and (names["sde"], names["times"], condition) != ("ve", "levels", needed):
        raise ValueError(
            "network.output_sigmas=levels needs sde.name=ve, times.name=levels and an embedding of the level's index. "
            f"Received: sde.name={names['sde']}, times.name={names['times']}, network.embedding={keys.embedding}."
        )
    if keys.output_sigmas == "condition" and keys.embedding == "none":
        raise ValueError("network.output_sigmas=condition needs an embedding. Received: network.embedding=none.")
