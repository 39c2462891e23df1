"""Configurations: every key is read, every mistake is named, and the objects are the configured ones."""

import pathlib
import runpy

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.config import build, defaults
from ncsn_tf.training.optimizers import SkippingAdam

CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "configs").glob("*.py"))


def config(**changes):
    values = defaults.ncsn().to_dict()
    values["data"]["name"] = "digits"
    values["network"]["filters"] = 4
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    return values


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_in_configs_is_a_configuration_with_a_header(path):
    module = runpy.run_path(str(path))
    build.Builder(module["get_config"]().to_dict())
    for line in (f"--config=configs/{path.name}", "Hardware:", "Time:", "Result:"):
        assert line in module["__doc__"], line


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"optim__lerning_rate": 1.0}, r"config\.optim\.lerning_rate\. Did you mean config\.optim\.learning_rate\?"),
        ({"network__filter": 1}, r"Did you mean config\.network\.filters\?"),
        ({"objective__power": 2}, r"Did you mean config\.objective\.sigma_power\?"),
        ({"training__zzz": 2}, r"Nothing reads config\.training\.zzz"),
        ({"sampler__name": "euler"}, r"sampler\.name must be one of .*'annealed_langevin'.*'euler'"),
        ({"sampler__prior": "zeros"}, r"sampler\.prior must be one of"),
        ({"network__name": "unet"}, r"network\.name must be one of \['ncsn'\]"),
        ({"objective__name": "gan"}, r"objective\.name must be one of"),
        ({"objective__num_slices": 2}, r"Nothing reads config\.objective\.num_slices when .*denoising; .*sliced"),
        ({"objective": {"name": "sliced", "num_slices": 0}}, r"num_slices must be at least 1\. Received: 0"),
        ({"objective": {"name": "sliced", "slices": "square"}}, r"objective\.slices must be one of"),
        ({"objective": {"name": "exact", "directions_at_once": 0}}, "directions_at_once must be at least 1"),
        ({"samplers": {}}, r"Did you mean config\.sampler\?"),
        ({"training__steps": 0}, r"training\.steps must be at least 1"),
        ({"training__batch_size": 0}, r"training\.batch_size must be at least 1"),
        ({"noise__sigma_min": 2.0}, "0 < sigma_min < sigma_max"),
        ({"noise__num_levels": 1}, "num_levels=1"),
        ({"network__dtype": "float64"}, r"network\.dtype must be one of"),
        ({"optim__learning_rate": float("nan")}, r"optim\.learning_rate must be positive"),
        ({"optim__beta_2": 1.0}, r"optim\.beta_2 must lie in"),
        ({"optim__clip_norm": 0.0}, r"optim\.clip_norm must be positive"),
        ({"optim__decay": "cosine"}, r"optim\.decay_steps"),
        ({"optim__warmup_steps": -1}, r"optim\.warmup_steps"),
        ({"training__accumulation": 0}, r"training\.accumulation must be at least 1"),
        ({"network__rematerialise": True, "objective": {"name": "exact"}}, "no derivative of the score: denoising"),
        ({"sampler__epsilon": -1.0}, "epsilon must be positive"),
        ({"sampler__steps_per_level": 0}, "steps_per_level=0"),
        ({"sampler__num_levels": 11}, "num_levels=11"),
        ({"evaluation__num_samples": 0}, r"evaluation\.num_samples"),
        ({"training__held_out_examples": -1}, "held_out_examples"),
        ({"seed": -1}, r"\[0, 2\^31\)"),
    ],
)
def test_mistakes_are_named(changes, match):
    with pytest.raises(ValueError, match=match):
        build.Builder(config(**changes))


@pytest.mark.parametrize("section", ["data", "noise", "training", "sampler", "network"])
def test_a_missing_section_or_key_is_named(section):
    values = config()
    key = next(iter(values[section]))
    del values[section][key]
    if section != "network" or key == "name":
        with pytest.raises(ValueError, match=key):
            build.Builder(values)
    del values[section]
    with pytest.raises(ValueError, match=f"config lacks {section}"):
        build.Builder(values)


def test_objects_are_as_configured():
    builder = build.Builder(
        config(noise__sigma_max=5.0, noise__num_levels=7, ema__decay=0.5, optim__learning_rate=0.25)
    )
    np.testing.assert_allclose(builder.sigmas, np.geomspace(5.0, 0.01, 7), rtol=1e-5)
    trainer = builder.trainer(tf.distribute.get_strategy(), (8, 8, 1))
    assert trainer.network.num_levels == 7 and trainer.network.filters == 4
    assert trainer.ema.decay == 0.5 and float(trainer.optimizer.learning_rate) == 0.25
    assert builder.sampler(trainer.score_model.score).segments == 7
    thinned = build.Builder(config(noise__num_levels=7, sampler__num_levels=3))
    assert thinned.sampler(trainer.score_model.score).segments == 3
    assert thinned.preparation == {"image_size": None, "center_crop": None, "channels": None}
    plain = build.Builder(config(sampler__name="langevin", sampler__prior="normal"))
    assert plain.sampler(trainer.score_model.score).segments == 10
    assert plain.prior()(tf.zeros([2, 2], tf.int32), (3,)).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "denoising"}, [1.0, 1.0]),
        ({"name": "denoising", "sigma_power": 0.0}, [1.0, 10000.0]),
        ({"name": "exact"}, [-2.0, -0.0002]),
        ({"name": "sliced", "slices": "rademacher", "num_slices": 3}, [-2.0, -0.0002]),
        ({"name": "sliced", "slices": "spherical", "variance_reduced": True}, [-2.0, -0.0002]),
    ],
)
def test_objectives_are_as_configured(options, expected):
    """At sigma 1 and 0.01: a score of zero, and one that is zero at x with the Jacobian -I; told by hand."""
    builder = build.Builder(config(objective=options))
    x, t, z = tf.zeros([2, 2]), tf.constant([1.0, 0.0]), tf.constant([[1.0, -1.0]] * 2)
    drawn = []
    if builder._draw_slices is not None:
        drawn.append(builder._draw_slices(tf.constant([[1, 2], [3, 4]]), [2]))
        assert drawn[0].shape == (2, options.get("num_slices", 1), 2)
        np.testing.assert_allclose(tf.reduce_sum(drawn[0] ** 2, axis=-1), 2.0, rtol=1e-6)
    score_fn = lambda x, t: tf.zeros_like(x) if options["name"] == "denoising" else -x + tf.stop_gradient(x)  # noqa: E731
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


def test_the_levers_reach_the_trainer():
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
    with pytest.raises(ValueError, match="batch of 7 does not divide by 2 replicas"):
        two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        build.Builder(config(training__batch_size=7)).check_devices(two)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_what_is_built_learns_the_digits(dtype):
    """From half the number of pixels, the loss of a score of zero, well down within forty steps."""
    values = config(network__dtype=dtype, training__batch_size=32, ema__decay=0.5, optim__learning_rate=5e-3)
    builder = build.Builder(values)
    strategy = tf.distribute.get_strategy()
    trainer = builder.trainer(strategy, (8, 8, 1))
    trainer.run(iter(builder.batches(builder.load_images("train"), strategy, 0)), 40)
    loss, by_level = builder.held_out_loss(trainer, (8, 8, 1))()
    assert loss < 0.8 * 32 and by_level[0] < 16
