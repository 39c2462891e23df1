"""Toy densities against quadrature, SciPy and finite differences, and their samples against the densities.

Tolerances. The densities compute in float64, where sums of up to 1e4 terms in logarithms of size up to 1e4 keep 1e-10.
A quadrature by equal steps is exact to rounding for smooth functions that have died out at the ends (and for periodic
ones) once the step is below half the narrowest deviation. Sample means must agree within 4 standard errors.
"""

import functools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.densities import toy
from ncsn_tf.densities.empirical import Empirical
from ncsn_tf.sde import VE

GENERATOR = np.random.default_rng(0)
MIXTURE = toy.Mixture(
    weights=np.array([0.5, 0.3, 0.2]),
    means=np.array([[-1.0, 0.5], [1.5, 1.0], [0.0, -2.0]]),
    deviations=np.array([0.4, 0.8, 0.6]),
)
UNEQUAL = toy.Boxes(lower=np.array([[-2.0, -1.0], [0.5, 0.0]]), upper=np.array([[0.0, 1.0], [1.0, 3.0]]))
DENSITIES = {
    "two modes": toy.Mixture.two_modes(),
    "mixture": MIXTURE,
    "ring": toy.Ring(2.0, 0.5),
    "square": toy.Boxes.square(3.0),
    "checkerboard": toy.Boxes.checkerboard(),
    "unequal boxes": UNEQUAL,
    "empirical": Empirical(GENERATOR.normal(size=(7, 2))),
}
WITH_CLEAN_DENSITY = [name for name in DENSITIES if name != "empirical"]
each = pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES.keys())
each_clean = pytest.mark.parametrize("density", [DENSITIES[n] for n in WITH_CLEAN_DENSITY], ids=WITH_CLEAN_DENSITY)
SAMPLERS = {**DENSITIES, "moons": toy.TwoMoons(0.1)}
COUNT = 20_000


@functools.cache
def rows(count=COUNT):
    return random.per_example(random.seed(3), tf.range(count))


def oracle(density, x, alpha, sigma):
    """log p at x [B, 2] for scalar alpha and sigma, by the definition: the logarithm is taken only at the end."""
    if isinstance(density, toy.Mixture):
        deviations = np.broadcast_to(density.deviations, density.weights.shape)
        parts = zip(density.weights, density.means, deviations, strict=True)
        p = sum(w * normal_pdf(x, alpha * m, alpha**2 * s**2 + sigma**2) for w, m, s in parts)
    elif isinstance(density, toy.Ring):
        angles = np.arange(2048) * 2 * np.pi / 2048
        points = alpha * density.radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        p = np.mean([normal_pdf(x, point, alpha**2 * density.width**2 + sigma**2) for point in points], axis=0)
    elif isinstance(density, toy.Boxes):
        low, high = ((x[:, None] - alpha * edge) / sigma for edge in (density.lower, density.upper))
        masses = np.prod(scipy.stats.norm.cdf(low) - scipy.stats.norm.cdf(high), axis=-1)
        p = masses.sum(1) / np.prod(alpha * (density.upper - density.lower), axis=1).sum()
    else:
        p = np.mean([normal_pdf(x, alpha * point, sigma**2) for point in density.points], axis=0)
    return np.log(p)


def normal_pdf(x, mean, variance):
    return scipy.stats.norm.pdf(x, mean, math.sqrt(variance)).prod(-1)


def places(density, count=40):
    """Points [count, 2], float64, in and around the density."""
    clean = density.sample(rows(count)).numpy().astype(np.float64)
    return clean + np.random.default_rng(1).normal(size=clean.shape)


def grid(half, step):
    """Midpoints of equal cells of the square [-half, half]^2, [N, 2], and the area of a cell."""
    middle = np.arange(-half + step / 2, half, step)
    return np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2), step**2


