"""Configurations: every key is read, every mistake is reported, and the objects are as configured."""

import copy
import json
import pathlib
import runpy

import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import jobs
from ncsn_tf.config import build, schema, sections, upgrade
from ncsn_tf.training.optimizers import SkippingAdam

CONFIGS = sorted(path for path in (pathlib.Path(__file__).parents[2] / "configs").glob("*.py") if path.stem[0] != "_")
VARIANTS = [(path, variant) for path in CONFIGS for variant in runpy.run_path(str(path))["VARIANTS"]]


def config(**changes):
    values = sections.ncsn().to_dict()
    values["data"]["name"] = "digits"
    values["network"]["filters"] = 4
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    return values


def chosen(section, name, **values):
    return {**sections.section(section, name).to_dict(), **values}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_in_configs_has_a_header(path):
    for line in (f"--config=configs/{path.name}", "Hardware:", "Time:", "Result:"):
        assert line in runpy.run_path(str(path))["__doc__"], line


@pytest.mark.parametrize(("path", "variant"), VARIANTS, ids=lambda value: getattr(value, "stem", value))
def test_every_variant_is_a_configuration(path, variant):
    get_config = runpy.run_path(str(path))["get_config"]
    build.Builder(get_config(variant).to_dict())
    if variant == "ncsn":
        assert get_config().to_dict() == get_config("ncsn").to_dict()
    with pytest.raises(ValueError, match=r"The variants are ncsn.*Received: 'vq'"):
        get_config("vq")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"optim__lerning_rate": 1.0}, r"config\.optim\.lerning_rate\. Did you mean config\.optim\.learning_rate\?"),
        ({"network__filter": 1}, r"Did you mean config\.network\.filters\?"),
        ({"objective__power": 2}, r"Did you mean config\.objective\.sigma_power\?"),
        ({"training__zzz": 2}, r"Nothing reads config\.training\.zzz"),
        ({"sampler__name": "euler"}, r"sampler\.name must be one of .*'annealed_langevin'.*'euler'"),
        ({"sampler__prior": "zeros"}, r"sampler\.prior must be one of"),
        ({"network__name": "vgg"}, r"network\.name must be one of \['ncsn', 'ncsnv2', 'unet'\]"),
        ({"objective__name": "gan"}, r"objective\.name must be one of"),
        ({"objective__num_slices": 2}, r"Nothing reads config\.objective\.num_slices when .*denoising; .*sliced"),
        ({"output__sigma_data": 1.0}, r"Nothing reads config\.output\.sigma_data when output\.name=score; .* edm"),
        ({"sde__name": "vq"}, r"sde\.name must be one of \['subvp', 've', 'vp'\]"),
        ({"sde": chosen("sde", "vp", beta_min=0.0)}, r"VP needs 0 < beta_min <= beta_max.*Received: beta_min=0\.0"),
        ({"output": chosen("output", "edm", sigma_data=0.0)}, "sigma_data must be positive"),
        ({"training": 3}, r"config\.training must be a section"),
        ({"objective": chosen("objective", "sliced", num_slices=0)}, r"num_slices must be at least 1\. Received: 0"),
        ({"objective": chosen("objective", "sliced", slices="square")}, r"objective\.slices must be one of"),
        ({"objective": chosen("objective", "exact", directions_at_once=0)}, "directions_at_once must be at least 1"),
        ({"samplers": {}}, r"Did you mean config\.sampler\?"),
        ({"training__steps": 0}, r"training\.steps must be at least 1"),
        ({"training__batch_size": 0}, r"training\.batch_size must be at least 1"),
        ({"sde__sigma_min": 2.0}, "0 < sigma_min < sigma_max"),
        ({"times__num_levels": 1}, r"times\.num_levels must be at least 2\. Received: 1"),
        ({"network__dtype": "float64"}, r"network\.dtype must be one of"),
        ({"optim__learning_rate": float("nan")}, r"optim\.learning_rate must be a finite number"),
        ({"optim__beta_2": 1.0}, r"optim\.beta_2 must be in"),
        ({"optim__clip_norm": 0.0}, r"optim\.clip_norm must be positive"),
        ({"optim__decay": "cosine"}, r"optim\.decay_steps"),
        ({"optim__warmup_steps": -1}, r"optim\.warmup_steps"),
        ({"training__accumulation": 0}, r"training\.accumulation must be at least 1"),
        (
            {"network__rematerialise": True, "objective": chosen("objective", "exact")},
            "no derivative of the score: denoising",
        ),
        ({"sampler__epsilon": -1.0}, "epsilon must be positive"),
        ({"sampler__steps_per_level": 0}, r"sampler\.steps_per_level must be at least 1"),
        ({"sampler__num_levels": 11}, r"sampler\.num_levels must be at most times\.num_levels=10\. Received: 11"),
        ({"evaluation__num_samples": 0}, r"evaluation\.num_samples"),
        ({"training__held_out_examples": -1}, "held_out_examples"),
        ({"seed": -1}, r"\[0, 2\^31\)"),
        (
            {"condition": chosen("condition", "log_sigma")},
            r"condition\.name=nearest_level\. Received: .*log_sigma",
        ),
        ({"condition": chosen("condition", "scaled_time")}, r"Received: condition\.name=scaled_time"),
        ({"condition": chosen("condition", "none")}, r"Received: condition\.name=none"),
        ({"output": chosen("output", "velocity")}, r"alpha\^2 \+ sigma\^2 = 1.*Received: sde\.name=ve, with alpha=1"),
    ],
)
def test_invalid_keys_and_values_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        build.Builder(config(**changes))


