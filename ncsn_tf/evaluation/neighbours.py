"""Exact nearest neighbours among many points in many dimensions, in blocks.

Distances between all pairs come from products of matrices, |q|^2 + |p|^2 - 2 q.p in float32. This is fast but inexact:
for two near points it subtracts numbers far larger than the result. So these distances only select candidates, whose
distances are then computed from differences in float64. A bound on the error of float32 decides whether there were
enough candidates.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ncsn_tf.evaluation.moments import check_features

_SPARE = 8
"""Candidates beyond the k-th. More candidates leave fewer queries undecided, and cost very little."""


def nearest(
    queries: np.ndarray, points: np.ndarray, k: int, *, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of each query, in Euclidean distance.

    The result is exact: each distance is rounded as float64 rounds a sum of squared differences, so a copy is at
    distance 0.0, and no nearer point is missed. Among equal distances the lower index comes first; only if a query has
    more than k exact copies may the result be any k of them.

    M queries and N points of D dimensions take 2 M N D floating-point operations, in blocks of at most 4096 x 4096
    distances (64 MiB): 50,000 by 50,000 at D = 2048 take 1e13. Queries that float32 leaves undecided are compared once
    more with all points. They are few, except where many points are at nearly the same distance.

    Args:
      queries: real numbers [M, D], such as float32 or uint8; np.memmap is allowed. The caller flattens images.
      points: real numbers [N, D], likewise.
      k: the number of neighbours, 1 to N.
      exclude_self: whether query i is point i, which is then not its own neighbour (but its copies are); k is at most
        N - 1.

    Returns:
      Distances, float64 [M, k], ascending, in the units of the data, and indices into `points`, int64 [M, k].

    Raises:
      ValueError: if a side is empty, not [., D] or not finite, if D differs, if k is out of range, or if `exclude_self`
        is given with sides of different lengths.
    """
    frame = Frame.around(queries, points)
    available = len(points) - exclude_self
    if exclude_self and len(queries) != len(points):
        raise ValueError(
            "exclude_self needs queries that equal the points, row by row; leave it out for two sets. "
            f"Received: {len(queries)} queries and {len(points)} points."
        )
    if not 1 <= k <= available:
        others = "other points" if exclude_self else "points"
        raise ValueError(f"There are {available} {others}: ask for 1 to {available} neighbours. Received: k = {k}.")
    found = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    with exact_products():
        for rows in frame.blocks(queries):
            selves = rows if exclude_self else None
            bounds, candidates = _candidates(frame, queries[rows], points, min(k + _SPARE, available), selves)
            own = np.broadcast_to(rows[:, None], candidates.shape)
            best = _first(k, distances(queries, points, own, candidates), candidates)
            found[0][rows], found[1][rows] = best
            if candidates.shape[1] < available:
                # All other points are at least as far as the last bound. No point is nearer than a copy.
                limits = best[0][:, -1]
                undecided = (limits > 0.0) & (bounds[:, -1] <= frame.squared(limits))
                for row, near in _within(frame, queries, points, rows[undecided], limits[undecided]):
                    near = near[near != row] if exclude_self else near
                    best = _first(k, distances(queries, points, np.full_like(near, row), near), near)
                    found[0][row], found[1][row] = best
    return found


