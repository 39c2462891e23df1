"""Adams-Bashforth methods for the probability flow: polynomials through the noise that past steps predicted."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf.samplers import interpolation
from ncsn_tf.samplers.ddim import drift
from ncsn_tf.samplers.driver import batch_size
from ncsn_tf.score import ScoreFunction, expand, predicted_noise
from ncsn_tf.sde import SDE, noise_ratio

State = tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]
"""Past predictions, newest first, [B, ...] each, and their places on the clock, [B] each, infinite for none yet."""

CLOCKS = ("noise_ratio", "log_noise_ratio", "time")
WEIGHTS = ("exact", "fixed")
_FIXED = np.array([[24, 0, 0, 0], [36, -12, 0, 0], [46, -32, 10, 0], [55, -59, 37, -9]]) / 24.0
"""The weights of Adams-Bashforth methods in equal steps, by the number of values."""


@dataclasses.dataclass(frozen=True)
class AdamsBashforth:
    """A step of an Adams-Bashforth method from t to an earlier t_next, with one evaluation.

    In y = x / alpha and rho = sigma / alpha the probability flow is dy / d rho = e, the predicted noise. The step
    integrates the polynomial through e at t and at the times of up to order - 1 steps before:

        y_next = y + integral of p(v(rho)) d rho from rho to rho_next,

    a polynomial in the clock v: rho itself, log rho, or t, which is tAB-DEIS (Zhang & Chen 2023). The integral is exact
    for unequal steps. The first steps have fewer values and so a lower order.

    With "fixed" weights, those of equal steps such as (55, -59, 37, -9) / 24, whatever the steps are, the method is
    iPNDM: formally of order 1 on unequal steps, but good in practice.

    Attributes:
      sde: the SDE.
      order: the largest number of values, 1 to 4; 1 is DDIM.
      clock: "noise_ratio", "log_noise_ratio" or "time".
      weights: "exact" or "fixed", which has no clock.

    Raises:
      ValueError: for another order, clock or kind of weights.

    Reference:
      Zhang & Chen, Fast sampling of diffusion models with exponential integrator, 2023, sections 3 and 4; Liu et al.,
      Pseudo numerical methods, 2022, equation 12.
    """

    sde: SDE
    order: int = 3
    clock: str = CLOCKS[0]
    weights: str = WEIGHTS[0]

    def __post_init__(self):
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"Adams-Bashforth methods here have the orders 1, 2, 3 and 4. Received: {self.order}.")
        if self.clock not in CLOCKS:
            raise ValueError(f"clock must be one of {', '.join(CLOCKS)}. Received: {self.clock!r}.")
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights must be {' or '.join(WEIGHTS)}. Received: {self.weights!r}.")

    def start(self, x: tf.Tensor) -> State:
        """No predictions yet."""
        nowhere = tf.fill([batch_size(x)], tf.constant(np.inf, x.dtype))
        return (tf.zeros_like(x),) * (self.order - 1), (nowhere,) * (self.order - 1)

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, tf.Tensor, State]:
        """Takes one step; see `driver.Step`."""
        values, places = state
        values, places = (predicted_noise(score_fn, self.sde, x, t), *values), (self._place(t), *places)
        shares = self._exact(places, t, t_next) if self.weights == "exact" else self._fixed(places)
        noise = tf.add_n([expand(share, x) * value for share, value in zip(shares, values, strict=True)])
        x = drift(self.sde, x, t, t_next, noise)
        return x, x, (values[:-1], places[:-1])

    def _place(self, t: tf.Tensor) -> tf.Tensor:
        """The clock at t, [B]."""
        if self.clock == "time":
            return t
        rho = noise_ratio(self.sde, t)
        return rho if self.clock == "noise_ratio" else tf.math.log(rho)

    def _exact(self, places: tuple[tf.Tensor, ...], t: tf.Tensor, t_next: tf.Tensor) -> list[tf.Tensor]:
        """The shares of the values in the mean predicted noise of the step, [B] each; they sum to 1."""
        length = self._place(t_next) - places[0]
        found = interpolation.weights(
            [(place - places[0]) / length for place in places], lambda u: self._kernel(u, t, t_next)
        )
        total = tf.add_n(found)
        return [weight / total for weight in found]

    def _kernel(self, u: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor) -> tf.Tensor:
        """d rho / du up to a factor per row, at the part u of the way from t to t_next on the clock, [Q, B]."""
        if self.clock == "noise_ratio":
            return tf.ones_like(u * t)
        if self.clock == "log_noise_ratio":
            return tf.exp(u * tf.math.log(noise_ratio(self.sde, t_next) / noise_ratio(self.sde, t)))
        between = t + u * (t_next - t)
        flat = tf.reshape(between, [-1])
        sigma, g = self.sde.marginal(flat)[1], self.sde.diffusion(flat)
        return tf.reshape(noise_ratio(self.sde, flat) * (g / sigma) ** 2, tf.shape(between))

    def _fixed(self, places: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        """The weights of equal steps, by the number of values that each row has, [B] each."""
        table = tf.constant(_FIXED[: self.order, : self.order], places[0].dtype)
        count = tf.add_n([tf.cast(tf.math.is_finite(place), tf.int32) for place in places])
        return tf.unstack(tf.gather(table, count - 1), axis=1)
