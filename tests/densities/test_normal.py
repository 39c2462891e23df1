"""The normal density of any covariance, against SciPy's and against the moments of points."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.densities.normal import Normal

ALPHA, SIGMA = 0.8, 0.3


def points_of(count, dimensions=5):
    generator = np.random.default_rng(count)
    return generator.normal(size=(count, dimensions)) @ generator.normal(size=(dimensions, dimensions)) + 1.0


@pytest.mark.parametrize("count", [40, 4])
def test_the_fit_has_the_density_and_the_score_of_the_points_moments(count):
    """Also of fewer points than dimensions, whose covariance is singular until it is perturbed."""
    points = points_of(count)
    x = np.random.default_rng(0).normal(size=(7, 5))
    covariance = ALPHA**2 * np.cov(points.T, bias=True) + SIGMA**2 * np.eye(5)
    mean = ALPHA * points.mean(axis=0)
    found = Normal.fit(points)
    assert found.shape == (5,) and len(found.variances) == min(count, 5)
    law = scipy.stats.multivariate_normal(mean, covariance)
    np.testing.assert_allclose(found.log_prob(x, ALPHA, SIGMA), law.logpdf(x), rtol=1e-9)
    np.testing.assert_allclose(found.score(x, ALPHA, SIGMA), -(x - mean) @ np.linalg.inv(covariance), rtol=1e-8)


def test_images_keep_their_shape_and_samples_have_the_moments():
    points = points_of(40, 4).reshape(40, 2, 2, 1)
    found = Normal.fit(points)
    count = 20_000
    x = found.sample(random.per_example(random.seed(1), tf.range(count))).numpy()
    assert x.shape == (count, 2, 2, 1) and x.dtype == np.float32
    assert found.score(x[:3], sigma=0.1).shape == (3, 2, 2, 1)
    flat, covariance = x.reshape(count, -1), np.cov(points.reshape(40, -1).T, bias=True)
    errors = flat.mean(axis=0) - points.reshape(40, -1).mean(axis=0)
    assert (np.abs(errors) < 4 * np.sqrt(np.diag(covariance) / count)).all()
    products = np.sqrt((np.outer(*[np.diag(covariance)] * 2) + covariance**2) / count)
    assert (np.abs(np.cov(flat.T) - covariance) < 4.5 * products).all()


@pytest.mark.parametrize(
    ("mean", "variances", "axes", "message"),
    [
        (np.zeros(3), np.ones(2), np.eye(3), r"need axes \[D, K\]"),
        (np.zeros(2), np.array([1.0, -0.1]), np.eye(2), "zero or more"),
    ],
)
def test_impossible_covariances_are_refused(mean, variances, axes, message):
    with pytest.raises(ValueError, match=message):
        Normal(mean, variances, axes)
