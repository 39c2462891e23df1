"""The adapter, and denoising against its closed form."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import score, times
from ncsn_tf.score import EnergyModel, ScoreModel, denoise, from_energy
from ncsn_tf.sde import VE
from tests.support.oracles import Cosine, Gaussian

SDE = VE(sigma_max=1.0, sigma_min=0.01)
TIMES = times.uniform(10)
COSINE = Cosine()


COEFFICIENTS = {
    "score": lambda a, s: (1.0, 0.0, 1.0),
    "score_over_sigma": lambda a, s: (1.0, 0.0, 1.0 / s),
    "noise": lambda a, s: (1.0, 0.0, -1.0 / s),
    "clean_image": lambda a, s: (1.0, -1.0 / s**2, a / s**2),
    "velocity": lambda a, s: (1.0, -1.0, -a / s),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_an_output_becomes_the_score(name):
    """By coefficients written out by hand, of a network 3 x + 1, at two times of a user's own SDE."""
    x, t = tf.constant([[0.3], [-2.0]]), tf.constant([0.2, 0.7])
    alpha, sigma = (value.numpy()[:, None] for value in COSINE.marginal(t))
    c_in, c_skip, c_out = COEFFICIENTS[name](alpha, sigma)
    found = ScoreModel(lambda x, condition: 3.0 * x + 1.0, COSINE, getattr(score, name)).score(x, t)
    np.testing.assert_allclose(found, c_skip * x + c_out * (3.0 * c_in * x + 1.0), rtol=1e-5)


@pytest.mark.parametrize("name", ["noise", "clean_image", "velocity"])
def test_what_a_network_predicts_exactly_gives_the_exact_score(name):
    """Data N(0, s^2): E[x_0 | x] = alpha s^2 x / v; E[z | x] and E[v | x] are linear in x too; the score is -x / v."""
    deviation, t = 0.5, tf.constant([0.1, 0.5, 0.9])
    alpha, sigma = COSINE.marginal(t)
    variance = alpha**2 * deviation**2 + sigma**2
    clean, noise = alpha * deviation**2 / variance, sigma / variance
    gains = {"noise": noise, "clean_image": clean, "velocity": alpha * noise - sigma * clean}
    model = ScoreModel(lambda x, condition: gains[name][:, None] * x, COSINE, getattr(score, name))
    x = tf.constant([[1.5], [-0.3], [2.0]])
    np.testing.assert_allclose(model.score(x, t), -x / variance[:, None], rtol=1e-5)


@pytest.mark.parametrize("sde", [SDE, COSINE], ids=["VE", "cosine"])
def test_edm_is_the_papers_preconditioning(sde):
    """D(x) = c_skip x + c_out F(c_in x; log(sigma) / 4) of Karras et al. 2022 for x / alpha, and Tweedie's formula."""
    deviation, t = 0.5, tf.constant([0.1, 0.6])
    x = tf.constant([[0.3], [-2.0]])
    alpha, sigma = (value.numpy()[:, None].astype(np.float64) for value in sde.marginal(t))
    ratio = sigma / alpha
    root = np.sqrt(ratio**2 + deviation**2)
    inside = 1.0 / root * (x.numpy() / alpha)
    condition = np.log(sigma) / 4.0
    network = np.sin(inside) + condition
    denoised = deviation**2 / root**2 * (x.numpy() / alpha) + ratio * deviation / root * network
    expected = (alpha * denoised - x.numpy()) / sigma**2
    model = ScoreModel(
        lambda x, condition: tf.sin(x) + condition[:, None], sde, score.edm(deviation), score.log_sigma(0.25)
    )
    np.testing.assert_allclose(model.score(x, t), expected, rtol=2e-4)


