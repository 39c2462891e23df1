"""The samplers by name: the step of each method, and whole samplers for users of the library."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import random, score, times
from ncsn_tf.samplers import correctors, driver, heun, langevin
from ncsn_tf.samplers.adams_bashforth import AdamsBashforth
from ncsn_tf.samplers.adaptive_flow import AdaptiveFlow
from ncsn_tf.samplers.adaptive_sde import AdaptiveSDE
from ncsn_tf.samplers.ancestral import Ancestral
from ncsn_tf.samplers.ddim import DDIM
from ncsn_tf.samplers.dpm_solver import DPMSolver
from ncsn_tf.samplers.euler_maruyama import EulerMaruyama
from ncsn_tf.samplers.predictor_corrector import PredictorCorrector, Stay
from ncsn_tf.samplers.reverse_diffusion import ReverseDiffusion
from ncsn_tf.samplers.unipc import UniPC
from ncsn_tf.sde import SDE

FRAMES = 10
"""The number of frames of a walk that has no levels, if it has that many steps."""
LAST_TIME = 1e-3
"""The default end of a walk in continuous time: the paper's for VP and sub-VP."""


def _heun(
    sde: SDE,
    num_steps: int,
    *,
    churn: float = 0.0,
    churn_from: float = 0.0,
    churn_to: float = math.inf,
    inflation: float = 1.0,
    noise: langevin.Noise = random.normal,
) -> driver.Step:
    """Heun's method; `churn` is S_churn, of all steps together."""
    if not 0.0 <= churn < math.inf:
        raise ValueError(f"churn must be at least 0 and finite. Received: {churn}.")
    return heun.Heun(sde, min(churn / num_steps, heun.MOST_CHURN), churn_from, churn_to, inflation, noise)


def _predictor_corrector(
    sde: SDE,
    num_steps: int,
    *,
    predictor: str = "reverse_diffusion",
    corrector: str = "langevin",
    ratio: float = 0.16,
    norms: correctors.ScoreNorms | None = None,
    corrections: int = 1,
    order: str = "corrector_first",
    noise: langevin.Noise = random.normal,
    **options: Any,
) -> driver.Step:
    """Predictor and corrector by their names; further options are the predictor's."""
    sizes = {
        "langevin": functools.partial(correctors.LangevinSize, ratio, norms),
        "annealed": functools.partial(correctors.AnnealedSize, ratio),
    }
    if predictor == "predictor_corrector":
        raise ValueError("The predictor must be another sampler. Received: 'predictor_corrector'.")
    moving = _step(STEPS | PREDICTORS, predictor, sde, num_steps, noise, **options)
    return PredictorCorrector(sde, moving, _entry(sizes, corrector, "corrector")(), corrections, order, noise)


STEPS: dict[str, Callable[..., driver.Step]] = {
    "euler_maruyama": EulerMaruyama,
    "reverse_diffusion": ReverseDiffusion,
    "ancestral": Ancestral,
    "predictor_corrector": _predictor_corrector,
    "ddim": DDIM,
    "heun": _heun,
    "dpm_solver": DPMSolver,
    "dpm_solver_sde": functools.partial(DPMSolver, eta=1.0),
    "unipc": UniPC,
    "adams_bashforth": AdamsBashforth,
}
"""The methods that walk from noise to data in a fixed number of steps: step(sde, **options)."""

PREDICTORS: dict[str, Callable[..., driver.Step]] = {
    "none": lambda sde: Stay(),
    "reverse_diffusion_flow": functools.partial(ReverseDiffusion, flow=True),
    "ancestral_transition": functools.partial(Ancestral, variance="transition"),
}
"""Predictors of `predictor_corrector` beside `STEPS`: none, and methods with an option other than its default."""

ADAPTIVE: dict[str, Callable[..., driver.Sampler]] = {
    "probability_flow": AdaptiveFlow,
    "adaptive_sde": AdaptiveSDE,
}
"""The samplers that choose their own steps: sampler(sde, last_time=, finish=, jit_compile=, strategy=, **options)."""

_NOT_OPTIONS = ("sde", "num_steps", "noise", "options", "frame", "last_time", "finish", "jit_compile", "strategy")
"""Parameters that a method gets from elsewhere."""


def step(name: str, sde: SDE, num_steps: int, noise: langevin.Noise = random.normal, **options: Any) -> driver.Step:
    """The step of a method of `STEPS`.

    Args:
      name: the method.
      sde: the SDE.
      num_steps: the number of steps of the walk, for options that concern all of them.
      noise: draws the noise of a step, `noise(seeds [B, 2], shape) -> [B, *shape]`.
      **options: the method's own, as its class describes them.

    Raises:
      ValueError: for an unknown name, an option that the method does not have, or an impossible value.
    """
    return _step(STEPS, name, sde, num_steps, noise, **options)