def distances(queries: np.ndarray, points: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Euclidean distances of chosen pairs, from differences in float64.

    A pair's distance does not depend on the other pairs, nor on the order of its two points: distances may be compared
    by `==`.

    Args:
      queries: real numbers [M, D].
      points: real numbers [N, D].
      rows: integers of any shape, the indices of the pairs' queries.
      columns: integers of the same shape, the indices of the pairs' points.

    Returns:
      float64 of that shape.
    """
    result = np.empty(rows.size)
    step = max(1, 2**18 // queries.shape[1])  # 2 MiB in float64, which fits into caches
    for start in range(0, rows.size, step):
        pairs = slice(start, start + step)
        difference = np.subtract(queries[rows.ravel()[pairs]], points[columns.ravel()[pairs]], dtype=np.float64)
        result[pairs] = np.sqrt(np.square(difference, out=difference).sum(axis=1))
    return result.reshape(rows.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates (x - centre) scale, in which products of two sets are computed in float32.

    The centre removes the offset that all points share, which would cost digits of their differences. The scale, a
    power of two, prevents squares from overflowing.

    With squared norms |q|^2 and |p|^2 in these coordinates, the squared distance of two points is within

        slack (|q|^2 + |p|^2) of |q|^2 + |p|^2 - 2 q.p,   slack = (D + 16) 2^-24,

    as float32 computes it. The part D 2^-24 is the bound for an inner product summed in any order, D 2^-24 |q| |p|
    (Jeannerod & Rump 2013), doubled, with 2 |q| |p| <= |q|^2 + |p|^2. The rest allows for the single roundings, fewer
    than ten, of coordinates, of norms, and of their sums.

    Attributes:
      centre: float64 [D], the points' mean.
      scale: a power of two.
    """

    centre: np.ndarray
    scale: float

    @classmethod
    def around(cls, queries: np.ndarray, points: np.ndarray) -> "Frame":
        """The coordinates for two sets [M, D] and [N, D].

        Raises:
          ValueError: if a side is empty, not [., D] or not finite, or D differs.
        """
        centre, largest = np.zeros(points.shape[-1:]), 1e-30  # so that points that are all zero have a scale too
        for name, values in (("points", points), ("queries", queries)):
            check_features(values, name)
            if values.shape[1] != points.shape[1] or not len(values):
                raise ValueError(
                    "Neighbours need queries [M, D] and points [N, D] of one D, and at least one of each. "
                    f"Received: queries {queries.shape}, points {points.shape}."
                )
            broken = 0
            for rows in _blocks(len(values), values.shape[1]):
                block = values[rows[0] : rows[-1] + 1]
                broken += len(block) - int(np.isfinite(block).all(axis=1).sum())
                largest = max(largest, abs(float(np.max(block))), abs(float(np.min(block))))
                if name == "points" and not broken:
                    centre += block.sum(axis=0, dtype=np.float64) / len(values)
            if broken:
                raise ValueError(
                    f"The {name} must be finite; check their origin, or leave those rows out. "
                    f"Received: NaN or infinite values in {broken} of {len(values)} rows."
                )
        return cls(centre, float(2.0 ** -np.frexp(largest)[1]))

    @property
    def slack(self) -> float:
        """The bound on the error of a squared distance, as a fraction of |q|^2 + |p|^2."""
        return (len(self.centre) + 16) * 2.0**-24

    def place(self, values: np.ndarray) -> tuple[tf.Tensor, np.ndarray]:
        """Rows [b, D] in these coordinates: float32 [b, D], and their squared norms, float64 [b]."""
        placed = np.subtract(values, self.centre, dtype=np.float64)
        placed *= self.scale
        return tf.constant(placed, tf.float32), np.einsum("ij,ij->i", placed, placed)

    def squared(self, lengths: np.ndarray) -> np.ndarray:
        """Converts distances in the data's units into squared distances in these coordinates."""
        return (lengths * self.scale) ** 2

    def blocks(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """The indices of the rows, in blocks whose float64 values and mutual distances fit into memory."""
        return _blocks(len(values), len(self.centre))


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Prevents GPUs from multiplying float32 in TensorFloat-32, whose 10 bits would break the bound of `Frame`."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _blocks(count: int, width: int) -> Iterator[np.ndarray]:
    step = max(1, min(4096, 2**23 // width))  # 64 MiB of distances in float32, and of a block's rows in float64
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


def _candidates(
    frame: Frame, queries: np.ndarray, points: np.ndarray, count: int, selves: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` points with the smallest lower bounds on the squared distance: bounds, ascending, and indices."""
    placed, squares = frame.place(queries)
    doubled = 2.0 * placed
    scores = tf.zeros([len(queries), 0])
    indices = tf.zeros([len(queries), 0], tf.int64)
    for columns in frame.blocks(points):
        others, norms = frame.place(points[columns[0] : columns[-1] + 1])
        # The negative of the bound, without |q|^2, which is the same for all points.
        block = tf.matmul(doubled, others, transpose_b=True) - tf.constant((1.0 - frame.slack) * norms, tf.float32)
        if selves is not None and selves[0] <= columns[-1] and columns[0] <= selves[-1]:
            block = tf.where(selves[:, None] == columns, -np.inf, block)
        best, where = tf.math.top_k(block, min(count, len(columns)))  # the lower index first among equals
        scores = tf.concat([scores, best], axis=1)
        indices = tf.concat([indices, tf.gather(columns, where)], axis=1)
        scores, where = tf.math.top_k(scores, min(count, int(tf.shape(scores)[1])))
        indices = tf.gather(indices, where, batch_dims=1)
    return (1.0 - frame.slack) * squares[:, None] - scores.numpy().astype(np.float64), indices.numpy()


def _within(
    frame: Frame, queries: np.ndarray, points: np.ndarray, rows: np.ndarray, limits: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """For each of the rows, all points that may be within its limit, by ascending index."""
    if not len(rows):
        return
    placed, squares = frame.place(queries[rows])
    least = ((1.0 - frame.slack) * squares - frame.squared(limits))[:, None]
    near: list[list[np.ndarray]] = [[] for _ in rows]
    for columns in frame.blocks(points):
        others, norms = frame.place(points[columns[0] : columns[-1] + 1])
        doubled = tf.matmul(2.0 * placed, others, transpose_b=True).numpy()
        possible = doubled - ((1.0 - frame.slack) * norms).astype(np.float32) >= least
        for found, where in zip(near, possible, strict=True):
            found.append(columns[where])
    for row, found in zip(rows, near, strict=True):
        yield int(row), np.concatenate(found)


def _first(k: int, lengths: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest distances along the last axis and their indices; the lower index first among equals."""
    order = np.lexsort((indices, lengths), axis=-1)[..., :k]
    return np.take_along_axis(lengths, order, axis=-1), np.take_along_axis(indices, order, axis=-1)
