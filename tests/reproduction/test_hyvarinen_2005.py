"""Figures 1 and 2 of Hyvarinen 2005: the error measure and the curves, on short runs."""

import numpy as np
import pytest

from ncsn_tf.reproduction import hyvarinen_2005 as paper

SMALL = {"sizes": (250, 1000, 4000), "runs": 8, "dimensions": 3}
METHODS = ("score_matching", "maximum_likelihood")


@pytest.fixture(scope="module")
def correct():
    return paper.figure1(**SMALL)


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


def test_curves_are_drawn_and_saved(correct, check_saved):
    check_saved(correct)
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
