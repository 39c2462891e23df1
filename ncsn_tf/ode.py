"""Ordinary differential equations by embedded Runge-Kutta methods, each row of a batch with steps of its own.

TensorFlow Probability's solver and the SciPy solver of the authors' programs take one step size for a whole batch, so
that a row depends on its company. Here time, step size, error and end belong to the row. The loop is one
`tf.while_loop`, which XLA compiles.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Derivative = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""f(y: [B, ...], t: [B]) -> [B, ...], dy/dt; row i of the result depends on row i of y and t alone."""

_SAFETY = 0.9
_LEAST, _MOST = 0.2, 10.0
"""The least and the most by which the step size changes at once."""


@dataclasses.dataclass(frozen=True)
class Method:
    """An embedded Runge-Kutta method whose last stage is the first of the next step.

    Attributes:
      name: the name.
      nodes: c_i of the stages but the first, which is 0, and the last, which is 1.
      coefficients: a_ij of these stages.
      weights: b_i, of the result.
      errors: the weights of all stages in the estimate of the error.
      order: of the error estimate, whose power -1 / (order + 1) sets the step size.
    """

    name: str
    nodes: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    errors: tuple[float, ...]
    order: int


DORMAND_PRINCE = Method(
    "dormand_prince",
    (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    4,
)
"""Order 5 with an error estimate of order 4, six evaluations per step (Dormand & Prince 1980)."""

BOGACKI_SHAMPINE = Method(
    "bogacki_shampine",
    (1 / 2, 3 / 4),
    ((1 / 2,), (0.0, 3 / 4)),
    (2 / 9, 1 / 3, 4 / 9),
    (-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    2,
)
"""Order 3 with an error estimate of order 2, three evaluations per step (Bogacki & Shampine 1989)."""

METHODS = {method.name: method for method in (DORMAND_PRINCE, BOGACKI_SHAMPINE)}


class NotConvergedError(ArithmeticError):
    """Some rows did not reach their end."""


@dataclasses.dataclass(frozen=True)
class Solution:
    """The end of a solution.

    Attributes:
      y: [B, ...], at each row's end; where a row did not get there, NaN.
      evaluations: int32 [B], of the derivative, those that a row needed for itself.
      converged: bool [B], whether the row got to its end.
    """

    y: tf.Tensor
    evaluations: tf.Tensor
    converged: tf.Tensor

    def check(self) -> "Solution":
        """Returns the solution after checking that all rows converged; not in a graph.

        Raises:
          NotConvergedError: if a row did not; the message names the first.
        """
        failed = np.flatnonzero(~np.asarray(self.converged))
        if len(failed):
            shown = ", ".join(map(str, failed[:5])) + (", ..." if len(failed) > 5 else "")
            raise NotConvergedError(
                f"{len(failed)} of {len(self.converged)} rows did not converge: rows {shown}. Give larger tolerances "
                "or more steps, or look for values of the derivative that are not finite."
            )
        return self


@dataclasses.dataclass(frozen=True)
class _Row:
    """The state of all rows in the loop; `slope` is the derivative at (y, t), `size` the size of the next step."""

    t: tf.Tensor
    y: tf.Tensor
    slope: tf.Tensor
    size: tf.Tensor
    rejected: tf.Tensor
    steps: tf.Tensor
    evaluations: tf.Tensor
    active: tf.Tensor


def solve(
    derivative: Derivative,
    y: tf.Tensor,
    start: float | tf.Tensor,
    end: float | tf.Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: Method = DORMAND_PRINCE,
    max_steps: int = 10_000,
) -> Solution:
    """Solves dy/dt = f(y, t) from `start` to `end`, forward or backward in time.

    A step of size h is accepted if the root mean square of the row's estimated error, in units of atol + rtol
    max(|y|, |y_new|), is below 1. The size then changes by 0.9 error^(-1 / (order + 1)), within [0.2, 10], and does not
    grow right after a rejected step. The first size follows from the derivative (Hairer et al., section II.4). These
    are the rules of SciPy's RK45 and RK23, applied to each row.

    Args:
      derivative: f.
      y: [B, ...], at the start, float32 or float64.
      start: a time, or one per row, [B].
      end: likewise.
      rtol: the relative tolerance, in (0, 1).
      atol: the absolute tolerance, in units of y, positive.
      method: the method.
      max_steps: the most steps of a row, rejected ones included.

    Returns:
      The solution. A row did not converge that took `max_steps`, or one of whose steps was rejected although it was as
      small as rounding allows.

    Raises:
      ValueError: for a tolerance or number of steps out of range, or y without a batch or of another dtype.
    """
    y = tf.convert_to_tensor(y)
    if y.dtype not in (tf.float32, tf.float64) or not y.shape.rank:
        raise ValueError(f"y must be floats [B, ...] of 32 or 64 bits. Received: {y.dtype.name} of shape {y.shape}.")
    check_tolerances(y.dtype, rtol, atol)
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1. Received: {max_steps}.")
    derivative = _called(derivative)
    zeros = tf.zeros_like(tf.reshape(y, [y.shape[0] or tf.shape(y)[0], -1])[:, 0])
    t, end = zeros + tf.cast(start, y.dtype), zeros + tf.cast(end, y.dtype)
    direction = tf.sign(end - t)
    slope = derivative(y, t)
    size = _first_size(derivative, y, t, end, direction, slope, rtol, atol, method)
    nothing, active = tf.zeros_like(t, tf.int32), tf.not_equal(t, end)
    begin = _Row(t, y, slope, size, nothing > 0, nothing, 2 * tf.cast(active, tf.int32), active)

    def body(*values):
        row = _step(derivative, _Row(*values), end, direction, rtol, atol, method)
        stuck = row.rejected & (row.size < _smallest(row.t))
        failed = stuck | (row.steps >= max_steps) | tf.logical_not(tf.math.is_finite(row.size))
        return _values(dataclasses.replace(row, active=row.active & tf.logical_not(failed)))

    found = _Row(*tf.while_loop(lambda *values: tf.reduce_any(values[-1]), body, _values(begin)))
    converged = tf.equal(found.t, end)
    return Solution(tf.where(_like(converged, y), found.y, tf.constant(np.nan, y.dtype)), found.evaluations, converged)


def _called(derivative: Derivative) -> Derivative:
    """The derivative as one function of the graph, which all its uses call."""
    if tf.executing_eagerly():
        return derivative
    return tf.function(derivative, autograph=False, experimental_attributes={"_noinline": True})


def check_converged(what: str, numbers: np.ndarray, converged: np.ndarray) -> None:
    """Raises NotConvergedError if a row did not converge: "`what` NUMBER", with its number of those given, [B]."""
    failed = numbers[~converged]
    if len(failed):
        raise NotConvergedError(
            f"{what} {failed[0]} did not converge. Give larger tolerances, or look for scores that are not finite."
        )


def check_tolerances(dtype: tf.DType, rtol: float, atol: float) -> None:
    """Raises ValueError unless the tolerances are in range for numbers of this type."""
    least = 10.0 * _epsilon(dtype)
    if not least <= rtol < 1.0:
        raise ValueError(
            f"rtol must be at least {least:.2g}, which {dtype.name} can resolve, and below 1. Received: {rtol}."
        )
    if not 0.0 < atol < np.inf:
        raise ValueError(f"atol must be positive and finite. Received: {atol}.")


def _epsilon(dtype: tf.DType) -> float:
    return float(np.finfo(np.dtype(dtype.name)).eps)


def _smallest(t: tf.Tensor) -> tf.Tensor:
    """The smallest step size that is taken at a time, [B]: what its digits resolve."""
    return 10.0 * _epsilon(t.dtype) * tf.abs(t)


def _values(row: _Row) -> tuple[tf.Tensor, ...]:
    return tuple(getattr(row, field.name) for field in dataclasses.fields(row))


def _like(values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """[B] as [B, 1, ..., 1]."""
    return tf.reshape(values, [-1] + [1] * (len(y.shape) - 1))


def root_mean_square(y: tf.Tensor) -> tf.Tensor:
    """The root mean square of each row of y, [B, ...]; [B]."""
    return tf.sqrt(tf.reduce_mean(y * y, axis=tuple(range(1, len(y.shape)))))


def _first_size(derivative, y, start, end, direction, slope, rtol, atol, method) -> tf.Tensor:
    """The size of the first step of each row (Hairer, Norsett & Wanner 1993, section II.4), with one evaluation."""
    scale = atol + rtol * tf.abs(y)
    value, change = root_mean_square(y / scale), root_mean_square(slope / scale)
    guess = tf.where((value < 1e-5) | (change < 1e-5), tf.cast(1e-6, y.dtype), 0.01 * value / change)
    guess = tf.minimum(guess, tf.abs(end - start))
    moved = y + _like(direction * guess, y) * slope
    difference = (derivative(moved, start + direction * guess) - slope) / scale
    bend = tf.math.divide_no_nan(root_mean_square(difference), guess)
    steepest = tf.maximum(change, bend)
    size = tf.where(
        steepest <= 1e-15,
        tf.maximum(tf.cast(1e-6, y.dtype), 1e-3 * guess),
        (0.01 / steepest) ** (1.0 / (method.order + 1)),
    )
    return tf.minimum(tf.minimum(100.0 * guess, size), tf.abs(end - start))


def _step(derivative, row: _Row, end, direction, rtol, atol, method: Method) -> _Row:
    """One attempt of a step by the active rows; the others stay as they are."""
    left, wanted = tf.abs(end - row.t), tf.maximum(row.size, _smallest(row.t))
    size = tf.where(row.active, tf.minimum(wanted, left), 0.0)
    t_new = tf.where(wanted >= left, end, row.t + direction * size)
    y_new, stages = _stages(derivative, row, direction * size, t_new, method)
    h = _like(direction * size, row.y)
    scale = atol + rtol * tf.maximum(tf.abs(row.y), tf.abs(y_new))
    error = root_mean_square(h * _combination(method.errors, stages) / scale)
    accepted = row.active & (error < 1.0)  # not where it is NaN
    factor = _SAFETY * error ** (-1.0 / (method.order + 1))
    factor = tf.where(tf.math.is_finite(error), tf.clip_by_value(factor, _LEAST, _MOST), _LEAST)
    factor = tf.where(accepted & row.rejected, tf.minimum(factor, 1.0), factor)
    used = tf.cast(row.active, tf.int32)
    t = tf.where(accepted, t_new, row.t)
    return _Row(
        t,
        tf.where(_like(accepted, row.y), y_new, row.y),
        tf.where(_like(accepted, row.y), stages[-1], row.slope),
        tf.where(row.active, size * factor, row.size),
        row.active & tf.logical_not(accepted),
        row.steps + used,
        row.evaluations + used * (len(stages) - 1),
        row.active & tf.not_equal(t, end),
    )


def _stages(derivative, row: _Row, h, t_new, method: Method) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """y at the end of a step of size h [B], and the derivatives of all its stages.

    The stages are a loop, so that a compiled graph holds the derivative, perhaps a large network, once.
    """
    width = len(method.weights) + 1
    rows = [[*values, *[0.0] * (width - len(values))] for values in (*method.coefficients, method.weights)]
    table, nodes = tf.constant(rows, row.y.dtype), tf.constant([*method.nodes, 1.0], row.y.dtype)

    def body(number, moved, *stages):
        moved = row.y + _like(h, row.y) * _combination(tf.unstack(table[number]), stages)
        time = tf.where(tf.equal(number, len(rows) - 1), t_new, row.t + nodes[number] * h)
        slope = derivative(moved, time)
        return number + 1, moved, *(tf.where(tf.equal(number + 1, i), slope, old) for i, old in enumerate(stages))

    begin = tf.constant(0), row.y, row.slope, *[tf.zeros_like(row.y)] * (width - 1)
    _, y_new, *stages = tf.while_loop(lambda number, *_: number < len(rows), body, begin)
    return y_new, stages


def _combination(weights: Sequence[float | tf.Tensor], stages: Sequence[tf.Tensor]) -> tf.Tensor:
    """sum_i weights_i stages_i."""
    return tf.add_n([weight * stage for weight, stage in zip(weights, stages, strict=True)])
