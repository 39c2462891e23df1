"""Noise levels and step sizes: definitions, the dynamics itself, the paper's published values."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from ncsn_tf import noise_levels, random
from ncsn_tf.samplers import langevin
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian

# Of the authors' configurations: D, sigma_1, L, T and the step size as their program writes it; sigma_L is 0.01.
PUBLISHED = {
    "cifar10": (3072, 50.0, 232, 5, 6.2e-6),
    "celeba": (12288, 90.0, 500, 5, 3.3e-6),
    "church": (27648, 140.0, 788, 4, 4.9e-6),
    "bedroom": (49152, 190.0, 1086, 3, 1.8e-6),
    "ffhq": (196608, 348.0, 2311, 3, 0.9e-6),
}
# Technique 4 does not give the church's step size: the formula has its minimum at half of it.
FOLLOW_TECHNIQUE_4 = [name for name in PUBLISHED if name != "church"]


def ratio_of(sigma_max, levels):
    return (sigma_max / 0.01) ** (1.0 / (levels - 1))


# Technique 2


@pytest.mark.parametrize("dimensions, ratio", [(1, 2.0), (64, 1.3), (3072, 1.0376), (3072, 1.2), (196608, 1.0045)])
def test_the_overlap_is_the_probability_of_the_larger_levels_usual_norms(dimensions, ratio):
    root = np.sqrt(dimensions)
    usual = ratio * (root - 3.0 / np.sqrt(2.0)), ratio * (root + 3.0 / np.sqrt(2.0))
    probability, _ = integrate.quad(stats.norm(root, np.sqrt(0.5)).pdf, *usual, epsabs=1e-13)
    assert noise_levels.overlap(ratio, dimensions) == pytest.approx(probability, rel=1e-7, abs=1e-12)


def test_the_overlap_is_that_of_the_norms_of_noise_in_many_dimensions():
    dimensions, ratio = 3072, 1.0376
    usual = ratio * (np.sqrt(dimensions) + np.array([-3.0, 3.0]) / np.sqrt(2.0))
    exact = np.diff(stats.chi(dimensions).cdf(usual))[0]
    assert noise_levels.overlap(ratio, dimensions) == pytest.approx(exact, abs=5e-3)


@pytest.mark.parametrize("dimensions", [5, 7, 64, 3072, 196608, 3 * 2**20])
@pytest.mark.parametrize("overlap", [1e-9, 0.1, 0.5, noise_levels.OVERLAP, 0.997])
def test_the_ratio_has_the_overlap_and_smaller_ratios_overlap_more(dimensions, overlap):
    ratio = noise_levels.ratio_for_overlap(dimensions, overlap)
    assert noise_levels.overlap(ratio, dimensions) == pytest.approx(overlap, rel=1e-9)
    nearer = 1.0 + (ratio - 1.0) * np.linspace(0.01, 0.999, 50)
    assert min(noise_levels.overlap(value, dimensions) for value in nearer) > overlap
    assert noise_levels.overlap(1.0 + (ratio - 1.0) * 1.001, dimensions) < overlap


@pytest.mark.parametrize("dimensions, sigma_max, levels", [row[:3] for row in PUBLISHED.values()], ids=PUBLISHED)
def test_the_papers_numbers_of_levels(dimensions, sigma_max, levels):
    assert noise_levels.number_of_levels(sigma_max, 0.01, dimensions) == levels
    assert 0.566 < noise_levels.overlap(ratio_of(sigma_max, levels), dimensions) <= noise_levels.OVERLAP
    assert noise_levels.overlap(ratio_of(sigma_max, levels + 1), dimensions) > noise_levels.OVERLAP


def test_levels_depend_on_the_ratio_of_the_ends_alone():
    assert noise_levels.number_of_levels(5e3, 1.0, 3072) == 232
    assert noise_levels.number_of_levels(1e200, 1e-200, 3072) > 20_000
    assert noise_levels.number_of_levels(0.02, 0.0199, 64) == 2


# Technique 4


def steps_of_the_sampler(epsilon, steps, ratio, sigma_min, level):
    """The variance after T steps of `langevin.Langevin`, from the larger neighbour's, divided by the level's own.

    On data that are a point a step is affine, x' = A x + b + gain z: read off two states, and iterated in float64.
    """
    sde = VE(sigma_max=sigma_min * ratio**10, sigma_min=sigma_min)
    step = langevin.Langevin(langevin.annealed(sde, epsilon))
    t, rows = tf.fill([2], 0.1 * level), random.per_example(random.seed(0), tf.range(2))
    score_fn = Gaussian(0.0, 0.0).score_fn(lambda t: sde.marginal(t)[1])
    new, mean, _ = step(score_fn, tf.constant([[0.0], [1.0]]), t, t, rows, ())
    factor = float(mean[1, 0] - mean[0, 0])
    gain = float((new - mean)[0, 0] / random.normal(rows, (1,))[0, 0])
    sigma = sigma_min * ratio**level
    variance = (ratio * sigma) ** 2
    for _ in range(steps):
        variance = factor**2 * variance + gain**2
    return variance / sigma**2


@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize(
    "steps, ratio, epsilon", [(5, 1.0376, 1.24e-5), (1, 1.5, 8e-5), (40, 1.668, 4e-5), (3, 2, 3e-4)]
)
def test_the_variance_is_that_of_the_samplers_own_steps(steps, ratio, epsilon, level):
    expected = steps_of_the_sampler(epsilon, steps, ratio, 0.01, level)
    assert noise_levels.variance_ratio(epsilon, steps, ratio, 0.01) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("dimensions, sigma_max, levels, steps, theirs", PUBLISHED.values(), ids=PUBLISHED)
def test_the_variance_is_the_papers_equation_4(dimensions, sigma_max, levels, steps, theirs):
    """With the program's step size, which is half of ours, and the smallest level's variance as the unit."""
    e, gamma = theirs / 0.01**2, ratio_of(sigma_max, levels)
    stationary = 2.0 * e / (1.0 - (1.0 - e) ** 2)
    expected = (1.0 - e) ** (2 * steps) * (gamma**2 - stationary) + stationary
    assert noise_levels.variance_ratio(2.0 * theirs, steps, gamma, 0.01) == pytest.approx(expected, rel=1e-12)


def test_the_published_step_sizes_leave_the_variances_that_are_known():
    found = [
        noise_levels.variance_ratio(2.0 * theirs, steps, ratio_of(sigma_max, levels), 0.01)
        for _, sigma_max, levels, steps, theirs in PUBLISHED.values()
    ]
    np.testing.assert_allclose(found, [1.0555, 1.0314, 1.0247, 1.0174, 1.0089], atol=5e-5)


@pytest.mark.parametrize("name", FOLLOW_TECHNIQUE_4)
def test_the_papers_step_sizes(name):
    _, sigma_max, levels, steps, theirs = PUBLISHED[name]
    found = noise_levels.epsilon_for(steps, ratio_of(sigma_max, levels), 0.01)
    assert round(0.5e6 * found, 1) == pytest.approx(1e6 * theirs), "which they give in tenths of 1e-6"


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
@pytest.mark.parametrize("ratio", [1.0045, 1.0376, 1.668, 5.0])
def test_no_step_size_leaves_less_and_none_leaves_the_levels_own_variance(steps, ratio):
    sigma_min = 0.3
    chosen = noise_levels.epsilon_for(steps, ratio, sigma_min)
    least = noise_levels.variance_ratio(chosen, steps, ratio, sigma_min)
    others = np.concatenate([np.geomspace(1e-6, 3.999, 400) * sigma_min**2, chosen * np.array([0.99, 1.01])])
    assert min(noise_levels.variance_ratio(value, steps, ratio, sigma_min) for value in others) >= least > 1.0
    h = 1e-4 * chosen
    left, right = (noise_levels.variance_ratio(chosen + side, steps, ratio, sigma_min) for side in (-h, h))
    assert abs(right - left) < 1e-3 * (right + left - 2.0 * least) + 1e-15, "the minimum is within h / 2000"


def test_one_step_has_its_minimum_in_closed_form():
    """(1 - u)^2 gamma^2 + 2 u is least at 1 - u = 1 / gamma^2."""
    ratio, sigma = 1.25, 0.02
    epsilon = noise_levels.epsilon_for(1, ratio, sigma)
    assert epsilon == pytest.approx(2.0 * sigma**2 * (1.0 - ratio**-2), rel=1e-12)
    assert noise_levels.variance_ratio(epsilon, 1, ratio, sigma) == pytest.approx(2.0 - ratio**-2, rel=1e-12)


# All of them


def test_a_choice_has_its_values_and_their_reasons():
    choice = noise_levels.choose(49.96, 3072)
    assert (choice.sigma_max, choice.sigma_min, choice.num_levels, choice.steps_per_level) == (50.0, 0.01, 232, 5)
    assert choice.epsilon == 1.24e-5 and choice.evaluations == 1160
    assert choice.ratio == pytest.approx(ratio_of(50.0, 232), rel=1e-12)
    assert choice.overrides() == [
        "--config.sde.sigma_max=50.0",
        "--config.sde.sigma_min=0.01",
        "--config.times.num_levels=232",
        "--config.sampler.steps_per_level=5",
        "--config.sampler.epsilon=1.24e-05",
    ]
    distance, levels, step = (decision.reason for decision in choice.decisions())
    assert "49.96" in distance and "3,072" in levels and "1.03756" in levels and "0.567" in levels
    assert "1.055 times" in step and "1,160 evaluations" in step


@pytest.mark.parametrize(
    "value, rounded", [(4.81372, 4.82), (50.0, 50.0), (50.01, 50.1), (999.5, 1000.0), (0.0123, 0.0123)]
)
def test_the_largest_level_is_at_least_the_distance(value, rounded):
    assert noise_levels.choose(value, 64, sigma_min=1e-3).sigma_max == rounded


def test_steps_are_as_many_as_the_evaluations_allow():
    choice = noise_levels.choose(50.0, 3072, max_evaluations=1000)
    assert choice.steps_per_level == 4 and choice.evaluations == 928
    assert choice.epsilon == float(f"{noise_levels.epsilon_for(4, choice.ratio, 0.01):.3g}")
    assert noise_levels.choose(50.0, 3072, overlap=0.5, steps_per_level=7).num_levels == 219


@pytest.mark.parametrize(
    "function, arguments, message",
    [
        ("overlap", (1.0, 64), "above 1. Received: 1.0"),
        ("overlap", (float("nan"), 64), "above 1. Received: nan"),
        ("overlap", (1.1, 0), "dimensions=0"),
        ("ratio_for_overlap", (4,), "5 values or more.*dimensions=4"),
        ("ratio_for_overlap", (64, 0.9974), r"in \(0, 0.9973\). Received: 0.9974"),
        ("ratio_for_overlap", (64, 0.0), "Received: 0.0"),
        ("ratio_for_overlap", (64, float("nan")), "Received: nan"),
        ("number_of_levels", (1.0, 1.0, 64), "0 < sigma_min < sigma_max.*sigma_max=1.0, sigma_min=1.0"),
        ("number_of_levels", (1.0, 0.0, 64), "sigma_min=0.0"),
        ("number_of_levels", (float("inf"), 1.0, 64), "sigma_max=inf"),
        ("variance_ratio", (4e-4, 5, 1.1, 0.01), "below 4 sigma_min.2 = 0.0004. Received: 0.0004"),
        ("variance_ratio", (0.0, 5, 1.1, 0.01), "Received: 0.0"),
        ("variance_ratio", (1e-5, 5, 0.9, 0.01), "ratio.*above 1. Received: 0.9"),
        ("epsilon_for", (0, 1.1, 0.01), "steps=0"),
        ("epsilon_for", (5, 1.1, -0.01), "sigma_min must be positive.*-0.01"),
        ("epsilon_for", (5, float("inf"), 0.01), "Received: inf"),
        ("choose", (0.0, 64), "positive and finite. Received: 0.0"),
        ("choose", (float("nan"), 64), "positive and finite. Received: nan"),
        ("choose", (0.005, 64), "sigma_max=0.005, sigma_min=0.01"),
    ],
)
def test_values_out_of_range_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(noise_levels, function)(*arguments)


def test_steps_and_evaluations_exclude_each_other_and_must_suffice():
    with pytest.raises(ValueError, match="either steps_per_level or max_evaluations.*steps_per_level=5"):
        noise_levels.choose(50.0, 3072, steps_per_level=5, max_evaluations=2000)
    with pytest.raises(ValueError, match="232 levels need 232 evaluations or more.*max_evaluations=231"):
        noise_levels.choose(50.0, 3072, max_evaluations=231)
