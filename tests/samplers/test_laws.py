"""The law of every sampler on Gaussian data with the exact score, without Monte Carlo, for four SDEs."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import score
from ncsn_tf.samplers import ancestral, correctors, driver, methods, reverse_diffusion
from ncsn_tf.samplers.predictor_corrector import PredictorCorrector
from ncsn_tf.sde import VE, VP, SubVP, noise_ratio
from tests.support import laws
from tests.support.oracles import Cosine

VARIANCE_EXPLODING = VE(sigma_max=50.0, sigma_min=0.01)
SDES = {"ve": VARIANCE_EXPLODING, "vp": VP(), "subvp": SubVP(), "a user's": Cosine()}
NOISY = ("euler_maruyama", "reverse_diffusion", "ancestral", "dpm_solver_sde")


def rows_of(sde, num_steps):
    """Rows that are uniform in log-SNR from a time near 1, where the user's SDE has a signal left, to 0.01, float64."""
    first, last = noise_ratio(sde, tf.constant([0.99, 0.01], tf.float64)).numpy()
    grid = sde.time(tf.constant(np.geomspace(first, last, num_steps + 1))).numpy()
    return np.stack([grid[:-1], grid[1:]], axis=1)


def errors(name, sde, counts, **options):
    """The relative errors of the variance at the end of walks of some numbers of steps."""
    noisy = name in NOISY and not options.get("flow")
    step = methods.step(name, sde, 1, laws.impulse, **options)
    made = [(laws.variance_made(step, sde, 0.5, rows_of(sde, count), noisy), count) for count in counts]
    return np.array([abs(v / laws.variance(sde, 0.5, rows_of(sde, n)[-1, 1])[0] - 1.0) for v, n in made])


ORDERS = {  # of convergence, of the defaults
    "ddim": 1,
    "heun": 2,
    "dpm_solver": 2,
    "unipc": 4,
    "adams_bashforth": 3,
    "euler_maruyama": 1,
    "reverse_diffusion": 1,
    "ancestral": 1,
    "dpm_solver_sde": 2,
}


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("name", ORDERS)
def test_every_method_has_its_order_on_every_sde(name, sde):
    coarse, fine = errors(name, SDES[sde], (60, 120))
    slope, order = np.log2(coarse / fine), ORDERS[name]
    # Euler-Maruyama happens to be of second order on VE in these times: its errors of drift and of noise cancel.
    assert order - 0.6 < slope < order + (1.1 if (name, sde) == ("euler_maruyama", "ve") else 0.6)
    assert fine < {1: 0.25, 2: 0.01, 3: 2e-3, 4: 2e-5}[order]


OPTIONS = [
    ("unipc", {"order": 1}, 2),
    ("unipc", {"order": 2}, 3),
    ("unipc", {"order": 2, "correct": False}, 2),
    ("adams_bashforth", {"order": 1}, 1),
    ("adams_bashforth", {"order": 2}, 2),
    ("adams_bashforth", {"order": 4}, 4),
    ("adams_bashforth", {"order": 2, "clock": "log_noise_ratio"}, 2),
    ("adams_bashforth", {"order": 3, "clock": "time"}, 3),
    ("adams_bashforth", {"order": 4, "clock": "time"}, 4),
    ("adams_bashforth", {"order": 4, "weights": "fixed"}, 2),
    ("reverse_diffusion", {"flow": True}, 1),
    ("ancestral", {"variance": "transition"}, 1),
    ("dpm_solver_sde", {"eta": 0.5}, 2),
]


@pytest.mark.parametrize(("name", "options", "order"), OPTIONS)
def test_every_option_has_its_order(name, options, order):
    coarse, fine = errors(name, VP(), (80, 160), **options)
    assert order - 0.4 < np.log2(coarse / fine) < order + 0.4


def test_some_methods_are_others_with_other_names():
    rows = rows_of(VP(), 20)
    found = functools.partial(laws.responses, sde=VP(), deviation=0.5, rows=rows, noisy=False)
    ddim = found(methods.step("ddim", VP(), 20))
    for name, options in (("adams_bashforth", {"order": 1}), ("unipc", {"order": 1, "correct": False})):
        np.testing.assert_allclose(found(methods.step(name, VP(), 20, **options)), ddim, rtol=1e-9)
    dpm_solver = found(methods.step("dpm_solver", VP(), 20))
    np.testing.assert_allclose(found(methods.step("dpm_solver_sde", VP(), 20, eta=0.0)), dpm_solver, rtol=1e-12)


# The table of known variances


def ones(seeds, shape):
    return tf.ones([len(seeds), *shape], tf.float64)


def zeros(seeds, shape):
    return tf.zeros([len(seeds), *shape], tf.float64)


