"""The Frechet distance in closed form, and its extrapolation on Gaussian data whose true distance is known."""

import numpy as np
import pytest
import scipy.linalg

from ncsn_tf.evaluation import frechet, tfgan
from ncsn_tf.evaluation.moments import Moments


def distance(a, b):
    return frechet.FactoredMoments(a).distance(b)


def rotation(width, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


def correlated(rows, width, seed):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((rows, width)) @ generator.standard_normal((width, width))


def test_the_distance_in_one_dimension_has_its_closed_form():
    a, b = Moments(9, np.array([1.0]), np.array([[4.0]])), Moments(9, np.array([4.0]), np.array([[49.0]]))
    np.testing.assert_allclose(distance(a, b), 3.0**2 + 5.0**2, rtol=1e-14)


def test_the_distance_of_diagonal_covariances_has_its_closed_form():
    a = Moments(9, np.array([1.0, 0.0, -2.0]), np.diag([1.0, 4.0, 9.0]))
    b = Moments(9, np.array([0.0, 2.0, -2.0]), np.diag([4.0, 4.0, 0.25]))
    np.testing.assert_allclose(distance(a, b), (1.0 + 4.0) + (1.0 + 0.0 + 6.25), rtol=1e-14)


def test_the_distance_of_commuting_covariances_has_its_closed_form():
    axes, s, r = rotation(5), np.array([0.1, 1.0, 2.0, 3.0, 9.0]), np.array([5.0, 0.0, 2.5, 1.0, 7.0])
    a = Moments(9, np.arange(5.0), (axes * s**2) @ axes.T)
    b = Moments(9, np.zeros(5), (axes * r**2) @ axes.T)
    # Rounding turns the eigenvalue zero into 1e-15 of the largest, and its square root is 1e-7 of the largest root.
    np.testing.assert_allclose([distance(a, b), distance(b, a)], 30.0 + np.sum((s - r) ** 2), rtol=1e-7)


@pytest.mark.parametrize(("rows", "width"), [(50, 6), (3, 200)])
def test_the_distance_of_a_set_from_itself_is_zero(rows, width):
    # With 3 rows, 198 eigenvalues are zero. If rounding left 1e-16 of each, the roots would add 1e-8 each.
    moments = Moments.of(correlated(rows, width, 0))
    assert abs(distance(moments, moments)) < 1e-10 * np.trace(moments.covariance)


@pytest.mark.parametrize("rows", [200, 12])
def test_the_distance_matches_scipy_and_tfgan(rows):
    # 12 rows of 20 features have a singular covariance.
    x, y = correlated(rows, 20, 1), correlated(100, 20, 2)
    a, b = Moments.of(x), Moments.of(y)
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    np.testing.assert_allclose(distance(a, b), expected, rtol=1e-8 if rows > 20 else 1e-6)  # the rounding of sqrtm
    np.testing.assert_allclose([distance(a, b), distance(b, a)], tfgan.frechet_distance(a, b), rtol=1e-8)


def test_the_distance_scales_with_the_square_of_the_features():
    x, y = correlated(30, 4, 3), correlated(30, 4, 4)
    small = distance(Moments.of(1e-7 * x), Moments.of(1e-7 * y))
    np.testing.assert_allclose(small, 1e-14 * distance(Moments.of(x), Moments.of(y)), rtol=1e-10)


def test_wrong_arguments_are_refused():
    two, three = Moments(9, np.zeros(2), np.eye(2)), Moments(9, np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="has 2 features.*Received: 3"):
        distance(two, three)
    with pytest.raises(ValueError, match="Received: eigenvalues from -1 to 2"):
        frechet.FactoredMoments(Moments(9, np.zeros(2), np.diag([2.0, -1.0])))
    with pytest.raises(ValueError, match="has 2 features.*Received: 3"):
        frechet.extrapolated(np.zeros((50, 3)), two)
    with pytest.raises(ValueError, match="at least 4 groups.*Received: groups = 3"):
        frechet.extrapolated(np.zeros((50, 2)), two, groups=3)
    with pytest.raises(ValueError, match="Received"):
        frechet.extrapolated(np.zeros(50), two)
    with pytest.raises(ValueError, match="NaN"):
        frechet.extrapolated(np.full((50, 2), np.nan), two)


def test_too_few_rows_give_no_extrapolation():
    reference = Moments(9, np.zeros(5), np.eye(5))
    assert frechet.extrapolated(correlated(19, 5, 0), reference) is None
    assert frechet.extrapolated(correlated(20, 5, 0), reference) is not None


def line_to_zero(groups, reference):
    """The extrapolation for a list of arrays, from NumPy's moments and SciPy's root, by least squares in 1/n."""

    def plain(x):
        root = scipy.linalg.sqrtm(np.cov(x.T) @ reference.covariance).real
        return np.sum((x.mean(0) - reference.mean) ** 2) + np.trace(np.cov(x.T) + reference.covariance - 2 * root)

    half = len(groups) // 2
    sets = [np.concatenate(part) for part in (groups, groups[:half], groups[half:])]
    whole, first, second = ((1 / len(part), plain(part)) for part in sets)
    halves = np.mean([first, second], axis=0)
    slope, intercept = np.polyfit(*np.transpose([whole, halves]), 1)
    return intercept


@pytest.mark.parametrize(("rows", "groups"), [(64, 8), (61, 5)])
def test_the_estimate_and_its_jackknife_error_match_numpy(rows, groups):
    x = correlated(rows, 3, 5)
    reference = Moments.of(correlated(40, 3, 6))
    result = frechet.extrapolated(x.astype(np.float32), reference, groups)
    x = x.astype(np.float32).astype(np.float64)
    parts = np.array_split(x[np.random.default_rng(0).permutation(rows)], groups)
    np.testing.assert_allclose(result.value, line_to_zero(parts, reference), rtol=1e-8)
    left = np.array([line_to_zero(parts[:i] + parts[i + 1 :], reference) for i in range(groups)])
    error = np.sqrt((groups - 1) / groups * np.sum((left - np.mean(left)) ** 2))
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-6)
    assert result.sizes[0] == rows and abs(result.sizes[1] - rows / 2) < rows / groups
    np.testing.assert_allclose(result.distances[0], distance(reference, Moments.of(x)), rtol=1e-10)


