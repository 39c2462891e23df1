"""Figures 3 and 4 of Hyvarinen 2005: filters of natural images, on short runs."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ncsn_tf.data.images import ImageSource
from ncsn_tf.reproduction import hyvarinen_2005_overcomplete as paper
from tests.support.tiny import random_pixels


@pytest.fixture(scope="module")
def trained():
    """Two dozen filters of 4x4 patches of a photograph."""
    return paper.overcomplete(patches=3000, size=4, filters=24, tol=1e-2)


def test_filters_are_learnt_and_described(trained, check_saved):
    figure = paper.figure3(trained)
    numbers = figure.numbers
    assert (numbers["patches"], numbers["dimensions"], numbers["filters"]) == (3000, 15, 24)
    assert numbers["loss_end"] < numbers["loss_start"] and numbers["converged"]
    assert numbers["area"]["learnt"]["50%"] < 0.9 * numbers["area"]["random"]["50%"]
    check_saved(figure)


def test_filters_are_shown_in_pixel_space(trained):
    """The response to a patch equals that of the whitened filter to the whitened patch."""
    patch = np.random.default_rng(0).standard_normal((1, 16))
    whitened = trained.model.filters_ @ (trained.whitening.apply(patch) - trained.whitening.apply(np.zeros((1, 16))))[0]
    np.testing.assert_allclose(np.tensordot(trained.images, patch.reshape(4, 4)), whitened, rtol=1e-9)


def test_dot_products_are_compared_with_random_ones(trained, check_saved):
    figure = paper.figure4(trained)
    for name, rows in (("learnt", trained.model.filters_), ("random", trained.random_filters)):
        largest = [max(abs(rows[i] @ rows[j]) for j in range(24) if j != i) for i in range(24)]
        assert figure.numbers[name]["most"] == pytest.approx(max(largest))
        assert figure.numbers[name]["50%"] == pytest.approx(np.median(largest))
    check_saved(figure)


def test_area_and_orientation_of_known_patterns():
    even, point = np.ones((1, 8, 8)), np.zeros((1, 8, 8))
    point[0, 3, 4] = 2.0
    np.testing.assert_allclose(paper._areas(np.concatenate([even, point])), [1.0, 1 / 64])
    down, across = np.mgrid[:32, :32]
    envelope = np.exp(-((down - 15.5) ** 2 + (across - 15.5) ** 2) / 50)
    gratings = [envelope * np.cos(1.5 * (down * np.sin(a) + across * np.cos(a))) for a in (0.0, 0.7, 2.0)]
    rings = envelope * np.cos(1.5 * np.hypot(down - 15.5, across - 15.5))
    found = paper._orientations(np.array([*gratings, rings]))
    assert (found[:3] > 0.95).all() and found[3] < 0.05
    noise = np.random.default_rng(0).standard_normal((200, 8, 8))
    assert np.mean(paper._areas(noise)) == pytest.approx(1 / 3, abs=0.05)


def test_any_images_can_be_used_and_training_depends_on_the_seed_alone():
    source = ImageSource("noise", random_pixels(20, 6, 6, 1))
    options = {"source": source, "patches": 150, "size": 3, "filters": 9, "dimensions": 5, "max_iter": 3}
    with pytest.warns(ConvergenceWarning):
        first, second, other = (paper.overcomplete(**options, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.model.filters_, second.model.filters_)
    assert (first.model.filters_ != other.model.filters_).any()
    assert first.options["images"] == "noise" and first.options["dimensions"] == 5
    assert paper.figure4(first).numbers["filters"] == 9
    with pytest.raises(ValueError, match="at least as many filters as dimensions"):
        paper.overcomplete(**options | {"filters": 4})
    with pytest.raises(ValueError, match="span 8 dimensions"):
        paper.overcomplete(**options | {"dimensions": 9})
