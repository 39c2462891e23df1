"""Brownian paths that may be asked for at any time, in any order."""

import dataclasses

import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import expand

DEPTH = 20
"""The number of halvings by which a time is approached; closer than 2^-20 of sqrt(t), or 2^-19 of t, it is straight."""


@dataclasses.dataclass(frozen=True)
class BrownianPath:
    """One Brownian path per row: w(t) for t in [0, 1], with w(0) = 0 and independent increments of variance dt.

    If a solver rejects a step and draws fresh noise for a shorter one, the noise that it keeps is biased. The seeds fix
    this path before the first step: a solver finds the same path at whatever times it tries. Each value
    is found by halving: w at the middle of an interval, given its ends, is normal (a Brownian bridge), with a seed of
    its own. Intervals are halved in sqrt(t), because solvers take their shortest steps near t=0.

    Attributes:
      seeds: int32 [B, 2], one per row.
      shape: of one row.
      dtype: of the values, float32 or float64.
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Reference:
      Gaines & Lyons, Variable step size control in the numerical solution of stochastic differential equations, 1997.
    """

    seeds: tf.Tensor
    shape: random.Shape
    dtype: tf.DType = tf.float32
    noise: Noise = random.normal

    def __call__(self, t: tf.Tensor) -> tf.Tensor:
        """w(t), [B, *shape], for t [B] in [0, 1]."""
        t = tf.cast(t, self.dtype)
        zeros, nodes = tf.zeros_like(t), tf.zeros_like(self.seeds[:, 0])
        w_end = self._normal(nodes)

        def body(level, node, low, high, w_low, w_high):
            middle = 0.5 * (low + high)
            start, inside, end = low**2, middle**2, high**2
            share = (inside - start) / (end - start)
            deviation = tf.sqrt((1.0 - share) * (inside - start))
            w_middle = w_low + expand(share, w_low) * (w_high - w_low) + expand(deviation, w_low) * self._normal(node)
            later = t >= inside
            chosen = expand(later, w_low)
            return (
                level + 1,
                2 * node + tf.cast(later, tf.int32),
                tf.where(later, middle, low),
                tf.where(later, high, middle),
                tf.where(chosen, w_middle, w_low),
                tf.where(chosen, w_high, w_middle),
            )

        begin = tf.constant(0), nodes + 1, zeros, zeros + 1.0, tf.zeros_like(w_end), w_end
        _, _, low, high, w_low, w_high = tf.while_loop(lambda level, *_: level < DEPTH, body, begin)
        share = (t - low**2) / (high**2 - low**2)
        return w_low + expand(share, w_low) * (w_high - w_low)

    def _normal(self, nodes: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.noise(random.per_row(self.seeds, nodes), self.shape), self.dtype)
