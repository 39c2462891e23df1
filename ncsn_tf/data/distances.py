"""The largest distance between two images of a dataset, which Song & Ermon (2020) take as the largest noise level."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Distance:
    """The largest distance between two images.

    Attributes:
      value: the Euclidean distance, in data units.
      pair: the indices of the two images, ascending.
      images: the number of images that were compared, each with all the others.
      available: the number of images that there are.
    """

    value: float
    pair: tuple[int, int]
    images: int
    available: int

    @property
    def exact(self) -> bool:
        """Whether all images were compared. Otherwise `value` is a lower bound."""
        return self.images == self.available

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return self.images * (self.images - 1) // 2

    def basis(self) -> str:
        """The images and pairs on which the value rests, in words."""
        pairs = f"images {self.pair[0]} and {self.pair[1]}, the furthest apart of {self.pairs:,} pairs"
        if self.exact:
            return f"{pairs}: all {self.images:,} images were compared"
        return f"{pairs}: {self.images:,} of {self.available:,} images, drawn at random, so a lower bound for all"


def largest_distance(
    images: np.ndarray,
    *,
    sample: int | None = None,
    seed: int = 0,
    chunk: int | None = None,
    on_images: Callable[[int], object] = lambda count: None,
) -> Distance:
    """The largest Euclidean distance between two images.

    The result is exact, up to the rounding of float64. With r = |x - mean|, the triangle inequality bounds a distance
    by r_a + r_b. So images are compared in the order of decreasing r, until no pair that is left can be further apart
    than the pair that was found. Squared distances of a block are r_a^2 + r_b^2 - 2 a.b, a product of matrices; the
    distance that is returned is computed from differences.

    N images of D values take at most N^2 D floating-point operations; docs/noise_levels.md has measured times.

    Args:
      images: [N, ...]: floats in data units, or uint8, which stands for [0, 1]; np.memmap is allowed.
      sample: the number of images to compare, 2 to N, drawn at random without replacement; None for all.
      seed: the seed of that draw.
      chunk: the number of images to compare with as many others at a time; None bounds the distances of a block, and
        the values of its images, at 32 MiB each.
      on_images: called after each block of images with their number, N or `sample` in total.

    Raises:
      ValueError: for another dtype, fewer than two images, images without values, values that are NaN or infinite,
        images that are all equal, or a `sample` or `chunk` that is out of range.
    """
    rows = _drawn(images, sample, seed)
    flat = images.reshape(len(images), -1)
    step = min(2048, max(1, 2**22 // flat.shape[1])) if chunk is None else chunk
    if step < 1:
        raise ValueError(f"A chunk has one image or more. Received: chunk={chunk}.")
    mean, radii = _about_the_mean(flat, rows, step)
    order = np.argsort(-radii, kind="stable")
    rows, radii = rows[order], radii[order]
    bounds = radii * (1.0 + 1e-9)  # more than the rounding of the radii
    best, pair = 0.0, (0, 0)
    for start in range(0, len(rows), step):
        if bounds[start] + bounds[0] <= best:
            on_images(len(rows) - start)
            break
        block = slice(start, start + step)
        centred = np.subtract(flat[rows[block]], mean, dtype=np.float64)
        # Images after these are compared with them later; images from `partners` on are too near to the mean.
        partners = min(start + len(centred), int(np.searchsorted(-bounds, bounds[start] - best)))
        for first in range(0, partners, step):
            others = slice(first, min(first + step, partners))
            squared = centred @ np.subtract(flat[rows[others]], mean, dtype=np.float64).T
            squared *= -2.0
            squared += radii[block, None] ** 2
            squared += radii[others] ** 2
            a, b = np.unravel_index(int(squared.argmax()), squared.shape)
            found = int(rows[start + int(a)]), int(rows[first + int(b)])
            length = float(np.linalg.norm(np.subtract(flat[found[0]], flat[found[1]], dtype=np.float64)))
            if length > best:
                best, pair = length, found
        on_images(len(centred))
    if best == 0.0:
        raise ValueError(f"All images are equal: there is no distance. Received: {len(rows)} equal images.")
    scale = 1.0 / 255.0 if images.dtype == np.uint8 else 1.0
    return Distance(best * scale, (min(pair), max(pair)), len(rows), len(images))


def _drawn(images: np.ndarray, sample: int | None, seed: int) -> np.ndarray:
    """The indices of the images to compare."""
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"Images must be uint8 or floats; convert them. Received: {images.dtype}.")
    if images.ndim < 2 or len(images) < 2 or images.size == 0:
        raise ValueError(f"A distance needs 2 or more images, [N, ...]. Received: shape {images.shape}.")
    if sample is None:
        return np.arange(len(images))
    if not 2 <= sample <= len(images):
        raise ValueError(
            f"A sample of {len(images)} images has 2 to {len(images)} of them; leave it out to compare all. "
            f"Received: sample={sample}."
        )
    return np.random.default_rng(seed).choice(len(images), sample, replace=False)


def _about_the_mean(flat: np.ndarray, rows: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of some rows of [N, D], float64 [D], and their distances from it, float64 [n]."""
    blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
    broken = sum(int((~np.isfinite(flat[block]).all(axis=1)).sum()) for block in blocks)
    if broken:
        raise ValueError(
            "Images must be finite; check their origin, or leave those out. "
            f"Received: NaN or infinite values in {broken} of {len(rows)} images."
        )
    mean = np.zeros(flat.shape[1])
    for block in blocks:
        mean += flat[block].sum(axis=0, dtype=np.float64) / len(rows)
    radii = [np.linalg.norm(np.subtract(flat[block], mean, dtype=np.float64), axis=1) for block in blocks]
    return mean, np.concatenate(radii)
