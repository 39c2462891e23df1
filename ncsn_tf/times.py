"""Times of an SDE: strictly decreasing grids, and the rows (t, t_next) of a sampler."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf.sde import SDE, noise_ratio

# Grids


def uniform(num_levels: int, last_time: float = 0.0) -> np.ndarray:
    """Equally spaced times from 1 down to a last time: on VE, geometric noise levels (Song & Ermon 2019, section 4.2).

    Args:
      num_levels: L, at least 2.
      last_time: the last time, in [0, 1); 0 for the levels of NCSN.

    Returns:
      float32 [L], strictly decreasing.

    Raises:
      ValueError: if a number is out of range.
    """
    if num_levels < 2:
        raise ValueError(f"A grid of times needs 2 or more levels. Received: num_levels={num_levels}.")
    if not 0.0 <= last_time < 1.0:
        raise ValueError(f"The last time of a grid must be in [0, 1). Received: last_time={last_time}.")
    return np.linspace(1.0, last_time, num_levels, dtype=np.float32)


def ddpm(num_levels: int, *, beta_min: float, beta_max: float) -> np.ndarray:
    """The discrete noise levels of DDPM as times of the VP SDE with the same two rates.

    Level i of N, counted from the least noisy one, has

        alpha_i^2 = product over j <= i of (1 - beta_j),   beta_j from beta_min / N to beta_max / N in equal steps.

    The SDE's marginals depend on the time through B(t) = -log alpha(t)^2 alone, so level i is at the time where B(t) =
    -log alpha_i^2, and the SDE's marginal there is DDPM's. In the noisiest levels, 4 of 1,000 with the rates 0.1 and
    20, it exceeds B(1) and next to nothing of the data is left: these are left out.

    Args:
      num_levels: N.
      beta_min: the rate of the SDE at t=0.
      beta_max: the rate of the SDE at t=1.

    Returns:
      float32 [L], strictly decreasing, L a little below N.

    Raises:
      ValueError: if a rate is not positive, or N is not above beta_max, so that some 1 - beta_j is not positive.

    Reference:
      Ho et al., Denoising diffusion probabilistic models, 2020, section 4; Song et al. 2021, appendix B.
    """
    if not 0.0 < beta_min <= beta_max < num_levels:
        raise ValueError(
            "DDPM's levels need 0 < beta_min <= beta_max < num_levels. "
            f"Received: beta_min={beta_min}, beta_max={beta_max}, num_levels={num_levels}."
        )
    integral = -np.cumsum(np.log1p(-np.linspace(beta_min, beta_max, num_levels) / num_levels))
    slope = beta_max - beta_min
    grid = 2.0 * integral / (beta_min + np.sqrt(beta_min**2 + 2.0 * slope * integral))
    return check(grid[grid <= 1.0][::-1])


def karras(sde: SDE, num_levels: int, last_time: float, *, rho: float = 7.0) -> np.ndarray:
    """Times from 1 down to a last time whose noise ratios r = sigma / alpha have equally spaced r^(1 / rho).

    Args:
      sde: the SDE.
      num_levels: L, at least 2.
      last_time: the last time, in (0, 1), or 0 for an SDE with noise at t=0.
      rho: the exponent; a larger one puts more times at little noise.

    Returns:
      float32 [L], strictly decreasing.

    Raises:
      ValueError: if a number is out of range, or if two of so many times are the same float32.

    Reference:
      Karras et al. 2022, equation 5.
    """
    if not 0.0 < rho < float("inf"):
        raise ValueError(f"The exponent of a grid must be positive and finite. Received: rho={rho}.")
    first, last = _noise_ratios(sde, num_levels, last_time)
    return _at_noise_ratios(sde, np.linspace(first ** (1.0 / rho), last ** (1.0 / rho), num_levels) ** rho, last_time)


def log_snr(sde: SDE, num_levels: int, last_time: float) -> np.ndarray:
    """Times from 1 down to a last time that are equally spaced in log(alpha / sigma): geometric noise ratios.

    Arguments, result and errors are those of `karras`. On VE these are the times of `uniform`.
    """
    first, last = _noise_ratios(sde, num_levels, last_time)
    return _at_noise_ratios(sde, np.geomspace(first, last, num_levels), last_time)


def _noise_ratios(sde: SDE, num_levels: int, last_time: float) -> tuple[float, float]:
    """sigma / alpha at t=1 and at a last time."""
    if num_levels < 2:
        raise ValueError(f"A grid of times needs 2 or more levels. Received: num_levels={num_levels}.")
    with tf.init_scope():  # also where a graph makes the grid
        first, last = noise_ratio(sde, tf.constant(uniform(2, last_time), tf.float64)).numpy()
    if not 0.0 < last < first < np.inf:
        raise ValueError(
            "The noise ratio sigma / alpha must be positive at the last time of a grid, and finite at t=1. "
            f"Received: last_time={last_time}, with {last:.4g}, and {first:.4g} at t=1."
        )
    return float(first), float(last)


def _at_noise_ratios(sde: SDE, ratios: np.ndarray, last_time: float) -> np.ndarray:
    """The grid of times with these noise ratios, whose ends are 1 and `last_time` exactly."""
    with tf.init_scope():
        grid = sde.time(tf.constant(ratios, tf.float64)).numpy()
    grid = np.concatenate([[1.0], grid[1:-1], [last_time]]).astype(np.float32)
    if (np.diff(grid) >= 0.0).any():
        raise ValueError(
            f"The times of {len(ratios)} noise ratios are not distinct as float32: give fewer, or times of your own "
            f"that start below 1. Received: noise ratios from {ratios[0]:.4g} to {ratios[-1]:.4g}."
        )
    return check(grid)


GRIDS: dict[str, Callable[[SDE, int, float], np.ndarray]] = {
    "uniform": lambda sde, num_levels, last_time: uniform(num_levels, last_time),
    "karras": karras,
    "log_snr": log_snr,
}
"""Grids of times by name: grid(sde, num_levels, last_time) -> float32 [num_levels]."""


def check(grid: np.ndarray) -> np.ndarray:
    """Returns a grid of times as float32 [L] after checking it.

    Raises:
      ValueError: unless `grid` is one-dimensional, not empty, finite, within [0, 1] and strictly decreasing.
    """
    grid = np.asarray(grid, np.float32)
    if grid.ndim != 1 or grid.size == 0:
        raise ValueError(f"A grid of times must be a vector of one or more times. Received shape: {grid.shape}.")
    if not (np.isfinite(grid).all() and grid.max() <= 1.0 and grid.min() >= 0.0):
        raise ValueError(f"Times must be in [0, 1]: t=0 is the data, t=1 the noise. Received: {grid}.")
    if (np.diff(grid) >= 0.0).any():
        raise ValueError(f"Times must decrease strictly, from noise to data. Received: {grid}.")
    return grid


def subsample(grid: np.ndarray, num_levels: int) -> np.ndarray:
    """Subsamples a grid: keeps some of its levels, evenly spread by index from the first to the last.

    Args:
      grid: float [L], strictly decreasing.
      num_levels: the number of levels to keep, 2 to L.

    Returns:
      float32 [num_levels].

    Raises:
      ValueError: if `num_levels` is out of range.
    """
    grid = check(grid)
    if not 2 <= num_levels <= len(grid):
        raise ValueError(
            f"From a grid of {len(grid)} levels, keep 2 to {len(grid)}. Received: num_levels={num_levels}."
        )
    return grid[np.round(np.linspace(0, len(grid) - 1, num_levels)).astype(int)]


# Rows


def pairs(grid: np.ndarray) -> np.ndarray:
    """The rows (t, t_next) of a walk along a grid, one step per interval.

    Args:
      grid: float [L], strictly decreasing, L at least 2.

    Returns:
      float32 [L - 1, 2].

    Raises:
      ValueError: if `grid` is not a valid grid, or has a single time.
    """
    grid = check(grid)
    if len(grid) < 2:
        raise ValueError(f"A walk along a grid needs 2 or more times. Received: {grid}.")
    return np.stack([grid[:-1], grid[1:]], axis=1)


def repeat_times(grid: np.ndarray, steps_per_level: int | tf.Tensor) -> Any:
    """The rows (t, t) that repeat each time of a grid, as annealed Langevin dynamics does.

    Args:
      grid: float [L], times in [0, 1] that do not increase.
      steps_per_level: T, at least 1; a scalar tensor gives a tensor.

    Returns:
      float32 [L T, 2], an array or a tensor.

    Raises:
      ValueError: if the times are out of range or increase, or if `steps_per_level` is below 1.
    """
    check(np.unique(grid)[::-1])
    if (np.diff(grid) > 0.0).any():
        raise ValueError(f"Times must not increase: walks go from noise to data. Received: {grid}.")
    if tf.is_tensor(steps_per_level):
        column = tf.repeat(tf.constant(grid, tf.float32), steps_per_level)
        return tf.stack([column, column], axis=1)
    if steps_per_level < 1:
        raise ValueError(f"A schedule needs 1 or more steps per level. Received: steps_per_level={steps_per_level}.")
    column = np.repeat(np.asarray(grid, np.float32), steps_per_level)
    return np.stack([column, column], axis=1)
