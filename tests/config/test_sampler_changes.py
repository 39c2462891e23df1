"""Another sampler for a run: `--sampler` as text, and what stays of the run's own section."""

import pytest

from ncsn_tf.config import sections


def test_a_name_and_values_are_read_with_their_types():
    assert sections.sampler_changes("ddim") == {"name": "ddim"}
    found = sections.sampler_changes(" heun, churn=10,denoise=false,grid=karras ,num_steps=None")
    assert found == {"name": "heun", "churn": 10.0, "denoise": False, "grid": "karras", "num_steps": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"sampler\.name must be one of"),
        ("eular", r"sampler\.name must be one of .*'eular'"),
        ("heun,epsilon=1", r"Nothing reads config\.sampler\.epsilon when sampler\.name=heun; it belongs to"),
        ("heun,chrun=1", r"Did you mean config\.sampler\.churn\?"),
        ("heun,churn", r"churn is given no value"),
        ("heun,churn=", r"churn is given no value"),
        ("heun,", "names no key"),
        ("heun,churn=much", r"churn must be a number. Received: 'much'"),
        ("heun,order.x=1", r"Nothing reads config\.sampler\.order"),
    ],
)
def test_what_is_no_sampler_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        sections.sampler_changes(text)


def test_values_replace_those_of_the_same_sampler():
    own = sections.section("sampler", "annealed_langevin").to_dict()
    found = sections.with_sampler(own, {"epsilon": 1e-5})
    assert found == {**own, "epsilon": 1e-5} and own["epsilon"] == 2e-5
    assert sections.with_sampler(own, {"name": "annealed_langevin", "denoise": True}) == {**own, "denoise": True}


def test_another_sampler_has_its_own_defaults():
    """A number of levels or a missing denoising step of the run's own sampler mean nothing to another."""
    own = {**sections.section("sampler", "ancestral").to_dict(), "num_steps": 7, "denoise": False, "jit_compile": True}
    found = sections.with_sampler(own, {"name": "heun", "grid": "karras"})
    assert found == {**sections.section("sampler", "heun").to_dict(), "grid": "karras", "jit_compile": True}
