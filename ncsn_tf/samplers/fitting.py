"""Grids of times fitted to a trained model: those with which a few steps end nearest to the fine solution."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import ode, score, times
from ncsn_tf.samplers import driver, methods
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE, noise_ratio

FLOWS = ("ddim", "heun", "dpm_solver", "unipc", "adams_bashforth")
"""The methods whose grids can be fitted: those that follow the probability flow, whose end is known."""
_ROUNDS = 5
_SHARE = 0.5
"""The share of the gap to its neighbour by which a time moves in the first round; halved in each further one."""
_FINE = 1e-5
"""The tolerances of the fine solution."""


@dataclasses.dataclass(frozen=True)
class FittedGrid:
    """A fitted grid, and how near its walk ends to the fine solution.

    Attributes:
      grid: float32 [N + 1], strictly decreasing.
      errors: by the name of a grid, "fitted" among them, the mean over samples of the root mean square distance per
        dimension to the fine solution, in data units, on samples with which the grid was fitted.
      checked: the same on as many other samples.
    """

    grid: np.ndarray
    errors: dict[str, float]
    checked: dict[str, float]


def fit_grid(
    name: str,
    score_fn: ScoreFunction,
    sde: SDE,
    x: tf.Tensor,
    num_steps: int,
    *,
    last_time: float,
    options: Mapping[str, Any] | None = None,
    jit_compile: bool = False,
    on_walk: Callable[[], object] = lambda: None,
) -> FittedGrid:
    """Fits the times of a method's steps to a score.

    Starting from the best of the named grids, each time in turn is moved towards its neighbours, in log(sigma / alpha),
    where this brings the ends of walks nearer to the fine solution of the probability flow from the same starts; the
    moves become smaller from round to round. Half of the samples are for this, the other half check the result. Walks
    and fine solution both end with Tweedie's formula.

    Args:
      name: one of `FLOWS`.
      score_fn: the score function.
      sde: the SDE.
      x: [2 B, ...], starts drawn from the SDE's prior.
      num_steps: N.
      last_time: where the walk ends.
      options: the method's own.
      jit_compile: whether XLA compiles the walk.
      on_walk: called after each walk; there are at most `walks(num_steps)`.

    Raises:
      ValueError: for another method, fewer than two samples, or no steps.
      NotConvergedError: if the fine solution does not converge.
    """
    count = _checked_count(name, x, num_steps, options or {})
    fine = methods.make("probability_flow", sde, last_time=last_time, rtol=_FINE, atol=_FINE, jit_compile=jit_compile)
    ends = fine(score_fn, x, tf.zeros([count, 2], tf.int32)).x.numpy()
    if not np.isfinite(ends).all():
        raise ode.NotConvergedError("The fine solution does not converge: are there scores that are not finite?")
    half, step = count // 2, methods.step(name, sde, num_steps, **(options or {}))

    @tf.function(jit_compile=jit_compile, autograph=False)
    def walk(starts, rows):
        sampler = driver.FixedSteps(sde, step, rows, finish=score.denoise)
        return sampler(score_fn, starts, tf.zeros([starts.shape[0], 2], tf.int32)).x

    def error(grid: np.ndarray, part: slice) -> float:
        found = walk(x[part], tf.constant(times.pairs(grid))).numpy()
        on_walk()
        distances = (found - ends[part]).reshape(len(found), -1)
        value = float(np.sqrt(np.mean(distances**2, axis=1)).mean())
        return value if np.isfinite(value) else np.inf

    fitted, checked = slice(0, half), slice(count - half, None)
    grids = _named(sde, num_steps, last_time)
    errors = {key: error(grid, fitted) for key, grid in grids.items()}
    first = min(errors, key=lambda key: errors[key])
    grids["fitted"], errors["fitted"] = _search(sde, grids[first], errors[first], lambda grid: error(grid, fitted))
    return FittedGrid(grids["fitted"], errors, {key: error(grid, checked) for key, grid in grids.items()})


def _checked_count(name: str, x: tf.Tensor, num_steps: int, options: Mapping[str, Any]) -> int:
    """The number of samples; raises ValueError for what cannot be fitted."""
    if name not in FLOWS:
        raise ValueError(
            f"Grids are fitted for samplers that follow the probability flow: {', '.join(FLOWS)}. Received: {name}."
        )
    if options.get("churn"):
        raise ValueError(f"Grids are fitted to the flow, which has no noise. Received: churn={options['churn']}.")
    count: Any = x.shape[0]
    if count < 2 or num_steps < 1:
        raise ValueError(
            f"A fit needs two or more samples, and one or more steps. Received: x {x.shape}, num_steps={num_steps}."
        )
    return count


def walks(num_steps: int) -> int:
    """The most walks of a fit."""
    return 2 * _ROUNDS * (num_steps - 1) + 2 * len(times.GRIDS) + 1


def _named(sde: SDE, num_steps: int, last_time: float) -> dict[str, np.ndarray]:
    """The named grids that exist for the SDE: some need a finite noise ratio at t=1."""
    found = {}
    for name, make in times.GRIDS.items():
        try:
            found[name] = make(sde, num_steps + 1, last_time)
        except ValueError:
            if name == "uniform":
                raise
    return found


def _search(
    sde: SDE, grid: np.ndarray, error: float, measure: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, float]:
    """The grid of a compass search in the logarithms of the noise ratios, from a grid and its error; its ends stay."""

    def moved(number: int, towards: int, share: float) -> np.ndarray:
        # Between interior times in logarithms; beside an end, whose ratio may be infinite or 0, in time.
        pair = tf.constant(grid[[number, towards]], tf.float64)
        ratios = noise_ratio(sde, pair).numpy()
        if np.isfinite(ratios).all() and (ratios > 0.0).all():
            ratio = ratios[0] ** (1.0 - share) * ratios[1] ** share
            time = float(sde.time(tf.constant([ratio], tf.float64))[0])
        else:
            time = float(grid[number] + share * (grid[towards] - grid[number]))
        changed = grid.copy()
        changed[number] = time
        return changed

    for round_number in range(_ROUNDS):
        share = _SHARE * 0.5**round_number
        for number in range(1, len(grid) - 1):
            for towards in (number - 1, number + 1):
                candidate = moved(number, towards, share)
                if (np.diff(candidate) < 0.0).all() and (found := measure(candidate)) < error:
                    grid, error = candidate, found
                    break
    return grid, error