def clean_grid(density):
    """Cells that cover the clean density and whose edges meet those of all boxes."""
    return grid(4.0, 0.05) if isinstance(density, toy.Boxes) else grid(14.0, 0.1)


@each
@pytest.mark.parametrize("alpha, sigma", [(1.0, 0.3), (0.6, 0.8), (0.05, 1.0), (1.0, 5.0)])
def test_log_prob_matches_the_definition(density, alpha, sigma):
    x = places(density)
    np.testing.assert_allclose(
        density.log_prob(x, alpha, sigma), oracle(density, x, alpha, sigma), rtol=1e-9, atol=1e-9
    )


@each
def test_coefficients_may_differ_by_example(density):
    x, alpha, sigma = places(density, 3), [1.0, 0.5, 0.9], [0.3, 1.0, 4.0]
    expected = [oracle(density, x[i : i + 1], alpha[i], sigma[i])[0] for i in range(3)]
    np.testing.assert_allclose(density.log_prob(x, np.array(alpha), np.array(sigma)), expected, rtol=1e-9)


@each_clean
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_densities_integrate_to_one(density, sigma):
    """The cells' edges meet those of all boxes, so that a flat density is summed exactly too."""
    x, area = grid(8.5 if isinstance(density, toy.Boxes) else 12.0, 0.1)
    # The mass outside the grid, 5.7 deviations from the outermost mode or edge, is 1e-8.
    assert np.exp(density.log_prob(x, 1.0, sigma).numpy()).sum() * area == pytest.approx(1.0, abs=5e-8)


