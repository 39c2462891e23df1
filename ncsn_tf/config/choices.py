"""The objects behind the names that a configuration chooses, one table per section.

Each entry makes an object of the section's keys. `config.build` calls them; nothing else does.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, random, score, sde, time_draws, times, weightings
from ncsn_tf.config import networks, schema
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.networks.ncsnv2 import NCSNv2
from ncsn_tf.networks.unet import UNet

if TYPE_CHECKING:
    import keras

_BINS = 20
"""The most curves of the loss that a run has; more levels than that share curves."""

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
    draw: time_draws.TimeDraw
    continuous: bool = False

    @property
    def reported(self) -> np.ndarray:
        """The times at which losses are reported, float32 [K]: the grid, or some of its times if it has many."""
        return self.grid if len(self.grid) <= _BINS else times.subsample(self.grid, _BINS)


def _at_levels(grid: np.ndarray, process: sde.SDE, offset: float | None) -> Times:
    sigmas = process.marginal(tf.constant(grid))[1].numpy()
    names = [f"level_{index:03d}_sigma_{sigma:.4g}" for index, sigma in enumerate(sigmas)]
    if len(grid) > _BINS:  # a curve for each of some neighbouring levels, named by the first
        names = [names[-(-number * len(grid) // _BINS)] + "_and_below" for number in range(_BINS)]
    return Times(grid, time_draws.Levels(grid, tuple(names), offset))


def _ddpm_levels(keys: schema.DDPMLevels, process: Any, offset: float | None) -> Times:
    grid = times.ddpm(keys.num_levels, beta_min=process.beta_min, beta_max=process.beta_max)
    return _at_levels(grid, process, offset)


def _uniform(keys: schema.UniformTimes, process: sde.SDE, offset: float | None) -> Times:
    first, bins = process.first_time, keys.num_bins
    return Times(times.uniform(bins, first), time_draws.Uniform(first, bins, offset), continuous=True)


def _log_normal(keys: schema.LogNormalTimes, process: sde.SDE, offset: float | None) -> Times:
    first, bins = process.first_time, keys.num_bins
    draw = time_draws.LogNormal(first, bins, offset, sde=process, mean=keys.mean, deviation=keys.deviation)
    return Times(times.uniform(bins, first), draw, continuous=True)


def _log_snr(keys: schema.UniformTimes, process: sde.SDE, offset: float | None) -> Times:
    first, bins = process.first_time, keys.num_bins
    return Times(times.uniform(bins, first), time_draws.LogSNR(first, bins, offset, sde=process), continuous=True)


TIMES: dict[str, Callable[[Any, sde.SDE, float | None], Times]] = {
    "levels": lambda keys, process, offset: _at_levels(times.uniform(keys.num_levels), process, offset),
    "ddpm_levels": _ddpm_levels,
    "uniform": _uniform,
    "log_normal": _log_normal,
    "log_snr": _log_snr,
}
"""times(keys, sde, offset); `offset` is that of `time_draws.TimeDraw`."""


# Networks: each takes its keys, and what the images and the other sections determine.


def _ncsn(keys: networks.NCSN, *, levels: tuple[float, float, int], **common: Any) -> NCSN:
    return NCSN(num_levels=levels[-1], **common, **dataclasses.asdict(keys))


def _ncsnv2(keys: networks.NCSNv2, *, levels: tuple[float, float, int], **common: Any) -> NCSNv2:
    return NCSNv2(**common, **dataclasses.asdict(keys))


def _unet(keys: networks.UNet, *, levels: tuple[float, float, int], **common: Any) -> UNet:
    options = dataclasses.asdict(keys)
    del options["label_dropout"]  # of training
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


def _weighting(keys: Any, output: score.Output) -> weightings.Weighting:
    """The weighting of an objective."""
    known = {
        "sigma_power": weightings.sigma_power(keys.sigma_power),
        "likelihood": weightings.likelihood,
        "output": weightings.of_output(output),
    }
    return known[keys.weighting]


def _denoising(keys: Any, process: sde.SDE, output: score.Output):
    weighting = _weighting(keys, output)

    def objective(score_fn, x, t, z):
        loss = objectives.annealed_denoising(score_fn, process, x, t, z, weighting=weighting)
        return loss * (2.0 / x.shape[1:].num_elements()) if keys.per_dimension else loss

    return objective, None


def _exact(keys: Any, process: sde.SDE, output: score.Output):
    options = {
        "weighting": _weighting(keys, output),
        "directions_at_once": keys.directions_at_once,
    }
    return (lambda score_fn, x, t, z: objectives.annealed_exact(score_fn, process, x, t, z, **options)), None


def _sliced(keys: Any, process: sde.SDE, output: score.Output):
    draw = _SLICES[keys.slices]
    options = {
        "weighting": _weighting(keys, output),
        "variance_reduced": keys.variance_reduced,
    }
    return (
        lambda score_fn, x, t, z, v: objectives.annealed_sliced(score_fn, process, x, t, z, v, **options),
        lambda seeds, shape: draw(seeds, (keys.num_slices, *shape)),
    )


OBJECTIVES: dict[str, Callable] = {"denoising": _denoising, "exact": _exact, "sliced": _sliced}


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
