"""Precision and recall: the share of the samples that look like data, and the share of the data that samples cover."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from ncsn_tf.evaluation import neighbours


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """Two shares, each the share of one set's points that are on the manifold of the other set.

    The standard errors are binomial. Given the set that spans the manifold, the n points whose share p is taken are
    independent, and each is on the manifold with the same probability. For the error alone, two points on the manifold
    and two off it are added, so that a share of 0 or 1 does not have an error of 0 (Agresti & Coull 1998):
    sqrt(q (1 - q) / (n + 4)) with q = (n p + 2) / (n + 4). The errors do not include how the share would change with
    another draw of the set that spans the manifold.

    Attributes:
      precision: the share of the samples on the reference's manifold, 0 to 1.
      recall: the share of the reference on the samples' manifold, 0 to 1.
      precision_error: the standard error of `precision`, given the reference.
      recall_error: the standard error of `recall`, given the samples.
    """

    precision: float
    recall: float
    precision_error: float
    recall_error: float


def precision_recall(features: np.ndarray, reference_features: np.ndarray, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, equations 1 and 2).

    A set's manifold is the union of balls about its points. The radius of a ball is the distance to the k-th nearest
    neighbour within the set. Precision is the share of the samples in a ball of the reference, recall the share of the
    reference in a ball of the samples; a ball includes its boundary.

    Both depend on the sizes of both sets: more points have smaller balls. The paper takes as many samples as reference
    points (50,000, k = 3), and only values at equal sizes are comparable. The sets are taken as they are; the caller
    draws equal numbers.

    With N and M rows this takes 2 (N + M)^2 D floating-point operations at most, in blocks (see `neighbours.nearest`).

    Args:
      features: the samples' features, floats [N, D]; np.memmap is allowed.
      reference_features: features of images of the dataset, floats [M, D], from the same network.
      k: the neighbour that determines the radius of a ball, at least 1.

    Returns:
      The shares and their standard errors.

    Raises:
      ValueError: if a side has fewer than k + 1 rows, is not [., D] or is not finite, if D differs, or if k is below 1.
    """
    rows = {"samples": len(features), "reference": len(reference_features)}
    if k < 1 or min(rows.values()) < k + 1:
        raise ValueError(
            f"The radius of a ball is the distance to the k-th neighbour within its set, which needs k >= 1 and at "
            f"least k + 1 rows: give more rows or take a smaller k. Received: k = {k} and rows {rows}."
        )
    precision = float(np.mean(covered(features, reference_features, radii(reference_features, k))))
    recall = float(np.mean(covered(reference_features, features, radii(features, k))))
    return PrecisionRecall(
        precision, recall, _binomial_error(precision, len(features)), _binomial_error(recall, len(reference_features))
    )


def radii(points: np.ndarray, k: int) -> np.ndarray:
    """The distance from each point to its k-th nearest neighbour among the others, float64 [N]; 0 if it has k copies.

    Raises:
      ValueError: as `neighbours.nearest` does.
    """
    return neighbours.nearest(points, points, k, exclude_self=True)[0][:, -1]


def covered(queries: np.ndarray, points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Returns for each query whether it is in the ball of some point, including the boundary (equation 1).

    The result is exact. Products in float32 decide pairs that are clearly inside or clearly outside. Pairs nearer to a
    boundary than the accuracy of float32 are compared by distances from differences in float64, as `radii` returns
    them. So a neighbour that determines a radius is on that boundary, and a copy of a point is in a ball of radius 0.

    Args:
      queries: real numbers [M, D].
      points: real numbers [N, D].
      radius: the radius of each point's ball, float64 [N], in the units of the data.

    Returns:
      bool [M].

    Raises:
      ValueError: if a side is empty, not [., D] or not finite, if D differs, or if there is not one radius per point.
    """
    frame = neighbours.Frame.around(queries, points)
    if radius.shape != (len(points),):
        raise ValueError(f"Each of the {len(points)} points needs a radius; see `radii`. Received: {radius.shape}.")
    result = np.zeros(len(queries), bool)
    with neighbours.exact_products():
        for rows in frame.blocks(queries):
            placed, squares = frame.place(queries[rows])
            for columns in frame.blocks(points):
                open_ = np.flatnonzero(~result[rows])  # one ball is enough for a query
                if not len(open_):
                    break
                within = slice(columns[0], columns[-1] + 1)
                others, norms = frame.place(points[within])
                doubled = tf.matmul(2.0 * tf.gather(placed, open_), others, transpose_b=True)
                certain, possible = _margins(frame, doubled, squares[open_], norms, radius[within])
                result[rows[open_]] = certain.any(axis=1)
                for row, near in zip(rows[open_], possible, strict=True):
                    if not result[row] and near.any():
                        result[row] = _in_a_ball(queries, points, radius, row, columns[near])
    return result


def _margins(
    frame: neighbours.Frame, doubled: tf.Tensor, squares: np.ndarray, norms: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Decides from 2 q.p which pairs are certainly within the radius and which possibly are, bool [b, c] each.

    The condition is |q|^2 + |p|^2 - 2 q.p <= r^2, with every term but q.p changed by the factor 1 +- `slack`: r^2 too,
    because it is rounded together with |p|^2 and may be the larger one.
    """
    slack, squared = frame.slack, frame.squared(radius)
    decisions = []
    for sign in (1.0, -1.0):
        column = tf.constant((1.0 - sign * slack) * squared - (1.0 + sign * slack) * norms, tf.float32)
        row = tf.constant((1.0 + sign * slack) * squares[:, None], tf.float32)
        decisions.append((doubled + column >= row).numpy())
    return decisions[0], decisions[1]


def _in_a_ball(queries: np.ndarray, points: np.ndarray, radius: np.ndarray, row: int, near: np.ndarray) -> bool:
    # In small groups: the first group often decides, and there are thousands if samples collapsed onto one image.
    for start in range(0, len(near), 64):
        group = near[start : start + 64]
        if np.any(neighbours.distances(queries, points, np.full_like(group, row), group) <= radius[group]):
            return True
    return False


def _binomial_error(share: float, count: int) -> float:
    smoothed = (count * share + 2.0) / (count + 4.0)
    return math.sqrt(smoothed * (1.0 - smoothed) / (count + 4.0))