@each_clean
def test_noise_convolves_the_clean_density(density):
    alpha, sigma = 0.7, 0.6
    x0, area = clean_grid(density)
    clean = np.exp(density.log_prob(x0).numpy())
    x = places(density, 6)
    kernels = np.exp(-((x[:, None] - alpha * x0) ** 2).sum(-1) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    convolved = (kernels * clean).sum(1) * area
    # Smooth densities: rounding. Flat ones: the midpoint rule leaves an error of h^2/24 (alpha/sigma)^2 times a factor
    # of order 1 per direction at their edges.
    tolerance = 5 * 0.05**2 / 24 * (alpha / sigma) ** 2 * 2 if isinstance(density, toy.Boxes) else 1e-9
    np.testing.assert_allclose(np.exp(density.log_prob(x, alpha, sigma)), convolved, rtol=tolerance)


@each
@pytest.mark.parametrize("alpha, sigma", [(1.0, 0.3), (0.6, 0.8), (0.05, 1.0)])
def test_score_is_the_gradient_of_log_prob(density, alpha, sigma):
    x = np.concatenate([places(density, 12), [[0.0, 0.0], [30.0, -40.0], [-3.0, 0.2]]])
    score = density.score(x, alpha, sigma).numpy()
    points = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(points)
        log_prob = density.log_prob(points, alpha, sigma)
    np.testing.assert_allclose(score, tape.gradient(log_prob, points), rtol=1e-8, atol=1e-9)
    for d in range(2):
        # Central differences: h^2/6 f''' = 1e-10/6 * 1/sigma^3, and rounding of |f| 1e-16 / h with |f| up to 3e4.
        h = 1e-5 * np.eye(2)[d]
        difference = density.log_prob(x + h, alpha, sigma) - density.log_prob(x - h, alpha, sigma)
        np.testing.assert_allclose(score[:, d], difference / 2e-5, rtol=1e-6, atol=1e-6)


@each
def test_tails_are_exact_in_float32(density):
    """Only x and the result are rounded to float32. A score is near (mean - x)/v there, so rounding x adds 6e-8 to it;
    log p is near -x^2/2v, and rounding adds twice that."""
    far = np.float32([[1e4, -2e4], [3e3, 3e3], [-900.0, 1.5], [0.0, 7e5]])
    sigma = 0.5
    for method in (density.log_prob, density.score):
        exact = method(far.astype(np.float64), 1.0, sigma).numpy()
        assert np.all(np.isfinite(exact))
        np.testing.assert_allclose(method(far, 1.0, sigma), exact, rtol=1e-6, atol=1e-6)


def test_far_out_the_score_is_that_of_the_nearest_part():
    x, sigma = np.array([[3e3, 4e3]]), 0.5
    mixture = (np.array([5.0, 5.0]) - x) / (1 + sigma**2)
    np.testing.assert_allclose(DENSITIES["two modes"].score(x, 1.0, sigma), mixture, rtol=1e-12)
    v, ring = 0.5**2 + sigma**2, DENSITIES["ring"]
    k = 5e3 * 2.0 / v
    along = (2.0 * (1 - 1 / (2 * k) - 1 / (8 * k**2)) - 5e3) / v  # I_1 / I_0 for large k, to 1e-14
    np.testing.assert_allclose(ring.score(x, 1.0, sigma), along * np.array([[0.6, 0.8]]), rtol=1e-12)
    # A far corner (1.5, 1.5): -phi(q) / Phi(-q) / sigma by Mills' ratio q + 1/q - 2/q^3 of each coordinate.
    q = (x - 1.5) / sigma
    np.testing.assert_allclose(DENSITIES["square"].score(x, 1.0, sigma), -(q + 1 / q - 2 / q**3) / sigma, rtol=1e-11)


def test_box_masses_keep_their_digits_in_the_tails_and_for_narrow_boxes():
    """Against the difference of SciPy's log_ndtr on the safe side, and in a narrow box against density times width."""
    for distance in (5.0, 19.9, 20.1, 45.0, 300.0):
        box = toy.Boxes(np.array([[-1.0]]), np.array([[1.0]]))
        near, far = scipy.special.log_ndtr([1.0 - distance, -1.0 - distance])
        expected = near + np.log1p(-np.exp(far - near)) - np.log(2.0)
        for side in (-1, 1):
            np.testing.assert_allclose(box.log_prob(np.array([[side * distance]]), 1.0, 1.0), expected, rtol=1e-13)
    narrow = toy.Boxes(np.array([[-5e-5]]), np.array([[5e-5]]))
    x = np.array([[0.3]])
    # The mean over a width w differs from the middle by w^2/24; rounding divided by the width leaves 1e-12.
    np.testing.assert_allclose(narrow.log_prob(x, 1.0, 1.0), scipy.stats.norm.logpdf(0.3), rtol=1e-9)
    np.testing.assert_allclose(narrow.score(x, 1.0, 1.0), -x, rtol=1e-8)


def test_boxes_are_flat_without_noise():
    x = np.array([[-1.0, 0.0], [0.7, 2.9], [0.2, 0.0], [9.0, 9.0]])
    inside = -math.log(2 * 2 + 0.5 * 3)
    np.testing.assert_allclose(UNEQUAL.log_prob(x), [inside, inside, -math.inf, -math.inf])
    np.testing.assert_allclose(UNEQUAL.log_prob(0.5 * x, 0.5), [inside + 2 * math.log(2)] * 2 + [-math.inf] * 2)
    mixed = UNEQUAL.log_prob(x, 1.0, tf.constant([0.0, 0.3, 0.0, 0.3]))
    np.testing.assert_allclose(mixed.numpy()[[0, 2]], [inside, -math.inf])
    np.testing.assert_allclose(mixed.numpy()[[1, 3]], UNEQUAL.log_prob(x[[1, 3]], 1.0, 0.3), rtol=1e-6)


def test_responsibilities_are_bayes_rule():
    x = places(MIXTURE)
    joint = [
        w * normal_pdf(x, 0.8 * m, 0.64 * s**2 + 0.25)
        for w, m, s in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.deviations, strict=True)
    ]
    expected = np.stack(joint, 1) / np.sum(joint, 0)[:, None]
    np.testing.assert_allclose(MIXTURE.responsibilities(x, 0.8, 0.5), expected, rtol=1e-9)


