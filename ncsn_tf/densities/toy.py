"""Toy densities: data whose perturbed law is known, so that samplers and scores can be evaluated without training."""

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.densities.density import LOG_ROOT_TWO_PI, Coefficient, Density


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture(Density):
    """A mixture of isotropic Gaussians, sum_k w_k N(m_k, s_k^2 I).

    When perturbed, it is the mixture of N(alpha m_k, v_k I), v_k = alpha^2 s_k^2 + sigma^2, with the score
    sum_k r_k (alpha m_k - x) / v_k, where r_k is the probability that x came from component k.

    Attributes:
      weights: w, [K], none negative, summing to 1.
      means: m, [K, D], in data units.
      deviations: s, a scalar or [K], positive, in data units.

    Raises:
      ValueError: if an attribute is invalid.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray | float = 1.0

    def __post_init__(self):
        weights, means, deviations = _arrays(self, "weights", "means", "deviations")
        if means.ndim != 2 or means.shape[:1] != weights.shape or deviations.shape not in ((), weights.shape):
            raise ValueError(
                "A mixture needs weights [K], means [K, D] and deviations [K] or a scalar. "
                f"Received shapes: {weights.shape}, {means.shape}, {deviations.shape}."
            )
        # 1e-6 allows for weights rounded to float32; a forgotten weight makes a larger difference.
        if not (np.all(weights >= 0.0) and abs(weights.sum() - 1.0) < 1e-6):
            raise ValueError(f"A mixture's weights must sum to 1, none negative. Received: {weights}.")
        _check_positive("A mixture's deviations", deviations)

    @classmethod
    def two_modes(cls) -> "Mixture":
        """1/5 N((-5, -5), I) + 4/5 N((5, 5), I), of Song & Ermon 2019, section 3.2."""
        return cls(np.array([0.2, 0.8]), np.array([[-5.0, -5.0], [5.0, 5.0]]))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.means.shape[1:]

    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        u, z = _draw(seeds, 1, *self.shape)
        component = _choose(u[:, 0], self.weights)
        deviations = np.broadcast_to(self.deviations, self.weights.shape)
        return _pick(self.means, component) + _pick(deviations[:, None], component) * z

    def responsibilities(self, x: tf.Tensor, alpha: Coefficient = 1.0, sigma: Coefficient = 0.0) -> tf.Tensor:
        """The probability that x came from each component, [B, K] of x's type; arguments and errors of `log_prob`."""
        x = tf.convert_to_tensor(x)
        return tf.cast(tf.nn.softmax(self._components(*self._inputs(x, alpha, sigma, False))[0]), x.dtype)

    def _components(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """log w_k N(x; alpha m_k, v_k I), [B, K], and the components' scores, [B, K, D]."""
        variance = tf.square(alpha * self.deviations) + sigma**2
        difference = tf.subtract(alpha[:, :, None] * self.means, x[:, None])
        exponent = -0.5 * tf.reduce_sum(difference**2, axis=-1) / variance
        log_normaliser = self.shape[0] * (LOG_ROOT_TWO_PI + 0.5 * tf.math.log(variance))
        log_weights = tf.math.log(tf.constant(self.weights))
        return log_weights + exponent - log_normaliser, difference / variance[:, :, None]

    def _log_prob(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        return tf.reduce_logsumexp(self._components(x, alpha, sigma)[0], axis=1)

    def _score(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        logits, scores = self._components(x, alpha, sigma)
        return tf.reduce_sum(tf.nn.softmax(logits)[:, :, None] * scores, axis=1)


@dataclasses.dataclass(frozen=True)
class Ring(Density):
    """A circle about the origin of the plane, uniform in angle and blurred by N(0, width^2 I).

    With R = alpha radius, v = alpha^2 width^2 + sigma^2, r = |x| and k = r R / v, the average over the angle is a
    modified Bessel function, as in the von Mises density:

        log p(x) = -log(2 pi v) - (r^2 + R^2) / (2 v) + log I_0(k),   score = (R I_1(k) / I_0(k) x / r - x) / v.

    Attributes:
      radius: of the circle, positive, in data units.
      width: standard deviation of the blur in each direction, positive, in data units.

    Raises:
      ValueError: unless both are positive and finite.
    """

    radius: float
    width: float

    def __post_init__(self):
        _check_positive("A ring's radius and width", np.array([self.radius, self.width]))

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        u, z = _draw(seeds, 1, 2)
        return self.radius * _direction(2.0 * math.pi * u) + self.width * z

    def _polar(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """r, R and v."""
        squares = tf.reduce_sum(x**2, axis=1, keepdims=True)
        # At the centre the root has no derivative; the density's derivative is 0, which is what `where` gives.
        r = tf.where(squares > 0.0, tf.sqrt(tf.where(squares > 0.0, squares, 1.0)), 0.0)
        return r, alpha * self.radius, (alpha * self.width) ** 2 + sigma**2

    def _log_prob(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        r, radius, variance = self._polar(x, alpha, sigma)
        # log I_0(k) = k + log i0e(k), and k completes the square.
        log_i0e = tf.math.log(tf.math.bessel_i0e(r * radius / variance))
        log_prob = log_i0e - 0.5 * (r - radius) ** 2 / variance - tf.math.log(variance) - 2.0 * LOG_ROOT_TWO_PI
        return tf.squeeze(log_prob, axis=1)

    def _score(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        r, radius, variance = self._polar(x, alpha, sigma)
        k = r * radius / variance
        away = tf.where(k > 0.0, k, 1.0)
        ratio = tf.where(k > 0.0, tf.math.bessel_i1e(away) / (away * tf.math.bessel_i0e(away)), 0.5)  # I_1 / (k I_0)
        return x / variance * (radius**2 / variance * ratio - 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes(Density):
    """The uniform density on the union of K disjoint boxes.

    With V the total volume of the boxes, the perturbed density is

        p(x) = 1 / (alpha^D V) sum_k prod_d [Phi((x_d - alpha l_kd) / sigma) - Phi((x_d - alpha u_kd) / sigma)].

    At sigma = 0, `log_prob` is flat in the boxes and -infinity outside, and the score does not exist: `score` raises,
    or returns NaN for a sigma that is known only when the graph runs.

    Attributes:
      lower: l, [K, D], the least corner of each box, in data units.
      upper: u, [K, D], the greatest.

    Raises:
      ValueError: if the corners do not define boxes with lower < upper, or two boxes overlap.
    """

    lower: np.ndarray
    upper: np.ndarray
    _score_needs_noise: ClassVar[bool] = True

    def __post_init__(self):
        lower, upper = _arrays(self, "lower", "upper")
        if lower.ndim != 2 or lower.shape != upper.shape or not lower.size:
            raise ValueError(f"Boxes need lower and upper, both [K, D]. Received shapes: {lower.shape}, {upper.shape}.")
        if not (np.all(lower < upper) and np.all(np.isfinite([lower, upper]))):
            raise ValueError(f"Boxes need lower < upper, both finite. Received: {lower.tolist()}, {upper.tolist()}.")
        shared = np.minimum(upper[:, None], upper) - np.maximum(lower[:, None], lower)
        pairs = np.argwhere(np.triu(np.all(shared > 1e-9 * (upper - lower), axis=-1), k=1))  # 1e-9: edges are rounded
        if len(pairs):
            raise ValueError(f"Boxes must not overlap; split them. Received: boxes {pairs[0].tolist()} overlap.")

    @classmethod
    def square(cls, side: float = 2.0) -> "Boxes":
        """The uniform density on a square of the plane centred at the origin, `side` in data units."""
        return cls(np.full((1, 2), -side / 2.0), np.full((1, 2), side / 2.0))

    @classmethod
    def checkerboard(cls, cells: int = 4, side: float = 8.0) -> "Boxes":
        """Every other cell of a board centred at the origin: 2 or more `cells` along a `side` in data units."""
        if cells < 2:
            raise ValueError(f"A checkerboard needs 2 or more cells along a side. Received: {cells}.")
        corners = np.array([(i, j) for i in range(cells) for j in range(cells) if (i + j) % 2 == 0])
        edges = np.linspace(-side / 2.0, side / 2.0, cells + 1)
        return cls(edges[corners], edges[corners + 1])

    @property
    def shape(self) -> tuple[int, ...]:
        return self.lower.shape[1:]

    @functools.cached_property
    def _volumes(self) -> np.ndarray:
        return np.prod(self.upper - self.lower, axis=1)

    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        u, _ = _draw(seeds, 1 + self.shape[0], 0)
        box = _choose(u[:, 0], self._volumes / self._volumes.sum())
        return _pick(self.lower, box) + _pick(self.upper - self.lower, box) * u[:, 1:]

    def _log_prob(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        noisy = sigma > 0.0
        masses, _ = self._masses(x, alpha, tf.where(noisy, sigma, 1.0))
        place = (x / alpha)[:, None]
        inside = tf.reduce_any(tf.reduce_all((place >= self.lower) & (place <= self.upper), axis=-1), axis=-1)
        flat = tf.where(inside, tf.zeros([], x.dtype), -math.inf)
        log_volume = math.log(self._volumes.sum()) + self.shape[0] * tf.math.log(alpha[:, 0])
        return tf.where(noisy[:, 0], tf.reduce_logsumexp(masses, axis=1), flat) - log_volume

    def _score(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        masses, slopes = self._masses(x, alpha, sigma)
        return tf.reduce_sum(tf.nn.softmax(masses)[:, :, None] * slopes, axis=1) / sigma

    def _masses(self, x: tf.Tensor, alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The log of each box's product, [B, K], and sigma times its gradient, [B, K, D]."""
        scale = (alpha / sigma)[:, :, None]
        half = scale * (0.5 * (self.upper - self.lower))
        y = (x / sigma)[:, None] - scale * (0.5 * (self.upper + self.lower))
        # The mass Phi(y + h) - Phi(y - h) is even in y. Computed at -|y| and relative to the larger Phi, it keeps its
        # digits; so does the slope phi(y + h) - phi(y - h), relative to the larger phi.
        log_near, near_ratio = _log_ndtr(half - tf.abs(y))
        _, far_ratio = _log_ndtr(-half - tf.abs(y))
        log_phi_fall = -2.0 * half * tf.abs(y)
        log_kept = tf.math.log(-tf.math.expm1(far_ratio - near_ratio + log_phi_fall))
        slope = tf.sign(y) * tf.math.expm1(log_phi_fall) * tf.exp(-near_ratio - log_kept)
        return tf.reduce_sum(log_near + log_kept, axis=-1), slope


@dataclasses.dataclass(frozen=True)
class TwoMoons:
    """Two interlocking half circles of radius 1 about (0, 0) and (1, 1/2), blurred by N(0, width^2 I).

    It gives samples only: its density, perturbed or not, is not implemented in closed form.

    Attributes:
      width: standard deviation of the blur, in data units; a ValueError unless it is positive and finite.
    """

    width: float

    def __post_init__(self):
        _check_positive("The moons' width", np.array(self.width))

    def sample(self, seeds: tf.Tensor) -> tf.Tensor:
        """Draws examples, float32 [B, 2], for seeds int32 [B, 2]; row b depends on `seeds[b]` alone."""
        u, z = _draw(seeds, 2, 2)
        upper = _direction(math.pi * u[:, :1])
        return tf.where(u[:, 1:] < 0.5, upper, [1.0, 0.5] - upper) + self.width * z


def _draw(seeds: tf.Tensor, uniforms: int, normals: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Uniform numbers on [0, 1), [B, uniforms], and standard normal ones, [B, normals], independent of each other."""
    u = random.uniform(random.fold_each(seeds, 0), (uniforms,))
    return u, random.normal(random.fold_each(seeds, 1), (normals,))


def _choose(u: tf.Tensor, probabilities: np.ndarray) -> tf.Tensor:
    """Draws indices with these probabilities [K], int32 [B], from uniform numbers u [B]."""
    bounds = tf.constant(np.cumsum(probabilities)[:-1], tf.float32)
    return tf.reduce_sum(tf.cast(u[:, None] >= bounds, tf.int32), axis=1)


def _pick(rows: np.ndarray, index: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.constant(rows, tf.float32), index)


def _direction(angle: tf.Tensor) -> tf.Tensor:
    return tf.concat([tf.cos(angle), tf.sin(angle)], axis=1)


def _log_ndtr(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """log Phi(z) and log Phi(z) / phi(z) of the normal distribution, in float64, with relative error 1e-15.

    By erfc down to z = -20, and below by phi(z) / -z (1 - 1/z^2 + 3/z^4 - 15/z^6 ...), whose tenth term is 1e-17 there
    (Abramowitz & Stegun 26.2.12).
    """
    body, tail = tf.maximum(z, -20.0), tf.minimum(z, -20.0)
    log_body, log_phi = tf.math.log(0.5 * tf.math.erfc(-math.sqrt(0.5) * body)), -0.5 * z**2 - LOG_ROOT_TWO_PI
    series = tf.ones_like(z)
    for odd in range(17, 0, -2):
        series = 1.0 - odd / tail**2 * series
    log_tail_ratio = tf.math.log(series / -tail)
    far = z < -20.0
    return tf.where(far, log_tail_ratio + log_phi, log_body), tf.where(far, log_tail_ratio, log_body - log_phi)


def _arrays(density: Density, *names: str) -> list[np.ndarray]:
    """The named fields, each made a float64 array in place."""
    for name in names:
        object.__setattr__(density, name, np.asarray(getattr(density, name), np.float64))
    return [getattr(density, name) for name in names]


def _check_positive(what: str, values: np.ndarray) -> None:
    if not np.all((values > 0.0) & (values < math.inf)):
        raise ValueError(f"{what} must be positive and finite. Received: {values}.")
