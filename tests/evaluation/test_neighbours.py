"""Nearest neighbours against brute force in float64, also where float32 alone would be wrong."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.data import images
from ncsn_tf.evaluation import neighbours


def brute_force(queries, points, k, exclude_self=False):
    """All distances from differences in float64, sorted with the lower index first among equals."""
    queries, points = np.asarray(queries, np.float64), np.asarray(points, np.float64)
    distances = np.linalg.norm(queries[:, None] - points, axis=2)
    if exclude_self:
        np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def assert_as_brute_force(queries, points, k, exclude_self=False):
    distances, indices = neighbours.nearest(queries, points, k, exclude_self=exclude_self)
    expected, order = brute_force(queries, points, k, exclude_self)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(distances, expected, rtol=1e-14, atol=0.0)  # zeros must be exact
    assert distances.dtype == np.float64 and indices.dtype == np.int64


def normal(count, width, seed):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def small_blocks(monkeypatch, rows):
    """Makes blocks of a few rows instead of thousands, so that small data take many blocks."""

    def blocks(count, width):
        return (np.arange(start, min(start + rows, count)) for start in range(0, count, rows))

    monkeypatch.setattr(neighbours, "_blocks", blocks)


@pytest.mark.parametrize("k", [1, 3, 40])
@pytest.mark.parametrize("width", [1, 7, 300])
def test_neighbours_match_brute_force(k, width):
    assert_as_brute_force(normal(30, width, 0), normal(40, width, 1), k)


@pytest.mark.parametrize("k", [1, 5, 49])
def test_a_point_is_not_its_own_neighbour_but_its_copies_are(k):
    points = normal(50, 6, 0)
    points[[9, 30]] = points[4]
    assert_as_brute_force(points, points, k, exclude_self=True)
    distances, indices = neighbours.nearest(points, points, 1, exclude_self=True)
    assert (distances[:, 0] == 0.0).sum() == 3 and indices[[4, 9, 30], 0].tolist() == [9, 4, 4]


@pytest.mark.parametrize("rows", [3, 7, 16])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_neighbours_do_not_depend_on_blocks(monkeypatch, rows, exclude_self):
    points = normal(38, 5, 0)
    points[30] = points[3]
    queries = points if exclude_self else np.concatenate([normal(21, 5, 1), points[:2]])
    small_blocks(monkeypatch, rows)
    assert_as_brute_force(queries, points, 4, exclude_self)


def test_blocks_stay_within_their_memory_for_any_width():
    for width in (1, 64, 2048, 200_000, 10**8):
        rows = next(iter(neighbours._blocks(10**6, width)))
        assert 4 * len(rows) ** 2 <= 2**26 and (8 * len(rows) * width <= 2**26 or len(rows) == 1)
    np.testing.assert_array_equal(np.concatenate(list(neighbours._blocks(10_001, 4000))), np.arange(10_001))


def test_a_common_offset_costs_no_digits():
    # At 1e4 the spacing of float32 is 1e-3, at its square 1e8 it is 8: products about the origin cannot resolve d = 1.
    assert_as_brute_force(normal(30, 20, 0) + np.float32(1e4), normal(60, 20, 1) + np.float32(1e4), 3)


def test_points_that_float32_cannot_distinguish_are_distinguished():
    # A hundred points at distances 1 + i 1e-6 in a frame that an outlier makes 2^20 wide: all products are equal.
    lengths = 1.0 + 1e-6 * np.random.default_rng(0).permutation(100)
    points = np.zeros((101, 8), np.float32)
    points[:100, 0], points[100, 1] = lengths, 2.0**20
    queries = np.zeros((2, 8), np.float32)
    assert_as_brute_force(queries, points, 5)
    assert neighbours.nearest(queries, points, 1)[1][0, 0] == np.argmin(lengths)


def test_ties_are_ordered_by_index_even_if_there_are_many():
    queries = np.array([[0.0, 0.0], [0.25, 0.0]], np.float32)
    around = np.random.default_rng(0).permutation(np.repeat([[3.0, 4.0], [-5.0, 0.0], [0.0, 5.0]], 30, axis=0))
    points = np.concatenate([[[30.0, 1.0]], around]).astype(np.float32)
    assert_as_brute_force(queries, points, 4)
    assert neighbours.nearest(queries, points, 4)[1][0].tolist() == [1, 2, 3, 4]


def test_equidistant_points_have_the_first_points_as_neighbours():
    corners = np.eye(40, dtype=np.float32)  # of a simplex
    assert_as_brute_force(corners, corners, 3, exclude_self=True)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_few_queries_are_left_undecided(monkeypatch, offset):
    undecided = []
    monkeypatch.setattr(neighbours, "_within", lambda *a: undecided.extend(a[3]) or iter([]))
    queries, points = (normal(500, 64, seed) + np.float32(offset) for seed in (0, 1))
    points[100:150] = points[0]  # more copies than candidates, also of a query
    queries[:20] = points[0]
    neighbours.nearest(queries, points, 3)
    assert len(undecided) < 10


def test_collapsed_points_are_neighbours_at_distance_zero():
    points = np.tile(normal(1, 10, 0), (200, 1))
    distances, indices = neighbours.nearest(points, points, 3, exclude_self=True)
    assert np.all(distances == 0.0)
    assert all(len({row, *found}) == 4 for row, found in enumerate(indices.tolist()))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_values_whose_squares_overflow_or_underflow_float32_have_neighbours(size):
    assert_as_brute_force(np.float32(size) * normal(20, 4, 0), np.float32(size) * normal(30, 4, 1), 2)


def test_bytes_are_subtracted_as_numbers_and_copies_are_found():
    train = images.load("digits", "train").images.reshape(-1, 64)
    held_out = images.load("digits", "held_out").images.reshape(-1, 64)
    assert_as_brute_force(np.concatenate([held_out[:100], train[700:720]]), train, 3)
    distances, indices = neighbours.nearest(train[700:720], train, 1)
    assert np.all(distances == 0.0) and np.all(train[indices[:, 0]] == train[700:720])


def test_features_may_be_in_files(tmp_path, monkeypatch):
    small_blocks(monkeypatch, 16)
    mapped = []
    for name, values in (("queries", normal(30, 5, 0)), ("points", normal(50, 5, 1))):
        np.save(tmp_path / f"{name}.npy", values)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    assert isinstance(mapped[0], np.memmap)
    assert_as_brute_force(*mapped, 3)


def test_a_distance_does_not_depend_on_other_pairs_or_on_the_order_of_its_points():
    a, b = normal(300, 333, 0), normal(300, 333, 1)
    rows = np.arange(300)
    together = neighbours.distances(a, b, rows, rows)
    alone = [neighbours.distances(a, b, row, row)[0] for row in rows[:, None]]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, neighbours.distances(b, a, rows, rows))
    np.testing.assert_allclose(together, np.linalg.norm(a.astype(np.float64) - b, axis=1), rtol=1e-14)


@pytest.mark.parametrize(("width", "spread"), [(3, 1.0), (64, 1.0), (2048, 1.0), (64, 1e-4)])
def test_products_in_float32_are_within_their_bound(width, spread):
    a = spread * normal(50, width, 0) + 1.0
    b = a + 1e-3 * spread * normal(50, width, 1)  # near pairs, where the subtraction cancels
    frame = neighbours.Frame.around(a, b)
    (x, x_squares), (y, y_squares) = frame.place(a), frame.place(b)
    exact = frame.squared(np.linalg.norm(a[:, None].astype(np.float64) - b, axis=2))
    norms = x_squares[:, None] + y_squares
    computed = norms - 2.0 * tf.matmul(x, y, transpose_b=True).numpy().astype(np.float64)
    assert np.all(np.abs(computed - exact) <= frame.slack * norms)


@pytest.mark.parametrize("before", [False, True])
def test_tensor_float_32_is_off_during_the_products_alone(before):
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    tf.config.experimental.enable_tensor_float_32_execution(before)
    try:
        with pytest.raises(RuntimeError), neighbours.exact_products():
            assert not enabled()
            raise RuntimeError
        assert enabled() == before
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)  # TensorFlow's default


@pytest.mark.parametrize(
    ("queries", "points", "k", "exclude_self", "message"),
    [
        (normal(4, 3, 0), normal(5, 2, 0), 1, False, "one D"),
        (normal(4, 3, 0), normal(5, 3, 0), 6, False, "5 points.*k = 6"),
        (normal(5, 3, 0), normal(5, 3, 0), 5, True, "4 other points.*k = 5"),
        (normal(4, 3, 0), normal(5, 3, 0), 0, False, "k = 0"),
        (normal(4, 3, 0), normal(5, 3, 0), 1, True, "4 queries and 5 points"),
        (normal(0, 3, 0), normal(5, 3, 0), 1, False, "at least one"),
        (normal(4, 3, 0), normal(0, 3, 0), 1, False, "at least one"),
        (np.full((4, 3), np.nan, np.float32), normal(5, 3, 0), 1, False, "queries must be finite.*4 of 4"),
        (normal(4, 3, 0), np.float32([[1, 2, np.inf], [1, 2, 3]]), 1, False, "points must be finite.*1 of 2"),
        (np.zeros((4, 2, 2, 1), np.uint8), np.zeros((5, 2, 2, 1), np.uint8), 1, False, "flatten"),
        (np.zeros((4, 3), complex), normal(5, 3, 0), 1, False, "real numbers"),
    ],
)
def test_wrong_arguments_are_refused(queries, points, k, exclude_self, message):
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        neighbours.nearest(queries, points, k, exclude_self=exclude_self)
    assert "Received" in str(caught.value)