# Samples


@each_clean
def test_samples_have_the_densitys_moments(density):
    """Moments of x and of a bounded wave, and the entropy, by quadrature over the clean density."""
    x0, area = clean_grid(density)
    log_p = density.log_prob(x0).numpy()
    weights = np.exp(log_p) * area
    x = density.sample(rows()).numpy().astype(np.float64)

    def features(x, log_p):
        parts = [x, x**2, x[:, :1] * x[:, 1:], np.sin(x + 2 * x[:, ::-1]), log_p[:, None]]
        return np.concatenate(parts, axis=1)

    expected = (weights[:, None] * features(x0, np.maximum(log_p, -1e3))).sum(0)
    got = features(x, density.log_prob(x).numpy())
    error = got.std(0) / math.sqrt(COUNT)
    # 3e-4 for flat densities: the midpoint rule's h^2/24 f'' with h = 0.05, f'' up to 5.
    assert np.all(np.abs(got.mean(0) - expected) < 4 * error + 6e-4 * isinstance(density, toy.Boxes))


def test_mixture_and_boxes_choose_their_parts_with_the_right_weights():
    x = DENSITIES["two modes"].sample(rows()).numpy()
    assert abs((x.sum(1) > 0).mean() - 0.8) < 4 * math.sqrt(0.16 / COUNT)
    x = UNEQUAL.sample(rows()).numpy()
    second = x[:, 0] >= 0.5
    assert abs(second.mean() - 1.5 / 5.5) < 4 * math.sqrt(0.2 / COUNT)
    for box, members in enumerate((x[~second], x[second])):
        u = (members - UNEQUAL.lower[box]) / (UNEQUAL.upper[box] - UNEQUAL.lower[box])
        assert u.min() >= 0 and u.max() <= 1
        counts = np.histogram2d(*u.T, bins=6, range=[[0, 1], [0, 1]])[0]
        chi_square = ((counts - len(u) / 36) ** 2 / (len(u) / 36)).sum()
        assert chi_square < 35 + 4 * math.sqrt(2 * 35)


def test_checkerboard_is_a_checkerboard():
    x = toy.Boxes.checkerboard(4, 8.0).sample(rows()).numpy()
    assert np.abs(x).max() <= 4.0
    cells = np.minimum(np.floor((x + 4.0) / 2.0).astype(int), 3)
    assert np.all(cells.sum(1) % 2 == 0)
    counts = np.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    counts = counts[counts > 0]
    assert len(counts) == 8
    assert ((counts - COUNT / 8) ** 2 / (COUNT / 8)).sum() < 7 + 4 * math.sqrt(14)


def test_moons_are_two_half_circles_with_noise():
    x = toy.TwoMoons(1e-6).sample(rows()).numpy().astype(np.float64)
    # Neither half touches the other's circle: each point is on exactly one of the two.
    upper, lower = np.hypot(*x.T), np.hypot(*(x - [1.0, 0.5]).T)
    on_upper = np.abs(upper - 1) < 2e-5
    on_lower = np.abs(lower - 1) < 2e-5
    assert np.all((on_upper & (x[:, 1] > -2e-5)) | (on_lower & (x[:, 1] < 0.5 + 2e-5)))
    assert abs(on_upper.mean() - 0.5) < 4 * math.sqrt(0.25 / COUNT)
    angle = np.arctan2(x[on_upper, 1], x[on_upper, 0]).clip(0, np.pi) / np.pi
    counts = np.histogram(angle, bins=16, range=(0, 1))[0]
    assert ((counts - len(angle) / 16) ** 2 / (len(angle) / 16)).sum() < 15 + 4 * math.sqrt(30)
    wide = toy.TwoMoons(0.3).sample(rows()).numpy().astype(np.float64) - x
    assert abs(wide.std() / 0.3 - 1) < 4 / math.sqrt(4 * COUNT)


