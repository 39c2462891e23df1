"""Grids of noise levels: strictly decreasing times t of an SDE, handed to samplers and objectives as data."""

import numpy as np


def uniform(num_levels: int) -> np.ndarray:
    """Equally spaced times from 1 down to 0: on the VE SDE, geometric noise levels (Song & Ermon 2019, section 4.2).

    Args:
      num_levels: L, at least 2.

    Returns:
      float32 [L], strictly decreasing.

    Raises:
      ValueError: if there are fewer than two levels.
    """
    if num_levels < 2:
        raise ValueError(f"A grid of times needs 2 or more levels. Received: num_levels={num_levels}.")
    return np.linspace(1.0, 0.0, num_levels, dtype=np.float32)


def check(times: np.ndarray) -> np.ndarray:
    """Returns `times` as float32 [L] after checking that it is a grid of levels.

    Raises:
      ValueError: unless `times` is one-dimensional, not empty, finite, within [0, 1] and strictly decreasing.
    """
    times = np.asarray(times, np.float32)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"A grid of times is a vector of one or more. Received shape: {times.shape}.")
    if not (np.isfinite(times).all() and times.max() <= 1.0 and times.min() >= 0.0):
        raise ValueError(f"Times lie in [0, 1], t=0 the data and t=1 the noise. Received: {times}.")
    if (np.diff(times) >= 0.0).any():
        raise ValueError(f"Times must decrease strictly, from noise to data. Received: {times}.")
    return times


def subsample(times: np.ndarray, num_levels: int) -> np.ndarray:
    """A part of a grid: so many of its levels, evenly spread by index from the first to the last.

    Args:
      times: float [L], strictly decreasing.
      num_levels: how many to keep, 2 to L.

    Returns:
      float32 [num_levels].

    Raises:
      ValueError: if the grid has no such part.
    """
    times = check(times)
    if not 2 <= num_levels <= len(times):
        raise ValueError(f"Of {len(times)} levels 2 or more, or all, are visited. Received: num_levels={num_levels}.")
    return times[np.round(np.linspace(0, len(times) - 1, num_levels)).astype(int)]
