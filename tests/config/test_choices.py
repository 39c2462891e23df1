"""Choices of a configuration: what excludes each other, and the objects of runs in continuous time."""

import dataclasses
import inspect

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import times
from ncsn_tf.config import build, samplers, sections, walks
from ncsn_tf.samplers import methods
from ncsn_tf.sde import VP as VariancePreserving


def chosen(section, name, **values):
    return {**sections.section(section, name).to_dict(), **values}


def config(**changes):
    """NCSN's configuration with whole sections replaced: a name, or a dictionary."""
    values = sections.ncsn().to_dict()
    values["data"]["name"] = "noise"
    for section, value in changes.items():
        values[section] = chosen(section, value) if isinstance(value, str) else value
    return values


SMALL = {"filters": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "dropout": 0.0}
PLAIN = {**SMALL, "embedding": "positional", "output_sigmas": "none", "progressive_input": "none"}
VP = {"sde": "vp", "times": "uniform", "condition": "scaled_time", "output": "noise", "sampler": "ancestral"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"network": "ncsnv2"}, r"ncsnv2 is not told the noise level.*condition\.name=none\. Received: nearest_level"),
        ({"network": "unet"}, r"embedding=log_fourier .* needs condition\.name=sigma\. Received: nearest_level"),
        (
            {"network": chosen("network", "unet", embedding="positional", output_sigmas="none"), "condition": "none"},
            r"embedding=positional .* needs condition\.name=another than none\. Received: none",
        ),
        (
            {"network": chosen("network", "unet", embedding="none", output_sigmas="none"), "condition": "sigma"},
            r"embedding=none .* needs condition\.name=none\. Received: sigma",
        ),
        (
            {"network": chosen("network", "unet", embedding="positional", output_sigmas="levels"), "sde": "vp"},
            r"output_sigmas=levels needs sde\.name=ve.*Received: sde\.name=vp",
        ),
        (
            {"network": chosen("network", "unet", embedding="none"), "condition": "none"},
            r"output_sigmas=condition needs an embedding",
        ),
        ({"times": "uniform"}, r"condition\.name=nearest_level needs times\.name=levels or ddpm_levels\. .* uniform"),
        ({"sde": "vp"}, r"last noise level must be positive\. Received: sigma=0.*ddpm_levels with sde\.name=vp"),
        ({"times": "ddpm_levels"}, r"times\.name=ddpm_levels needs sde\.name=vp\. Received: ve"),
        (
            {"condition": "ddpm_step", "network": chosen("network", "unet", **PLAIN)},
            r"condition\.name=ddpm_step needs times\.name=ddpm_levels\. Received: levels",
        ),
        (
            {"sde": "vp", "times": chosen("times", "ddpm_levels", num_levels=10)},
            r"0 < beta_min <= beta_max < num_levels.*num_levels=10",
        ),
        (
            {"sde": "subvp", "output": "velocity"},
            r"velocity needs an SDE with alpha\^2 \+ sigma\^2 = 1.*sde\.name=subvp",
        ),
        ({"network": chosen("network", "unet", multipliers=())}, r"multipliers must have one or more numbers"),
        ({"network": chosen("network", "unet", multipliers=(1, 0))}, r"multipliers must be at least 1\. Received: 0"),
        ({"network": chosen("network", "unet", attention="16")}, r"attention must be integers with commas"),
        ({"network": chosen("network", "unet", block="resnet")}, r"network\.block must be one of .*'biggan'"),
        ({"network": chosen("network", "unet", dropout=1.0)}, r"network\.dropout must be in \[0, 1\)"),
        ({"network": chosen("network", "unet", init_scale=-1.0)}, r"init_scale must be at least 0"),
        ({"network": chosen("network", "ncsnv2", cascades=3)}, r"network\.cascades must be at least 4\. Received: 3"),
        ({"sampler": chosen("sampler", "ancestral", num_steps=10)}, r"num_steps must be below .* levels, 10"),
        ({"sampler": chosen("sampler", "ancestral", num_steps=0)}, r"sampler\.num_steps must be at least 1"),
        ({"sampler": chosen("sampler", "ancestral", last_time=0.0)}, r"sampler\.last_time must be positive"),
        ({"sampler": chosen("sampler", "ancestral", variance="none")}, r"sampler\.variance must be one of"),
        ({"sampler": chosen("sampler", "ddim", grid="cosine")}, r"sampler\.grid must be one of .*Received: 'cosine'"),
        (
            {"sampler": chosen("sampler", "ddim", num_steps=9, grid="karras")},
            r"grid=karras meets only \d of the 10 noise levels in 10 times: give fewer sampler\.num_steps",
        ),
        ({"sampler": chosen("sampler", "heun", churn=1.0)}, r"sampler\.churn visits noise between the levels"),
        ({"sampler": chosen("sampler", "heun", churn=-1.0)}, r"sampler\.churn must be at least 0"),
        ({"sampler": chosen("sampler", "unipc", order=4)}, r"sampler\.order must be at most 3\. Received: 4"),
        ({"sampler": chosen("sampler", "adams_bashforth", clock="rho")}, r"sampler\.clock must be one of"),
        ({"sampler": chosen("sampler", "predictor_corrector", predictor="unipc2")}, r"sampler\.predictor must be one"),
        ({"sampler": chosen("sampler", "predictor_corrector", ratio=0.0)}, r"sampler\.ratio must be positive"),
        ({"times": chosen("times", "uniform", num_bins=1)}, r"times\.num_bins must be at least 2"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        build.Builder(config(**changes))


def test_a_run_in_continuous_time_reports_its_bins_and_samples_to_its_last_time():
    network = chosen("network", "unet", **PLAIN)
    sampler = chosen("sampler", "ancestral", num_steps=23, last_time=1e-2)
    builder = build.Builder(config(**{**VP, "network": network, "sampler": sampler}))
    np.testing.assert_allclose(builder.grid, np.linspace(1.0, 1e-5, 10), rtol=1e-6)
    assert len(builder.draw.bins) == 10 and builder.value_range.low == -1.0
    walk = builder.sampler()
    assert walk.segments == 10 and len(builder.sampler_grid) == 10 and builder.tunable == {}
    np.testing.assert_allclose(builder._walk().rows[[0, -1], [0, 1]], [1.0, 1e-2])
    assert build.Builder(config(**VP, network=network))._walk().rows.shape == (1000, 2)


def test_a_network_knows_whether_its_images_are_centred():
    for sde, expected in (("ve", True), ("vp", False)):
        network = chosen("network", "unet", **PLAIN)
        builder = build.Builder(config(**{**VP, "sde": sde, "network": network}))
        built = builder.network((8, 8, 1))
        assert built.centre_input is expected
    own = chosen("network", "unet", **PLAIN, centre_input=False)
    built = build.Builder(config(**{**VP, "sde": "ve", "network": own})).network((8, 8, 1))
    assert built.centre_input is False


def test_many_levels_share_curves_of_the_loss():
    builder = build.Builder(config(times=chosen("times", "levels", num_levels=50), network="ncsn"))
    names = builder.draw.bins
    assert len(names) == 20 and names[0] == "level_000_sigma_1_and_below" and len(builder.reported_grid) == 20
    t, bins = builder.draw(tf.stack([tf.range(4000), tf.zeros(4000, tf.int32)], axis=1))
    level = np.abs(t.numpy()[:, None] - builder.grid).argmin(1)
    np.testing.assert_array_equal(bins, level * 20 // 50)
    for number, name in enumerate(names):  # a curve is named by its first level
        assert name.startswith(f"level_{np.flatnonzero(np.arange(50) * 20 // 50 == number)[0]:03d}_")


@pytest.mark.parametrize("per_dimension", [False, True])
def test_the_loss_per_dimension_is_the_mean_of_the_squared_residual(per_dimension):
    """A score of zero leaves z: half its squared norm, or the mean of its squares."""
    objective = chosen("objective", "denoising", per_dimension=per_dimension)
    builder = build.Builder(config(objective=objective))
    z = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype("f"))
    loss = builder._objective(lambda x, t: tf.zeros_like(x), tf.zeros_like(z), tf.constant([1.0, 0.5, 0.0]), z)
    squares = (z.numpy().reshape(3, -1) ** 2).astype("d")
    np.testing.assert_allclose(loss, squares.mean(1) if per_dimension else 0.5 * squares.sum(1), rtol=1e-5)


@pytest.mark.parametrize("kind", ["ncsnv2", "ncsnpp", "ncsnpp levels", "ddpm", "ddpmpp", "subvp", "edm"])
def test_every_kind_of_run_has_a_loss_with_gradients_and_a_sampler(kind):
    """The networks of the heirs of NCSN, tiny, from a configuration to a loss and to a step of its sampler; eagerly."""
    at_levels = chosen("network", "unet", **{**PLAIN, "output_sigmas": "levels"})
    ddpm = {"sde": "vp", "times": "ddpm_levels", "condition": "ddpm_step", "output": "noise"}
    changes = {
        "ncsnv2": {
            "network": chosen("network", "ncsnv2", filters=2),
            "condition": "none",
            "output": "score_over_sigma",
        },
        "ncsnpp": {"network": chosen("network", "unet", **SMALL), "times": "uniform", "condition": "sigma"},
        "ncsnpp levels": {"network": at_levels, "times": chosen("times", "levels", num_levels=5)},
        "ddpm": {**ddpm, "network": chosen("network", "unet", **{**PLAIN, "block": "ddpm", "rescale_skips": False})},
        "edm": {
            "network": chosen("network", "unet", **{**PLAIN, "embedding": "fourier"}),
            "times": "uniform",
            "condition": chosen("condition", "log_sigma", scale=0.25),
            "output": "edm",
        },
        "ddpmpp": {**VP, "network": chosen("network", "unet", **PLAIN)},
        "subvp": {**VP, "sde": "subvp", "network": chosen("network", "unet", **PLAIN)},
    }[kind]
    builder = build.Builder(config(**{**changes, "sampler": chosen("sampler", "ancestral", num_steps=3)}))
    network = builder.network((8, 8, 1))
    model, walk = builder.score_model(network), builder._walk()
    x, seeds = builder.prior(tf.constant([[1, 2], [3, 4]]), (8, 8, 1)), tf.constant([[5, 6], [7, 8]])
    t, _ = builder.draw(seeds)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(builder._objective(model.score, x, t, tf.ones_like(x)))
    gradients = tape.gradient(loss, [weight.value for weight in network.trainable_variables])
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    mean = x
    for row in walk.rows:
        x, mean, _ = walk.step(model.score, x, *(tf.fill([2], value) for value in row), seeds, ())
    assert np.isfinite(x).all() and np.isfinite(mean).all()


def test_the_defaults_of_every_sampler_are_those_of_its_method():
    """A configuration's keys and the method's own options have the same names and defaults."""
    process = VariancePreserving()
    for name, keys in samplers.WALKS.items():
        own = methods.step(name, process, 10)
        given = methods.step(name, process, 10, **walks._options(name, keys(), process))
        if name == "heun":  # the configuration has no infinity
            own = dataclasses.replace(own, churn_to=given.churn_to)
        assert own == given, name
    assert set(samplers.WALKS) == set(methods.STEPS)
    assert set(methods.PREDICTORS) < set(samplers.PREDICTORS) < set(methods.STEPS | methods.PREDICTORS)
    assert set(samplers.GRIDS) == {*times.GRIDS, "fitted"}


def test_the_defaults_of_samplers_with_error_control_are_those_of_their_classes():
    for name, keys in samplers.ADAPTIVE.items():
        parameters = inspect.signature(methods.ADAPTIVE[name]).parameters
        own = {key: parameters[key].default for key in keys().options if key != "last_time"}
        assert {key: value for key, value in keys().options.items() if key != "last_time"} == own
    assert set(samplers.ADAPTIVE) == set(methods.ADAPTIVE)


@pytest.mark.parametrize("name", samplers.WALKS)
def test_every_sampler_runs_at_levels_and_in_continuous_time(name):
    at_levels = build.Builder(config(sampler=chosen("sampler", name, num_steps=4)))
    rows = at_levels._walk().rows
    np.testing.assert_array_equal(rows[:, 0], at_levels.grid[[0, 2, 4, 7]])
    assert rows[-1, 1] == at_levels.grid[-1] and len(at_levels.sampler_grid) == 4
    few = build.Builder(config(sampler=chosen("sampler", name, num_steps=2, grid="karras")))._walk().rows
    assert set(few.ravel()) <= set(at_levels.grid) and len(few) == 2
    network = chosen("network", "unet", **PLAIN)
    section = chosen("sampler", name, num_steps=12, grid="log_snr", last_time=1e-2)
    continuous = build.Builder(config(**{**VP, "network": network, "sampler": section}))
    np.testing.assert_array_equal(continuous._walk().rows, times.pairs(times.log_snr(continuous.sde, 13, 1e-2)))
    x, seeds = continuous.prior(tf.constant([[1, 2]]), (4, 4, 1)), tf.constant([[3, 4]])
    assert np.isfinite(continuous.sampler()(lambda x, t: -x, x, seeds).x).all()
