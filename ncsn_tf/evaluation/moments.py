"""The count, mean and covariance of features, computed over blocks of rows and merged."""

import dataclasses
from collections.abc import Iterator

import numpy as np

UNKNOWN = 0
"""The count of moments from a file that does not record it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """The first two moments of a set of features, from which a Frechet distance is computed.

    `a + b` are the moments of both sets together (Chan, Golub & LeVeque 1979, equation 2.1, for vectors):

        n = n_a + n_b,   d = m_b - m_a,   m = m_a + d n_b / n,
        (n - 1) S = (n_a - 1) S_a + (n_b - 1) S_b + d d' n_a n_b / n.

    Attributes:
      count: the number of rows N, at least 2; 0 if it is unknown, as for moments from another program's file. Such
        moments can be compared, but not added.
      mean: float64 [D].
      covariance: float64 [D, D], symmetric and unbiased, with the divisor N - 1.

    Raises:
      ValueError: if the shapes do not agree, a value is not finite, or the covariance is not symmetric.
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self):
        mean = np.asarray(self.mean, np.float64)
        covariance = np.asarray(self.covariance, np.float64)
        if self.count < 2 and self.count != UNKNOWN:
            raise ValueError(
                "Moments need at least 2 rows for a covariance, or count 0 if their number is unknown. "
                f"Received: count {self.count}."
            )
        if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                "Moments need a mean [D] and a covariance [D, D], D at least 1. "
                f"Received: {mean.shape} and {covariance.shape}."
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("Moments must be finite. Received: NaN or infinite values; check the features.")
        asymmetry = np.abs(covariance - covariance.T).max()
        if asymmetry > 1e-9 * np.abs(covariance).max():
            raise ValueError(
                f"A covariance must be symmetric, as (S + S') / 2 is. Received: differences of {asymmetry:.3g} "
                f"among values up to {np.abs(covariance).max():.3g}."
            )
        object.__setattr__(self, "count", int(self.count))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def of(cls, features: np.ndarray, rows: int = 2048, chosen: np.ndarray | None = None) -> "Moments":
        """The moments of features, accumulated in float64 over blocks of rows.

        The first block's mean is subtracted from the features. So an offset that is common to all rows costs no digits
        of the covariance, however large it is against their spread.

        Args:
          features: floats [N, D]; np.memmap is allowed. Only one block at a time is held in float64.
          rows: rows per block. A block takes 8 D bytes per row, several times over.
          chosen: integers [n], the rows to use; by default all. Ascending order reads a file sequentially.

        Returns:
          The moments, the same for any `rows` up to rounding.

        Raises:
          ValueError: if `features` is not [N, D], fewer than 2 rows are chosen, or a value is not finite.
        """
        check_features(features)
        count = len(features) if chosen is None else len(chosen)
        if count < 2:
            raise ValueError(f"A covariance needs at least 2 rows of features. Received: {count}.")
        if rows < 1:
            raise ValueError(f"A block needs at least 1 row. Received: rows = {rows}.")
        shift, total, scatter, broken = None, 0.0, np.zeros((features.shape[1],) * 2), 0
        for block in _blocks(features, rows, chosen):
            finite = np.isfinite(block).all(axis=1)
            broken += len(block) - int(finite.sum())
            if broken:
                continue  # from here on, only counts rows for the message
            shift = block.mean(axis=0) if shift is None else shift
            block -= shift
            total = total + block.sum(axis=0)
            scatter += block.T @ block  # NumPy recognises the symmetric product, and computes half of it
        if shift is None or broken:
            raise ValueError(
                f"Features must be finite. Received: NaN or infinite values in {broken} of {count} rows; "
                "check the images and the feature network's dtype."
            )
        offset = total / count
        scatter -= count * np.multiply.outer(offset, offset)
        scatter /= count - 1
        return cls(count, shift + offset, scatter)

    def __add__(self, other: "Moments") -> "Moments":
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                "Moments of different numbers of features cannot be added: take all from one network. "
                f"Received: {len(self.mean)} and {len(other.mean)} features."
            )
        if UNKNOWN in (self.count, other.count):
            raise ValueError(
                "Moments are added by their numbers of rows, and one of them is unknown: take both from features. "
                f"Received: counts {self.count} and {other.count}."
            )
        count = self.count + other.count
        difference = other.mean - self.mean
        covariance = np.multiply.outer(difference, difference)
        covariance *= self.count * other.count / count
        covariance += (self.count - 1) * self.covariance
        covariance += (other.count - 1) * other.covariance
        covariance /= count - 1
        return Moments(count, self.mean + difference * (other.count / count), covariance)


def check_features(features: np.ndarray, name: str = "features") -> None:
    """Raises ValueError unless an array is a table of features.

    Args:
      features: the array, expected to be floats [N, D].
      name: the name of the array in the message.

    Raises:
      ValueError: if `features` has another rank or no columns, or does not hold real numbers.
    """
    real = np.issubdtype(features.dtype, np.floating) or np.issubdtype(features.dtype, np.integer)
    if features.ndim != 2 or not features.shape[1] or not real:
        raise ValueError(
            f"{name.capitalize()} must be real numbers [N, D], one row per image; pool or flatten other axes. "
            f"Received: {features.dtype} {features.shape}."
        )


def _blocks(features: np.ndarray, rows: int, chosen: np.ndarray | None) -> Iterator[np.ndarray]:
    """Blocks of the chosen rows, copied to float64."""
    count = len(features) if chosen is None else len(chosen)
    for start in range(0, count, rows):
        block = slice(start, start + rows)
        yield np.array(features[block] if chosen is None else features[chosen[block]], np.float64)