@pytest.mark.parametrize("section", ["data", "sde", "training", "sampler", "network"])
def test_a_missing_section_or_key_is_reported(section):
    values = config()
    key = next(iter(values[section]))
    del values[section][key]
    with pytest.raises(ValueError, match=key):
        build.Builder(values)
    del values[section]
    with pytest.raises(ValueError, match=f"config lacks {section}"):
        build.Builder(values)


def test_objects_are_as_configured():
    builder = build.Builder(config(sde__sigma_max=5.0, times__num_levels=7, ema__decay=0.5, optim__learning_rate=0.25))
    np.testing.assert_allclose(builder.sigmas, np.geomspace(5.0, 0.01, 7), rtol=1e-5)
    trainer = builder.trainer(tf.distribute.get_strategy(), (8, 8, 1))
    assert trainer.network.num_levels == 7 and trainer.network.filters == 4
    assert trainer.ema.decay == 0.5 and float(trainer.optimizer.learning_rate) == 0.25
    assert trainer.draw.bins[0] == "level_000_sigma_5" and len(trainer.draw.bins) == 7
    assert builder.sampler().segments == 7
    subsampled = build.Builder(config(times__num_levels=7, sampler__num_levels=3))
    assert subsampled.sampler().segments == 3
    assert subsampled.preparation == {"image_size": None, "center_crop": None, "channels": None}
    plain = build.Builder(config(sampler__name="langevin", sampler__prior="normal"))
    assert plain.sampler().segments == 10
    assert plain.prior(tf.zeros([2, 2], tf.int32), (3,)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("denoising", {}, [1.0, 1.0]),
        ("denoising", {"sigma_power": 0.0}, [1.0, 10000.0]),
        ("exact", {}, [-2.0, -0.0002]),
        ("sliced", {"slices": "rademacher", "num_slices": 3}, [-2.0, -0.0002]),
        ("sliced", {"slices": "spherical", "variance_reduced": True}, [-2.0, -0.0002]),
    ],
)
def test_objectives_are_as_configured(name, options, expected):
    """At sigma 1 and 0.01: a score of zero, and one that is zero at x with the Jacobian -I; told by hand."""
    builder = build.Builder(config(objective=chosen("objective", name, **options)))
    x, t, z = tf.zeros([2, 2]), tf.constant([1.0, 0.0]), tf.constant([[1.0, -1.0]] * 2)
    drawn = []
    if builder._draw_slices is not None:
        drawn.append(builder._draw_slices(tf.constant([[1, 2], [3, 4]]), [2]))
        assert drawn[0].shape == (2, options.get("num_slices", 1), 2)
        np.testing.assert_allclose(tf.reduce_sum(drawn[0] ** 2, axis=-1), 2.0, rtol=1e-6)
    score_fn = lambda x, t: tf.zeros_like(x) if name == "denoising" else -x + tf.stop_gradient(x)  # noqa: E731
    np.testing.assert_allclose(builder._objective(score_fn, x, t, z, *drawn), expected, rtol=1e-5)


def test_the_start_is_drawn_from_the_seed():
    first, again = (build.Builder(config(seed=3)).network((8, 8, 1)) for _ in range(2))
    other = build.Builder(config(seed=4)).network((8, 8, 1))
    np.testing.assert_array_equal(first.begin_conv.kernel, again.begin_conv.kernel)
    assert not np.array_equal(first.begin_conv.kernel, other.begin_conv.kernel)
    kernels = [first.cascades[0][0].conv1.kernel.numpy(), first.cascades[0][0].conv2.kernel.numpy()]
    assert not np.array_equal(*kernels), "two layers start alike"


def test_images_of_both_splits_are_loaded():
    builder = build.Builder(config())
    train, held_out = builder.load_images("train"), builder.load_images("held_out")
    assert train.shape == held_out.shape == (8, 8, 1) and len(train) + len(held_out) == 1797
    batch = next(iter(builder.batches(train, tf.distribute.get_strategy(), 0)))
    assert batch["image"].shape == (128, 8, 8, 1)


