"""Linear diffusions dx = f(t) x dt + g(t) dw on t in [0, 1]: t=0 is the data, t=1 the noise.

An SDE is immutable, and its methods return coefficients of shape [B], not images: x_t = alpha(t) x_0 + sigma(t) z.
Coefficients have the dtype of the given times.
"""

import dataclasses
import math
from typing import Any, Protocol

import tensorflow as tf

from ncsn_tf import random


class SDE(Protocol):
    """The contract of a linear SDE. Samplers, objectives and likelihoods use only these members and `transition`."""

    @property
    def data_range(self) -> tuple[float, float]:
        """(low, high), the range of the SDE's data."""
        ...

    @property
    def first_time(self) -> float:
        """The smallest time that training and sampling in continuous time visit."""
        ...

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The coefficients (alpha, sigma) of x_t given x_0, each [B] for t of shape [B]."""
        ...

    def drift(self, t: tf.Tensor) -> tf.Tensor:
        """f(t), [B]; d alpha / dt = f alpha."""
        ...

    def diffusion(self, t: tf.Tensor) -> tf.Tensor:
        """g(t), [B]; d sigma^2 / dt = 2 f sigma^2 + g^2."""
        ...

    def time(self, noise_ratio: tf.Tensor) -> tf.Tensor:
        """The t at which sigma / alpha equals `noise_ratio`, [B]."""
        ...

    def prior_sample(self, seeds: tf.Tensor, shape: random.Shape) -> tf.Tensor:
        """Draws x at t=1, float32 [B, *shape], from seeds int32 [B, 2]."""
        ...

    def prior_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """The log-density of the prior at x, [B] in nats for x of shape [B, ...]."""
        ...


def transition(sde: SDE, s: tf.Tensor, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The coefficients of x_t given x_s: x_t = alpha x_s + sigma z.

        alpha = alpha_t / alpha_s,   sigma^2 = sigma_t^2 (1 - (r_s / r_t)^2),   r = sigma / alpha

    Args:
      sde: the SDE.
      s: [B], the earlier times.
      t: [B], the later times, s <= t.

    Returns:
      (alpha, sigma), each [B]. The form above is accurate even where s is near t.
    """
    alpha_s, sigma_s = sde.marginal(s)
    alpha_t, sigma_t = sde.marginal(t)
    log_ratio = tf.math.log(sigma_s / alpha_s) - tf.math.log(sigma_t / alpha_t)
    return alpha_t / alpha_s, sigma_t * tf.sqrt(-tf.math.expm1(2.0 * log_ratio))


