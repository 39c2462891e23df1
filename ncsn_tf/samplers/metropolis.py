"""Langevin dynamics with Metropolis's correction: exact at any step size, but it needs the density itself."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.score import ScoreFunction, expand


@dataclasses.dataclass(frozen=True)
class MetropolisLangevin:
    """Metropolis-adjusted Langevin dynamics, MALA (Roberts & Tweedie 1996).

    The step of Langevin dynamics is a proposal,

        y = x + a/2 score(x, t) + sqrt(a) z,   a = step_size(t),

    with the density q(y | x) = N(y; x + a/2 score(x, t), a I). It is accepted with probability

        min(1, p_t(y) q(x | y) / (p_t(x) q(y | x)))

    and otherwise x is left unchanged. The stationary density is then p_t at every step size and for every score
    function: a wrong score costs acceptance, not correctness. Song & Ermon (2019, section 2.2) omit the correction,
    because the error is small for small steps; a score network does not give the density that it needs.

    The score and the density are each evaluated twice per step, at x and at y: a step keeps nothing for the next. A
    walk must start where the density is positive.

    Attributes:
      log_prob: (x [B, ...], t [B]) -> [B], log p_t(x) in nats up to a constant that may depend on t.
      step_size: a(t), [B] for t of shape [B], in squared data units, as for `langevin.Langevin`; see
        `langevin.constant`. It must depend only on t.
    """

    log_prob: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    step_size: Callable[[tf.Tensor], tf.Tensor]

    def start(self, x: tf.Tensor) -> tuple[()]:
        """(): nothing is kept from step to step."""
        return ()

    def __call__(
        self, score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, t_next: tf.Tensor, seeds: tf.Tensor, state: tuple[()]
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[()]]:
        """Takes one step at time t, towards the density perturbed to t; `t_next` is not used. See `driver.Step`.

        Where the proposal is rejected, x and its mean are both the old x.

        Raises:
          ValueError: if `log_prob` does not return one value per example.
        """
        del t_next
        size = expand(self.step_size(t), x)
        mean = x + 0.5 * size * score_fn(x, t)
        proposal = mean + tf.sqrt(size) * random.normal(seeds, x.shape[1:])
        back = proposal + 0.5 * size * score_fn(proposal, t)
        log_ratio = self._log_prob(proposal, t) - self._log_prob(x, t)
        log_ratio += _log_density(x, back, size) - _log_density(proposal, mean, size)
        # Where the density is not defined, the ratio is NaN, which compares as false: the proposal is rejected.
        accepted = tf.math.log(random.uniform(random.fold_each(seeds, random.Stream.ACCEPTANCE))) < log_ratio
        accepted = expand(accepted, x)
        return tf.where(accepted, proposal, x), tf.where(accepted, mean, x), state

    def _log_prob(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        log_prob = self.log_prob(x, t)
        if log_prob.shape.rank != 1 or not log_prob.shape.is_compatible_with(x.shape[:1]):
            raise ValueError(
                "log_prob must return one value per example, [B] for x of shape [B, ...]: sum over the other axes. "
                f"Received: {log_prob.shape} for x of shape {x.shape}."
            )
        return tf.cast(log_prob, x.dtype)


def _log_density(x: tf.Tensor, mean: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """log N(x; mean, size I) up to a constant that depends on the size alone, [B]."""
    return tf.reduce_sum(-0.5 * (x - mean) ** 2 / size, axis=tuple(range(1, len(x.shape))))
