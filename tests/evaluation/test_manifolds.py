"""Precision and recall by hand, by brute force, and against known expectations."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.data import images
from ncsn_tf.evaluation import manifolds, neighbours


def column(*values):
    return np.array(values, np.float32)[:, None]


def normal(count, width, seed):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def brute_force(features, reference, k):
    """Both shares from all distances in float64."""

    def lengths(a, b):
        return np.linalg.norm(a[:, None].astype(np.float64) - b.astype(np.float64), axis=2)

    def share(queries, points):
        radii = np.sort(lengths(points, points), axis=1)[:, k]  # the first is the point itself
        return np.mean(np.any(lengths(queries, points) <= radii, axis=1))

    return share(features, reference), share(reference, features)


def shares(found):
    return found.precision, found.recall


REFERENCE, SAMPLES = column(0, 1, 10, 12, 40, 41), column(-1, 2.5, 8, 14.5, 5, 20)


@pytest.mark.parametrize(
    ("k", "precision", "recall"),
    [
        # The reference's balls: [-1, 1], [0, 2], [8, 12], [10, 14], [39, 41], [40, 42]; -1 and 8 are on boundaries.
        # The samples' balls cover -4.5 to 25.5, without 40 and 41.
        (1, 2 / 6, 4 / 6),
        # The reference's: [-10, 10], [-8, 10], [1, 19], [1, 23], [12, 68], [12, 70]. The samples': up to 20 + 12.
        (2, 1.0, 4 / 6),
    ],
)
def test_shares_on_a_line_are_those_computed_by_hand(k, precision, recall):
    found = manifolds.precision_recall(SAMPLES, REFERENCE, k)
    assert shares(found) == pytest.approx((precision, recall))
    assert shares(manifolds.precision_recall(REFERENCE, SAMPLES, k)) == pytest.approx((recall, precision))
    # Two points on and two off the manifold are added: (6 p + 2) of 10.
    for error, share in ((found.precision_error, precision), (found.recall_error, recall)):
        on, off = 6 * share + 2, 6 * (1 - share) + 2
        assert error == pytest.approx(np.sqrt(on * off / 10**3))


def test_separated_clusters_have_the_shares_zero():
    assert shares(manifolds.precision_recall(normal(40, 5, 0), normal(50, 5, 1) + 100.0)) == (0.0, 0.0)


def test_the_error_of_a_share_uses_the_number_of_its_own_points():
    found = manifolds.precision_recall(normal(30, 2, 0), normal(90, 2, 1), k=1)
    assert 0.0 < found.precision < 1.0 and 0.0 < found.recall < 1.0
    ours, theirs = (30 * found.precision + 2) / 34, (90 * found.recall + 2) / 94
    assert found.precision_error == pytest.approx(np.sqrt(ours * (1 - ours) / 34))
    assert found.recall_error == pytest.approx(np.sqrt(theirs * (1 - theirs) / 94))


def test_samples_from_the_data_have_precision_one():
    train = images.load("digits", "train").images.reshape(-1, 64)
    found = manifolds.precision_recall(train[::3], train)
    assert found.precision == 1.0 and 0.9 < found.recall <= 1.0
    assert shares(manifolds.precision_recall(train[:400], train[:400])) == (1.0, 1.0)


def test_a_missing_mode_reduces_recall_by_its_share_and_leaves_precision():
    reference = normal(100, 6, 0)
    reference[70:] += 50.0
    assert shares(manifolds.precision_recall(reference[:70], reference)) == (1.0, 0.7)
    assert shares(manifolds.precision_recall(reference, reference[:70])) == (0.7, 1.0)


def test_two_draws_of_one_density_on_a_line_cover_three_quarters_of_each_other():
    # With k = 1 and many points, a point is covered by its neighbour on the right if the gap between them is not larger
    # than the next gap. For independent gaps of one distribution this has probability 1/2, and so has the left side:
    # the share is 1 - 1/4.
    generator = np.random.default_rng(0)
    runs = [shares(manifolds.precision_recall(*generator.random((2, 1000, 1)), k=1)) for _ in range(16)]
    error = np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    assert np.all(np.abs(np.mean(runs, axis=0) - 0.75) < 4 * error) and np.all(error < 0.01)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("width", "offset"), [(1, 0.0), (2, 1e4), (8, 0.0), (300, 1e4)])
def test_shares_match_brute_force(k, width, offset):
    features, reference = normal(60, width, 0) + np.float32(offset), 1.2 * normal(80, width, 1) + np.float32(offset)
    assert shares(manifolds.precision_recall(features, reference, k)) == brute_force(features, reference, k)


def test_shares_do_not_depend_on_blocks(monkeypatch):
    features, reference = normal(40, 4, 0), normal(50, 4, 1)
    expected = brute_force(features, reference, 2)

    def blocks(count, width):
        return (np.arange(start, min(start + 12, count)) for start in range(0, count, 12))

    monkeypatch.setattr(neighbours, "_blocks", blocks)
    assert shares(manifolds.precision_recall(features, reference, 2)) == expected


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_ball_includes_its_boundary_to_the_last_bit(offset):
    points = normal(60, 200, 0) + np.float32(offset)
    distances, indices = neighbours.nearest(points, points, 3, exclude_self=True)
    np.testing.assert_array_equal(manifolds.radii(points, 3), distances[:, 2])
    for row, (radius, last) in enumerate(zip(distances[:, 2], indices[:, 2], strict=True)):
        point, neighbour = points[row : row + 1], points[last : last + 1]
        assert manifolds.covered(neighbour, point, np.array([radius])).all()
        assert not manifolds.covered(neighbour, point, np.array([np.nextafter(radius, 0)])).any()


def test_one_covering_ball_is_found_among_many_that_narrowly_miss():
    query, point = normal(1, 20, 0), normal(1, 20, 1)
    row = np.zeros(1, np.int64)
    length = neighbours.distances(query, point, row, row)[0]
    radius = np.full(200, np.nextafter(length, 0))
    points = np.tile(point, (200, 1))
    assert not manifolds.covered(query, points, radius)[0]
    radius[150] = length
    assert manifolds.covered(query, points, radius)[0]


def test_few_pairs_are_compared_in_float64(monkeypatch):
    looked = []
    real = neighbours.distances
    monkeypatch.setattr(neighbours, "distances", lambda *a: looked.append(a[2].size) or real(*a))
    points = normal(300, 64, 1)
    radius = manifolds.radii(points, 3)
    looked.clear()
    manifolds.covered(normal(300, 64, 0), points, radius)
    assert sum(looked) < 300  # of 90,000


def test_decisions_from_float32_alone_are_right():
    # No exact distance checks these decisions: the undecided margin must contain the exact boundary.
    points, queries = normal(200, 64, 0), normal(200, 64, 1)
    exact = np.linalg.norm(queries[:, None].astype(np.float64) - points, axis=2)
    frame = neighbours.Frame.around(queries, points)
    (x, squares), (y, norms) = frame.place(queries), frame.place(points)
    doubled = 2.0 * tf.matmul(x, y, transpose_b=True)
    for distance in exact[:50, :].ravel()[::97]:
        certain, possible = manifolds._margins(frame, doubled, squares, norms, np.full(200, distance))
        assert not np.any(certain & (exact > distance)) and not np.any(~possible & (exact <= distance))
        assert np.sum(possible & ~certain) < 100 and np.any(possible & ~certain)


def test_collapsed_samples_cover_themselves_alone():
    one = normal(1, 10, 0)
    collapsed = np.tile(one, (200, 1))
    assert shares(manifolds.precision_recall(collapsed, collapsed)) == (1.0, 1.0)
    assert shares(manifolds.precision_recall(collapsed, normal(50, 10, 1))) == (float(covers(one)), 0.0)


def covers(point):
    reference = normal(50, 10, 1)
    return brute_force(np.concatenate([point] * 4), reference, 3)[0]


@pytest.mark.parametrize(
    ("features", "reference", "k", "message"),
    [
        (normal(3, 2, 0), normal(9, 2, 1), 3, r"k \+ 1 rows.*'samples': 3"),
        (normal(9, 2, 0), normal(3, 2, 1), 3, r"k \+ 1 rows.*'reference': 3"),
        (normal(9, 2, 0), normal(9, 2, 1), 0, "k >= 1.*k = 0"),
        (normal(9, 2, 0), normal(9, 3, 1), 3, "one D"),
        (np.full((9, 2), np.inf, np.float32), normal(9, 2, 1), 3, "finite"),
        (normal(9, 2, 0), np.full((9, 2), np.nan, np.float32), 3, "finite"),
    ],
)
def test_sets_that_span_no_manifold_are_refused(features, reference, k, message):
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        manifolds.precision_recall(features, reference, k)
    assert "Received" in str(caught.value)


def test_each_ball_needs_a_radius():
    with pytest.raises(ValueError, match=r"(?s)9 points.*Received: \(8,\)"):
        manifolds.covered(normal(4, 2, 0), normal(9, 2, 1), np.ones(8))
