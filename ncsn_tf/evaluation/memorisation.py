"""The check for copies: are samples nearer to the training images than images that the model has never seen?

A distance to the training set alone says little: real images that were not trained on also have near neighbours there.
So samples are compared with held-out images (Meehan, Chaudhuri & Dasgupta 2020): if samples are nearer to the training
set than held-out images are, the model copies, or nearly copies.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ncsn_tf import pictures
from ncsn_tf.evaluation import neighbours

PIXELS, FEATURES = "pixels", "features"


class Features(NamedTuple):
    """Features of the three sets, floats [., D] from one network, one row per image."""

    samples: np.ndarray
    train: np.ndarray
    held_out: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The distances of samples and of held-out images to the training set, in one space.

    Attributes:
      sample_distances: the distance from each sample to its nearest training image, float64 [M], M at least 1.
      held_out_distances: the same for the held-out images, float64 [H], H at least 1.
      sample_neighbours: the indices of the samples' nearest training images, int64 [M, k], nearest first.
      held_out_neighbours: the same for the held-out images, int64 [H, k].
    """

    sample_distances: np.ndarray
    held_out_distances: np.ndarray
    sample_neighbours: np.ndarray
    held_out_neighbours: np.ndarray

    @property
    def copies(self) -> int:
        """The number of samples at distance 0 exactly.

        In pixels these are copies, byte by byte. The features of a copy may differ in their last digits if the network
        computed them in another batch: such a copy is not counted here, but in `nearer_than_any_held_out`.
        """
        return int(np.sum(self.sample_distances == 0.0))

    @property
    def nearer_than_any_held_out(self) -> int:
        """The number of samples that are nearer to the training set than every held-out image, including copies.

        It is 0 if a held-out image is itself a copy of a training image, as in datasets with duplicates.
        """
        return int(np.sum(self.sample_distances < self.held_out_distances.min()))

    @property
    def probability_nearer(self) -> float:
        """The probability that a sample is nearer to the training set than a held-out image, ties counting half.

        It is the area under the ROC curve, or Mann and Whitney's statistic as a share: 1/2 if samples are as near as
        unseen images, towards 1 if they are copies, towards 0 if they are farther away, which need not be a merit. A
        single sample is allowed.
        """
        return float(np.mean(self._placements()[0]))

    @property
    def standard_error(self) -> float | None:
        """The standard error of `probability_nearer`, given the training set (DeLong, DeLong & Clarke-Pearson 1988).

        Let V_i be the share of held-out images that are farther away than sample i, and W_j the share of samples that
        are nearer than held-out image j, ties counting half. Then

            variance = var(V) / M + var(W) / H,   variances unbiased.

        Samples and held-out images are assumed to be independent draws. The value is None if the two sets of distances
        do not overlap, where the formula gives 0, and with fewer than two samples or held-out images.
        """
        if min(len(self.sample_distances), len(self.held_out_distances)) < 2 or self.probability_nearer in (0.0, 1.0):
            return None
        return math.sqrt(sum(np.var(shares, ddof=1) / len(shares) for shares in self._placements()))

    def _placements(self) -> tuple[np.ndarray, np.ndarray]:
        """V, float64 [M], and W, float64 [H], as `standard_error` defines them."""
        samples, held_out = np.sort(self.sample_distances), np.sort(self.held_out_distances)
        not_farther = np.searchsorted(held_out, samples, "left") + np.searchsorted(held_out, samples, "right")
        nearer = np.searchsorted(samples, held_out, "left") + np.searchsorted(samples, held_out, "right")
        return 1.0 - not_farther / (2 * len(held_out)), nearer / (2 * len(samples))

    def summary(self) -> dict[str, Any]:
        """The numbers to report, as plain values; distances in the units of the space."""
        return {
            "samples": len(self.sample_distances),
            "held_out": len(self.held_out_distances),
            "copies": self.copies,
            "nearer_than_any_held_out": self.nearer_than_any_held_out,
            "smallest_of_samples": float(self.sample_distances.min()),
            "smallest_of_held_out": float(self.held_out_distances.min()),
            "median_of_samples": float(np.median(self.sample_distances)),
            "median_of_held_out": float(np.median(self.held_out_distances)),
            "probability_nearer": self.probability_nearer,
            "standard_error": self.standard_error,
        }


