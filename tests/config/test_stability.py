"""Settings that cannot work are refused when a builder is made, and those that only look wrong are described."""

import re
import warnings

import pytest
import tensorflow as tf

from ncsn_tf import jobs
from ncsn_tf.config import build, checks, choices, schema, sections
from ncsn_tf.samplers.langevin import UnstableStepError
from tests.support import tiny


def config(**changes):
    """The default configuration on the digits, with values of sections changed."""
    values = sections.ncsn().to_dict()
    values["data"]["name"] = "digits"
    for section, content in changes.items():
        name = content.get("name", values[section].get("name"))
        values[section] = {**sections.section(section, name).to_dict(), **content} if name else content
    return values


def changed(section, **values):
    return {section: {**sections.ncsn()[section].to_dict(), **values}}


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)


# The step size: a step multiplies deviations by 1 - epsilon / (2 sigma^2), told by hand.


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        (changed("sde", sigma_min=0.001), "-9"),
        (changed("sampler", epsilon=1.0), "-4999"),
        (changed("sampler", epsilon=1.0, num_levels=2), "-4999"),
        (changed("sampler", epsilon=4e-4), "-1"),
        ({**changed("sde", sigma_min=0.1), **changed("sampler", epsilon=0.04)}, "-1"),
        (changed("sampler", name="langevin", epsilon=4.1e-4), "-1.05"),
        ({**changed("sde", sigma_max=50.0, sigma_min=0.5), **changed("sampler", epsilon=1.25)}, "-1.5"),
    ],
)
def test_a_step_size_that_diverges_is_refused(changes, factor):
    with pytest.raises(UnstableStepError, match=rf"deviations by {factor}\. sampler\.epsilon .* must be below 4 sigma"):
        build.Builder(config(**changes))


def test_the_step_size_of_a_sampler_is_checked_too():
    builder = build.Builder(config())
    with pytest.raises(UnstableStepError, match=r"Received: 0\.0005"):
        builder.sampler(epsilon=5e-4)
    builder.sampler(epsilon=tf.constant(5e-4))  # the graph that holds it checks it


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        (changed("sampler", epsilon=2.5e-4), "overshoots.* by -0.25, and the noise in samples has 2.67 times"),
        (changed("sampler", epsilon=1e-9), r"too small for 1000 steps: 99\.50%"),
    ],
)
def test_a_step_size_that_only_looks_wrong_is_a_warning(changes, said):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        build.Builder(config(**changes))
    assert len(found) == (said is not None)
    assert all(re.search(said, str(warning.message)) for warning in found)


# Ranges


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("data", {"image_size": 0}, r"data\.image_size must be at least 1"),
        ("data", {"image_size": (8, -1)}, r"data\.image_size must be at least 1\. Received: -1"),
        ("data", {"center_crop": 0}, r"data\.center_crop must be at least 1"),
        ("data", {"channels": 2}, r"data\.channels must be 1 .*Received: 2"),
        ("data", {"memory_limit_gib": 0.0}, r"data\.memory_limit_gib must be positive"),
        ("data", {"memory_limit_gib": float("nan")}, r"data\.memory_limit_gib"),
        ("sde", {"sigma_min": float("nan")}, "sigma_min"),
        ("sde", {"sigma_min": 1e-30}, "squares of the noise levels"),
        ("sde", {"sigma_max": 1e25}, "squares of the noise levels"),
        ("sde", {"sigma_min": 1.0 - 1e-7}, "Neighbouring noise levels are equal in float32"),
        ("times", {"num_levels": 100_001}, r"times\.num_levels must be at most 100000"),
        ("network", {"filters": 1}, r"network\.filters must be at least 2"),
        ("objective", {"sigma_power": 50.0}, r"sigma\^sigma_power, 1e0 at the first level and 1e-100 .*Received.*50"),
        ("objective", {"sigma_power": -30.0}, r"objective\.sigma_power=-30"),
        ("objective", {"sigma_power": float("nan")}, r"objective\.sigma_power"),
        ("optim", {"beta_2": 1.0 - 1e-9}, r"optim\.beta_2 must be in \[0, 1\), as a float32"),
        ("optim", {"learning_rate": 1e-50}, r"optim\.learning_rate must be positive and finite, as a float32"),
        ("optim", {"final_fraction": 1.5}, r"optim\.final_fraction must be in"),
        ("optim", {"decay_steps": 5}, r"needs both optim\.decay and optim\.decay_steps"),
        ("ema", {"decay": 1.0}, r"ema\.decay must be in \[0, 1\)"),
        ("ema", {"decay": -0.1}, r"ema\.decay must be in"),
        ("training", {"steps": 2**31}, r"training\.steps must be at most 2147483647"),
        ("training", {"sample_count": 0}, r"training\.sample_count must be at least 1"),
        ("training", {"batch_size": 12, "accumulation": 5}, r"batch_size must be a multiple of .*=5.*Received: 12"),
        ("sampler", {"epsilon": float("inf")}, r"sampler\.epsilon must be"),
        ("sampler", {"epsilon": 1e-50}, r"sampler\.epsilon must be positive"),
        ("sampler", {"steps_per_level": 100_001}, r"sampler\.steps_per_level must be at most 100000"),
        ("sampler", {"num_levels": 1}, r"sampler\.num_levels must be at least 2"),
        ("evaluation", {"num_samples": 1}, r"evaluation\.num_samples must be at least 2"),
        ("evaluation", {"batch_size": 2**40}, r"evaluation\.batch_size must be at most"),
    ],
)
def test_values_out_of_range_are_refused_by_section_and_key(section, values, said):
    with pytest.raises(ValueError, match=said):
        build.Builder(config(**changed(section, **values)))


