"""Table 2 of Song et al. 2021: differences by hand, and that a killed table measures no run twice."""

import dataclasses
import json
import math

import numpy as np
import pytest

from ncsn_tf import flow_jobs, jobs, ode
from ncsn_tf.reproduction import song_2021_table_2 as paper
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws
from tests.support import tiny

BITS = paper.Bits(seed=0, batch_size=3, num_images=3, probes=2)
DRAWS = Draws(num_samples=4, batch_size=4, seeds=(0, 1))


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """A short way along the flow, for speed."""
    monkeypatch.setattr(paper, "SOLVER", {"rtol": 1e-2, "atol": 1e-2, "first_time": 0.3})


def row(sde, weighting, by_image, **changes):
    values = None if by_image is None else np.asarray(by_image)
    bits = {"mean": float(np.mean(values)), "standard_error": 0.04} if values is not None else None
    content = bits and {"bits_per_dimension": bits, "score_evaluations_per_image": 62.5}
    return paper.Row(f"{sde}_{weighting}", sde, weighting, content, values, **changes)


def test_differences_are_taken_image_by_image_between_means_of_runs():
    """-1, -2, -3, -2 by hand: mean -2, variance 2 / 3, over four images; images differ much more than runs do."""
    two_runs = [
        row("vp", "sigma_power=2", [1.5, 12.5, 23.0, 32.0]),
        row("vp", "sigma_power=2", [0.5, 11.5, 23.0, 32.0]),
    ]
    rows = [*two_runs, row("vp", "likelihood", [0.0, 10.0, 20.0, 30.0]), row("vp", "output", None)]
    (found,) = paper.comparisons(rows)
    assert found["claim"] == "VP: likelihood weighting has fewer bits than sigma_power=2"
    assert found["difference"] == pytest.approx(-2.0) and found["verdict"] == "holds"
    assert found["standard_error"] == pytest.approx(math.sqrt(2.0 / 3.0 / 4.0))
    rows = [
        row("subvp", "likelihood", [3.0, 4.0]),
        row("vp", "likelihood", [1.0, 3.0]),
        row("ve", "output", [0.0, 0.0]),
    ]
    (found,) = paper.comparisons(rows)
    assert found["claim"] == "likelihood: sub-VP has fewer bits than VP" and found["difference"] == pytest.approx(1.5)
    assert found["standard_error"] == pytest.approx(0.5) and found["verdict"] == "does not hold"
    (alone,) = paper.comparisons([row("subvp", "output", [1.0]), row("vp", "output", [2.0])])
    assert alone["standard_error"] is None and alone["verdict"] == "unknown"


def test_a_table_shows_bits_distances_and_what_failed_and_is_written(tmp_path):
    found = [
        row("vp", "likelihood", [3.0, 4.0], samples=Cell("flow", (1.0, 1.2), 41.0)),
        row("ve", "sigma_power=2", None, samples=Cell("flow", (), None, "seed 0: not finite"), remarks=("image 3",)),
    ]
    table = paper.tabulate(found, "classifier_fid", {"images": 2})
    lines = table.text.splitlines()
    names = "| run | SDE | weighting | bits/dim | evaluations per image | classifier_fid | evaluations per sample |"
    assert lines[0] == names
    assert "| vp_likelihood | VP | likelihood | 3.500 (0.04) | 62.5 | 1.100 ± 0.141 | 41 |" in lines
    assert "| ve_sigma_power=2 | VE | sigma_power=2 | did not converge |  | diverged |  |" in lines
    assert "ve_sigma_power=2: image 3" in lines and "Differences in bits/dim" not in table.text
    _, numbers = table.save(tmp_path, "table")
    first, second = json.loads(numbers.read_text())["rows"]
    assert first["bits_per_dimension"] == 3.5 and first["distances"]["values"] == [1.0, 1.2]
    assert second["bits_per_dimension"] is None and second["likelihoods"] is None
    assert (
        (tmp_path / "table.csv")
        .read_text()
        .splitlines()[1]
        .startswith("vp_likelihood,vp,likelihood,3.5,0.04,62.5,1.1,")
    )
    assert "classifier_fid" not in paper.tabulate([row("vp", "output", [1.0])], "", {"images": 1}).text


