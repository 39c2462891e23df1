"""Table 1 of Song et al. 2021: its arithmetic by hand, its samplers, and that a killed table draws no cell twice."""

import json
import math

import pytest

from ncsn_tf import jobs
from ncsn_tf.reproduction import song_2021_cells as cells
from ncsn_tf.reproduction import song_2021_table_1 as paper
from ncsn_tf.reproduction.song_2021_cells import Cell, Draws, Estimate, Judged

DRAWS = Draws(num_samples=4, batch_size=4, seeds=(0, 1))


@pytest.fixture(scope="module")
def judged(small_runs, mean_evaluator):
    return Judged(small_runs["vp"], mean_evaluator)


def cell(*values, evaluations=11.0):
    return Cell("heun", values, evaluations)


def test_an_estimate_has_the_deviation_over_seeds():
    """Of 1, 2, 3, 4, 10: mean 4, squared deviations 9 + 4 + 1 + 0 + 36 = 50 over 4."""
    found = Estimate.of([1.0, 2.0, 3.0, 4.0, 10.0])
    assert (found.mean, found.deviation, found.count) == (4.0, pytest.approx(math.sqrt(12.5)), 5)
    assert found.standard_error == pytest.approx(math.sqrt(2.5)) and str(found) == "4.000 ± 3.536"
    assert Estimate.of([2.0]).standard_error is None
    assert Cell("heun", (1.0,), 3.0, "seed 1: Sample 0 is not finite").estimate is None


def test_a_contrast_has_welchs_standard_error():
    """(3 - 1) - (7 - 4): the errors 0.1, 0.2, 0.2, 0.4 of the means add in squares, each with its own count."""
    found = {
        "a": Estimate(3.0, 0.2, 4),
        "b": Estimate(1.0, 0.6, 9),
        "c": Estimate(7.0, 0.4, 4),
        "d": Estimate(4.0, 1.2, 9),
        "one": Estimate(1.0, None, 1),
        "none": None,
    }
    value, error = cells.contrast(found, {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0})
    assert value == pytest.approx(-1.0) and error == pytest.approx(0.5)
    assert cells.contrast(found, {"a": 2.0, "b": -1.0}) == (5.0, pytest.approx(math.sqrt(0.04 + 0.04)))
    assert cells.contrast(found, {"a": 1.0, "one": -1.0}) == (2.0, None)
    assert cells.contrast(found, {"a": 1.0, "none": -1.0}) == (None, None)


def test_differences_are_taken_seed_by_seed():
    """(1, 5, 3) - (0, 5, 1) = (1, 0, 2): mean 1, deviation 1; the deviations of the cells, 2 and 2.6, do not matter."""
    found = {"a": cell(1.0, 5.0, 3.0), "b": cell(0.0, 5.0, 1.0), "lost": Cell("heun", (), None, "diverged")}
    assert cells.paired(found, {"a": 1.0, "b": -1.0}) == Estimate(1.0, 1.0, 3)
    assert cells.paired(found, {"a": 1.0, "lost": -1.0}) is None


@pytest.mark.parametrize(
    ("difference", "error", "count", "expected"),
    [
        (-1.0, 0.4, None, "holds"),
        (1.0, 0.4, None, "does not hold"),
        (-1.0, 0.5, None, "within the error"),
        (1.0, 0.6, None, "within the error"),
        (-1.0, 0.37, 5, "within the error"),  # Student's t of 4 degrees of freedom: 2.776
        (-1.0, 0.35, 5, "holds"),
        (1.0, 0.1, 2, "within the error"),  # and of 1: 12.7
        (1.0, 0.07, 2, "does not hold"),
        (1.0, None, 1, "unknown"),
        (None, None, None, "unknown"),
    ],
)
def test_a_verdict_needs_more_than_the_error(difference, error, count, expected):
    assert cells.verdict(difference, error, count) == expected


def test_the_papers_own_numbers_say_what_the_paper_says():
    """On VE all holds but two steps of reverse diffusion and the corrected rows, too near to each other to tell."""
    found = {place: cell(1.0, 1.1) for place in paper.PLACES}
    table = paper.tabulate({"ve": found, "vp": found}, 5, DRAWS, {}, "classifier_fid")
    said = {(one["sde"], one["claim"]): one["in_the_paper"] for one in table.numbers["claims"]}
    assert len(said) == 2 * len(paper.claims()) == 34 and "does not hold" not in said.values()
    assert said["VE", "P-N: reverse diffusion is better than ancestral sampling"] == "holds"
    assert said["VE", "PC-N: reverse diffusion is better than ancestral sampling"] == "within the error"
    assert said["VP", "probability flow gains more by the corrector than ancestral sampling, P-2N to PC-N"] == "holds"
    assert all(verdict == "holds" for (_, claim), verdict in said.items() if "alone is worse" in claim)
    assert {one["verdict"] for one in table.numbers["claims"]} == {"within the error"}


