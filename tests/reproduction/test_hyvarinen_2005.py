"""Hyvarinen 2005: the error measure, the curves and the filters, on short runs."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import ConvergenceWarning

from ncsn_tf.data.images import ImageSource
from ncsn_tf.reproduction import hyvarinen_2005 as paper
from tests.support.tiny import random_pixels

SMALL = {"sizes": (250, 1000, 4000), "runs": 8, "dimensions": 3}
METHODS = ("score_matching", "maximum_likelihood")


@pytest.fixture(scope="module")
def correct():
    return paper.figure1(**SMALL)


@pytest.fixture(scope="module")
def trained():
    """Two dozen filters of 4x4 patches of a photograph."""
    return paper.overcomplete(patches=3000, size=4, filters=24, tol=1e-2)


def check_saved(figure, tmp_path):
    """Checks that the saved numbers are JSON and that the picture is not blank."""
    picture, numbers = figure.save(tmp_path, "figure")
    assert json.loads(numbers.read_text()) == {"caption": figure.caption, **figure.numbers}
    assert np.ptp(np.asarray(Image.open(picture).convert("L"))) > 100


# Figures 1 and 2


def test_error_ignores_order_signs_and_norms():
    signed = np.array([[0.0, -3.0], [0.2, 0.0]])
    assert paper.unmixing_error(signed) == 0.0
    assert paper.unmixing_error(signed + [[0.3, 0.0], [0.0, 0.02]]) == pytest.approx(2 * 0.1**2)


def test_errors_fall_as_one_over_the_sample_size(correct):
    """The squared error of 3 x 2 entries has a relative spread below 1, so the slope of means has an error near 0.2."""
    for method in METHODS:
        assert correct.numbers[method]["slope"] == pytest.approx(-1.0, abs=0.5)
        assert (
            correct.numbers[method]["two_rows_one_source"] == correct.numbers[method]["searches_cut_short"] == [0] * 3
        )
    assert correct.numbers["sizes"] == [250, 1000, 4000]


def test_the_wrong_density_leaves_both_estimators_consistent_if_the_data_are_white():
    numbers = paper.figure2(**SMALL).numbers
    assert numbers["sources"] == "laplacian"
    for method in METHODS:
        assert numbers[method]["slope"] == pytest.approx(-1.0, abs=0.5)


def test_the_wrong_density_with_normal_mixing_biases_score_matching_only():
    numbers = paper.figure2(**SMALL | {"sizes": (1000, 16000), "runs": 6, "mixing": "normal"}).numbers
    assert numbers["maximum_likelihood"]["slope"] < -0.7
    assert numbers["ratio_of_medians"][1] > 5


def test_curves_depend_on_the_seed_alone():
    options = {"sizes": (100, 200), "runs": 2, "dimensions": 2}
    first, again = (paper.estimation_errors("logistic", **options) for _ in range(2))
    assert first == again != paper.estimation_errors("logistic", **options, seed=1)


def test_curves_are_drawn_and_saved(correct, tmp_path):
    check_saved(correct, tmp_path)
    axes = correct.picture.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    for line, method in zip(axes.lines, METHODS, strict=False):
        np.testing.assert_array_equal(
            line.get_xydata(), np.column_stack([SMALL["sizes"], correct.numbers[method]["median"]])
        )
    assert "8 runs in 3 dimensions" in correct.caption


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ("uniform", {}, "Received: 'uniform', 'orthogonal'"),
        ("logistic", {"mixing": "identity"}, "Received: 'logistic', 'identity'"),
        ("logistic", {"runs": 0}, "Received: runs=0"),
        ("logistic", {"sizes": (500, 500)}, r"two different sizes. Received.*sizes=\[500, 500\]"),
        ("logistic", {"sizes": (4, 500)}, "more samples than features"),
    ],
)
def test_impossible_curves_are_refused(sources, options, message):
    with pytest.raises(ValueError, match=message):
        paper.estimation_errors(sources, **options)


# Figures 3 and 4


def test_filters_are_learnt_and_described(trained, tmp_path):
    figure = paper.figure3(trained)
    numbers = figure.numbers
    assert (numbers["patches"], numbers["dimensions"], numbers["filters"]) == (3000, 15, 24)
    assert numbers["loss_end"] < numbers["loss_start"] and numbers["converged"]
    assert numbers["area"]["learnt"]["50%"] < 0.9 * numbers["area"]["random"]["50%"]
    check_saved(figure, tmp_path)


def test_filters_are_shown_in_pixel_space(trained):
    """The response to a patch equals that of the whitened filter to the whitened patch."""
    patch = np.random.default_rng(0).standard_normal((1, 16))
    whitened = trained.model.filters_ @ (trained.whitening.apply(patch) - trained.whitening.apply(np.zeros((1, 16))))[0]
    np.testing.assert_allclose(np.tensordot(trained.images, patch.reshape(4, 4)), whitened, rtol=1e-9)


def test_dot_products_are_compared_with_random_ones(trained, tmp_path):
    figure = paper.figure4(trained)
    for name, rows in (("learnt", trained.model.filters_), ("random", trained.random_filters)):
        largest = [max(abs(rows[i] @ rows[j]) for j in range(24) if j != i) for i in range(24)]
        assert figure.numbers[name]["most"] == pytest.approx(max(largest))
        assert figure.numbers[name]["50%"] == pytest.approx(np.median(largest))
    check_saved(figure, tmp_path)


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
