"""UniPC: a multistep predictor for the clean image, and a corrector that costs no evaluation."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf.samplers import interpolation
from ncsn_tf.samplers.driver import batch_size
from ncsn_tf.score import ScoreFunction, denoise, expand
from ncsn_tf.sde import SDE, noise_ratio

State = tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]
"""The corrected x of the previous step and its time, past clean images, newest first, and their log rho, infinite for
none yet."""


@dataclasses.dataclass(frozen=True)
class UniPC:
    """A step of UniPC-p from t to an earlier t_next, with one evaluation.

    With lambda = log(alpha / sigma) and D the predicted clean image, the probability flow from s to t is

        x_t / sigma_t = x_s / sigma_s + integral of e^lambda D d lambda.

    The predictor integrates the polynomial in lambda through D at t and at p - 1 times before. At the next step, D at
    its result is known, and the corrector repeats the integral with that value too: the corrected x takes the place of
    the predicted one, without another evaluation. The result of a walk is predicted only. The order of convergence is
    p + 1 (with the corrector), lower while there are fewer values.

    The paper simplifies two of these integrals with a function B(h), of which it has two variants, where one weight of
    1/2 is exact only to the leading order; here all weights are those of the exact integral, for which B(h) cancels.

    Attributes:
      sde: the SDE; only its marginals are used.
      order: p, the largest number of values of the predictor, 1 to 3.
      correct: whether to correct.

    Raises:
      ValueError: for another order.

    Reference:
      Zhao et al., UniPC, 2023, sections 3.1 to 3.4, with data prediction (appendix A).
    """

    sde: SDE
    order: int = 3
    correct: bool = True

    def __post_init__(self):
        if self.order not in (1, 2, 3):
            raise ValueError(f"UniPC has the orders 1, 2 and 3 here. Received: {self.order}.")

    def start(self, x: tf.Tensor) -> State:
        """No values yet."""
        rows = batch_size(x)
        nowhere = tf.fill([rows], tf.constant(np.inf, x.dtype))
        return x, tf.ones([rows], x.dtype), (tf.zeros_like(x),) * self.order, (nowhere,) * self.order

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, tf.Tensor, State]:
        """Takes one step; see `driver.Step`."""
        previous, previous_t, values, places = state
        values = (denoise(score_fn, self.sde, x, t), *values)
        known = tf.math.is_finite(places[0])
        places = (-tf.math.log(noise_ratio(self.sde, t)), *places)
        if self.correct:
            # Without a previous step any earlier time will do: what it gives is not used.
            begin = tf.where(known, previous_t, t + 1.0)
            x = tf.where(expand(known, x), self._integrate(previous, begin, t, values, places), x)
        new = self._integrate(x, t, t_next, values[: self.order], places[: self.order])
        return new, new, (x, t, values[: self.order], places[: self.order])

    def _integrate(
        self,
        x: tf.Tensor,
        t: tf.Tensor,
        t_next: tf.Tensor,
        values: tuple[tf.Tensor, ...],
        places: tuple[tf.Tensor, ...],
    ) -> tf.Tensor:
        """x moved from t to t_next by the polynomial through the values at their places."""
        (_, sigma), (alpha_next, sigma_next) = self.sde.marginal(t), self.sde.marginal(t_next)
        begin = -tf.math.log(noise_ratio(self.sde, t))
        h = -tf.math.log(noise_ratio(self.sde, t_next)) - begin
        weights = interpolation.weights([(place - begin) / h for place in places], lambda u: h * tf.exp(h * (u - 1.0)))
        moved = expand(sigma_next / sigma, x) * x
        return moved + tf.add_n(
            [expand(alpha_next * weight, x) * value for weight, value in zip(weights, values, strict=True)]
        )