def table_entry(make_step, sde, deviation, rows, end):
    """The variance made over the data's, by steps that keep no state: x' = A x + G z + C z', z' the corrector's.

    `end`: "mean" omits the noise of the last step; "denoise" ends with Tweedie's formula, "half" with half its term.
    """
    t, t_next = (tf.constant(rows[:, column], tf.float64) for column in (0, 1))
    score_fn, seeds = laws.exact_score(sde, deviation), tf.zeros([len(rows), 2], tf.int32)

    def result(start, noise, correction):
        x = tf.fill([len(rows), 1], tf.constant(start, tf.float64))
        return make_step(noise, correction)(score_fn, x, t, t_next, seeds, ())[0].numpy()[:, 0]

    factors, gains, corrections = result(1.0, zeros, zeros), result(0.0, ones, zeros), result(0.0, zeros, ones)
    if end == "mean":
        gains[-1] = 0.0
    v = sde.sigma_max**2 if isinstance(sde, VE) else 1.0
    for factor, gain, correction in zip(factors, gains, corrections, strict=True):
        v = factor**2 * v + gain**2 + correction**2
    if end != "mean":
        denoised = score.denoise(score_fn, sde, tf.ones([1, 1], tf.float64), t_next[-1:]).numpy()[0, 0]
        v *= (denoised if end == "denoise" else 0.5 * (1.0 + denoised)) ** 2
    return v / deviation**2


class ExpectedNorm:
    """E ||score|| for one dimension, up to the factor that cancels against E ||z||."""

    def __init__(self, sde, deviation):
        self.score_fn = laws.exact_score(sde, deviation)

    def __call__(self, t):
        return tf.sqrt(-self.score_fn(tf.ones([len(t), 1], tf.float64), t)[:, 0])


def entry_on_ve(name, count, end, corrected=False, **options):
    """VE with data of deviation 0.25; Euler's steps are 1/N on a grid to 1e-5, the others go along N levels."""
    sde, deviation = VARIANCE_EXPLODING, 0.25
    grid = np.linspace(1.0, 1e-5 if end == "mean" else 0.0, count)
    rows = np.stack([grid, grid - 1.0 / count] if end == "mean" else [grid[:-1], grid[1:]], axis=1)

    def make_step(noise, correction):
        step = methods.step(name, sde, count, noise, **options)
        size = correctors.LangevinSize(0.16, ExpectedNorm(sde, deviation))
        return PredictorCorrector(sde, step, size, noise=correction) if corrected else step

    return table_entry(make_step, sde, deviation, rows, end)


@pytest.mark.parametrize(
    ("name", "options", "end", "expected", "corrected"),
    [
        ("euler_maruyama", {}, "mean", (1.028, 1.013, 1.003), 1.027),
        ("reverse_diffusion", {}, "denoise", (1.194, 1.090, 1.007), 1.024),
        ("ancestral", {}, "denoise", (0.844, 0.917, 0.990), 1.024),
        ("reverse_diffusion", {"flow": True}, "half", (2.29, 1.51, 1.042), 1.026),
    ],
)
def test_variances_on_ve_are_the_known_ones(name, options, end, expected, corrected):
    digits = 5.1e-3 if end == "half" else 5.1e-4
    for count, value in zip((50, 100, 1000), expected, strict=True):
        assert entry_on_ve(name, count, end, **options) == pytest.approx(value, abs=digits)
    # The known values with a corrector are cut, not rounded, to three digits.
    assert 0.0 <= entry_on_ve(name, 1000, end, corrected=True, **options) - corrected < 1e-3


@pytest.mark.parametrize("count", [50, 100, 1000])
def test_variances_on_vp_are_the_known_ones(monkeypatch, count):
    """The authors' program pairs beta_i of the discrete chain with the score at a slightly different time of its grid.

    Such steps have no marginals, so the steps are given the transitions alone.
    """
    sde, grid = VP(), np.linspace(1.0, 1e-3, count)
    betas = np.linspace(0.1, 20.0, count)[(grid * (count - 1)).astype(int)] / count

    def transitions(sde, t_next, t):
        return tf.constant(np.sqrt(1.0 - betas)), tf.constant(np.sqrt(betas))

    for module in (ancestral, reverse_diffusion):
        monkeypatch.setattr(module, "transition", transitions)
    rows = np.stack([grid, grid - 1.0 / count], axis=1)
    expected = {50: (1.026, 1.046, 0.995), 100: (1.012, 1.025, 0.999), 1000: (1.001, 1.008, 1.005)}[count]
    options = ({}, {}, {"variance": "transition"})
    for name, given, value in zip(("euler_maruyama", "reverse_diffusion", "ancestral"), options, expected, strict=True):
        make_step = lambda noise, correction, name=name, given=given: methods.step(name, sde, count, noise, **given)  # noqa: E731
        assert table_entry(make_step, sde, 0.5, rows, "mean") == pytest.approx(value, abs=5.1e-4), name


# Correctors