def test_empirical_samples_are_the_points_equally_often():
    density = DENSITIES["empirical"]
    x = density.sample(rows()).numpy()
    which = np.argmin(((x[:, None] - density.points) ** 2).sum(-1), axis=1)
    np.testing.assert_allclose(x, density.points[which], rtol=1e-7)
    counts = np.bincount(which, minlength=7)
    assert ((counts - COUNT / 7) ** 2 / (COUNT / 7)).sum() < 6 + 4 * math.sqrt(12)


@pytest.mark.parametrize("density", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_a_draw_depends_on_its_own_seed_alone_eagerly_in_graphs_and_under_xla(density):
    batch = density.sample(rows(5)).numpy()
    assert batch.dtype == np.float32 and batch.shape == (5, 2)
    assert len(np.unique(batch[:, 0])) > 1
    for i in range(5):
        np.testing.assert_array_equal(density.sample(rows(5)[i : i + 1])[0], batch[i])
    for jit_compile in (False, True):
        compiled = tf.function(density.sample, jit_compile=jit_compile)(rows(5))
        np.testing.assert_allclose(compiled, batch, rtol=1e-5, atol=1e-5)  # cos and log differ in the last places


@each
def test_eager_graph_and_xla_agree_in_float32(density):
    sde = VE(sigma_max=5.0, sigma_min=0.1)
    x, t = tf.constant(places(density, 6), tf.float32), tf.linspace(0.0, 1.0, 6)

    def both(x, t):
        return density.log_prob_fn(sde)(x, t), density.score_fn(sde)(x, t)

    eager = both(x, t)
    assert all(value.dtype == tf.float32 for value in eager)
    for jit_compile in (False, True):
        # float32's 6e-8, grown by sigma(t), whose exp differs in its last places: log p near 1e3 has 2 d log sigma.
        for got, expected in zip(tf.function(both, jit_compile=jit_compile)(x, t), eager, strict=True):
            np.testing.assert_allclose(got, expected, rtol=3e-6, atol=3e-6)


def test_functions_of_time_use_the_sdes_coefficients():
    class Shrinking:
        def marginal(self, t):
            return 1.0 - 0.5 * t, 0.3 + t

    x, t = places(MIXTURE, 3), tf.constant([0.0, 0.5, 1.0])
    alpha, sigma = np.array([1.0, 0.75, 0.5]), np.array([0.3, 0.8, 1.3])
    for density in DENSITIES.values():
        np.testing.assert_allclose(density.score_fn(Shrinking())(x, t), density.score(x, alpha, sigma), rtol=1e-6)
        np.testing.assert_allclose(density.log_prob_fn(Shrinking())(x, t), density.log_prob(x, alpha, sigma), rtol=1e-6)


def test_posterior_mean_matches_tweedies_formula():
    density, x = DENSITIES["empirical"], places(DENSITIES["empirical"])
    tweedie = (x + 0.6**2 * density.score(x, 0.8, 0.6)) / 0.8
    np.testing.assert_allclose(density.posterior_mean(x, 0.8, sigma=0.6), tweedie, rtol=1e-10)


# Refusals


def mixture(weights=(0.5, 0.5), means=((0.0, 0.0), (1.0, 1.0)), deviations=1.0):
    return toy.Mixture(np.array(weights), np.array(means), np.array(deviations))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mixture(weights=(0.5, 0.4)), "sum to 1"),
        (lambda: mixture(weights=(1.5, -0.5)), "none negative"),
        (lambda: mixture(weights=(math.nan, 1.0)), "sum to 1"),
        (lambda: mixture(weights=(1.0,)), r"means \[K, D\]"),
        (lambda: mixture(means=(0.0, 1.0)), r"means \[K, D\]"),
        (lambda: mixture(deviations=(1.0, 1.0, 1.0)), "deviations"),
        (lambda: mixture(deviations=0.0), "positive and finite"),
        (lambda: mixture(deviations=(1.0, math.inf)), "positive and finite"),
        (lambda: toy.Ring(0.0, 1.0), "positive and finite"),
        (lambda: toy.Ring(1.0, -0.1), "positive and finite"),
        (lambda: toy.Ring(math.nan, 0.1), "positive and finite"),
        (lambda: toy.TwoMoons(0.0), "positive and finite"),
        (lambda: toy.Boxes(np.zeros((1, 2)), np.array([[1.0, 0.0]])), "lower < upper"),
        (lambda: toy.Boxes(np.zeros((1, 2)), np.full((1, 2), math.inf)), "finite"),
        (lambda: toy.Boxes(np.zeros((1, 2)), np.ones((2, 2))), r"\[K, D\]"),
        (lambda: toy.Boxes(np.zeros(2), np.ones(2)), r"\[K, D\]"),
        (lambda: toy.Boxes(np.zeros((0, 2)), np.zeros((0, 2))), r"\[K, D\]"),
        (lambda: toy.Boxes(np.array([[0.0], [0.9]]), np.array([[1.0], [2.0]])), "overlap"),
        (lambda: toy.Boxes.square(0.0), "lower < upper"),
        (lambda: toy.Boxes.checkerboard(1), "2 or more"),
        (lambda: toy.Boxes.checkerboard(4, -1.0), "lower < upper"),
        (lambda: Empirical(np.zeros((0, 2))), "no dimension 0"),
        (lambda: Empirical(np.zeros(3)), r"\[N, ...\]"),
        (lambda: Empirical(np.zeros((2, 2), np.uint8)), "divide bytes by 255"),
        (lambda: Empirical(np.array([[math.nan]])), "finite"),
    ],
)
def test_impossible_densities_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "Received" in str(error.value)


