"""Models log p(x) = sum_k alpha_k G(w_k' x) + const: their density G, their score and their score-matching objective.

Independent component analysis has d filters w_k and alpha_k = 1; the overcomplete model has more filters than
dimensions, with unit norms. The functions here assume neither restriction.

Reference: Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6, 2005, sections 3.2 and
3.3.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

Array = np.ndarray | tf.Tensor


@dataclasses.dataclass(frozen=True)
class LogCosh:
    """The even log-density G(s) = -power log cosh(rate s), up to a constant.

    Attributes:
      power: the exponent of 1 / cosh, positive.
      rate: the inverse of the scale of s, positive.
    """

    power: float
    rate: float

    def log_density(self, s: Array) -> tf.Tensor:
        """G(s), not normalised; of the shape and dtype of s."""
        size = tf.abs(self.rate * s)  # log cosh, for any size: |s| + log((1 + exp(-2|s|)) / 2)
        return -self.power * (size + tf.math.log1p(tf.exp(-2.0 * size)) - math.log(2.0))

    def slope(self, s: Array) -> tf.Tensor:
        """g(s) = G'(s)."""
        return -self.power * self.rate * tf.tanh(self.rate * s)

    def curvature(self, s: Array) -> tf.Tensor:
        """g'(s) = G''(s), negative everywhere."""
        return -self.power * self.rate**2 * (1.0 - tf.tanh(self.rate * s) ** 2)

    @property
    def log_normaliser(self) -> float:
        """log of the integral of exp(G): sqrt(pi) Gamma(power / 2) / (rate Gamma((power + 1) / 2))."""
        gammas = math.lgamma(self.power / 2) - math.lgamma((self.power + 1) / 2)
        return 0.5 * math.log(math.pi) + gammas - math.log(self.rate)


LOGISTIC = LogCosh(power=2.0, rate=math.pi / (2.0 * math.sqrt(3.0)))
"""The logistic density of unit variance (section 3.2).

Its normaliser is 4 sqrt(3) / pi. The paper subtracts log 4, which normalises the logistic density of unit scale; the
difference, log(sqrt(3) / pi), cancels in score matching but not in likelihoods, which use `log_normaliser`.
"""

TANH = LogCosh(power=1.0, rate=1.0)
"""G(s) = -log cosh(s), so that g = -tanh: the overcomplete model's density, of no particular scale (section 3.3)."""


def score(density: LogCosh, x: Array, filters: Array, alphas: Array) -> tf.Tensor:
    """The gradient of log p at x, psi(x) = sum_k alpha_k w_k g(w_k' x) (equation 9; section 3.3).

    Args:
      density: G.
      x: [n, d].
      filters: the rows w_k, [m, d].
      alphas: the weights alpha_k, [m].

    Returns:
      [n, d].

    Raises:
      ValueError: if the shapes disagree.
    """
    _check_shapes(x, filters, alphas)
    return tf.matmul(alphas * density.slope(tf.matmul(x, filters, transpose_b=True)), filters)


def objective(density: LogCosh, x: Array, filters: Array, alphas: Array) -> tf.Tensor:
    """The score-matching objective on a sample, the mean over x of tr(d psi / dx) + 1/2 ||psi||^2.

        J = mean_t[ sum_k alpha_k ||w_k||^2 g'(w_k' x) + 1/2 || sum_k alpha_k w_k g(w_k' x) ||^2 ]

    Equation 10 is this with alpha_k = 1, equation 12 with ||w_k|| = 1; both write the square as a double sum over
    filters, which takes m / d times the work.

    Args:
      density: G.
      x: the sample, [n, d].
      filters: the rows w_k, [m, d].
      alphas: the weights alpha_k, [m].

    Returns:
      A scalar, in units of 1 / x^2.

    Raises:
      ValueError: if the shapes disagree.
    """
    _check_shapes(x, filters, alphas)
    outputs = tf.matmul(x, filters, transpose_b=True)
    divergence = tf.linalg.matvec(density.curvature(outputs), alphas * tf.reduce_sum(tf.square(filters), axis=1))
    psi = tf.matmul(alphas * density.slope(outputs), filters)
    return tf.reduce_mean(divergence + 0.5 * tf.reduce_sum(psi**2, axis=1))


def _check_shapes(x: Array, filters: Array, alphas: Array) -> None:
    shapes = [tf.TensorShape(array.shape) for array in (x, filters, alphas)]
    fit = [shape.rank for shape in shapes] == [2, 2, 1]
    if not (fit and shapes[1].is_compatible_with([shapes[2][0], shapes[0][1]])):
        raise ValueError(
            "Expected x [n, d], filters [m, d] and alphas [m]; give one row of d weights and one alpha per filter. "
            f"Received: x {shapes[0]}, filters {shapes[1]}, alphas {shapes[2]}."
        )
