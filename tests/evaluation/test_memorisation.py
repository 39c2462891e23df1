"""The check for copies: copies are found, unseen images are not, and the probability has its closed form."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from ncsn_tf.data import images
from ncsn_tf.evaluation import memorisation
from ncsn_tf.evaluation.memorisation import Comparison, Features


@pytest.fixture(scope="module")
def digits():
    return images.load("digits", "train").images, images.load("digits", "held_out").images


def constant(values, shape=(2, 3, 1)):
    return np.stack([np.full(shape, value, np.uint8) for value in values])


def of_distances(samples, held_out):
    indices = np.zeros((len(samples), 1), np.int64), np.zeros((len(held_out), 1), np.int64)
    return Comparison(np.asarray(samples, np.float64), np.asarray(held_out, np.float64), *indices)


def standard_error(found):
    assert found.standard_error is not None
    return found.standard_error


def test_copies_are_found_with_their_originals(digits):
    train, held_out = digits
    samples = np.concatenate([held_out[100:110], train[[7, 1200, 3]]])
    found = memorisation.compare(samples, train, held_out[:100], k=2)
    assert list(found) == ["pixels"]
    pixels = found["pixels"]
    assert pixels.copies == 3 and np.flatnonzero(pixels.sample_distances == 0).tolist() == [10, 11, 12]
    assert pixels.sample_neighbours[10:, 0].tolist() == [7, 1200, 3] and pixels.sample_neighbours.shape == (13, 2)
    assert pixels.nearer_than_any_held_out >= 3


def test_the_distance_in_pixels_is_that_of_bytes_over_255(digits):
    train, held_out = digits
    pixels = memorisation.compare(held_out[:20], train[:300], held_out[20:50], k=3)["pixels"]
    for queries, distances, indices in (
        (held_out[:20], pixels.sample_distances, pixels.sample_neighbours),
        (held_out[20:50], pixels.held_out_distances, pixels.held_out_neighbours),
    ):
        expected = np.sqrt(np.sum((queries[:, None] / 255.0 - train[:300] / 255.0) ** 2, axis=(2, 3, 4)))
        np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-13)
        np.testing.assert_array_equal(indices, np.argsort(expected, axis=1, kind="stable")[:, :3])
    apart = memorisation.compare(constant([255]), constant([0]), constant([0]), k=1)["pixels"]
    assert apart.sample_distances[0] == pytest.approx(np.sqrt(2 * 3))


def test_neighbours_in_features_may_differ_from_those_in_pixels():
    # In pixels the sample is the first training image; in features it is the second.
    features = Features(np.float32([[1.0, 1.0]]), np.float32([[4.0, 5.0], [1.0, 1.0]]), np.float32([[4.0, 8.0]]))
    found = memorisation.compare(constant([10]), constant([10, 99]), constant([99]), features, k=2)
    assert list(found) == ["pixels", "features"]
    assert found["pixels"].sample_neighbours.tolist() == [[0, 1]]
    assert found["features"].sample_neighbours.tolist() == [[1, 0]]
    assert found["features"].held_out_neighbours.tolist() == [[0, 1]]
    assert found["features"].held_out_distances.tolist() == [3.0]  # in the network's units, not divided by 255


def test_unseen_images_have_the_probability_one_half(digits):
    train, held_out = digits
    order = np.random.default_rng(0).permutation(len(held_out))
    pixels = memorisation.compare(held_out[order[:148]], train, held_out[order[148:]])["pixels"]
    assert abs(pixels.probability_nearer - 0.5) < 3 * standard_error(pixels)
    assert pixels.copies == 0


def test_training_images_with_little_noise_are_nearer(digits):
    train, held_out = digits
    noise = np.random.default_rng(0).integers(0, 20, train[:100].shape)
    noisy = np.clip(train[:100] + noise, 0, 255).astype(np.uint8)
    pixels = memorisation.compare(noisy, train, held_out)["pixels"]
    np.testing.assert_array_equal(pixels.sample_neighbours[:, 0], np.arange(100))
    assert pixels.copies == 0 and pixels.probability_nearer > 0.95 and pixels.nearer_than_any_held_out > 50


def test_the_probability_counts_pairs_and_half_the_ties():
    # Greys 0..99 and 50..149, and a black training image. Among 10^4 pairs the sample is farther away in 49 + 48 + ...
    # + 1 = 1225, and 50 are ties.
    found = memorisation.compare(constant(range(100)), constant([0]), constant(range(50, 150)), k=1)["pixels"]
    assert found.probability_nearer == pytest.approx(1 - (1225 + 25) / 1e4, abs=1e-12)
    assert found.copies == 1 and found.nearer_than_any_held_out == 50
    summary = found.summary()
    assert summary["median_of_samples"] == pytest.approx(49.5 / 255 * np.sqrt(6))
    assert summary["median_of_held_out"] == pytest.approx(99.5 / 255 * np.sqrt(6))
    assert summary["smallest_of_samples"] == 0.0
    assert summary["smallest_of_held_out"] == pytest.approx(50 / 255 * np.sqrt(6))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.5, 2.0])
def test_the_probability_for_shifted_normal_distances_has_its_closed_form(shift):
    generator = np.random.default_rng(1)
    found = of_distances(10 + generator.standard_normal(2000), 10 + shift + generator.standard_normal(1500))
    assert abs(found.probability_nearer - stats.norm.cdf(shift / np.sqrt(2))) < 3 * standard_error(found)
    assert standard_error(found) < 0.012


def test_the_probability_is_the_statistic_of_mann_and_whitney():
    generator = np.random.default_rng(2)
    samples, held_out = generator.integers(0, 12, 70), generator.integers(3, 15, 50)  # many ties
    expected = stats.mannwhitneyu(held_out, samples).statistic / (70 * 50)
    assert of_distances(samples, held_out).probability_nearer == pytest.approx(expected, abs=1e-12)


def test_the_standard_error_for_exponential_distances_has_its_closed_form():
    # With rates a and b: P(X < Y) = a / (a + b), P(X < Y, X < Y') = a / (a + 2 b); P(X < Y, X' < Y) by complement.
    # Hanley & McNeil (1982, equation 2) then give the variance for n samples and m held-out images.
    a, b, n, m = 3.0, 1.0, 120, 240
    p, both_farther = a / (a + b), a / (a + 2 * b)
    both_nearer = 1 - 2 * b / (a + b) + b / (b + 2 * a)
    variance = (p * (1 - p) + (m - 1) * (both_farther - p**2) + (n - 1) * (both_nearer - p**2)) / (n * m)
    generator = np.random.default_rng(3)
    runs = [of_distances(generator.exponential(1 / a, n), generator.exponential(1 / b, m)) for _ in range(400)]
    squares = np.array([standard_error(run) ** 2 for run in runs])
    # DeLong's estimate neglects a term of order p (1 - p) / (n m), here less than 1 % of the variance.
    assert np.mean(squares) == pytest.approx(variance, abs=4 * np.std(squares) / 20 + p * (1 - p) / (n * m))
    probabilities = np.array([run.probability_nearer for run in runs])
    assert abs(np.mean(probabilities) - p) < 4 * np.sqrt(variance / 400)


def test_the_standard_error_follows_from_all_pairs():
    generator = np.random.default_rng(4)
    samples, held_out = generator.integers(0, 9, 12).astype(float), generator.integers(2, 11, 7).astype(float)
    kernel = (samples[:, None] < held_out) + 0.5 * (samples[:, None] == held_out)
    expected = np.var(kernel.mean(axis=1), ddof=1) / 12 + np.var(kernel.mean(axis=0), ddof=1) / 7
    assert of_distances(samples, held_out).standard_error == pytest.approx(np.sqrt(expected), rel=1e-12)


def test_one_sample_has_a_probability_but_no_standard_error():
    found = of_distances([2.0], [1.0, 2.0, 3.0, 4.0])
    assert found.probability_nearer == 0.625 and found.standard_error is None
    assert of_distances([1.0, 2.0], [1.5]).standard_error is None
    assert found.summary()["standard_error"] is None


def test_the_probability_of_separated_distances_is_one_or_zero():
    assert of_distances([1.0, 2.0], [3.0, 4.0]).probability_nearer == 1.0
    assert of_distances([3.0, 4.0], [1.0, 2.0]).probability_nearer == 0.0
    assert of_distances([0.0, 0.0], [0.0, 4.0]).nearer_than_any_held_out == 0  # a held-out image is itself a copy


# Pictures


def test_the_picture_shows_the_nearest_samples_first_with_their_neighbours(tmp_path):
    samples, train = constant([10, 20, 30], (32, 32, 1)), constant([100, 110, 120, 130], (32, 32, 1))
    indices = np.array([[3, 0], [1, 2], [2, 3]])
    path = tmp_path / "neighbours.png"
    memorisation.save_neighbours(path, samples, train, indices, np.array([0.5, 0.9, 0.1]), count=2)
    picture = np.asarray(Image.open(path))
    assert picture.shape == (2 * 33 + 1, 3 * 33 + 1, 3)
    assert [[picture[10 + 33 * row, 10 + 33 * place, 0] for place in range(3)] for row in range(2)] == [
        [30, 120, 130],
        [10, 130, 100],
    ]


def test_the_picture_has_a_row_for_each_sample_if_there_are_few(tmp_path):
    samples, train = constant([10, 20], (32, 32, 3)), constant([100], (32, 32, 3))
    memorisation.save_neighbours(tmp_path / "n.png", samples, train, np.zeros((2, 1), int), np.array([1.0, 1.0]))
    picture = np.asarray(Image.open(tmp_path / "n.png"))
    assert (
        picture.shape == (67, 67, 3) and picture[10, 10, 0] == 10 and picture[43, 10, 0] == 20
    )  # equals keep their order


def test_the_histograms_hold_all_distances_of_both_sets(tmp_path):
    generator = np.random.default_rng(0)
    comparisons = {
        "pixels": of_distances(generator.normal(5, 1, 300), generator.normal(6, 1, 200)),
        "features": of_distances(generator.normal(50, 9, 300), generator.normal(40, 9, 200)),
    }
    picture = memorisation.draw_distances(comparisons)
    assert [axes.get_title().split(":")[0] for axes in picture.axes] == ["pixels", "features"]
    for axes, comparison in zip(picture.axes, comparisons.values(), strict=True):
        sets = (comparison.held_out_distances, comparison.sample_distances)
        for bars, distances in zip(axes.containers, sets, strict=True):
            widths = np.array([bar.get_width() for bar in bars])
            counts = np.array([bar.get_height() for bar in bars]) * widths * len(distances)
            edges = np.array([bar.get_x() for bar in bars] + [bars[-1].get_x() + widths[-1]])
            assert np.sum(counts) == pytest.approx(len(distances))
            middle = edges[20]
            assert np.sum(counts[:20]) == pytest.approx(np.sum(distances < middle), abs=1e-6)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["held-out images (200)", "samples (300)"]
        assert f"{comparison.probability_nearer:.3f}" in axes.get_title()
    memorisation.save_distances(tmp_path / "d.png", comparisons)
    with Image.open(tmp_path / "d.png") as written:
        assert written.format == "PNG" and written.width > 2 * 500 > written.height
    memorisation.save_distances(tmp_path / "one.png", {"pixels": of_distances([1.0], [1.0])})
    assert (tmp_path / "one.png").exists()


# Errors

TWO = constant([1, 2])
ROWS = np.zeros((2, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": constant([1], (3, 3, 1))}, "different shapes"),
        ({"held_out": constant([1], (2, 3, 3))}, "different shapes"),
        ({"held_out": TWO[:0]}, "at least one"),
        ({"samples": TWO[:0]}, "at least one"),
        ({"train": TWO[:0]}, "at least one"),
        ({"samples": TWO / 255.0}, "uint8"),
        ({"samples": TWO[0]}, r"\[N, H, W, C\]"),
        ({"k": 3}, "k = 3"),
        ({"k": 0}, "k = 0"),
        ({"features": Features(ROWS, ROWS[:1], ROWS)}, r"'train': \(1, 2\)"),
        ({"features": Features(ROWS, ROWS, ROWS[:, :3])}, "one D"),
        ({"features": Features(ROWS, ROWS, ROWS + np.nan)}, "finite"),
        ({"features": Features(ROWS + np.inf, ROWS, ROWS)}, "finite"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(changes, message):
    arguments = {"samples": TWO, "train": TWO, "held_out": TWO, "k": 1} | changes
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        memorisation.compare(**arguments)
    assert "Received" in str(caught.value)


@pytest.mark.parametrize(
    ("indices", "distances", "count"),
    [
        (np.zeros(2, int), np.zeros(2), 1),
        (np.zeros((2, 1), int), np.zeros(3), 1),
        (np.zeros((2, 1), int), np.zeros(2), 0),
    ],
)
def test_wrong_arguments_of_pictures_are_refused(tmp_path, indices, distances, count):
    with pytest.raises(ValueError, match="Received"):
        memorisation.save_neighbours(tmp_path / "n.png", TWO, TWO, indices, distances, count=count)
    with pytest.raises(ValueError, match="Received"):
        memorisation.save_distances(tmp_path / "d.png", {})
    assert not list(tmp_path.iterdir())
