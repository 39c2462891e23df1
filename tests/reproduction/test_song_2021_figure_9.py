"""Figure 9 of Song et al. 2021: what a budget is split into, and its picture."""

import types

import numpy as np
import pytest

from ncsn_tf.reproduction import song_2021_cells as cells
from ncsn_tf.reproduction import song_2021_figure_9 as paper
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws
from tests.support import tiny


def test_a_split_spends_its_budget_and_no_more():
    """N (1 + M) evaluations: 23, 11 times 2, 5 times 4, 2 times 10; alone two at each of 11 times."""
    found = paper.splits("vp", 23)
    keys = [dict(part.split("=") for part in text.split(",")[1:]) for text in found.values()]
    assert list(found) == [0.0, 0.5, 0.75, 0.9, 1.0]
    assert [int(each["num_steps"]) for each in keys] == [23, 11, 5, 2, 11]
    assert [each.get("corrections") for each in keys] == [None, "1", "3", "9", "2"]
    assert [each.get("ratio") for each in keys] == [None, "0.01", "0.01", "0.01", "0.27"]
    assert [each.get("predictor") for each in keys] == [None, *["reverse_diffusion"] * 3, "none"]
    assert "ratio=0.16," in paper.splits("ve", 23)[0.5] and "ratio=0.4," in paper.splits("ve", 23, 0.4)[1.0]
    assert paper.splits("subvp", 10)[0.9].startswith("predictor_corrector,num_steps=1,")
    with pytest.raises(ValueError, match="budget of 9 evaluations is too small"):
        paper.splits("vp", 9)


def test_lines_have_their_points_and_a_split_that_diverged_is_left_out():
    found = {
        20: {0.0: Cell("a", (1.0, 3.0), 21.0), 1.0: Cell("b", (), None, "seed 0: not finite")},
        40: {0.0: Cell("a", (1.0, 1.0), 41.0), 1.0: Cell("b", (4.0, 6.0), 41.0)},
    }
    shown = {(budget, share): tiny.random_pixels(4, 8, 8, 1) for budget in found for share in found[budget]}
    picture = paper.draw(found, shown, "classifier_fid")
    first, *panels = picture.axes
    points = [line.lines[0].get_xydata().tolist() for line in first.containers]
    assert points == [[[0.0, 2.0]], [[0.0, 1.0], [1.0, 5.0]]] and len(panels) == 4
    # Two standard errors of the mean of 4 and 6: 2 sqrt(2) / sqrt(2).
    bar = first.containers[1].lines[2][0].get_segments()[1]
    np.testing.assert_allclose(np.ptp(bar[:, 1]), 4.0)


def test_the_figure_measures_every_split_and_shows_its_first_samples(tmp_path, monkeypatch):
    """With measurements made up; tests of the table make them."""
    names = {}

    def measured(judged, text, folder, draws, progress):
        output = folder / cells.changed(judged.run, text)[0] / "seed_3"
        output.mkdir(parents=True)
        np.savez(output / "samples.npz", samples=tiny.random_pixels(12, 8, 8, 1))
        return Cell(text, (1.0, 2.0), 11.0)

    monkeypatch.setattr(cells, "measured", measured)
    monkeypatch.setattr(cells, "changed", lambda run, text: (names.setdefault(text, str(len(names))), run))
    run = types.SimpleNamespace(run=None, sde="vp", metric="classifier_fid", about=lambda: {"checkpoint": "x"})
    lines, draws = [], Draws(12, 4, (3, 4))
    figure = paper.figure9(run=run, output=tmp_path, draws=draws, budgets=(10, 20), log=lines.append)
    assert len(lines) == len(names) == 10 and lines[1].startswith(
        "budget 10, 50% for the corrector: classifier_fid 1.5"
    )
    assert [len(one["splits"]) for one in figure.numbers["budgets"]] == [5, 5]
    assert len(figure.picture.axes) == 1 + 10 and all(axes.images for axes in figure.picture.axes[1:])
    figure.save(tmp_path, "figure")