def test_the_edges_of_the_ranges_are_accepted():
    values = config(
        **changed("data", image_size=(1, 2), channels=3, memory_limit_gib=0.1),
        **changed("ema", decay=0.0),
        **changed("optim", beta_1=0.0, warmup_steps=0, decay="linear", decay_steps=1, final_fraction=1.0),
        **changed("sampler", num_levels=10, steps_per_level=1, epsilon=3.9e-4),
        **changed("evaluation", num_samples=2, held_out_examples=0),
    )
    with pytest.warns(UserWarning, match="overshoots"):
        build.Builder(values)


# Settings that only look wrong, for training


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, []),
        ({"warmup_steps": 100}, []),
        ({"warmup_steps": 101}, ["is never reached"]),
        ({"decay": "cosine", "decay_steps": 100, "warmup_steps": 99}, []),
        ({"decay": "cosine", "decay_steps": 50}, ["after step 50 the learning rate is 0"]),
        ({"decay": "linear", "decay_steps": 50, "final_fraction": 0.1}, []),
        ({"decay": "exponential", "decay_steps": 50, "final_fraction": 0.1}, []),
        ({"decay": "cosine", "decay_steps": 100, "warmup_steps": 100}, ["when the learning rate has decayed"]),
        ({"final_fraction": 0.1}, ["has no effect without optim.decay"]),
    ],
)
def test_odd_schedules_of_a_hundred_steps_are_described(values, said):
    found = checks.schedule_caveats(schema.Optimizer(**values), 100)
    assert [text in line for line, text in zip(found, said, strict=True)] == [True] * len(said)


def test_a_trainer_warns_of_what_looks_wrong(stand_in):
    values = config(
        **changed("times", num_levels=4),
        **changed("optim", warmup_steps=11),
        **changed("training", steps=10),
        **changed("data", center_crop=4, image_size=8),
    )
    builder = build.Builder(values)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        builder.trainer(tf.distribute.get_strategy(), tiny.SHAPE)
    texts = sorted(str(warning.message) for warning in found)
    assert len(texts) == 2 and "images are enlarged" in texts[0] and "warmup_steps=11" in texts[1]


# Grids during training


@pytest.mark.parametrize(("size", "said"), [(1.0, []), (30.0, ["outside [-1, 2]"]), (1e38, None)])
def test_grids_of_training_come_with_what_is_wrong_with_them(stand_in, size, said):
    values = config(
        **changed("times", num_levels=4),
        **changed("sampler", steps_per_level=1),
        **changed("training", sample_count=3),
    )
    builder = build.Builder(values)
    trainer = builder.trainer(tf.distribute.get_strategy(), tiny.SHAPE)
    for weight in trainer.average.weights:
        weight.assign(weight.value * size)
    drawn = jobs.sample_drawer(builder, trainer, tiny.SHAPE)(lambda: None)
    assert (drawn is None) == (said is None)
    if drawn is not None:
        pixels, lines = drawn
        assert pixels.shape == (3, *tiny.SHAPE)
        assert bool(lines) == bool(said) and all(any(text in line for line in lines) for text in said)