def test_edm_is_accurate_at_a_small_sigma():
    """The skip alone, at sigma = 0.002: -x / (sigma^2 + sigma_data^2) to float32, not to 0.4 %."""
    sde = VE(sigma_max=80.0, sigma_min=0.002)
    model = ScoreModel(lambda x, condition: tf.zeros_like(x), sde, score.edm(0.5))
    np.testing.assert_allclose(model.score(tf.ones([1, 1]), tf.zeros([1])), [[-1.0 / (0.002**2 + 0.25)]], rtol=1e-6)
    for wrong in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="sigma_data must be positive"):
            score.edm(wrong)


def test_conditions_tell_the_time():
    t = tf.constant([1.0, 0.34, 0.0])
    np.testing.assert_array_equal(score.nearest_level(TIMES)(SDE, t), [0, 6, 9])
    np.testing.assert_array_equal(score.ddpm_step(TIMES)(SDE, t), [9, 3, 0])
    np.testing.assert_array_equal(score.sigma(SDE, t), SDE.marginal(t)[1])
    np.testing.assert_allclose(score.log_sigma()(SDE, t), np.log(SDE.marginal(t)[1]), rtol=1e-6)
    np.testing.assert_allclose(score.scaled_time(SDE, t), 999.0 * t, rtol=1e-6)
    assert score.unconditional(SDE, t) is None


def test_every_level_is_nearest_to_itself():
    grid = times.uniform(232)
    np.testing.assert_array_equal(score.nearest_level(grid)(SDE, tf.constant(grid)), np.arange(232))


def test_a_grid_that_does_not_decrease_is_refused():
    with pytest.raises(ValueError, match="decrease strictly"):
        score.nearest_level(np.array([0.0, 1.0]))


def test_labels_and_dropout_seeds_reach_the_network_when_they_are_given():
    seen = []

    def network(x, condition, **given):
        seen.append(given)
        return x

    model, x, t = ScoreModel(network, SDE), tf.ones([1, 1]), tf.ones([1])
    model.score(x, t)
    model.score(x, t, labels=tf.constant([3]), dropout_seeds=tf.constant([[1, 2]]))
    assert seen[0] == {} and seen[1].keys() == {"labels", "dropout_seeds"}
    with pytest.raises(ValueError, match="cannot be conditioned on classes"):
        EnergyModel(network, SDE).score(x, t, labels=tf.constant([3]))


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


def test_an_energy_model_is_conditioned_and_divided_as_a_score_model():
    def network(x, level):
        return tf.reduce_sum((2.0 * x - 1.0) ** 2, axis=1, keepdims=True) * (1.0 + tf.cast(level, tf.float32)[:, None])

    x, t = tf.constant([[0.75, 0.5], [1.0, 0.0]]), tf.constant([1.0, 0.0])
    model = EnergyModel(network, SDE, score.nearest_level(TIMES))
    np.testing.assert_allclose(model.energy(x, t), [0.25, 20.0], rtol=1e-6)
    np.testing.assert_allclose(model.score(x, t), [[-2.0, 0.0], [-40.0, 40.0]], rtol=1e-6)
    divided = EnergyModel(network, SDE, score.nearest_level(TIMES), over_sigma=True)
    np.testing.assert_allclose(divided.score(x, t), [[-2.0, 0.0], [-4000.0, 4000.0]], rtol=1e-5)


def test_an_energy_of_several_numbers_is_refused():
    with pytest.raises(ValueError, match="one number per example"):
        from_energy(lambda x, t: x)(tf.ones([3, 2]), tf.ones([3]))
    with pytest.raises(ValueError, match="must be floats"):
        from_energy(lambda x, t: tf.reduce_sum(x, axis=1))(tf.ones([3, 2], tf.int32), tf.ones([3]))


def test_denoise_is_the_posterior_mean():
    data = Gaussian(0.3, 0.5)
    x, t = tf.constant([[0.7, -1.0], [2.0, 0.3]]), tf.constant([0.9, 0.2])
    sigma = SDE.marginal(t)[1].numpy()[:, None]
    result = denoise(data.score_fn(lambda t: SDE.marginal(t)[1]), SDE, x, t)
    np.testing.assert_allclose(result, data.denoised(x.numpy(), sigma), rtol=1e-6)