@pytest.mark.parametrize("sde", SDES)
def test_a_langevin_corrector_inflates_the_variance_by_its_ratio(sde):
    """The stationary variance is v / (1 - a^2 r^2), a^2 the transition's alpha^2, on sub-VP as on the others."""
    sde, r, t, t_next = SDES[sde], 0.16, tf.constant([0.6], tf.float64), tf.constant([0.55], tf.float64)
    size, score_fn = correctors.LangevinSize(r, ExpectedNorm(sde, 0.5)), laws.exact_score(sde, 0.5)
    pair = [
        correctors.correct(size, sde, score_fn, tf.constant([[x]], tf.float64), t, (t_next, t), [0], noise)[0]
        for x, noise in ((1.0, zeros), (0.0, ones))
    ]
    factor, gain = (float(value[0, 0]) for value in pair)
    a = float(sde.marginal(t)[0][0] / sde.marginal(t_next)[0][0])
    v = laws.variance(sde, 0.5, 0.6)[0]
    assert gain**2 / (1.0 - factor**2) == pytest.approx(v / (1.0 - (a * r) ** 2), rel=1e-9)


@pytest.mark.parametrize("sde", SDES)
def test_a_corrector_alone_takes_its_steps_at_the_next_time(sde):
    """Two corrections with z = 1 make of x = 1 at t_next: c^2 + (c + 1) g, c = 1 - 2 a^2 r^2, g = 2 a r sqrt(v)."""
    sde, r, t, t_next = SDES[sde], 0.16, tf.constant([0.6], tf.float64), tf.constant([0.55], tf.float64)
    norms, score_fn = ExpectedNorm(sde, 0.5), driver.Counted(laws.exact_score(sde, 0.5))
    options = {"predictor": "none", "order": "predictor_first", "corrections": 2, "ratio": r, "norms": norms}
    step = methods.step("predictor_corrector", sde, 1, ones, **options)
    x, _, _ = step(score_fn, tf.ones([1, 1], tf.float64), t, t_next, tf.zeros([1, 2], tf.int32), ())
    a = float(sde.marginal(t)[0][0] / sde.marginal(t_next)[0][0])
    c, g = 1.0 - 2.0 * (a * r) ** 2, 2.0 * a * r * np.sqrt(laws.variance(sde, 0.5, 0.55)[0])
    assert float(x[0, 0]) == pytest.approx(c**2 + (c + 1.0) * g, rel=1e-9) and score_fn.calls == 2


def test_a_predictor_with_an_option_is_the_method_with_that_option():
    """And it takes that option's place: the others are still the predictor's."""
    for name, method, option in (
        ("reverse_diffusion_flow", "reverse_diffusion", {"flow": True}),
        ("ancestral_transition", "ancestral", {"variance": "transition"}),
    ):
        corrected = methods.step("predictor_corrector", VP(), 1, zeros, predictor=name)
        assert corrected.predictor == methods.step(method, VP(), 1, zeros, **option)
        with pytest.raises(ValueError, match="to be one of euler_maruyama"):
            methods.step(name, VP(), 1)


def test_an_annealed_corrector_has_the_size_of_ncsnv2s_steps():
    """On VE e = 2 (r sigma)^2, which is epsilon sigma^2 / sigma_L^2 of their program with epsilon = 2 (r sigma_L)^2."""
    t = tf.constant([0.3], tf.float64)
    sigma = 0.01 * 5000.0**0.3
    size = correctors.AnnealedSize(0.176)(VARIANCE_EXPLODING, t, tf.zeros([1, 3], tf.float64))
    assert float(size[0]) == pytest.approx(6.2e-6 * sigma**2 / 0.01**2, rel=2e-3)


def test_own_norms_and_measured_norms_give_the_expected_step():
    """In many dimensions ||score|| is near sqrt(D / v): both steps are then near 2 r^2 v."""
    sde, score_fn, dimensions = VP(), laws.exact_score(VP(), 0.5), 4_000
    grid = np.linspace(1.0, 0.01, 12)
    data = tf.constant(np.random.default_rng(0).normal(0.0, 0.5, (4, dimensions)), tf.float32)
    seeds = tf.constant([[1, 2], [3, 4], [5, 6], [7, 8]])
    norms = correctors.measure_norms(score_fn, sde, grid, data, seeds)
    for t in (1.0, 0.52, 0.01, 0.001):
        v = laws.variance(sde, 0.5, max(t, 0.01))[0]
        x = tf.constant(np.random.default_rng(1).normal(0.0, np.sqrt(v), (3, dimensions)))
        times = tf.fill([3], tf.constant(t, tf.float64))
        scores = score_fn(x, tf.maximum(times, 0.01))
        for size in (correctors.LangevinSize(0.1), correctors.LangevinSize(0.1, norms)):
            np.testing.assert_allclose(size(sde, times, scores), 2.0 * 0.1**2 * v, rtol=0.06)
    zero = correctors.LangevinSize(0.1)(sde, tf.constant([0.5]), tf.zeros([1, 3]))
    np.testing.assert_array_equal(zero, [0.0])


def test_norms_must_be_positive_and_one_per_time():
    for norms in ([1.0], [1.0, 0.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="one positive norm per time"):
            correctors.ScoreNorms(np.array([1.0, 0.5]), np.array(norms))
