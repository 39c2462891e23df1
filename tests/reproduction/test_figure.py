"""A figure's files."""

import json

import pytest
from matplotlib.figure import Figure as Picture
from PIL import Image

from ncsn_tf.reproduction.figure import Figure


def test_a_figure_is_a_picture_and_its_numbers(tmp_path):
    picture, numbers = Figure({"a": [1, 2.5]}, Picture(), "Nothing.").save(tmp_path / "new", "one")
    assert json.loads(numbers.read_text()) == {"caption": "Nothing.", "a": [1, 2.5]}
    Image.open(picture).verify()


def test_non_finite_numbers_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError):
        Figure({"a": float("nan")}, Picture(), "").save(tmp_path, "one")
    assert not list(tmp_path.iterdir())
