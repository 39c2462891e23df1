"""Song & Ermon's figures 1 and 2: the measures, and the claims on short runs."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ncsn_tf.data.images import ImageSource
from ncsn_tf.densities.toy import Mixture
from ncsn_tf.reproduction import song_ermon_2019_training as paper
from tests.support.tiny import TinyNetwork, random_pixels


def check_saved(figure, tmp_path):
    """Checks that the saved numbers are JSON and that the picture is not blank."""
    picture, numbers = figure.save(tmp_path, "figure")
    assert json.loads(numbers.read_text()) == {"caption": figure.caption, **figure.numbers}
    assert np.ptp(np.asarray(Image.open(picture).convert("L"))) > 100


def test_fluctuation_is_the_deviation_of_independent_errors_in_any_units():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20_000)
    # 10,000 points: the deviation of white noise is known to 1/sqrt(2 * 10,000), and somewhat less well by differences.
    assert paper.fluctuation(-100.0 + 3.0 * noise) == pytest.approx(0.03, rel=0.04)
    assert paper.fluctuation(1e6 * (-100.0 + 3.0 * noise)) == pytest.approx(0.03, rel=0.04)
    assert paper.fluctuation(np.linspace(0.0, -1.0, 20_000)) < 1e-3, "a slope is not a fluctuation"
    assert paper.fluctuation(np.concatenate([1e3 * noise, np.ones(20_000)])) == 0.0, "only the second half counts"


def test_figure1_trains_on_the_images_themselves(tmp_path, monkeypatch):
    """Short curves of a tiny network, because tracing NCSN is slow; the loss must fall, as on any density."""

    def network(shape, filters, seed):
        network = TinyNetwork()
        network.build()
        return network

    monkeypatch.setattr(paper, "_image_network", network)
    figure = paper.figure1(ImageSource("noise", random_pixels(40, 4, 4, 1)), steps=200, batch_size=8)
    assert [curve["sigma"] for curve in figure.numbers["curves"]] == [0.0, 0.01]
    for curve in figure.numbers["curves"]:
        assert len(curve["losses"]) == 20 and np.mean(curve["losses"][-5:]) < curve["losses"][0] - 1.0
    check_saved(figure, tmp_path)


def test_figure2_error_is_small_where_data_are_and_large_where_none_are(tmp_path):
    figure = paper.figure2(steps=1_000)
    errors = [region["rms_error"] for region in figure.numbers["regions"]]
    assert errors[0] < 0.3 * errors[-1] and errors == sorted(errors)
    # Untrained, the error over the data is that of a score of zero, E |s|^2 = 2, the trace of the information.
    assert figure.numbers["mean_squared_error_over_the_data"] < 0.2
    assert sum(region["probability"] for region in figure.numbers["regions"]) == pytest.approx(1.0, abs=0.01)
    check_saved(figure, tmp_path)


def test_the_true_score_has_no_error_and_the_zero_score_an_error_of_the_fisher_information():
    density = Mixture.two_modes()
    numbers, _ = paper.score_errors(density, lambda x, t: density.score(x))
    assert numbers["mean_squared_error_over_the_data"] == 0.0
    assert all(region["rms_error"] == 0.0 for region in numbers["regions"])
    numbers, _ = paper.score_errors(density, lambda x, t: tf.zeros_like(x))
    # E |s|^2 = 2 for unit variances far apart; |s|^2 has the deviation 2, over 20,000 draws.
    assert numbers["mean_squared_error_over_the_data"] == pytest.approx(2.0, abs=4 * 2.0 / np.sqrt(20_000))
    assert all(region["relative_error"] == pytest.approx(1.0) for region in numbers["regions"])


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="40 or more steps"):
        paper.figure1(ImageSource("noise", random_pixels(4, 4, 4, 1)), steps=39)
    with pytest.raises(ValueError, match="1 or more steps"):
        paper.figure2(steps=0)
