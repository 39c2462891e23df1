"""Small grey patches of natural images, at random positions, and their whitening."""

import dataclasses

import numpy as np

from ncsn_tf.data.images import ImageSource
from ncsn_tf.data.preparation import convert_channels


def sample_images() -> ImageSource:
    """The two photographs that scikit-learn embeds, a temple and a flower, uint8 [2, 427, 640, 3]."""
    from sklearn import datasets  # here: importing scikit-learn costs a second

    return ImageSource("sample_images", np.stack(datasets.load_sample_images().images))


def extract(source: ImageSource, *, size: int = 8, count: int = 50_000, seed: int = 0) -> np.ndarray:
    """Cuts square patches at random positions, without repetition, and converts them to grey.

    Args:
      source: the images; colour becomes ITU-R 601 luma.
      size: the side of a patch, in pixels.
      count: how many patches.
      seed: a non-negative integer; the same seed gives the same patches.

    Returns:
      float64 [count, size * size], rows of pixels one after the other, values in [0, 1].

    Raises:
      ValueError: if a patch is larger than the images, or they have fewer than `count` positions.
    """
    height, width, channels = source.shape
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"A patch must fit within an image of {height}x{width} pixels; choose size in 1..{min(height, width)}. "
            f"Received: size={size}."
        )
    rows, columns = height - size + 1, width - size + 1
    available = len(source) * rows * columns
    if not 1 <= count <= available:
        raise ValueError(
            f"{source.name!r} has {available} patches of {size}x{size} pixels; ask for 1 to {available}, or give more "
            f"images. Received: count={count}."
        )
    positions = np.random.default_rng(seed).choice(available, count, replace=False)
    image, top, left = np.unravel_index(positions, (len(source), rows, columns))
    within = np.arange(size)
    patches = source.images[
        image[:, None, None], (top[:, None] + within)[:, :, None], (left[:, None] + within)[:, None, :]
    ]
    grey = convert_channels(patches, 1) if channels != 1 else patches
    return grey.reshape(count, size * size) / 255.0


def remove_local_mean(patches: np.ndarray) -> np.ndarray:
    """Subtracts from every patch its own mean grey; [N, P] to [N, P], which leaves at most P - 1 dimensions."""
    return patches - patches.mean(axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Whitening:
    """A linear map to coordinates of mean 0 and unit covariance: the leading principal components, each divided by its
    standard deviation.

    Attributes:
      mean: the mean patch, [P].
      matrix: V, [D, P]; its rows are the scaled components, in order of decreasing variance.
      inverse: [P, D], the right inverse of V; its columns show the whitened coordinates as patches.
    """

    mean: np.ndarray
    matrix: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, patches: np.ndarray, dimensions: int | None = None) -> "Whitening":
        """Learns the whitening from patches.

        Args:
          patches: [N, P], N > D.
          dimensions: D, the components to keep; by default all that the patches span, P - 1 once their local mean is
            removed.

        Raises:
          ValueError: if the patches are not a finite matrix or span fewer than `dimensions`.
        """
        patches = np.asarray(patches, np.float64)
        if patches.ndim != 2 or len(patches) < 2 or not np.isfinite(patches).all():
            raise ValueError(
                f"Patches must be a finite matrix [N, P] with N at least 2. Received: shape {patches.shape}, "
                f"{np.sum(~np.isfinite(patches))} values not finite."
            )
        mean = patches.mean(axis=0)
        centred = patches - mean
        variances, directions = np.linalg.eigh(centred.T @ centred / len(patches))
        variances, directions = variances[::-1], directions[:, ::-1]
        # Rounding leaves variances near eps times the largest where there are none.
        rank = int(np.sum(variances > 1e3 * np.finfo(np.float64).eps * variances[0])) if variances[0] > 0.0 else 0
        dimensions = rank if dimensions is None else dimensions
        if not 1 <= dimensions <= rank:
            raise ValueError(
                f"{len(patches)} patches of {len(mean)} pixels span {rank} dimensions: pixels are constant or depend "
                "on others, or too few patches differ. Keep at least 1 and at most that many dimensions, or take more "
                f"patches. Received: dimensions={dimensions}."
            )
        deviations, kept = np.sqrt(variances[:dimensions]), directions[:, :dimensions]
        return cls(mean, (kept / deviations).T, kept * deviations)

    def apply(self, patches: np.ndarray) -> np.ndarray:
        """Whitens patches, [N, P] to [N, D]."""
        return (patches - self.mean) @ self.matrix.T
