"""The probability flow of a trained score: log-likelihoods, and latent codes of data.

The flow dx/dt = f x - g^2 score / 2 carries the density of the data to that of the prior, so that a point has a latent
code, and its density follows from the divergence along the way (Song et al. 2021, section 4.3 and appendix D).
"""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import ode, random
from ncsn_tf.objectives import pull_back, score_and_trace
from ncsn_tf.score import ScoreFunction, flow_velocity
from ncsn_tf.sde import SDE

PROBES = ("rademacher", "normal")


@dataclasses.dataclass(frozen=True)
class LogProb:
    """Log-likelihoods of examples.

    Attributes:
      nats: [B], log p(x), the mean over the probes.
      by_probe: [B, K], the value that each probe of the trace gives; [B, 1] with the exact trace.
      latent: [B, ...], the latent code.
      evaluations: int32 [B], of the score.
      converged: bool [B]; where it is False, the values are NaN.
    """

    nats: tf.Tensor
    by_probe: tf.Tensor
    latent: tf.Tensor
    evaluations: tf.Tensor
    converged: tf.Tensor

    @property
    def standard_error(self) -> np.ndarray:
        """The standard error of `nats` over the probes, [B]; NaN with a single probe or the exact trace."""
        values = np.asarray(self.by_probe, np.float64)
        if values.shape[1] < 2:
            return np.full(len(values), np.nan)
        return values.std(axis=1, ddof=1) / math.sqrt(values.shape[1])


