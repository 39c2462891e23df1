"""The Inception score and the kernel distance, against closed forms, NumPy, and TF-GAN on all rows at once."""

import numpy as np
import pytest

from ncsn_tf.evaluation import scores, tfgan


def shuffled(values, seed):
    return values[np.random.default_rng(seed).permutation(len(values))]


def test_the_score_of_a_balanced_one_hot_set_is_its_number_of_classes():
    np.testing.assert_allclose(
        scores.inception_score(50.0 * np.tile(np.eye(6), (4, 1)), splits=1), (6.0, 0.0), rtol=1e-9
    )


def test_the_score_of_equal_images_is_one():
    logits = np.tile(np.random.default_rng(0).standard_normal(7), (40, 1))
    np.testing.assert_allclose(scores.inception_score(logits, splits=4), (1.0, 0.0), atol=1e-12)


def test_the_score_of_two_classes_of_different_sizes_has_its_closed_form():
    # A share a of the images is certainly of class 0, the rest of class 1: log score = entropy of (a, 1 - a).
    a = 0.25
    logits = 80.0 * np.eye(2)[np.repeat([0, 1], [25, 75])]
    expected = np.exp(-a * np.log(a) - (1 - a) * np.log(1 - a))
    np.testing.assert_allclose(scores.inception_score(logits, splits=1)[0], expected, rtol=1e-12)


def test_sorted_classes_are_shuffled():
    logits = np.repeat(50.0 * np.eye(5), 200, axis=0)
    assert scores.inception_score(logits)[0] > 4.7, "in order, each part would hold one class, and score 1"


@pytest.mark.parametrize("splits", [1, 3])
def test_mean_and_deviation_over_parts_match_numpy(splits, tmp_path):
    logits = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32) * 2
    np.save(tmp_path / "logits.npy", logits)
    parts = []
    for part in np.array_split(shuffled(logits.astype(np.float64), 0), splits):
        p = np.exp(part) / np.exp(part).sum(axis=1, keepdims=True)
        parts.append(np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1))))
    file = np.load(tmp_path / "logits.npy", mmap_mode="r")
    expected = np.mean(parts), np.sqrt(np.mean((np.array(parts) - np.mean(parts)) ** 2))
    np.testing.assert_allclose(scores.inception_score(file, splits), expected, rtol=1e-10, atol=1e-14)


def test_wrong_arguments_of_the_inception_score_are_refused():
    with pytest.raises(ValueError, match="at least 2 images.*Received: 19 rows and splits = 10"):
        scores.inception_score(np.zeros((19, 3)))
    with pytest.raises(ValueError, match="Received: 19 rows and splits = 0"):
        scores.inception_score(np.zeros((19, 3)), splits=0)
    with pytest.raises(ValueError, match=r"Logits must be .*Received: float64 \(20,\)"):
        scores.inception_score(np.zeros(20))
    with pytest.raises(ValueError, match="logits must be finite.*in 1 of 10 rows"):
        scores.inception_score(np.array([[0.0, 1.0]] * 19 + [[0.0, np.inf]]), splits=2)


@pytest.mark.parametrize(("ours", "theirs", "blocks"), [(60, 60, 3), (61, 47, 5), (30, 64, 1)])
def test_the_distance_block_by_block_is_that_of_tfgan_on_all_rows(ours, theirs, blocks):
    generator = np.random.default_rng(2)
    x = generator.standard_normal((ours, 5)).astype(np.float32)
    y = (0.3 + 1.2 * generator.standard_normal((theirs, 5))).astype(np.float32)
    value, error = scores.kernel_distance(x, y, blocks)
    size = -(-max(ours, theirs) // blocks)
    expected, expected_error = tfgan.kernel_distance(shuffled(x, 0), shuffled(y, 1), size)
    if error is None:
        assert np.isnan(expected_error) and blocks == 1
    else:
        np.testing.assert_allclose(error, expected_error, rtol=1e-10)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_the_distance_of_two_point_masses_has_its_closed_form():
    u, v = np.array([1.0, 2.0]), np.array([-1.0, 0.5])
    expected = (5.0 / 2 + 1) ** 3 + (1.25 / 2 + 1) ** 3 - 2 * (0.0 / 2 + 1) ** 3
    value, error = scores.kernel_distance(np.tile(u, (9, 1)), np.tile(v, (7, 1)), blocks=3)
    np.testing.assert_allclose((value, error), (expected, 0.0), atol=1e-12)


def test_the_distance_of_a_distribution_from_itself_is_zero_for_small_blocks():
    generator = np.random.default_rng(3)
    x, y = (rows[np.argsort(rows[:, 0])] for rows in generator.standard_normal((2, 2000, 8)))
    value, error = scores.kernel_distance(x, y[::-1], blocks=100)
    # Pairs of a row with itself would add 2 / 20 of E k(x, x) - E k(x, y), which exceeds (1 + 1)^3 - 1.4. Without a
    # shuffle the two sides of each block would come from opposite ends of the distribution.
    assert error is not None and abs(value) < 3 * error < 0.6


def test_the_distance_of_gaussians_on_a_line_has_its_closed_form():
    # (xy + 1)^3 = x^3 y^3 + 3 x^2 y^2 + 3 xy + 1: the distance is that of the first three moments, weighted by 3, 3, 1.
    m = 0.5
    truth = 3 * m**2 + 3 * (m**2) ** 2 + (m**3 + 3 * m) ** 2
    generator = np.random.default_rng(4)
    value, error = scores.kernel_distance(
        generator.standard_normal((20_000, 1)), m + generator.standard_normal((20_000, 1)), blocks=50
    )
    assert error is not None and abs(value - truth) < 3 * error < 0.3 * truth


def test_the_standard_error_is_the_spread_of_repetitions():
    generator = np.random.default_rng(5)
    found = [scores.kernel_distance(*generator.standard_normal((2, 40, 2)) + [[[0.0]], [[0.4]]], 4) for _ in range(24)]
    values, errors = np.transpose(found)
    assert 0.7 < np.sqrt(np.mean(errors**2)) / np.std(values) < 1.4


def test_features_may_be_in_files(tmp_path):
    x = np.random.default_rng(6).standard_normal((30, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    file = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert scores.kernel_distance(file, x + 1, 3) == scores.kernel_distance(x, x + 1, 3)


@pytest.mark.parametrize(
    ("x", "y", "blocks", "message"),
    [
        (np.zeros((9, 3)), np.zeros((9, 2)), 2, "Received: 3 and 2 features"),
        (np.zeros((9, 3)), np.zeros((9, 3)), 5, "9 and 9 rows, blocks = 5"),
        (np.zeros((9, 3)), np.zeros((9, 3)), 0, "blocks = 0"),
        (np.zeros((90, 3)), np.zeros((17, 3)), 9, "Received: 90 and 17 rows, blocks = 9"),
        (np.zeros((0, 3)), np.zeros((0, 3)), 1, "Received: 0 and 0 rows"),
        (np.zeros((9, 3)), np.zeros(9), 2, r"Reference must be .*Received: float64 \(9,\)"),
        (np.zeros((9, 3)), np.full((9, 3), np.nan), 2, "reference must be finite"),
        (np.full((9, 3), np.nan), np.zeros((9, 3)), 2, "features must be finite"),
    ],
)
def test_wrong_arguments_of_the_kernel_distance_are_refused(x, y, blocks, message):
    with pytest.raises(ValueError, match=message):
        scores.kernel_distance(x, y, blocks)
