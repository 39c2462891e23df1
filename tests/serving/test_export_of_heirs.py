"""Exports of runs on the VP SDE in continuous time, whose images have another range and whose sampler has no levels."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from ncsn_tf.config import build, sections
from ncsn_tf.serving import export
from tests.support.oracles import Gaussian

SHAPE = (4, 4, 1)
DEVIATION = 0.5
"""Of the data in [-1, 1], around 0: in [0, 1] they are N(0.5, 0.25^2)."""
DATA = Gaussian(0.5, DEVIATION / 2)


class ExactNoise(keras.Model):
    """The noise that is expected in x_t for data N(0, DEVIATION^2) on the VP SDE; its condition is 999 t."""

    def __init__(self):
        super().__init__()
        self.frequencies = self.add_weight(
            shape=(2,), initializer=lambda *_, **__: np.float32([0.1, 9.95]), trainable=False
        )
        self.one = self.add_weight(shape=(), initializer="ones")
        self.built = True

    def call(self, x, condition, labels=None, dropout_seeds=None):
        t = condition / 999.0
        signal = ops.exp(-t * (self.frequencies[0] + self.frequencies[1] * t))[:, None, None, None]
        return self.one * ops.sqrt(1.0 - signal) * x / (signal * DEVIATION**2 + 1.0 - signal)


def config(sampler):
    values = sections.ncsn().to_dict()
    plain = {"embedding": "positional", "output_sigmas": "none"}
    for name, choice in {"sde": "vp", "times": "uniform", "condition": "scaled_time", "output": "noise"}.items():
        values[name] = sections.section(name, choice).to_dict()
    values["network"] = {**sections.section("network", "unet").to_dict(), **plain}
    values["sampler"] = {**sections.section("sampler", sampler["name"]).to_dict(), **sampler}
    return values


def served(dtype="float32", **sampler):
    builder = build.Builder(config(sampler or {"name": "ancestral", "num_steps": 40}))
    return export.ServedModel(
        ExactNoise(),
        builder.score_model,
        sampler=functools.partial(builder.sampler, jit_compile=False),
        tunable=builder.tunable,
        prior=builder.prior,
        sde=builder.sde,
        grid=builder.grid,
        value_range=builder.value_range,
        shape=SHAPE,
        dtype=dtype,
    ).signatures()


def test_scores_and_denoised_images_are_those_of_images_within_0_and_1():
    """The closed forms for data N(0.5, 0.25^2) with noise sigma: alpha and the value range must not be seen."""
    x = np.random.default_rng(0).normal(0.5, 0.6, (3, *SHAPE)).astype("f")
    sigma = np.float32([0.02, 0.3, 5.0])
    signatures, wide = served(), np.reshape(sigma, (3, 1, 1, 1))
    found = signatures["score"](x=tf.constant(x), sigma=tf.constant(sigma))["score"]
    np.testing.assert_allclose(found, -(x - 0.5) / DATA.variance(wide), rtol=2e-3, atol=1e-4)
    found = signatures["denoise"](x=tf.constant(x), sigma=tf.constant(sigma))["denoised"]
    np.testing.assert_allclose(found, DATA.denoised(x, wide), rtol=1e-3, atol=1e-4)


def test_samples_have_the_law_of_the_data_and_rows_of_their_own():
    signatures = served(name="ancestral", num_steps=200, denoise=False)
    assert sorted(signatures) == ["denoise", "inpaint", "sample", "score", "serving_default"], "nothing to tune"
    drawn = signatures["sample"](seed=tf.range(256, dtype=tf.int64))["samples_float"].numpy()
    assert abs(drawn.mean() - 0.5) < 4 * 0.25 / np.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(0.25, rel=0.07)  # 4 standard errors, and 2 % for 200 steps
    alone = signatures["sample"](seed=tf.constant([5], tf.int64))["samples_float"]
    np.testing.assert_allclose(alone[0], drawn[5], atol=1e-4)


@pytest.mark.parametrize("name", ["probability_flow", "adaptive_sde"])
def test_a_sampler_that_chooses_its_steps_has_no_inpainting(name):
    signatures = served(name=name, rtol=1e-3, atol=1e-3)
    assert sorted(signatures) == ["denoise", "sample", "score", "serving_default"]
    drawn = signatures["sample"](seed=tf.range(256, dtype=tf.int64))["samples_float"].numpy()
    assert abs(drawn.mean() - 0.5) < 4 * 0.25 / np.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(0.25, rel=4 / np.sqrt(2 * drawn.size) + 0.005)


@pytest.mark.parametrize("grid", ["karras", "log_snr"])
def test_grids_that_follow_from_the_sde_are_exported(grid):
    signatures = served(name="dpm_solver", num_steps=40, grid=grid)
    drawn = signatures["sample"](seed=tf.range(256, dtype=tf.int64))["samples_float"].numpy()
    assert drawn.std() == pytest.approx(0.25, rel=4 / np.sqrt(2 * drawn.size) + 0.03)


def test_inpainting_keeps_what_is_known():
    image, known = np.full((2, *SHAPE), 0.25, "f"), np.arange(32).reshape(2, 4, 4, 1) % 2 == 0
    completed = served()["inpaint"](
        image=tf.constant(image), mask=tf.constant(known), seed=tf.constant([1, 2], tf.int64)
    )["samples_float"]
    np.testing.assert_array_equal(completed.numpy()[known], image[known])
    assert np.isfinite(completed).all() and np.ptp(completed.numpy()[~known]) > 0.1


def test_langevin_dynamics_keeps_its_tuned_signatures():
    signatures = served(name="annealed_langevin", epsilon=1e-7, steps_per_level=2, num_levels=3, prior="normal")
    assert {"sample_tuned", "inpaint_tuned"} <= set(signatures)


def test_constants_of_the_network_keep_their_digits_in_bfloat16():
    """The rates 0.1 and 9.95 are no bfloat16 numbers; rounded, the noise at t = 1 would be another."""
    x = np.full((1, *SHAPE), 0.7, "f")
    for sigma in (0.02, 5.0):
        found = served("bfloat16")["score"](x=tf.constant(x), sigma=tf.constant([sigma], tf.float32))["score"]
        np.testing.assert_allclose(found, -(x - 0.5) / DATA.variance(sigma), rtol=2e-3)
