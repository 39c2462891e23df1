"""The probability flow with error control: the exact map, SciPy's evaluations, and refusals."""

import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf

from ncsn_tf import random, samplers, score
from ncsn_tf.samplers.driver import Guidance
from ncsn_tf.sde import VE, VP, SubVP
from tests.support import laws
from tests.support.oracles import Cosine

SDES = {"ve": VE(sigma_max=50.0, sigma_min=0.01), "vp": VP(), "subvp": SubVP(), "a user's": Cosine()}


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_the_flow_maps_gaussian_data_exactly(name):
    """x_s = x_t sqrt(V_s / V_t)."""
    sde = SDES[name]
    x = sde.prior_sample(random.per_example(random.seed(0), tf.range(4)), (8,))
    drawn = samplers.make("probability_flow", sde, denoise=False)(laws.exact_score(sde, 0.5), x, None)
    ratio = np.sqrt(laws.variance(sde, 0.5, 1e-3) / laws.variance(sde, 0.5, 1.0))
    np.testing.assert_allclose(drawn.x, x * ratio, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_each_sample_costs_what_scipy_needs_for_it_alone(tolerance):
    sde = VP()
    x = sde.prior_sample(random.per_example(random.seed(1), tf.range(5)), (6,))
    x = tf.cast(x, tf.float64) * np.array([[0.1], [1.0], [3.0], [10.0], [1.0]])
    sampler = samplers.make("probability_flow", sde, denoise=False, rtol=tolerance, atol=tolerance)
    found = sampler(laws.exact_score(sde, 0.5), x, None)
    velocity = score.flow_velocity(laws.exact_score(sde, 0.5), sde)
    for row in range(5):

        def derivative(t, y):
            return velocity(tf.constant(y[None]), tf.constant([t], tf.float64)).numpy()[0]

        options = {"rtol": tolerance, "atol": tolerance}
        alone = scipy.integrate.solve_ivp(derivative, (1.0, 1e-3), x[row].numpy(), method="RK45", **options)
        assert int(found.evaluations[row]) == alone.nfev
        np.testing.assert_allclose(found.x[row], alone.y[:, -1], rtol=1e-9)


def test_evaluations_count_guidance_and_the_final_denoising():
    class Twice(Guidance):
        def score(self, score_fn, sde, given):
            return lambda x, t: 0.5 * (score_fn(x, t) + score_fn(x, t))

    x = tf.ones([2, 3])
    plain = samplers.make("probability_flow", VP(), rtol=1e-2, atol=1e-2, denoise=False)
    count = plain(laws.exact_score(VP(), 0.5), x, None).evaluations
    twice = plain(laws.exact_score(VP(), 0.5), x, None, Twice()).evaluations
    np.testing.assert_array_equal(twice, 2 * count)
    finished = samplers.make("probability_flow", VP(), rtol=1e-2, atol=1e-2)(laws.exact_score(VP(), 0.5), x, None)
    np.testing.assert_array_equal(finished.evaluations, count + 1)


def test_a_sample_that_does_not_converge_is_nan_and_others_are_not():
    def score_fn(x, t):
        return tf.where(x > 5.0, np.nan, -x)

    drawn = samplers.make("probability_flow", VP(), rtol=1e-2, atol=1e-2)(score_fn, tf.constant([[0.5], [9.0]]), None)
    np.testing.assert_array_equal(np.isnan(drawn.x[:, 0]), [False, True])


def test_guidance_that_changes_samples_after_each_step_is_refused():
    class Projecting(Guidance):
        def project(self, x, mean, t, seeds, given):
            return x, mean

    sampler, x = samplers.make("probability_flow", VP()), tf.ones([1, 2, 2, 1])
    with pytest.raises(ValueError, match="Guidance that changes samples after each step, such as inpainting"):
        sampler(lambda x, t: -x, x, None, Projecting())


def test_two_replicas_draw_what_one_does():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    x, score_fn = VP().prior_sample(random.per_example(random.seed(0), tf.range(4)), (8,)), laws.exact_score(VP(), 0.5)
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: tf.split(x, 2)[context.replica_id_in_sync_group]
    )
    options = {"rtol": 1e-2, "atol": 1e-2}
    two = samplers.make("probability_flow", VP(), strategy=strategy, **options)(score_fn, parts, None).x
    one = samplers.make("probability_flow", VP(), jit_compile=True, **options)(score_fn, x, None).x
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in two.values]), one, rtol=1e-4, atol=1e-5)