@each
def test_wrong_shapes_and_coefficients_are_refused(density):
    x = np.zeros((4, 2), np.float32)
    calls = {
        "x of shape": [(np.zeros((4, 3)), 1.0, 1.0), (np.zeros(2), 1.0, 1.0), (np.zeros((4, 2, 1)), 1.0, 1.0)],
        "sigma": [
            (x, 1.0, -0.1),
            (x, 1.0, math.nan),
            (x, 1.0, math.inf),
            (x, 1.0, np.ones(3)),
            (x, 1.0, np.ones((4, 1))),
        ],
        "alpha": [(x, 0.0, 1.0), (x, np.array([1.0, 1.0, 1.0, -1.0]), 1.0), (x, np.ones(5), 1.0)],
    }
    for message, arguments in calls.items():
        for argument in arguments:
            for method in (density.log_prob, density.score):
                with pytest.raises(ValueError, match=message) as error:
                    method(*argument)
                assert "Received" in str(error.value)


def test_integers_are_refused():
    with pytest.raises(ValueError, match="needs x of floats"):
        toy.Ring(3.0, 0.5).score(tf.constant([[1, 2]]))


def test_functions_that_need_noise_refuse_sigma_zero():
    x = np.zeros((4, 2), np.float32)
    square, empirical = DENSITIES["square"], DENSITIES["empirical"]
    with_zero = tf.constant([1.0, 0.0, 1.0, 1.0])
    for method in (square.score, empirical.score, empirical.log_prob):
        for sigma in (0.0, with_zero):
            with pytest.raises(ValueError, match="sigma must be positive"):
                method(x, 1.0, sigma)
            with pytest.raises(ValueError, match="sigma must be positive"):
                tf.function(lambda x: method(x, 1.0, sigma))(x)  # noqa: B023
    with pytest.raises(ValueError, match="sigma must be positive"):
        empirical.posterior_mean(x, sigma=0.0)
    unknown = tf.function(lambda sigma: square.score(x, 1.0, sigma))(with_zero).numpy()
    np.testing.assert_array_equal(np.isnan(unknown).any(1), [False, True, False, False])
