"""The largest distance between two images against all distances, computed one by one."""

import numpy as np
import pytest
from scipy.spatial import distance

from ncsn_tf.data.distances import Distance, largest_distance


def brute_force(images):
    """The largest distance in the array's own units, and its pair."""
    flat = np.reshape(images, [len(images), -1]).astype(np.float64)
    all_of_them = distance.squareform(distance.pdist(flat))
    first, second = np.unravel_index(np.argmax(all_of_them), all_of_them.shape)
    return all_of_them[first, second], tuple(sorted((int(first), int(second))))


def points(kind, count=120, width=12):
    """Sets of points whose distances from their mean say much, little or nothing about the largest distance."""
    generator = np.random.default_rng(5)
    normal = generator.standard_normal((count, width))
    if kind == "sphere":  # all at the same distance from the mean, nearly
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)
    if kind == "line":
        return generator.permutation(np.linspace(0.0, 1.0, count))[:, None] * np.ones(width)
    if kind == "outlier":
        return np.concatenate([1e-3 * normal[1:], np.full((1, width), 3.0)])
    if kind == "heavy tails":
        return normal * generator.pareto(1.0, (count, 1))
    if kind == "far from zero":
        return 1e6 + normal
    if kind == "clusters":  # the furthest point from the mean is not of the pair that is furthest apart
        angles = np.repeat(np.deg2rad([0.0, 170.0, 190.0]), count // 3)
        lengths = np.repeat([1.05, 1.0, 1.0], count // 3)
        plane = lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return np.concatenate([plane, 1e-3 * normal[:, 2:]], axis=1)
    return normal


@pytest.mark.parametrize("kind", ["normal", "sphere", "line", "outlier", "heavy tails", "far from zero", "clusters"])
@pytest.mark.parametrize("chunk", [1, 7, 64, None])
def test_it_is_the_largest_of_all_distances(kind, chunk):
    images = points(kind).reshape(120, 2, 2, 3)
    value, pair = brute_force(images)
    counts = []
    found = largest_distance(images, chunk=chunk, on_images=counts.append)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert kind == "clusters" or found.pair == pair
    assert np.linalg.norm(np.subtract(*images[list(found.pair)])) == pytest.approx(value, rel=1e-12)
    assert found.exact and found.pairs == 120 * 119 // 2 and sum(counts) == 120


def test_images_near_the_mean_are_not_compared():
    counts = []
    largest_distance(points("outlier"), chunk=1, on_images=counts.append)
    assert counts == [1, 1, 118], "the outlier, the first other one, and no pair that is left can be further apart"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_bytes_stand_for_the_unit_interval_and_floats_for_themselves(dtype):
    images = np.random.default_rng(1).integers(0, 256, (50, 4, 4, 1)).astype(dtype)
    value, pair = brute_force(images)
    found = largest_distance(images)
    assert found.value == pytest.approx(value / (255 if dtype == np.uint8 else 1), rel=1e-12)
    assert found.pair == pair
    extremes = np.stack([np.zeros([3, 5, 2], np.uint8), np.full([3, 5, 2], 255, np.uint8)])
    assert largest_distance(extremes).value == pytest.approx(np.sqrt(30.0), rel=1e-15)


def test_a_sample_gives_a_lower_bound_that_says_what_it_rests_on():
    images = points("heavy tails")
    exact = largest_distance(images)
    drawn = [largest_distance(images, sample=15, seed=seed) for seed in range(6)]
    assert all(found.value <= exact.value for found in drawn) and len({found.value for found in drawn}) > 1
    assert drawn[3] == largest_distance(images, sample=15, seed=3, chunk=4)
    first, second = drawn[3].pair
    assert np.linalg.norm(images[first] - images[second]) == pytest.approx(drawn[3].value)
    assert not drawn[3].exact and drawn[3].images == 15 and drawn[3].available == 120 and drawn[3].pairs == 105
    assert "105 pairs: 15 of 120 images, drawn at random, so a lower bound" in drawn[3].basis()
    assert all(largest_distance(images, sample=120, seed=seed) == exact for seed in range(6)), "none is drawn twice"
    assert "all 120 images were compared" in exact.basis()


def test_two_images_are_enough():
    assert largest_distance(np.array([[1.0, 2.0], [4.0, 6.0]])) == Distance(5.0, (0, 1), 2, 2)


@pytest.mark.parametrize(
    "images, options, message",
    [
        (np.zeros([1, 2, 2, 1]), {}, "2 or more images.*shape \\(1, 2, 2, 1\\)"),
        (np.zeros([0, 2, 2, 1]), {}, "2 or more images"),
        (np.zeros([4, 0, 2, 1]), {}, "2 or more images"),
        (np.zeros([4]), {}, "2 or more images"),
        (np.full([6, 2], 0.3), {}, "All images are equal.*6 equal images"),
        (np.zeros([4, 2], np.int64), {}, "uint8 or floats; convert.*int64"),
        (np.array([[0.0], [np.nan], [1.0], [np.inf]]), {"chunk": 3}, "finite.*in 2 of 4 images"),
        (points("normal"), {"sample": 1}, "2 to 120 of them.*sample=1"),
        (points("normal"), {"sample": 121}, "2 to 120 of them.*sample=121"),
        (points("normal"), {"chunk": 0}, "chunk=0"),
    ],
)
def test_what_has_no_largest_distance_is_refused(images, options, message):
    with pytest.raises(ValueError, match=message):
        largest_distance(images, **options)