def compare(
    samples: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    features: Features | None = None,
    *,
    k: int = 5,
) -> dict[str, Comparison]:
    """Finds the nearest training images of samples and of held-out images.

    In pixels the distance of two images is the Euclidean distance of bytes / 255, the square root of a sum over all
    pixels and channels that is not divided by their number: black and white are sqrt(H W C) apart. It finds a copy, but
    not a copy that was shifted or recoloured, and blurred images are near to everything. In features the distance is
    Euclidean too, in the network's own units.

    Held-out images are images that were not trained on. If they are related to the training set, like frames of one
    film, they are as near to it as copies, and hide them.

    Args:
      samples: uint8 [M, H, W, C], M at least 1; np.memmap is allowed, as for the others.
      train: uint8 [N, H, W, C].
      held_out: uint8 [L, H, W, C].
      features: features of the three sets, or None to compare pixels alone.
      k: the number of neighbours to return, 1 to N.

    Returns:
      A comparison for each space, "pixels" and, if there are features, "features".

    Raises:
      ValueError: if a set is empty or not a uint8 batch, if images differ in shape, if there are not as many rows of
        features as images, if features are not finite or differ in D, or if k is out of range.
    """
    images = {"samples": samples, "train": train, "held_out": held_out}
    _check_images(images)
    spaces = {PIXELS: Features(*(batch.reshape(len(batch), -1) for batch in images.values()))}
    if features is not None:
        features = Features(*features)
        counts = {name: (len(rows), len(images[name])) for name, rows in features._asdict().items()}
        if any(rows != of_images for rows, of_images in counts.values()):
            raise ValueError(
                "Features must have one row per image, in the order samples, train, held_out. "
                f"Received: (rows, images) = {counts}."
            )
        spaces[FEATURES] = features
    return {name: _compare(space, k, 255.0 if name == PIXELS else 1.0) for name, space in spaces.items()}


def save_neighbours(
    path: pathlib.Path,
    samples: np.ndarray,
    train: np.ndarray,
    indices: np.ndarray,
    distances: np.ndarray,
    *,
    count: int = 16,
) -> None:
    """Writes the samples nearest to training images as a PNG; each row is a sample followed by its nearest images.

    The samples with the smallest distance come first; among equals, the earlier one.

    Args:
      path: the file to write.
      samples: uint8 [M, H, W, C].
      train: uint8 [N, H, W, C].
      indices: the training images to show with each sample, [M, k], as in `Comparison.sample_neighbours`.
      distances: [M], as in `Comparison.sample_distances`.
      count: the largest number of rows.

    Raises:
      ValueError: if the images are not uint8 batches of one shape, if the rows do not agree, or if `count` is below 1.
    """
    _check_images({"samples": samples, "train": train})
    if np.ndim(indices) != 2 or not len(indices) == len(distances) == len(samples) or count < 1:
        raise ValueError(
            "A picture needs indices [M, k] and distances [M] of M samples, and at least one row. "
            f"Received: indices {np.shape(indices)}, distances {np.shape(distances)}, {len(samples)} samples, "
            f"count = {count}."
        )
    rows = [
        np.concatenate([samples[row : row + 1], train[indices[row]]])
        for row in np.argsort(distances, kind="stable")[:count]
    ]
    pictures.save_grid(path, np.concatenate(rows), columns=1 + indices.shape[1])


def save_distances(path: pathlib.Path, comparisons: Mapping[str, Comparison]) -> None:
    """Writes histograms of both distributions of distances as a PNG, the spaces side by side.

    Args:
      path: the file to write.
      comparisons: the result of `compare`.

    Raises:
      ValueError: if there is no comparison.
    """
    pictures.save_figure(path, draw_distances(comparisons))


def draw_distances(comparisons: Mapping[str, Comparison]) -> "pictures.Figure":
    """The figure of `save_distances`: one axes per space, with the densities of samples and of held-out images."""
    if not comparisons:
        raise ValueError(f"A figure needs the comparisons that `compare` returns. Received: {comparisons!r}.")
    with pictures.drawn(5.0 * len(comparisons), 3.5) as figure:
        for axes, (space, comparison) in zip(
            figure.subplots(1, len(comparisons), squeeze=False)[0], comparisons.items(), strict=True
        ):
            sets = {"held-out images": comparison.held_out_distances, "samples": comparison.sample_distances}
            edges = np.histogram_bin_edges(np.concatenate(list(sets.values())), bins=40)
            for label, distances in sets.items():
                axes.hist(distances, bins=edges, density=True, alpha=0.6, label=f"{label} ({len(distances):,})")
            error = comparison.standard_error
            spread = "" if error is None else f" \N{PLUS-MINUS SIGN} {error:.3f}"
            axes.set_title(f"{space}: P(sample nearer) = {comparison.probability_nearer:.3f}{spread}")
            axes.set_xlabel("distance to the nearest training image")
            axes.set_ylabel("density")
            axes.legend()
    return figure


def _compare(space: Features, k: int, unit: float) -> Comparison:
    """The comparison in one space, with distances divided by `unit`."""
    sample_distances, sample_neighbours = neighbours.nearest(space.samples, space.train, k)
    held_out_distances, held_out_neighbours = neighbours.nearest(space.held_out, space.train, k)
    return Comparison(
        sample_distances[:, 0] / unit, held_out_distances[:, 0] / unit, sample_neighbours, held_out_neighbours
    )


def _check_images(images: Mapping[str, np.ndarray]) -> None:
    got = ", ".join(f"{name} {batch.dtype} {batch.shape}" for name, batch in images.items())
    if any(batch.ndim != 4 or batch.dtype != np.uint8 or not batch.size for batch in images.values()):
        raise ValueError(f"Each set must be uint8 images [N, H, W, C], at least one. Received: {got}.")
    if len({batch.shape[1:] for batch in images.values()}) > 1:
        raise ValueError(
            f"Images of different shapes have no distance: resize or convert them to one. Received: {got}."
        )
