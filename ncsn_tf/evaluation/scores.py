"""Scores of a set of images with their spread over parts of it: the Inception score and the kernel distance."""

import math

import numpy as np

from ncsn_tf.evaluation import tfgan
from ncsn_tf.evaluation.moments import check_features

_SEEDS = (0, 1)
"""The seeds of the samples' and of the reference's shuffle, fixed so that a reported number can be reproduced."""


def inception_score(logits: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """The Inception score, exp(mean_x KL(p(y|x) || p(y))), over equal parts of the images (Salimans et al. 2016).

    The literature reports the mean and the standard deviation over the parts; the deviation is not a standard error of
    the mean. The score grows with the number of images per part, so this number must be reported too: it is 5,000 in
    papers.

    The rows are shuffled first. Samples are independent, and their order has no meaning. But the images of a dataset
    are often sorted by class, and a part with a single class has the score 1.

    Args:
      logits: floats [N, K], not normalised; np.memmap is allowed.
      splits: the number of parts.

    Returns:
      The mean over the parts, from 1 to K, and the standard deviation with divisor `splits`, as `np.std` computes it.

    Raises:
      ValueError: if `logits` is not [N, K], is not finite, or has fewer than two rows per part.
    """
    check_features(logits, "logits")
    if splits < 1 or len(logits) < 2 * splits:
        raise ValueError(
            "The Inception score needs at least 2 images in each of at least 1 part: take more images or fewer splits. "
            f"Received: {len(logits)} rows and splits = {splits}."
        )
    order = np.random.default_rng(_SEEDS[0]).permutation(len(logits))
    scores = [tfgan.classifier_score(_taken(logits, rows, "logits")) for rows in np.array_split(order, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def kernel_distance(features: np.ndarray, reference: np.ndarray, blocks: int) -> tuple[float, float | None]:
    """The kernel distance and its standard error, over blocks of rows (Binkowski et al. 2018, section 4).

    It is the unbiased estimate of the squared maximum mean discrepancy under k(x, y) = (x'y / D + 1)^3, averaged over
    disjoint blocks: KID, if the features are the Inception network's. Its expectation does not depend on the number of
    samples, and it can be negative where the two sets are alike. The standard error is that of a mean over blocks, for
    the draw of both sides.

    TF-GAN computes the estimate block by block, so that only one block is held in float64. Both sides are shuffled
    first, independently, because blocks of sorted rows would each contain only a part of the distribution.

    Args:
      features: floats [N, D], of independent samples; np.memmap is allowed.
      reference: floats [M, D].
      blocks: the number of nearly equal blocks into which both sides are divided. Time and memory of a block grow with
        the square of its rows, 1,000 in the paper.

    Returns:
      The distance and its standard error, None if there is a single block.

    Raises:
      ValueError: if the numbers of features differ, or a side has fewer than two rows per block or is not finite.
    """
    check_features(features)
    check_features(reference, "reference")
    if features.shape[1] != reference.shape[1]:
        raise ValueError(
            "A distance needs equally many features on both sides: take both from one network. "
            f"Received: {features.shape[1]} and {reference.shape[1]} features."
        )
    if blocks < 1 or min(len(features), len(reference)) < 2 * blocks:
        raise ValueError(
            "The kernel distance needs 2 rows of each side in each block: take fewer blocks, or more rows. "
            f"Received: {len(features)} and {len(reference)} rows, blocks = {blocks}."
        )
    sides = []
    for rows, seed in zip((features, reference), _SEEDS, strict=True):
        sides.append(_parts(np.random.default_rng(seed).permutation(len(rows)), blocks))
    distances = []
    for ours, theirs in zip(*sides, strict=True):
        pair = _taken(features, ours, "features"), _taken(reference, theirs, "reference")
        distances.append(tfgan.kernel_distance(*pair, block_size=max(len(ours), len(theirs)))[0])
    error = float(np.std(distances, ddof=1) / math.sqrt(blocks)) if blocks > 1 else None
    return float(np.mean(distances)), error


def _parts(order: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divides into nearly equal parts as TF-GAN does: the smaller parts come first, on both sides of a distance."""
    size, larger = divmod(len(order), parts)
    sizes = [size] * (parts - larger) + [size + 1] * larger
    return np.split(order, np.cumsum(sizes)[:-1])


def _taken(values: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """Some rows, read in the file's order; raises ValueError if they are not finite."""
    taken = np.asarray(values[np.sort(rows)])
    broken = len(taken) - int(np.isfinite(taken).all(axis=1).sum())
    if broken:
        raise ValueError(
            f"The {name} must be finite. Received: NaN or infinite values in {broken} of {len(taken)} rows of a part; "
            "check the images and the feature network's dtype."
        )
    return taken
