"""Figure 3 of Song et al. 2021: evaluations and distances by hand, and its samples those that are measured."""

import numpy as np
import pytest

from ncsn_tf.data import pipeline
from ncsn_tf.reproduction import song_2021_figure_3 as paper
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws, Judged


def ends(evaluations, *values):
    """Samples of one value each."""
    images = np.broadcast_to(np.asarray(values, np.float32)[:, None, None, None], (len(values), 4, 4, 1))
    return paper.Ends(images, np.asarray(evaluations))


def test_evaluations_and_distances_are_those_of_samples_that_converged():
    """The second sample of 0.1 did not converge: 0.3 and 0.1 from the finest, and 10 and 20 evaluations, are left."""
    found = paper.summarize({0.1: ends([10, 99, 20], 0.5, np.nan, 0.5), 0.01: ends([40, 40, 40], 0.2, 0.3, 0.4)})
    coarse, fine = found[0.1], found[0.01]
    assert (coarse["evaluations_mean"], coarse["evaluations_minimum"], coarse["evaluations_maximum"]) == (15.0, 10, 20)
    assert coarse["evaluations_deviation"] == pytest.approx(np.sqrt(50.0)) and coarse["failed"] == 1
    assert coarse["distance"] == pytest.approx(0.2) and coarse["distance_worst"] == pytest.approx(0.3)
    assert fine["distance"] is fine["distance_worst"] is None and fine["failed"] == 0
    (lost,) = (paper.summarize({0.1: ends([9], np.nan), 0.01: ends([40], 0.2)})[0.1],)
    assert lost["evaluations_mean"] is lost["distance"] is None


def test_curves_have_their_points(tmp_path):
    end = {0.1: ends([10, 20], 0.5, 0.5), 0.01: ends([40, 40], 0.2, 0.3)}
    cells = {0.1: Cell("flow", (), None, "seed 0: not finite"), 0.01: Cell("flow", (1.0, 3.0), 40.0)}
    picture = paper.draw(paper.summarize(end), cells, end, "classifier_fid")
    evaluations, quality, distance, samples = picture.axes
    points = [axes.containers[0].lines[0].get_xydata().tolist() for axes in (evaluations, quality, distance)]
    assert points[:2] == [[[0.1, 15.0], [0.01, 40.0]], [[0.01, 2.0]]]
    np.testing.assert_allclose(points[2], [[0.1, 0.25]], rtol=1e-6)
    bar = quality.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(np.ptp(bar[:, 1]), 4.0)  # two standard errors of the mean of 1 and 3, up and down
    assert len(samples.images) == 1 and [text.get_text() for text in samples.get_yticklabels()] == ["0.1", "0.01"]


def test_the_samples_that_are_followed_are_those_that_are_measured(
    small_runs, mean_evaluator, tmp_path, unoptimized_graphs
):
    judged, draws, lines = Judged(small_runs["vp"], mean_evaluator), Draws(3, 2, (5,)), []
    followed = []
    original, paper_followed = paper._followed, lambda *given: followed.append(original(*given)) or followed[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "_followed", paper_followed)
        options = {"run": judged, "output": tmp_path, "draws": draws, "tolerances": (1e-2, 1e-1)}
        figure = paper.figure3(**options, log=lines.append)
    coarse, fine = figure.numbers["tolerances"]
    assert (coarse["tolerance"], fine["tolerance"]) == (1e-1, 1e-2) and len(lines) == 2
    assert coarse["evaluations_mean"] == pytest.approx(coarse["evaluations"])
    assert coarse["evaluations"] < fine["evaluations"]
    moved = np.sqrt(np.square(followed[0].images - followed[1].images).mean(axis=(1, 2, 3)))
    assert coarse["distance"] == pytest.approx(np.median(moved), rel=1e-5) and moved.min() > 0.0
    assert figure.numbers["followed"] == 3
    (folder,) = tmp_path.glob("song_2021_cells/vp/*rtol_0.1*/seed_5")
    with np.load(folder / "samples.npz") as archive:
        np.testing.assert_array_equal(archive["samples"], pipeline.to_uint8(followed[0].images))
    figure.save(tmp_path, "figure")


@pytest.mark.parametrize("tolerances", [(), (1e-3,), (1e-3, 1e-2, 1e-3)])
def test_tolerances_that_cannot_be_compared_are_refused(tolerances):
    with pytest.raises(ValueError, match="two or more, each once"):
        paper.check(tolerances)