def noise_ratio(sde: SDE, t: tf.Tensor) -> tf.Tensor:
    """rho(t) = sigma / alpha, [B], the clock of the probability flow: x / alpha moves with the noise alone.

    The logarithm of the signal-to-noise ratio, lambda of the literature on solvers, is -log rho.
    """
    alpha, sigma = sde.marginal(t)
    return sigma / alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class VE:
    """The variance-exploding SDE: it adds noise and keeps the signal (Song et al. 2021, equation 9 and appendix C).

        alpha(t) = 1,  sigma(t) = sigma_min (sigma_max / sigma_min)^t,
        f(t) = 0,      g(t) = sigma(t) sqrt(2 log(sigma_max / sigma_min)).

    At L equally spaced times its sigmas are the geometric noise levels of NCSN. Its data are in [0, 1].

    Attributes:
      sigma_max: noise standard deviation at t=1, in data units.
      sigma_min: noise standard deviation at t=0, in data units.

    Raises:
      ValueError: unless 0 < sigma_min < sigma_max < infinity.
    """

    sigma_max: float
    sigma_min: float

    def __post_init__(self):
        if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                "The VE SDE needs 0 < sigma_min < sigma_max, both finite. "
                f"Received: sigma_max={self.sigma_max}, sigma_min={self.sigma_min}."
            )

    @property
    def data_range(self) -> tuple[float, float]:
        """(0, 1), the range of images."""
        return 0.0, 1.0

    @property
    def first_time(self) -> float:
        """1e-5, as in the authors' program for continuous time; NCSN's grid of levels ends at 0."""
        return 1e-5

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The coefficients (alpha, sigma) of x_t given x_0, each [B] for t of shape [B]."""
        t = as_times(t)
        return tf.ones_like(t), self.sigma_min * tf.exp(t * self._log_ratio)

    def drift(self, t: tf.Tensor) -> tf.Tensor:
        """f(t) = 0, [B]."""
        return tf.zeros_like(as_times(t))

    def diffusion(self, t: tf.Tensor) -> tf.Tensor:
        """g(t), [B], with g^2 = d sigma^2 / dt."""
        return self.marginal(t)[1] * math.sqrt(2.0 * self._log_ratio)

    def time(self, noise_ratio: tf.Tensor) -> tf.Tensor:
        """The t at which sigma / alpha = sigma equals `noise_ratio`, [B]."""
        return tf.math.log(as_times(noise_ratio) / self.sigma_min) / self._log_ratio

    def prior_sample(self, seeds: tf.Tensor, shape: random.Shape) -> tf.Tensor:
        """Draws x at t=1 from N(0, sigma_max^2 I), float32 [B, *shape], from seeds int32 [B, 2]."""
        return self.sigma_max * random.normal(seeds, shape)

    def prior_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """log N(x; 0, sigma_max^2 I) in nats, [B] for x of shape [B, ...]."""
        return _normal_log_prob(x, self.sigma_max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LinearRate:
    """The part that `VP` and `SubVP` share: a rate of decay that grows linearly in time, and its integral.

        beta(t) = beta_min + (beta_max - beta_min) t,   B(t) = beta_min t + (beta_max - beta_min) t^2 / 2,
        f(t) = -beta(t) / 2,                            alpha(t) = exp(-B(t) / 2).

    Their data are in [-1, 1], and their prior is N(0, I).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        if not 0.0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                f"{type(self).__name__} needs 0 < beta_min <= beta_max, both finite. "
                f"Received: beta_min={self.beta_min}, beta_max={self.beta_max}."
            )

    @property
    def data_range(self) -> tuple[float, float]:
        """(-1, 1): with data of about unit variance, the variance is preserved."""
        return -1.0, 1.0

    @property
    def first_time(self) -> float:
        """1e-5, the smallest time of training in the authors' program, which ends sampling at 1e-3."""
        return 1e-5

    def beta(self, t: tf.Tensor) -> tf.Tensor:
        """beta(t), [B]."""
        return self.beta_min + (self.beta_max - self.beta_min) * as_times(t)

    def _integral(self, t: tf.Tensor) -> tf.Tensor:
        """B(t), [B]."""
        t = as_times(t)
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def _time(self, integral: tf.Tensor) -> tf.Tensor:
        """The t at which B(t) equals `integral`, [B]; the root is written so that a small one keeps its digits."""
        slope = self.beta_max - self.beta_min
        return 2.0 * integral / (self.beta_min + tf.sqrt(self.beta_min**2 + 2.0 * slope * integral))

    def drift(self, t: tf.Tensor) -> tf.Tensor:
        """f(t) = -beta(t) / 2, [B]."""
        return -0.5 * self.beta(t)

    def prior_sample(self, seeds: tf.Tensor, shape: random.Shape) -> tf.Tensor:
        """Draws x at t=1 from N(0, I), float32 [B, *shape], from seeds int32 [B, 2]."""
        return random.normal(seeds, shape)

    def prior_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """log N(x; 0, I) in nats, [B] for x of shape [B, ...]."""
        return _normal_log_prob(x, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VP(_LinearRate):
    """The variance-preserving SDE: the signal fades as the noise grows (Song et al. 2021, equation 11, appendix C).

        alpha(t)^2 = e^{-B(t)},  sigma(t)^2 = 1 - e^{-B(t)},  f(t) = -beta(t) / 2,  g(t)^2 = beta(t),

    with B(t) = beta_min t + (beta_max - beta_min) t^2 / 2. `times.ddpm` has the levels of its discrete form, DDPM. Its
    data are in [-1, 1].

    Attributes:
      beta_min: beta at t=0.
      beta_max: beta at t=1.

    Raises:
      ValueError: unless 0 < beta_min <= beta_max < infinity.
    """

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The coefficients (alpha, sigma) of x_t given x_0, each [B] for t of shape [B]."""
        integral = self._integral(t)
        return tf.exp(-0.5 * integral), tf.sqrt(-tf.math.expm1(-integral))

    def diffusion(self, t: tf.Tensor) -> tf.Tensor:
        """g(t) = sqrt(beta(t)), [B]."""
        return tf.sqrt(self.beta(t))

    def time(self, noise_ratio: tf.Tensor) -> tf.Tensor:
        """The t at which sigma / alpha = sqrt(e^B - 1) equals `noise_ratio`, [B]."""
        return self._time(tf.math.log1p(as_times(noise_ratio) ** 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubVP(_LinearRate):
    """The sub-VP SDE: the signal of `VP`, less noise at every time (Song et al. 2021, equation 12, appendix C).

        alpha(t)^2 = e^{-B(t)},  sigma(t) = 1 - e^{-B(t)},  f(t) = -beta(t) / 2,  g(t)^2 = beta(t) (1 - e^{-2 B(t)}),

    with B(t) = beta_min t + (beta_max - beta_min) t^2 / 2. Its data are in [-1, 1].

    Attributes:
      beta_min: beta at t=0.
      beta_max: beta at t=1.

    Raises:
      ValueError: unless 0 < beta_min <= beta_max < infinity.
    """

    def marginal(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The coefficients (alpha, sigma) of x_t given x_0, each [B] for t of shape [B]."""
        integral = self._integral(t)
        return tf.exp(-0.5 * integral), -tf.math.expm1(-integral)

    def diffusion(self, t: tf.Tensor) -> tf.Tensor:
        """g(t), [B]."""
        return tf.sqrt(self.beta(t) * -tf.math.expm1(-2.0 * self._integral(t)))

    def time(self, noise_ratio: tf.Tensor) -> tf.Tensor:
        """The t at which sigma / alpha = 2 sinh(B / 2) equals `noise_ratio`, [B]."""
        return self._time(2.0 * tf.math.asinh(0.5 * as_times(noise_ratio)))


def _normal_log_prob(x: tf.Tensor, deviation: float) -> tf.Tensor:
    """log N(x; 0, deviation^2 I) in nats, [B] for x of shape [B, ...]."""
    flat = tf.reshape(x, [tf.shape(x)[0], -1])
    dimensions = tf.cast(tf.shape(flat)[1], flat.dtype)
    log_normaliser = 0.5 * dimensions * math.log(2.0 * math.pi * deviation**2)
    return -0.5 * tf.reduce_sum(flat**2, axis=1) / deviation**2 - log_normaliser


def as_times(t: Any) -> tf.Tensor:
    """Converts times, or noise ratios, to a tensor of their own floating dtype; Python numbers become float32.

    Raises:
      ValueError: for integers.
    """
    t = tf.convert_to_tensor(t)
    if not t.dtype.is_floating:
        raise ValueError(f"Times must be floats; cast them. Received: {t.dtype.name}.")
    return t
