"""Minimisation of a smooth function of a few thousand parameters on the whole sample."""

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
from scipy import optimize
from sklearn.exceptions import ConvergenceWarning


@dataclasses.dataclass(frozen=True)
class Minimum:
    """The end of a minimisation.

    Attributes:
      position: float64, of the shape of the start.
      value: the function's value at `position`.
      history: the value at the start and after each iteration, float64 [iterations + 1].
      converged: whether no component of the gradient exceeds the tolerance.
    """

    position: np.ndarray
    value: float
    history: np.ndarray
    converged: bool

    @property
    def iterations(self) -> int:
        return len(self.history) - 1


def minimise(
    value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    *,
    tolerance: float,
    max_iter: int,
) -> Minimum:
    """Minimises by L-BFGS with line search.

    Args:
      value_and_gradient: maps a position of the shape of `start` to the value and the gradient, of the same shape.
      start: the first position.
      tolerance: stop when no component of the gradient is larger in magnitude.
      max_iter: the maximum number of iterations.

    Returns:
      The last position.

    Raises:
      ValueError: if the function or its gradient is not finite at the last position.
    """

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradient(flat.reshape(start.shape))
        return float(value), np.ravel(np.asarray(gradient, np.float64))

    history = [evaluate(np.ravel(start))[0]]
    result = optimize.minimize(
        evaluate,
        np.ravel(start),
        jac=True,
        method="L-BFGS-B",
        callback=lambda intermediate_result: history.append(float(intermediate_result.fun)),
        # Only the gradient decides when to stop (ftol=0): slow progress does not mean convergence.
        options={"maxiter": max_iter, "maxfun": 20 * max_iter, "maxcor": 20, "gtol": tolerance, "ftol": 0.0},
    )
    value, gradient = evaluate(result.x)
    steepest = np.max(np.abs(gradient))
    if not (np.isfinite(value) and np.isfinite(steepest)):
        raise ValueError(
            f"The objective is not finite; scale the data to a spread near 1. Received: value {value}, largest "
            f"gradient {steepest}, after {len(history) - 1} iterations."
        )
    return Minimum(result.x.reshape(start.shape), value, np.array(history), bool(steepest <= tolerance))


def warn_unless_converged(minimum: Minimum, estimator: str) -> None:
    """Warns the user of an estimator if its last position is not yet a minimum."""
    if not minimum.converged:
        warnings.warn(
            f"{estimator} stopped after {minimum.iterations} iterations before its gradient fell to the tolerance; "
            "raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
