"""Moments against NumPy's, in blocks, merged, and far from the origin."""

import numpy as np
import pytest

from ncsn_tf.evaluation import frechet
from ncsn_tf.evaluation.moments import Moments


def correlated(rows, width, seed=0):
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((rows, width)) @ generator.standard_normal((width, width))).astype(np.float32)


def assert_same(moments, features, rtol=1e-12):
    values = np.asarray(features, np.float64)
    assert moments.count == len(values)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=rtol, atol=1e-12)
    covariance = np.cov(values, rowvar=False).reshape(moments.covariance.shape)
    np.testing.assert_allclose(moments.covariance, covariance, rtol=rtol, atol=rtol * np.abs(covariance).max())
    assert moments.mean.dtype == moments.covariance.dtype == np.float64


def test_moments_of_two_points_are_those_computed_by_hand():
    moments = Moments.of(np.array([[0.0, 0.0], [2.0, 4.0]]))
    np.testing.assert_array_equal(moments.mean, [1.0, 2.0])
    np.testing.assert_array_equal(moments.covariance, [[2.0, 4.0], [4.0, 8.0]])


@pytest.mark.parametrize("rows", [1, 7, 100, 1000])
def test_blocks_of_any_size_give_numpys_mean_and_covariance(rows):
    features = correlated(100, 5)
    assert_same(Moments.of(features, rows=rows), features)


@pytest.mark.parametrize("width", [1, 300])
def test_any_number_of_features_gives_numpys_covariance(width):
    features = correlated(400, width)
    moments = Moments.of(features, rows=150)
    assert_same(moments, features)
    np.testing.assert_array_equal(moments.covariance, moments.covariance.T)


def test_a_large_common_offset_costs_no_digits():
    # Eighths near 2^20 are exact in float32. Sums of squares, near 2^40 per row, would keep 1e-4 of the covariance.
    features = np.round(correlated(500, 3) * 8) / 8 + np.float32(2**20)
    assert features.dtype == np.float32
    exact = features.astype(np.float64) - 2**20
    np.testing.assert_allclose(Moments.of(features, rows=64).covariance, np.cov(exact, rowvar=False), rtol=1e-12)


def test_rows_are_read_from_a_file_and_chosen(tmp_path):
    features = correlated(60, 4)
    np.save(tmp_path / "features.npy", features)
    file = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert_same(Moments.of(file, rows=11), features)
    chosen = np.array([3, 8, 9, 41, 59])
    assert_same(Moments.of(file, rows=2, chosen=chosen), features[chosen])
    np.testing.assert_array_equal(file, features, "the features must not change")


def test_the_array_is_not_changed():
    features = correlated(20, 3).astype(np.float64)
    before = features.copy()
    Moments.of(features, rows=6)
    np.testing.assert_array_equal(features, before)


def test_merged_moments_are_those_of_all_rows():
    features = correlated(90, 4) + np.repeat([0.0, 5.0, -3.0], [20, 3, 67])[:, None].astype(np.float32)
    a, b, c = (Moments.of(part) for part in np.split(features, [20, 23]))
    assert_same(a + b + c, features)
    assert_same(a + (b + c), features)


@pytest.mark.parametrize(
    "features", [np.zeros((4, 3, 2)), np.zeros(4), np.zeros((4, 0)), np.zeros((4, 3), complex), np.array([["a", "b"]])]
)
def test_arrays_that_are_not_tables_of_numbers_are_refused(features):
    with pytest.raises(ValueError, match=r"\[N, D\].*Received"):
        Moments.of(features)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="at least 2 rows.*Received: 1"):
        Moments.of(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least 2 rows.*Received: 1"):
        Moments.of(np.zeros((9, 3)), chosen=np.array([4]))
    with pytest.raises(ValueError, match="Received: rows = 0"):
        Moments.of(np.zeros((9, 3)), rows=0)


@pytest.mark.parametrize("rows", [4, 100])
def test_broken_rows_are_counted(rows):
    features = np.zeros((50, 3), np.float32)
    features[[5, 20, 33], 1] = np.nan, np.inf, -np.inf
    features[5, 2] = np.nan
    with pytest.raises(ValueError, match="in 3 of 50 rows"):
        Moments.of(features, rows=rows)


@pytest.mark.parametrize(
    ("count", "mean", "covariance", "message"),
    [
        (1, np.zeros(2), np.eye(2), "at least 2 rows.*Received: count 1"),
        (-1, np.zeros(2), np.eye(2), "Received: count -1"),
        (9, np.zeros(3), np.eye(2), r"\(3,\) and \(2, 2\)"),
        (9, np.zeros((1, 2)), np.eye(2), "Received"),
        (9, np.array([0.0, np.nan]), np.eye(2), "finite"),
        (9, np.zeros(2), np.diag([1.0, np.inf]), "finite"),
        (9, np.zeros(2), np.array([[1.0, 0.5], [0.4, 1.0]]), "symmetric.*0.1 among values up to 1"),
    ],
)
def test_impossible_moments_are_refused(count, mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        Moments(count, mean, covariance)


def test_moments_of_different_features_cannot_be_added():
    with pytest.raises(ValueError, match="Received: 2 and 3 features"):
        _ = Moments(5, np.zeros(2), np.eye(2)) + Moments(5, np.zeros(3), np.eye(3))


def test_moments_of_an_unknown_number_of_rows_can_be_compared_but_not_added():
    unknown, known = Moments(0, np.zeros(2), np.eye(2)), Moments(5, np.ones(2), np.eye(2))
    assert frechet.FactoredMoments(unknown).distance(known) == pytest.approx(2.0, abs=1e-12)
    for pair in ((unknown, known), (known, unknown), (unknown, unknown)):
        with pytest.raises(ValueError, match=f"Received: counts {pair[0].count} and {pair[1].count}"):
            _ = pair[0] + pair[1]