def _step(
    table: dict[str, Callable], name: str, sde: SDE, num_steps: int, noise: langevin.Noise, **options: Any
) -> driver.Step:
    """`step` of the methods of a table."""
    method = _entry(table, name, "sampler")
    parameters = _check_options(name, method, options)
    given = {"num_steps": num_steps, "noise": noise}
    return method(sde, **{key: value for key, value in given.items() if key in parameters}, **options)


def adaptive(
    name: str,
    sde: SDE,
    *,
    last_time: float,
    finish: driver.Finish | None = None,
    jit_compile: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    noise: langevin.Noise = random.normal,
    **options: Any,
) -> driver.Sampler:
    """A sampler of `ADAPTIVE`; arguments and errors are those of `step`, and of the sampler."""
    parameters = _check_options(name, ADAPTIVE[name], options)
    own = {"noise": noise} if "noise" in parameters else {}
    frame = {"last_time": last_time, "finish": finish, "jit_compile": jit_compile, "strategy": strategy}
    return ADAPTIVE[name](sde, **frame, **own, **options)


def make(
    name: str,
    sde: SDE,
    num_steps: int | None = None,
    *,
    grid: str | np.ndarray = "uniform",
    last_time: float = LAST_TIME,
    denoise: bool = True,
    jit_compile: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    **options: Any,
) -> driver.Sampler:
    """Makes a sampler: `make("heun", sde, 10, grid="karras")(score_fn, x, seeds).x`.

    Args:
      name: a method of `STEPS`, or of `ADAPTIVE`, which chooses its own steps.
      sde: any SDE of the protocol `sde.SDE`.
      num_steps: the number of steps; None for a method of `ADAPTIVE`. `evaluations` of the result counts what they
        cost: two per step of Heun's method, one and one per correction for predictor-corrector, otherwise one;
        `denoise` adds one.
      grid: the times of the walk: a name of `times.GRIDS`, or float [num_steps + 1], strictly decreasing.
      last_time: where the walk ends; not used with times of your own.
      denoise: end with one denoising step by Tweedie's formula, to the clean image; without it the noise of the last
        time remains.
      jit_compile: whether XLA compiles the loop.
      strategy: the strategy to run on; see `driver.FixedSteps`.
      **options: the method's own.

    Returns:
      A sampler, to be called with a score function, x [B, ...] drawn from the SDE's prior, and seeds int32 [B, 2].

    Raises:
      ValueError: for an unknown name or option, or an impossible value.
    """
    how = {"finish": score.denoise if denoise else None, "jit_compile": jit_compile, "strategy": strategy}
    if name in ADAPTIVE:
        if num_steps is not None or not isinstance(grid, str) or grid != "uniform":
            raise ValueError(f"The sampler {name} chooses its own steps: leave num_steps and grid out.")
        check_last_time(sde, last_time)
        return adaptive(name, sde, last_time=last_time, **how, **options)
    if name not in STEPS:
        _entry(STEPS | ADAPTIVE, name, "sampler")
    if not isinstance(num_steps, int | np.integer) or num_steps < 1:
        raise ValueError(f"A sampler takes 1 or more steps. Received: num_steps={num_steps!r}.")
    if isinstance(grid, str):
        along = _entry(times.GRIDS, grid, "grid")(sde, num_steps + 1, last_time)
    else:
        along = times.check(grid)
    if len(along) != num_steps + 1:
        raise ValueError(f"{num_steps} steps need a grid of {num_steps + 1} times. Received: {len(along)} times.")
    check_last_time(sde, float(along[-1]))
    return driver.FixedSteps(
        sde,
        step(name, sde, num_steps, **options),
        times.pairs(along),
        segments=min(FRAMES, num_steps),
        **how,
    )


def _check_options(name: str, method: Callable, options: dict[str, Any]) -> Mapping[str, inspect.Parameter]:
    """Raises ValueError for an option that a method does not have; returns all its parameters."""
    parameters = inspect.signature(method).parameters
    own = [key for key in parameters if key not in _NOT_OPTIONS]
    unknown = [key for key in options if key not in own]
    if unknown and "options" not in parameters:
        raise ValueError(f"The options of the sampler {name} are: {', '.join(own) or 'none'}. Received: {unknown[0]}.")
    return parameters


def check_last_time(sde: SDE, last_time: float) -> None:
    """Raises ValueError if the SDE has no noise at the last time of a walk: there is no score."""
    with tf.init_scope():  # also where a graph makes the sampler
        _, sigma = (float(part[0]) for part in sde.marginal(tf.constant([last_time])))
    if not sigma > 0.0:
        raise ValueError(
            f"At the last time of a walk there must be noise: the score is singular without. Choose a last_time above "
            f"0, such as {sde.first_time:g}. Received: last_time={last_time:g}, where sigma = {sigma:g}."
        )


def _entry(table: dict[str, Callable], name: str, what: str) -> Callable:
    if name not in table:
        raise ValueError(f"Expected `{what}` to be one of {', '.join(table)}. Received: {name!r}.")
    return table[name]
