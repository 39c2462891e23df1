"""Correctors: Langevin steps at one time, sized by a signal-to-noise ratio, between the steps of a predictor.

No step size depends on the other samples of a batch. The authors' Langevin corrector takes means of norms over the
batch; here each sample has its own norm, or all have the expected norm of their time, which was measured before.
"""

import dataclasses
import math
from typing import Protocol

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.langevin import Noise
from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE, transition


class Corrector(Protocol):
    """The size of a corrector's steps."""

    def __call__(self, sde: SDE, t: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """The size e of x + e score + sqrt(2 e) z at times t [B], before the SDE's factor; [B].

        Args:
          sde: the SDE.
          t: [B].
          scores: [B, ...], the scores at x and t.
        """
        ...


@dataclasses.dataclass(frozen=True)
class LangevinSize:
    """The step size of the Langevin corrector: e = 2 (r ||z|| / ||score||)^2, with ||z|| = sqrt(D).

    The authors' program takes the means of both norms over the batch, so that a sample depends on its batch. Here
    ||score|| is the norm of each sample's own score, or the expected norm at its time, which is better in few
    dimensions, where a norm may be far from its mean.

    On Gaussian data, with the expected norm sqrt(D / v), the corrector's stationary variance is v / (1 - r^2), not v.

    Attributes:
      ratio: r, the signal-to-noise ratio; 0.16 for VE and 0.01 for VP on CIFAR-10 in the paper.
      norms: the expected norms; None for each sample's own.

    Reference:
      Song et al. 2021, algorithms 4 and 5 (appendix G).
    """

    ratio: float
    norms: "ScoreNorms | None" = None

    def __call__(self, sde: SDE, t: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """The size of the steps, [B]; 0 where the score is 0."""
        norm = _norm(scores) if self.norms is None else tf.cast(self.norms(t), scores.dtype)
        length = self.ratio * math.sqrt(scores.shape[1:].num_elements())
        return 2.0 * tf.math.divide_no_nan(tf.constant(length, norm.dtype), norm) ** 2


@dataclasses.dataclass(frozen=True)
class AnnealedSize:
    """The step size of the annealed Langevin corrector: e = 2 (r sigma(t))^2.

    Attributes:
      ratio: r, the signal-to-noise ratio. In NCSNv2's terms it is sqrt(epsilon / 2) / sigma_L, epsilon the step size
        of the authors' program: 0.176 on CIFAR-10.

    Reference:
      Song & Ermon 2019, algorithm 1; Song et al. 2021, appendix G, where it is called "ald".
    """

    ratio: float

    def __call__(self, sde: SDE, t: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """See `Corrector`."""
        return 2.0 * (self.ratio * sde.marginal(t)[1]) ** 2


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreNorms:
    """The expected norm of the score at each time, between a grid's times interpolated in logarithms.

    Attributes:
      grid: float32 [L], strictly decreasing times.
      norms: float32 [L], positive.

    Raises:
      ValueError: unless there is one positive, finite norm per time.
    """

    grid: np.ndarray
    norms: np.ndarray

    def __post_init__(self):
        grid, norms = (np.asarray(values, np.float32) for values in (self.grid, self.norms))
        if grid.shape != norms.shape or not (np.isfinite(norms).all() and (norms > 0.0).all()):
            raise ValueError(f"There must be one positive norm per time. Received: {norms} for the times {grid}.")
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "norms", norms)

    def __call__(self, t: tf.Tensor) -> tf.Tensor:
        """The expected norms at times t, [B]; beyond the grid, that of its nearest time."""
        grid, logs = tf.constant(self.grid[::-1], t.dtype), tf.constant(np.log(self.norms[::-1]), t.dtype)
        last = len(self.grid) - 1
        above = tf.clip_by_value(tf.searchsorted(grid, t), min(1, last), last)
        below = tf.maximum(above - 1, 0)
        low, high = tf.gather(grid, below), tf.gather(grid, above)
        share = tf.clip_by_value(tf.math.divide_no_nan(t - low, high - low), 0.0, 1.0)
        return tf.exp((1.0 - share) * tf.gather(logs, below) + share * tf.gather(logs, above))


def measure_norms(score_fn: ScoreFunction, sde: SDE, grid: np.ndarray, x: tf.Tensor, seeds: tf.Tensor) -> ScoreNorms:
    """Measures the expected norm of the score at each time of a grid, on perturbed examples.

    Args:
      score_fn: the score function.
      sde: the SDE.
      grid: float32 [L], strictly decreasing times.
      x: [B, ...], examples of the data, in the SDE's data range.
      seeds: int32 [B, 2], the seeds of their noise.
    """
    norms = []
    for number, time in enumerate(np.asarray(grid, np.float32)):
        t = tf.fill([x.shape[0]], time)
        alpha, sigma = sde.marginal(t)
        z = random.normal(random.fold_each(seeds, random.Stream.PERTURBATION, number), x.shape[1:])
        scores = score_fn(expand(alpha, x) * x + expand(sigma, x) * z, t)
        norms.append(float(tf.reduce_mean(_norm(scores))))
    return ScoreNorms(grid, np.array(norms))


def _norm(scores: tf.Tensor) -> tf.Tensor:
    """The norm of each row, [B]."""
    return tf.sqrt(tf.reduce_sum(scores**2, axis=tuple(range(1, len(scores.shape)))))


def correct(
    size: Corrector,
    sde: SDE,
    score_fn: ScoreFunction,
    x: tf.Tensor,
    t: tf.Tensor,
    interval: tuple[tf.Tensor, tf.Tensor],
    seeds: tf.Tensor,
    noise: Noise = random.normal,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes one step of a corrector: x + e score + sqrt(2 e) z.

    The size is multiplied by alpha^2 of the transition over `interval`, which is 1 on VE and 1 - beta_i on DDPM's
    levels, as in the authors' program; the paper writes the product of all 1 - beta_j up to i there. It exists for
    every linear SDE, sub-VP included.

    Args:
      size: the size of the step.
      sde: the SDE.
      score_fn: the score function.
      x: [B, ...], at time t.
      t: [B].
      interval: (s, t), [B] each, s < t: the predictor's step beside which the corrector stands.
      seeds: int32 [B, 2].
      noise: draws z, `noise(seeds [B, 2], shape) -> [B, *shape]`, standard normal in each row.

    Returns:
      (x, mean): x, and its mean before the noise.
    """
    scores = score_fn(x, t)
    a, _ = transition(sde, *interval)
    e = expand(a**2 * size(sde, t, scores), x)
    mean = x + e * scores
    return mean + tf.sqrt(2.0 * e) * noise(seeds, x.shape[1:]), mean