def test_a_killed_table_measures_no_run_twice(small_runs, mean_evaluator, tmp_path, monkeypatch, unoptimized_graphs):
    """Three runs, with samples; a table of other dequantizations measures anew, and replaces the likelihoods."""
    measure, measured, lines = flow_jobs.measure_likelihood, [], []

    def counted(run, *arguments, **options):
        measured.append(run)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(run, *arguments, **options)

    monkeypatch.setattr(flow_jobs, "measure_likelihood", counted)
    runs = list(small_runs.values())
    options = {"runs": runs, "output": tmp_path, "evaluator": mean_evaluator, "draws": DRAWS, "log": lines.append}
    with pytest.raises(KeyboardInterrupt):
        paper.table2(bits=BITS, **options)
    table = paper.table2(bits=BITS, **options)
    assert measured == [*runs, runs[2]] and len(lines) == 2 + 3 and len(list(tmp_path.rglob("samples.npz"))) == 6
    with monkeypatch.context() as patch:
        patch.setattr(flow_jobs, "measure_likelihood", lambda *_, **__: pytest.fail("done already"))
        patch.setattr(jobs, "evaluate", lambda *_, **__: pytest.fail("done already"))
        assert paper.table2(bits=BITS, **options) == table
    assert [(one["sde"], one["weighting"]) for one in table.rows] == [
        ("vp", "sigma_power=2"),
        ("subvp", "sigma_power=2"),
        ("vp", "likelihood"),
    ]
    assert len({one["bits_per_dimension"] for one in table.rows}) == 3
    assert all(one["distance"] and one["evaluations_per_sample"] > 5 for one in table.rows)
    assert [one["claim"].split(":")[0] for one in table.numbers["comparisons"]] == ["sigma_power=2", "VP"]
    alone = {**options, "runs": runs[:1], "evaluator": None, "draws": None}
    again = paper.table2(bits=dataclasses.replace(BITS, dequantizations=2), **alone)
    assert len(measured) == 5 and again.numbers["rows"][0]["likelihoods"]["dequantizations"] == 2
    assert again.rows[0]["distance"] is None and again.rows[0]["standard_error"] > 0.0
    found = flow_jobs.images(runs[0], "held_out", 3)
    assert found.shape == (3, 8, 8, 1)


def test_differences_of_the_table_are_those_of_its_means(small_runs, tmp_path, unoptimized_graphs):
    runs = [small_runs["vp"], small_runs["vp_likelihood"]]
    table = paper.table2(runs=runs, output=tmp_path, bits=BITS, log=lambda line: None)
    plain, weighted = (one["bits_per_dimension"] for one in table.rows)
    assert table.numbers["comparisons"][0]["difference"] == pytest.approx(weighted - plain)


def test_a_flow_that_does_not_converge_leaves_the_others(small_runs, tmp_path, monkeypatch):
    def failing(run, *_, **__):
        raise ode.NotConvergedError("The flow of image 1 did not converge.")

    monkeypatch.setattr(flow_jobs, "likelihood_once", failing)
    table = paper.table2(runs=[small_runs["vp"]], output=tmp_path, bits=BITS, log=lambda line: None)
    assert "did not converge" in table.text and "The flow of image 1" in table.rows[0]["remarks"]


def test_what_cannot_be_a_table_is_refused(small_runs, tmp_path, monkeypatch):
    run = small_runs["vp"]
    for runs, message in (([], "give --run, once"), ([run, small_runs["subvp"], run], "given twice")):
        with pytest.raises(ValueError, match=message):
            paper.table2(runs=runs, output=tmp_path, bits=BITS)
    images = {id(one): tiny.random_pixels(3, 8, 8, 1, seed=number) for number, one in enumerate(small_runs.values())}
    monkeypatch.setattr(flow_jobs, "images", lambda one, *_: images[id(one)])
    with pytest.raises(ValueError, match=r"comparable on the same images: .*subvp, whose"):
        paper.table2(runs=[run, small_runs["subvp"]], output=tmp_path, bits=BITS)
    assert not list(tmp_path.iterdir())