def test_the_estimate_is_on_the_line_through_both_sizes():
    x = correlated(80, 4, 7)
    result = frechet.extrapolated(x, Moments.of(correlated(99, 4, 8)))
    sizes, distances = np.array(result.sizes), np.array(result.distances)
    assert sizes.tolist() == [80.0, 40.0]
    np.testing.assert_allclose(result.value, np.polyfit(1 / sizes, distances, 1)[1], rtol=1e-10)


def test_the_standard_error_covers_the_true_distance_unlike_that_of_plain_distances():
    width, rows, sets = 12, 96, 30
    s, r, shift = np.linspace(0.5, 1.5, width), np.linspace(1.4, 0.7, width), np.full(width, 0.1)
    truth = np.sum(shift**2) + np.sum((s - r) ** 2)
    reference = Moments(1000, shift, np.diag(r**2))
    generator = np.random.default_rng(9)
    results = [frechet.extrapolated(generator.standard_normal((rows, width)) * s, reference) for _ in range(sets)]
    values, errors, plain = (
        np.array(column) for column in zip(*((e.value, e.standard_error, e.distances[0]) for e in results), strict=True)
    )
    assert 0.8 <= np.mean(np.abs(values - truth) < 2 * errors) <= 0.995
    assert 0.75 < np.mean(errors) / np.std(values) < 1.6
    standard_error = np.std(values) / np.sqrt(sets)
    assert abs(np.mean(values) - truth) < 3 * standard_error
    assert np.mean(plain) - truth > 8 * standard_error
