"""The options of figures and tables that show runs, made of flags."""

import pathlib
import types

import pytest

from launch.flags import song_2021
from ncsn_tf.config import choices
from ncsn_tf.reproduction.song_2021_cells import Draws
from tests.support import tiny

OUTPUT = pathlib.Path("out")


@pytest.fixture
def asked(small_runs, mean_evaluator, monkeypatch):
    """A function that makes the options of a table or figure of flags; its runs are given by name."""
    monkeypatch.setitem(choices.NETWORKS, "unet", tiny.timeless)
    flags = types.SimpleNamespace(evaluator=lambda *_, **__: mean_evaluator)

    def options(kind, number, **given):
        paths = {name: str(run.directory.path) for name, run in small_runs.items()}
        given |= {"workdir": paths[given["workdir"]]} if "workdir" in given else {}
        given |= {"run": [paths[name] for name in given["run"]]} if "run" in given else {}
        return song_2021.Request("It", given, 7, OUTPUT, flags, False).options(kind, number)

    return options


def test_a_table_of_likelihoods_has_samples_if_they_are_asked_for(asked):
    options = asked("table", 2, run=["vp", "subvp"], probes=2, num_images=3)
    assert [run.directory.path.name for run in options["runs"]] == ["vp", "subvp"] and options["output"] == OUTPUT
    bits = options["bits"]
    assert (bits.seed, bits.num_images, bits.dequantizations, bits.probes) == (7, 3, 1, 2)
    assert bits.batch_size == options["runs"][0].builder.evaluation.batch_size
    assert options.keys() == asked("table", 2, run=["vp"], num_samples=0).keys() == {"runs", "bits", "output"}
    options = asked("table", 2, run=["vp"], num_samples=6, seeds=2, batch_size=4)
    assert options["draws"] == Draws(6, 4, (7, 8)) and options["evaluator"].kind == "classifier"


def test_figures_of_runs(asked):
    options = asked("figure", 3, workdir="vp", tolerances=["1e-1", "1e-3"])
    assert options["tolerances"] == [0.1, 0.001] and options["draws"].num_samples == 1000
    assert asked("figure", 7, run=["vp", "vp_likelihood"])["num_images"] == 16
    assert asked("figure", 9, workdir="vp", budgets=["20"], seeds=1)["budgets"] == [20]
    for kind, number, given, message in (
        ("figure", 3, {}, "give its --workdir"),
        ("figure", 3, {"workdir": "vp", "tolerances": ["1e-1", "2"]}, "rtol"),
        ("figure", 7, {"run": ["vp", "subvp"]}, "with one SDE"),
    ):
        with pytest.raises(ValueError, match=message):
            asked(kind, number, **given)
