"""The reverse-time SDE from noise to data with error control."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import ode, random
from ncsn_tf.samplers.adaptive import Adaptive
from ncsn_tf.samplers.brownian import BrownianPath
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction, expand, reverse_drift
from ncsn_tf.sde import SDE

_FIRST_SIZE = 0.01
_SAFETY, _POWER = 0.9, 0.9
_LEAST, _MOST = 0.1, 10.0
"""The least and the most by which the step size changes at once."""
_PER_OCTAVE, _RESOLUTION = 4.0, 2.0**-16
"""The number of step sizes per factor of two, and their unit, which the Brownian path resolves."""
_EVALUATIONS = 2
"""Evaluations of the score per attempted step."""


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The state of all rows in the loop: x and the path w at time t, and the last proposal of the first order."""

    t: tf.Tensor
    x: tf.Tensor
    w: tf.Tensor
    proposal: tf.Tensor
    size: tf.Tensor
    steps: tf.Tensor
    active: tf.Tensor


class AdaptiveSDE(Adaptive):
    """A sampler that solves the reverse-time SDE by an adaptive stochastic improved Euler method.

    With the drift d = f x - g^2 score, a step of size h and the Brownian increment w over it,

        x' = x - h d(x, t) + g(t) w,
        x~ = x - h d(x', t - h) + g(t - h) w,
        x'' = (x' + x~) / 2,

    and the error is the root mean square of (x' - x'') / max(atol, rtol max(|x'|, |the previous step's x'|)). If it is
    at most 1, the step is accepted and x'' kept. The size then becomes 0.9 h error^-0.9, where a factor is kept within
    [0.1, 10], which the paper does not do.

    Sizes are rounded down to powers of 2^(1/4) and to multiples of 2^-16: rounding errors, which depend on the size of
    a batch, then do not move the times, on which the noise of a step depends.

    The authors draw fresh noise after a rejected step. Since rejection depends on the noise, the noise that is kept is
    biased. Here each sample follows a path that is fixed before the first step, see `brownian.BrownianPath`.

    Args:
      sde: the SDE.
      rtol: the relative tolerance; the paper takes 0.01 to 0.1.
      atol: the absolute tolerance, in data units; the paper takes 0.0078, a step of 8-bit colours for data in [-1, 1].
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.
      max_steps: the most steps of a sample, rejected ones included.
      **frame: `last_time`, `finish`, `jit_compile` and `strategy` of `adaptive.Adaptive`.

    Raises:
      ValueError: for a number out of range.

    Reference:
      Jolicoeur-Martineau et al., Gotta go fast when generating data with score-based models, 2021, algorithm 1.
    """

    def __init__(
        self,
        sde: SDE,
        *,
        rtol: float = 0.02,
        atol: float = 0.0078,
        noise: Noise = random.normal,
        max_steps: int = 10_000,
        **frame: Any,
    ):
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1. Received: {max_steps}.")
        super().__init__(sde, rtol=rtol, atol=atol, **frame)
        self._noise = noise
        self._max_steps = max_steps

    def _solve(self, score_fn: ScoreFunction, x: tf.Tensor, seeds: tf.Tensor) -> ode.Solution:
        folded = random.fold_each(seeds, random.Stream.BROWNIAN)
        path = BrownianPath(folded, x.shape[1:], x.dtype, self._noise)
        zeros = tf.zeros_like(tf.reshape(x, [x.shape[0] or tf.shape(x)[0], -1])[:, 0])
        t, nothing = zeros + 1.0, tf.zeros_like(zeros, tf.int32)
        begin = _Rows(t, x, path(t), x, _rounded(zeros + _FIRST_SIZE), nothing, t > self._last_time)
        fields = [field.name for field in dataclasses.fields(_Rows)]

        def body(*values):
            rows = self._attempt(score_fn, path, _Rows(*values))
            return [getattr(rows, name) for name in fields]

        values = tf.while_loop(lambda *values: tf.reduce_any(values[-1]), body, [getattr(begin, n) for n in fields])
        rows = _Rows(*values)
        converged = tf.equal(rows.t, tf.cast(self._last_time, x.dtype))
        end = tf.where(expand(converged, x), rows.x, tf.constant(np.nan, x.dtype))
        return ode.Solution(end, rows.steps * _EVALUATIONS, converged)

    def _attempt(self, score_fn: ScoreFunction, path: BrownianPath, rows: _Rows) -> _Rows:
        """One attempt of a step by the active rows; the others stay as they are."""
        x, t, last = rows.x, rows.t, tf.cast(self._last_time, rows.x.dtype)
        t_new = tf.where(rows.active, tf.maximum(t - rows.size, last), t)
        w_new = path(t_new)
        h, increment = expand(t - t_new, x), w_new - rows.w
        drift = reverse_drift(score_fn, self._sde)
        proposal = x - h * drift(x, t) + expand(self._sde.diffusion(t), x) * increment
        again = x - h * drift(proposal, t_new) + expand(self._sde.diffusion(t_new), x) * increment
        scale = tf.maximum(
            tf.cast(self._atol, x.dtype), self._rtol * tf.maximum(tf.abs(proposal), tf.abs(rows.proposal))
        )
        error = ode.root_mean_square(0.5 * (proposal - again) / scale)
        accepted = rows.active & (error <= 1.0)  # not where it is NaN
        factor = tf.clip_by_value(_SAFETY * error**-_POWER, _LEAST, _MOST)
        size = _rounded((t - t_new) * tf.where(tf.math.is_finite(error), factor, _LEAST))
        t_next, steps = tf.where(accepted, t_new, t), rows.steps + tf.cast(rows.active, tf.int32)
        stuck = (size <= 0.0) | (steps >= self._max_steps)
        kept = expand(accepted, x)
        return _Rows(
            t_next,
            tf.where(kept, 0.5 * (proposal + again), x),
            tf.where(kept, w_new, rows.w),
            tf.where(kept, proposal, rows.proposal),
            size,
            steps,
            rows.active & (t_next > last) & tf.logical_not(stuck),
        )


def _rounded(size: tf.Tensor) -> tf.Tensor:
    """Sizes of steps, rounded down to those that are taken; 0 for what is below the smallest."""
    octaves = tf.math.log(size) / tf.cast(math.log(2.0), size.dtype)
    below = tf.cast(2.0, size.dtype) ** (tf.floor(octaves * _PER_OCTAVE) / _PER_OCTAVE)
    return tf.floor(below / _RESOLUTION) * _RESOLUTION
