"""Draws of the times of training, one per example, each with a bin for the loss curves."""

import dataclasses
import math
from typing import Protocol

import numpy as np
import tensorflow as tf

from ncsn_tf import random, times
from ncsn_tf.sde import SDE, noise_ratio


class TimeDraw(Protocol):
    """The contract of drawing times for training, one per example.

    Draws take `offset`. With None they are independent. With a number in [0, 1) they follow a low-discrepancy sequence,
    `random.spread`, along the examples' places in the stream: the times of each batch then cover their range evenly,
    and a time still depends on its example alone, not on its batch.
    """

    @property
    def bins(self) -> tuple[str, ...]:
        """The names of the bins, each of which has a loss curve."""
        ...

    def __call__(self, seeds: tf.Tensor, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws one time per example.

        Args:
          seeds: int32 [B, 2].
          positions: int32 [B], the examples' places in the stream, at least 0; needed with an offset.

        Returns:
          (t, bin): float32 [B], and int32 [B], the index of its bin.

        Raises:
          ValueError: with an offset, if there are no positions.
        """
        ...


def _uniform(offset: float | None, seeds: tf.Tensor, positions: tf.Tensor | None) -> tf.Tensor:
    """Numbers in [0, 1), float32 [B]: independent ones, or those of the low-discrepancy sequence from the offset."""
    if offset is None:
        return random.uniform(seeds)
    if positions is None:
        raise ValueError("Times of low discrepancy follow the examples' places in the stream. Received: no positions.")
    return random.spread(positions, offset)


def _check_offset(offset: float | None) -> None:
    if offset is not None and not 0.0 <= offset < 1.0:
        raise ValueError(f"The offset of a low-discrepancy sequence must be in [0, 1). Received: {offset}.")


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """Draws one of the times of a grid, all equally likely.

    Attributes:
      grid: float32 [L], strictly decreasing.
      bins: the names of the bins, 1 to L; level i is in bin i K // L of K, so with L names it has a bin of its own.
      offset: see `TimeDraw`.

    Raises:
      ValueError: if `grid` is not a valid grid, or if there are no names or more than levels.
    """

    grid: np.ndarray
    bins: tuple[str, ...]
    offset: float | None = None

    def __post_init__(self):
        _check_offset(self.offset)
        object.__setattr__(self, "grid", times.check(self.grid))
        if not 1 <= len(self.bins) <= len(self.grid):
            raise ValueError(f"{len(self.grid)} levels need 1 to {len(self.grid)} bins. Received: {len(self.bins)}.")

    def __call__(self, seeds: tf.Tensor, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws (t float32 [B], bin int32 [B]); see `TimeDraw`."""
        level = tf.cast(_uniform(self.offset, seeds, positions) * float(len(self.grid)), tf.int32)
        return tf.gather(tf.constant(self.grid), level), level * len(self.bins) // len(self.grid)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Draws times uniformly on [first_time, 1); the bins divide that interval equally.

    Attributes:
      first_time: the smallest time, in [0, 1).
      num_bins: the number of bins, at least 1.
      offset: see `TimeDraw`.

    Raises:
      ValueError: if a number is out of range.
    """

    first_time: float
    num_bins: int = 10
    offset: float | None = None

    def __post_init__(self):
        _check_offset(self.offset)
        if not 0.0 <= self.first_time < 1.0 or self.num_bins < 1:
            raise ValueError(
                "Times need first_time in [0, 1) and 1 or more bins. "
                f"Received: first_time={self.first_time}, num_bins={self.num_bins}."
            )

    @property
    def bins(self) -> tuple[str, ...]:
        """ "bin_00_t_0.05" and so on: the number of the bin and its middle."""
        width = (1.0 - self.first_time) / self.num_bins
        middles = [self.first_time + (number + 0.5) * width for number in range(self.num_bins)]
        return tuple(f"bin_{number:02d}_t_{middle:.3g}" for number, middle in enumerate(middles))

    def __call__(self, seeds: tf.Tensor, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws (t float32 [B], bin int32 [B]); see `TimeDraw`."""
        u = _uniform(self.offset, seeds, positions)
        return self.first_time + (1.0 - self.first_time) * u, tf.cast(u * float(self.num_bins), tf.int32)

    def _binned(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Times brought into [first_time, 1], with their bins."""
        t = tf.clip_by_value(t, self.first_time, 1.0)
        u = (t - self.first_time) / (1.0 - self.first_time)
        return t, tf.minimum(tf.cast(u * float(self.num_bins), tf.int32), self.num_bins - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogNormal(Uniform):
    """Draws times at which the noise ratio sigma / alpha is log-normal: log(sigma / alpha) ~ N(mean, deviation^2).

    What is drawn outside [first_time, 1] counts as the nearer end. The bins are those of `Uniform`.

    Attributes:
      sde: the SDE.
      mean: the mean of log(sigma / alpha); -1.2 in Karras et al. 2022, for data of deviation 0.5.
      deviation: its standard deviation, positive; 1.2 there.

    Raises:
      ValueError: if a number is out of range.

    Reference:
      Karras et al. 2022, table 1 and section 5.
    """

    sde: SDE
    mean: float = -1.2
    deviation: float = 1.2

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 < self.deviation < math.inf or not math.isfinite(self.mean):
            raise ValueError(
                "Log-normal noise needs a finite mean and a positive deviation. "
                f"Received: mean={self.mean}, deviation={self.deviation}."
            )

    def __call__(self, seeds: tf.Tensor, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws (t float32 [B], bin int32 [B]); see `TimeDraw`."""
        if self.offset is None:
            z = random.normal(seeds, ())
        else:
            z = tf.math.ndtri(tf.maximum(_uniform(self.offset, seeds, positions), 2.0**-25))
        return self._binned(self.sde.time(tf.exp(self.mean + self.deviation * z)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSNR(Uniform):
    """Draws times uniformly in log(alpha / sigma) between those of 1 and of first_time.

    Since g^2 / sigma^2 = -2 d log(alpha / sigma) / dt, the loss with the weight sigma^2 at these times is that with the
    likelihood's weight g^2 at uniform times, up to a factor: its importance sampling, in closed form for every linear
    SDE. The bins are those of `Uniform`.

    Attributes:
      sde: the SDE.

    Raises:
      ValueError: if a number is out of range, or there is no noise at first_time.

    Reference:
      Song, Durkan, Murray & Ermon, Maximum likelihood training of score-based diffusion models, 2021, section 4.2.
    """

    sde: SDE

    def __post_init__(self):
        super().__post_init__()
        low, high = self._range()
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                "log(sigma / alpha) must be finite at first_time and at 1. "
                f"Received: first_time={self.first_time}, with {low:.4g} and {high:.4g}."
            )

    def _range(self) -> tuple[float, float]:
        """log(sigma / alpha) at first_time and at 1."""
        with tf.init_scope():  # also where a graph draws
            ratios = noise_ratio(self.sde, tf.constant([self.first_time, 1.0], tf.float64)).numpy()
        low, high = (math.log(ratio) if ratio > 0.0 else -math.inf for ratio in ratios)
        return low, high

    def __call__(self, seeds: tf.Tensor, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws (t float32 [B], bin int32 [B]); see `TimeDraw`."""
        low, high = self._range()
        return self._binned(self.sde.time(tf.exp(low + (high - low) * _uniform(self.offset, seeds, positions))))
