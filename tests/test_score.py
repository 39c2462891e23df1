"""The adapter, and denoising against its closed form."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import times
from ncsn_tf.score import EnergyModel, ScoreModel, denoise, from_energy
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian

SDE = VE(1.0, 0.01)
TIMES = times.uniform(10)


def test_the_network_is_conditioned_on_the_nearest_level_and_sees_centred_images():
    seen = {}

    def network(x, level):
        seen.update(x=x, level=level)
        return 3.0 * x

    x = tf.constant([[0.0], [0.5], [1.0]])
    score = ScoreModel(network, SDE, TIMES).score(x, tf.constant([1.0, 0.34, 0.0]))
    np.testing.assert_array_equal(seen["level"], [0, 6, 9])
    np.testing.assert_array_equal(seen["x"], [[-1.0], [0.0], [1.0]])
    np.testing.assert_array_equal(score, [[-3.0], [0.0], [3.0]])
    ScoreModel(network, SDE, TIMES, centred=False).score(x, tf.constant([1.0, 0.3, 0.0]))
    np.testing.assert_array_equal(seen["x"], x)


def test_an_output_may_be_divided_by_sigma():
    x, t = tf.ones([2, 3, 1]), tf.constant([1.0, 0.0])
    score = ScoreModel(lambda x, level: x, SDE, TIMES, divide_by_sigma=True).score(x, t)
    np.testing.assert_allclose(score, [[[1.0]] * 3, [[100.0]] * 3], rtol=1e-5)


def test_every_level_finds_itself():
    levels = ScoreModel(lambda x, level: x, SDE, times.uniform(232)).level(tf.constant(times.uniform(232)))
    np.testing.assert_array_equal(levels, np.arange(232))


def test_a_grid_that_does_not_decrease_is_refused():
    with pytest.raises(ValueError, match="decrease strictly"):
        ScoreModel(lambda x, level: x, SDE, np.array([0.0, 1.0]))


def test_an_energys_score_is_minus_its_gradient():
    """E = x' P x / 2 + t sum sin x has the score -P x - t cos x."""
    precision = tf.constant([[2.0, 0.5], [0.5, 1.0]])
    score_fn = from_energy(
        lambda x, t: 0.5 * tf.reduce_sum(x * (x @ precision), axis=1) + t * tf.reduce_sum(tf.sin(x), axis=1)
    )
    x, t = tf.constant([[0.3, -1.0], [2.0, 0.0]]), tf.constant([0.0, 0.7])
    expected = -x @ precision - t[:, None] * tf.cos(x)
    for run in (score_fn, tf.function(score_fn), tf.function(score_fn, jit_compile=True)):
        np.testing.assert_allclose(run(x, t), expected, rtol=1e-6)


def test_an_energy_model_is_conditioned_centred_and_divided_as_a_score_model():
    def network(x, level):
        return tf.reduce_sum(x**2, axis=1, keepdims=True) * (1.0 + tf.cast(level, tf.float32)[:, None])

    x, t = tf.constant([[0.75, 0.5], [1.0, 0.0]]), tf.constant([1.0, 0.0])
    model = EnergyModel(network, SDE, TIMES)
    np.testing.assert_allclose(model.energy(x, t), [0.25, 20.0], rtol=1e-6)
    np.testing.assert_allclose(model.score(x, t), [[-2.0, 0.0], [-40.0, 40.0]], rtol=1e-6)  # the map to [-1, 1] gives 2
    plain = EnergyModel(network, SDE, TIMES, centred=False, divide_by_sigma=True)
    np.testing.assert_allclose(plain.score(x, t), [[-1.5, -1.0], [-2000.0, 0.0]], rtol=1e-5)


def test_an_energy_of_several_numbers_is_refused():
    with pytest.raises(ValueError, match="one number an example"):
        from_energy(lambda x, t: x)(tf.ones([3, 2]), tf.ones([3]))
    with pytest.raises(ValueError, match="at floats"):
        from_energy(lambda x, t: tf.reduce_sum(x, axis=1))(tf.ones([3, 2], tf.int32), tf.ones([3]))


def test_denoise_is_the_posterior_mean():
    data = Gaussian(0.3, 0.5)
    x, t = tf.constant([[0.7, -1.0], [2.0, 0.3]]), tf.constant([0.9, 0.2])
    sigma = SDE.marginal(t)[1].numpy()[:, None]
    result = denoise(data.score_fn(lambda t: SDE.marginal(t)[1]), SDE, x, t)
    np.testing.assert_allclose(result, data.denoised(x.numpy(), sigma), rtol=1e-6)
