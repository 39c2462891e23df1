"""Log-likelihoods and latent codes against closed forms: Gaussian data and mixtures with their exact scores."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import flow, random
from ncsn_tf.densities import toy
from ncsn_tf.sde import VE, VP, SubVP
from tests.support import laws

SDES = {"ve": VE(sigma_max=50.0, sigma_min=0.01), "vp": VP(), "subvp": SubVP()}
SEEDS = random.per_example(random.seed(0), tf.range(6))
DATA = np.random.default_rng(0).normal(0.0, 0.5, (6, 3, 2))


def gaussian_nats(x, sde, first_time):
    """log N(x; 0, V) of the data with the noise of the first time."""
    v = laws.variance(sde, 0.5, first_time)[0]
    return (-0.5 * x**2 / v - 0.5 * np.log(2.0 * np.pi * v)).reshape(len(x), -1).sum(axis=1)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", SDES)
def test_the_likelihood_of_gaussian_data_is_its_density(name, exact):
    """To 1e-3 nats per dimension; with a score of slope -1/V every Rademacher probe gives the exact trace."""
    sde = SDES[name]
    given = {"exact": True} if exact else {"seeds": SEEDS, "probes": 2}
    found = flow.log_prob(laws.exact_score(sde, 0.5), sde, DATA, **given)
    # The prior's variance is not V(1) exactly: on VE data of deviation 0.5 beside noise of 50.
    np.testing.assert_allclose(found.nats, gaussian_nats(DATA, sde, sde.first_time), atol=6e-3)
    assert found.by_probe.shape == (6, 1 if exact else 2) and found.converged.numpy().all()
    assert found.latent.shape == DATA.shape and (found.evaluations.numpy() > 20).all()
    if exact:
        assert np.isnan(found.standard_error).all()
    else:
        np.testing.assert_allclose(found.standard_error, 0.0, atol=1e-6)


def test_the_likelihood_of_a_mixture_is_its_density():
    """Data in the plane, compiled by XLA; the noise at t=1 is wide enough to hide their mean, as the prior assumes."""
    sde, density = (
        VE(sigma_max=5000.0, sigma_min=0.01),
        toy.Mixture(np.array([0.2, 0.8]), np.array([[-2.0, -2.0], [1.0, 2.0]]), 0.5),
    )
    x = tf.cast(density.sample(random.per_example(random.seed(1), tf.range(16))), tf.float64)
    nats = tf.function(lambda x: flow.log_prob(density.score_fn(sde), sde, x, exact=True).nats, jit_compile=True)(x)
    np.testing.assert_allclose(nats, density.log_prob(x, 1.0, 0.01), atol=2e-3)


def test_probes_estimate_the_trace_without_bias():
    """A score that is not a multiple of x has probes that scatter; their mean is within four standard errors."""
    rotation = tf.constant(np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0])
    variances = tf.constant([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], tf.float64)
    sde = VP()

    def score_fn(x, t):
        alpha, sigma = sde.marginal(t)
        turned = tf.matmul(tf.reshape(x, [-1, 6]), rotation)
        turned /= alpha[:, None] ** 2 * variances + sigma[:, None] ** 2
        return tf.reshape(-tf.matmul(turned, rotation, transpose_b=True), tf.shape(x))

    def found(data, seeds, **options):
        return flow.log_prob(score_fn, sde, data, seeds=seeds, probes=16, rtol=1e-4, atol=1e-4, **options)

    exact = found(DATA, None, exact=True)
    for probe in flow.PROBES:
        estimated = found(DATA, SEEDS, probe=probe)
        errors = (estimated.nats - exact.nats).numpy() / estimated.standard_error
        assert (estimated.standard_error > 0.02).all() and np.abs(errors).max() < 4.5, probe
    alone, together = (found(DATA[rows], SEEDS[rows[0] : rows[-1] + 1]) for rows in ([2], [0, 1, 2]))
    np.testing.assert_allclose(alone.by_probe[0], together.by_probe[2], rtol=1e-6)


@pytest.mark.parametrize("name", SDES)
def test_codes_are_scaled_data_and_decode_to_them(name):
    """x_1 = x sqrt(V(1) / V(first time)) for Gaussian data."""
    sde, score_fn = SDES[name], laws.exact_score(SDES[name], 0.5)
    codes = flow.encode(score_fn, sde, DATA, rtol=1e-7, atol=1e-7).check().y
    ratio = np.sqrt(laws.variance(sde, 0.5, 1.0) / laws.variance(sde, 0.5, sde.first_time))
    np.testing.assert_allclose(codes, DATA * ratio, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(flow.decode(score_fn, sde, codes, rtol=1e-7, atol=1e-7).check().y, DATA, atol=1e-5)


def test_bits_per_dimension_of_bytes():
    """Uniform data on [0, 1] have density 1 and 8 bits; on [-1, 1] density 2^-D, and 8 bits again."""
    np.testing.assert_allclose(flow.bits_per_dimension(np.zeros(2), (4, 4, 1), (0.0, 1.0)), 8.0)
    np.testing.assert_allclose(flow.bits_per_dimension(np.array([-16 * math.log(2.0)]), (4, 4, 1), (-1.0, 1.0)), 8.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs seeds of its probes.*probes=1, seeds=None"),
        ({"seeds": SEEDS, "probes": 0}, "1 or more of these.*probes=0, seeds=given"),
        ({"seeds": SEEDS, "probe": "uniform"}, "probe must be rademacher or normal. Received: 'uniform'"),
        ({"exact": True, "first_time": 1.0}, r"first_time must be in \[0, 1\). Received: 1.0"),
        ({"exact": True, "rtol": 2.0}, "rtol must be"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        flow.log_prob(laws.exact_score(VP(), 0.5), VP(), DATA, **options)
