"""Combinations of samplers: which lists a sampler takes, what is refused, the names of folders."""

import pytest

from ncsn_tf import combinations
from ncsn_tf.config import sections

HEUN = {**sections.section("sampler", "heun").to_dict(), "num_steps": 9, "grid": "karras"}
LANGEVIN = sections.section("sampler", "annealed_langevin").to_dict()


def names(own, samplers, **lists):
    return [setting.name for setting in combinations.combine(own, samplers, lists)]


def test_each_sampler_takes_the_lists_of_its_keys():
    found = names(HEUN, ["heun", "unipc,order=2"], num_steps=[5, 9], grid=["karras", "log_snr"])
    expected = [f"steps_{steps}_grid_{grid}" for steps in (5, 9) for grid in ("karras", "log_snr")]
    assert found == [f"heun_{end}" for end in expected] + [f"unipc_{end}_order_2" for end in expected]


def test_a_sampler_that_chooses_its_own_steps_is_there_once_and_langevin_dynamics_takes_its_own_lists():
    found = names(
        HEUN,
        ["probability_flow,rtol=1e-3,atol=0.01", "annealed_langevin", "heun"],
        num_steps=[5, 9],
        epsilon=[1e-5, 2e-5],
        steps_per_level=[3],
    )
    assert found == [
        "probability_flow_atol_0.01_rtol_0.001",
        "annealed_langevin_epsilon_1e-05_steps_3",
        "annealed_langevin_epsilon_2e-05_steps_3",
        "heun_steps_5_grid_karras",
        "heun_steps_9_grid_karras",
    ]


def test_values_that_are_not_given_are_the_runs_or_the_defaults_of_another_sampler():
    run, other = combinations.combine(HEUN, ["heun,churn=3,denoise=false", "ddim"], {})
    assert run.changes() == {**HEUN, "churn": 3.0, "denoise": False} and run.keys == {"churn": 3.0, "denoise": False}
    assert run.name == "heun_steps_9_grid_karras_churn_3.0_denoise_false"
    assert other.changes() == sections.section("sampler", "ddim").to_dict() and other.name == "ddim_grid_uniform"
    assert names(HEUN, [], num_steps=[4]) == ["heun_steps_4_grid_karras"]


def test_a_combination_that_is_spelt_in_two_ways_is_there_once():
    assert names(HEUN, ["heun", "heun,churn=0", "heun,grid=karras,num_steps=9"]) == ["heun_steps_9_grid_karras"]
    assert names(HEUN, ["ddim"], num_steps=[5, 5]) == ["ddim_steps_5_grid_uniform"]


def test_a_table_and_a_plot_show_what_differs():
    (setting,) = combinations.combine(HEUN, ["predictor_corrector,corrections=2"], {"num_steps": [5]})
    expected = dict.fromkeys(combinations.VARIED) | {"num_steps": 5, "grid": "uniform"}
    assert setting.columns() == {"sampler": "predictor_corrector", **expected, "keys": "corrections=2"}
    assert setting.line(False) == "predictor_corrector,grid=uniform,corrections=2" and setting.epsilon is None
    (flow,) = combinations.combine(HEUN, ["probability_flow,rtol=1e-3"], {})
    assert flow.line(False) == "probability_flow"
    (langevin,) = combinations.combine(LANGEVIN, [], {"steps_per_level": [3]})
    assert langevin.line(True) == "annealed_langevin,steps_per_level=3" and langevin.epsilon == 2e-5
    assert langevin.line(False) == "annealed_langevin,epsilon=2e-05"


@pytest.mark.parametrize(
    ("samplers", "lists", "message"),
    [
        (["heun"], {"epsilon": [1e-5]}, r"takes epsilon\. .*annealed_langevin, langevin\. Received: heun"),
        (["probability_flow"], {"num_steps": [5]}, r"takes num_steps\. .*heun.* Received: probability_flow"),
        (["heun,num_steps=4"], {"num_steps": [5]}, r"num_steps of heun is given twice.*num_steps=4"),
        (["huen"], {}, r"must be one of .*Received: 'huen'\. Did you mean heun\?"),
        (["heun,chrun=1"], {}, r"Did you mean config\.sampler\.churn\?"),
    ],
)
def test_what_cannot_exist_is_refused(samplers, lists, message):
    with pytest.raises(ValueError, match=message):
        combinations.combine(HEUN, samplers, lists)