def test_a_table_shows_cells_costs_and_claims_and_is_written(tmp_path):
    """The probability flow gains 3 by the corrector, the others lose 1; a cell that diverged says so."""
    values = {paper.SHORT: 4.0, paper.LONG: 3.0, paper.BOTH: 4.0}
    found = {(row, column): cell(values[column], values[column] + 0.2) for row, column in paper.PLACES[:-1]}
    found[paper.FLOW, paper.LONG] = cell(6.9, 7.3, evaluations=21.0)
    found[paper.ALONE, paper.CORRECTOR] = Cell("none", (), None, "seed 0: Sample 0 is not finite")
    table = paper.tabulate({"vp": found}, 10, DRAWS, {"vp": {"checkpoint": "x"}}, "classifier_fid")
    lines = table.text.splitlines()
    assert lines[2] == "|  | VP: P10 | VP: P20 | VP: C20 | VP: PC10 |"
    assert "| reverse diffusion | 4.100 ± 0.141 | 3.100 ± 0.141 | diverged | 4.100 ± 0.141 |" in lines
    assert "| probability flow | 11 | 21 |  | 11 |" in lines, "as counted"
    assert "| reverse diffusion | 3.210 ± 0.020 | 3.190 ± 0.020 | 19.060 ± 0.060 | 3.180 ± 0.010 |" in lines
    claims = {one["claim"]: one for one in table.numbers["claims"]}
    gain = claims["probability flow gains more by the corrector than reverse diffusion, P-2N to PC-N"]
    # -(7.1 - 4.1) + (3.1 - 4.1); seed by seed -3.9 and -4.1, with the deviation 0.1 sqrt(2) and its error 0.1
    assert gain["difference"] == pytest.approx(-4.0) and gain["standard_error"] == pytest.approx(0.1)
    assert gain["verdict"] == "holds"
    worse = claims["correcting beats doubling the steps of reverse diffusion: PC-N is better than P-2N"]
    assert worse["verdict"] == "does not hold" and worse["difference"] == pytest.approx(1.0)
    assert claims["the corrector alone is worse than reverse diffusion, P-2N"]["verdict"] == "unknown"
    text, numbers = table.save(tmp_path, "song_2021_table_1")
    assert json.loads(numbers.read_text())["cells"]["vp"][paper.FLOW][paper.LONG]["mean"] == 7.1
    assert text.read_text().startswith(table.caption) and "not finite" in (tmp_path / f"{text.stem}.csv").read_text()


def test_samplers_are_the_papers():
    ve, vp = (paper.samplers(name, 2) for name in ("ve", "vp"))
    assert "num_steps=4,variance=posterior,last_time=1e-05" in ve[paper.ANCESTRAL, paper.LONG]
    assert "variance=transition,last_time=0.001" in vp[paper.ANCESTRAL, paper.SHORT]
    assert "predictor=ancestral_transition" in vp[paper.ANCESTRAL, paper.BOTH]
    assert (
        "predictor=reverse_diffusion_flow" in ve[paper.FLOW, paper.BOTH] and "ratio=0.17," in ve[paper.FLOW, paper.BOTH]
    )
    alone = vp[paper.ALONE, paper.CORRECTOR]
    assert "num_steps=2," in alone and "ratio=0.27,corrections=2,order=predictor_first" in alone
    for (_, column), text in paper.samplers("ve", 2, 0.3).items():
        assert ("ratio=0.3," in text) == (column in (paper.CORRECTOR, paper.BOTH)), text


def test_a_killed_table_draws_no_cell_twice(judged, tmp_path, monkeypatch, unoptimized_graphs):
    """Ten cells under two seeds, N = 2: the evaluations are N, 2 N, 2 N and 2 N, and one for Tweedie's formula."""
    evaluate, drawn, lines = jobs.evaluate, [], []

    def counted(run, evaluator, output, **options):
        if len(drawn) == 5:
            drawn.append(None)
            raise KeyboardInterrupt
        drawn.append(output)
        return evaluate(run, evaluator, output, **options)

    monkeypatch.setattr(jobs, "evaluate", counted)
    options = {"runs": {"vp": judged}, "output": tmp_path, "draws": DRAWS, "steps": 2}
    with pytest.raises(KeyboardInterrupt):
        paper.table1(**options, log=lines.append)
    assert len(lines) == 2, "two cells were complete"
    table = paper.table1(**options, log=lines.append)
    assert len(drawn) == len(set(drawn)) == 1 + 20 and len(list(tmp_path.rglob("samples.npz"))) == 20
    monkeypatch.setattr(jobs, "evaluate", lambda *_, **__: pytest.fail("done already"))
    assert paper.table1(**options, log=lines.append) == table and lines[2:12] == lines[12:]
    costs = {(row["column"], row["evaluations"]) for row in table.rows}
    assert costs == {(paper.SHORT, 3.0), (paper.LONG, 5.0), (paper.CORRECTOR, 5.0), (paper.BOTH, 5.0)}
    assert lines[2].startswith("VP, ancestral sampling, P-N: classifier_fid ") and "3 evaluations" in lines[2]
    assert len({row["values"] for row in table.rows}) == 10, "no two samplers draw the same"


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        ([], {}, "give --ve, --vp or both"),
        (["ve"], {}, r"--ve takes a run whose sde\.name is ve\. Received: .*is vp"),
        (["vp"], {"draws": Draws(4, 4, (0,))}, "2 or more of them. Received: 1"),
        (["vp"], {"steps": 0}, "steps=0"),
    ],
)
def test_what_cannot_be_a_table_is_refused(judged, tmp_path, names, changes, message):
    options = {"output": tmp_path, "draws": DRAWS, "steps": 2, **changes}
    with pytest.raises(ValueError, match=message):
        paper.table1(runs=dict.fromkeys(names, judged), **options)
    assert not list(tmp_path.iterdir())