def log_prob(
    score_fn: ScoreFunction,
    sde: SDE,
    x: tf.Tensor,
    *,
    seeds: tf.Tensor | None = None,
    probes: int = 1,
    probe: str = PROBES[0],
    exact: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    first_time: float | None = None,
    method: ode.Method = ode.DORMAND_PRINCE,
) -> LogProb:
    """The log-likelihood of examples under the probability flow.

        log p(x) = log p_1(x_1) + integral over t from first_time to 1 of div(dx/dt)
        div(dx/dt) = D f(t) - g(t)^2 / 2 tr(d score / dx)

    The trace is estimated by v' (d score / dx) v with random v, each fixed for the whole path (Hutchinson 1989), or is
    exact. Drift and trace come from one pass. The integral is a further component of the differential equation, so the
    tolerances hold for it too. All probes of an example share its path.

    It is the density of x_t at `first_time`, not at 0: of the data with the noise of that time. The densities of bytes
    are those of dequantized data: see `bits_per_dimension`.

    Args:
      score_fn: the score function.
      sde: the SDE.
      x: [B, ...], in the SDE's data range, float32 or float64.
      seeds: int32 [B, 2], the seeds of the probes; not needed with `exact`.
      probes: K, the number of probes per example.
      probe: "rademacher" or "normal".
      exact: compute the trace itself: for D up to 64 in one pass with the score, beyond that one direction at a time.
      rtol: the relative tolerance of the solver, as in the paper.
      atol: the absolute tolerance.
      first_time: where the flow begins; `sde.first_time` by default, 1e-5, as in the paper.
      method: of the solver.

    Raises:
      ValueError: for probes without seeds, or a value out of range.

    Reference:
      Song et al. 2021, equation 39 (appendix D.2).
    """
    x = tf.convert_to_tensor(x)
    rows, dimensions = x.shape[0] or tf.shape(x)[0], x.shape[1:].num_elements()
    if not dimensions:
        raise ValueError(f"Likelihoods need a static number of values per example. Received shape: {x.shape}.")
    directions = None if exact else _directions(x, seeds, probes, probe)

    def derivative(state: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        now = tf.reshape(state[:, :dimensions], [rows, *x.shape[1:]])
        scores, traces = _score_and_traces(score_fn, now, t, directions)
        velocity = flow_velocity(lambda *_: scores, sde)(now, t)
        divergence = dimensions * sde.drift(t)[:, None] - 0.5 * sde.diffusion(t)[:, None] ** 2 * traces
        return tf.concat([tf.reshape(velocity, [rows, dimensions]), divergence], axis=1)

    count = 1 if exact else probes
    start = tf.concat([tf.reshape(x, [rows, dimensions]), tf.zeros([rows, count], x.dtype)], axis=1)
    begin = _first_time(sde, first_time)
    found = ode.solve(derivative, start, begin, 1.0, rtol=rtol, atol=atol, method=method)
    latent = tf.reshape(found.y[:, :dimensions], [rows, *x.shape[1:]])
    by_probe = sde.prior_log_prob(latent)[:, None] + found.y[:, dimensions:]
    return LogProb(tf.reduce_mean(by_probe, axis=1), by_probe, latent, found.evaluations, found.converged)


def _directions(x: tf.Tensor, seeds: tf.Tensor | None, probes: int, probe: str) -> tf.Tensor:
    """The probes of examples x, [B, K, ...]."""
    if probe not in PROBES:
        raise ValueError(f"probe must be {' or '.join(PROBES)}. Received: {probe!r}.")
    if seeds is None or probes < 1:
        raise ValueError(
            "The trace needs seeds of its probes, and 1 or more of these; or give exact=True. "
            f"Received: probes={probes}, seeds={'None' if seeds is None else 'given'}."
        )
    draw = random.rademacher if probe == "rademacher" else random.normal
    shape = tf.TensorShape([probes, *x.shape[1:].as_list()])
    return tf.cast(draw(random.fold_each(seeds, random.Stream.PROBES), shape), x.dtype)


def _score_and_traces(score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, directions: tf.Tensor | None):
    """The score, [B, ...], and the trace of its Jacobian by each direction, [B, K], or exactly, [B, 1]."""
    if directions is None:
        scores, trace = score_and_trace(score_fn, x, t)
        return scores, trace[:, None]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        scores = score_fn(x, t)
    axes = tuple(range(1, len(x.shape)))
    traces = [tf.reduce_sum(v * pull_back(tape, scores, x, v), axis=axes) for v in tf.unstack(directions, axis=1)]
    return scores, tf.stack(traces, axis=1)


def encode(
    score_fn: ScoreFunction, sde: SDE, x: tf.Tensor, *, first_time: float | None = None, **options
) -> ode.Solution:
    """The latent codes of examples x [B, ...], their places at t=1; `options` are those of `ode.solve`."""
    return ode.solve(flow_velocity(score_fn, sde), x, _first_time(sde, first_time), 1.0, **options)


def decode(
    score_fn: ScoreFunction, sde: SDE, latent: tf.Tensor, *, first_time: float | None = None, **options
) -> ode.Solution:
    """The examples [B, ...] that have the latent codes; the inverse of `encode` up to the solver's error."""
    return ode.solve(flow_velocity(score_fn, sde), latent, 1.0, _first_time(sde, first_time), **options)


def _first_time(sde: SDE, first_time: float | None) -> float:
    time = sde.first_time if first_time is None else first_time
    if not 0.0 <= time < 1.0:
        raise ValueError(f"first_time must be in [0, 1). Received: {first_time}.")
    return time


def bits_per_dimension(nats: Any, shape: tuple[int, ...], data_range: tuple[float, float]) -> Any:
    """Bits per dimension of 8-bit images from the log-likelihoods of their uniformly dequantized form.

    A byte k is dequantized to the unit interval as (k + u) / 256, u uniform on [0, 1), and mapped to the data range of
    length w. A cell of one byte then has the side w / 256, and the probability of a byte is at least the exponential of
    the mean log-density in its cell times that side (Theis et al. 2016, section 3.1):

        bits = -nats / (D ln 2) + log2(256 / w),

    so the offset is 8 for [0, 1] and 7 for [-1, 1].

    Args:
      nats: log-likelihoods in the data range, an array or tensor of any shape.
      shape: of one example, whose number of values is D.
      data_range: (low, high).

    Returns:
      Of the same shape, an upper bound of the bits per dimension in expectation over u.
    """
    low, high = data_range
    return -nats / (math.prod(shape) * math.log(2.0)) + math.log2(256.0 / (high - low))
