"""Figure 7 of Song et al. 2021: codes by two runs, and runs that cannot be compared."""

import pytest

from ncsn_tf.reproduction import song_2021_figure_7 as paper


def test_codes_of_one_image_are_alike(small_runs, tmp_path, monkeypatch, unoptimized_graphs):
    """Two networks whose weights differ by a hundredth."""
    monkeypatch.setattr(paper, "SOLVER", {"rtol": 1e-2, "atol": 1e-2, "first_time": 0.3})
    runs = [small_runs["vp"], small_runs["vp_likelihood"]]
    figure = paper.figure7(runs=runs, batch_size=2, seed=0, num_images=3)
    assert 0.99 < figure.numbers["correlation"]["minimum"] < 1.0 and figure.numbers["images"] == 3
    assert figure.numbers["control"]["maximum"] < 0.9 and 0.0 < figure.numbers["distance"]["maximum"] < 0.1
    assert [one["directory"].rsplit("/", 1)[1] for one in figure.numbers["runs"]] == ["vp", "vp_likelihood"]
    images, values, differences = figure.picture.axes
    assert len(values.lines) == 2 and len(values.lines[0].get_xdata()) == 64
    assert "correlate by 0.99" in figure.caption or "correlate by 1.000" in figure.caption
    figure.save(tmp_path, "figure")


def test_runs_that_cannot_be_compared_are_refused(small_runs):
    vp, subvp = small_runs["vp"], small_runs["subvp"]
    for runs, count, message in (
        ([vp], 4, "give --run twice. Received: 1"),
        ([vp, vp], 1, "num_images=2 or more"),
        ([vp, subvp], 4, "with one SDE; give another run"),
        ([vp, vp], 4, "Both runs have the same weights"),
    ):
        with pytest.raises(ValueError, match=message):
            paper.figure7(runs=runs, batch_size=2, seed=0, num_images=count)
