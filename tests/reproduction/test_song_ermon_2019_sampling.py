"""Song & Ermon's figure 3: the mode weights. (Figure 4 needs a trained run: tests/launch/test_train.py has one.)"""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ncsn_tf.densities.toy import Mixture
from ncsn_tf.reproduction import song_ermon_2019_sampling as paper


def test_plain_langevin_misses_the_weights_and_annealing_recovers_them(tmp_path):
    """At 2,000 samples the standard error is 0.009: plain dynamics is off by 30 of them, annealed by less than 3."""
    figure = paper.figure3(num_samples=2_000)
    off = {name: abs(weights["deviations"][0]) for name, weights in figure.numbers["weights"].items()}
    assert off["exact sampling"] < 3.0 and off["annealed, 100 levels"] < 3.0
    assert off["Langevin dynamics"] > 20.0
    picture, numbers = figure.save(tmp_path, "figure")
    assert json.loads(numbers.read_text()) == {"caption": figure.caption, **figure.numbers}
    assert np.ptp(np.asarray(Image.open(picture).convert("L"))) > 100


def test_mode_weights_count_the_nearer_centre():
    x = tf.constant([[5.0, 5.0]] * 75 + [[-4.0, -6.0]] * 25)
    weights = paper.mode_weights(Mixture.two_modes(), x)
    assert weights["weights"] == [0.25, 0.75]
    np.testing.assert_allclose(weights["standard_errors"], 0.04)
    np.testing.assert_allclose(weights["deviations"], [1.25, -1.25])


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="2 or more samples"):
        paper.figure3(num_samples=1)