def test_memory_and_speed_options_reach_the_trainer():
    values = config(network__dtype="mixed_float16", network__rematerialise=True, training__accumulation=4)
    values["optim"] |= {"clip_norm": 2.0, "warmup_steps": 10, "decay": "linear", "decay_steps": 90}
    builder = build.Builder(values)
    trainer = builder.trainer(tf.distribute.get_strategy(), (8, 8, 1))
    assert isinstance(trainer.optimizer, SkippingAdam) and trainer.optimizer.global_clipnorm == 2.0
    rates = [float(trainer.optimizer._learning_rate(step)) for step in (0, 9, 45, 90)]
    np.testing.assert_allclose(rates, [1e-4, 0.9e-3, 0.5e-3, 0.0], rtol=1e-5)
    assert trainer.network.rematerialise and trainer.network.compute_dtype == "float16"
    assert trainer.state["loss_scale"][0].numpy() == 2.0**15 and trainer._accumulation == 4
    plain = build.Builder(config()).trainer(tf.distribute.get_strategy(), (8, 8, 1))
    assert plain.loss_scale is None and plain.optimizer.global_clipnorm is None
    with pytest.raises(ValueError, match="batch of 7 cannot be divided among 2 replicas"):
        two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        build.Builder(config(training__batch_size=7)).check_devices(two)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_built_trainer_learns_the_digits(dtype, unoptimized_graphs):
    """From half the number of pixels, the loss of a score of zero, well down within forty steps."""
    values = config(network__dtype=dtype, training__batch_size=32, ema__decay=0.5, optim__learning_rate=5e-3)
    builder = build.Builder(values)
    strategy = tf.distribute.get_strategy()
    trainer = builder.trainer(strategy, (8, 8, 1))
    trainer.run(iter(builder.batches(builder.load_images("train"), strategy, 0)), 40)
    loss, by_bin = jobs.held_out_measure(builder, trainer, (8, 8, 1))()
    assert loss < 0.8 * 32 and by_bin[0] < 16


OLDER = {
    "seed": 3,
    "data": {"name": "digits", "random_flip": True},
    "noise": {"sigma_max": 2.0, "sigma_min": 0.1, "num_levels": 4},
    "network": {"name": "ncsn", "filters": 8, "dtype": "float32"},
    "objective": {"name": "sliced", "sigma_power": 2.0, "slices": "rademacher", "num_slices": None},
    "optim": {"learning_rate": 0.01},
    "sampler": {"name": "annealed_langevin", "epsilon": 1e-5, "steps_per_level": 3, "num_levels": None},
}


def test_a_configuration_of_release_0_1_is_read():
    """It had the section `noise`, fewer keys, and showed those of every objective."""
    before = copy.deepcopy(OLDER)
    builder = build.Builder(upgrade.upgraded(OLDER))
    assert before == OLDER
    np.testing.assert_allclose(builder.sigmas, np.geomspace(2.0, 0.1, 4), rtol=1e-5)
    assert builder.seed == 3 and builder.sampler_options.steps_per_level == 3 and builder.training.batch_size == 128
    assert builder._draw_slices is not None
    today = json.loads(json.dumps(config()))
    assert upgrade.upgraded(today) == today
    with pytest.raises(ValueError, match="must be a section"):
        upgrade.upgraded({**OLDER, "sampler": 5})


def test_a_section_has_only_the_keys_of_its_choice():
    for name, choices in schema.CHOICES.items():
        for choice in choices:
            content = sections.section(name, choice)
            expected = {"name", *choices[choice].__dataclass_fields__}
            assert set(content.keys()) == expected and content.name == choice
    with pytest.raises(ValueError, match=r"config\.objective\.name must be one of"):
        sections.section("objective", "gan")


def test_another_choice_keeps_the_values_of_the_keys_that_both_have():
    content = ml_collections.ConfigDict({"objective": sections.section("objective", "denoising")})
    content.objective.sigma_power = 1.0
    sections.choose(content, "objective", "sliced")
    assert content.objective.to_dict() == chosen("objective", "sliced", sigma_power=1.0)


def test_keys_that_may_change_while_a_run_continues():
    for name, key in (
        ("training", "steps"),
        ("sampler", "epsilon"),
        ("data", "data_dir"),
        ("network", "rematerialise"),
    ):
        assert sections.may_change(name, key)
    for name, key in (("training", "batch_size"), ("sde", "sigma_max"), ("data", "name"), ("network", "filters")):
        assert not sections.may_change(name, key)
    fields = {field for field in schema.Training.__dataclass_fields__ if not sections.may_change("training", field)}
    assert fields == {"batch_size"}


def test_the_workers_of_a_cluster_must_share_what_training_reads():
    same = sections.fingerprint(config())
    for changes in ({"data__data_dir": "elsewhere"}, {"data__name": "/mnt/digits"}, {"sampler__epsilon": 1.0}):
        assert sections.fingerprint(config(**changes)) == same
    for changes in ({"seed": 1}, {"training__steps": 7}, {"sde__sigma_max": 2.0}, {"data__random_flip": True}):
        assert sections.fingerprint(config(**changes)) != same
