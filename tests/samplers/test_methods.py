"""Samplers by name: what they draw, and that a sample belongs to its seed alone; wrong names, options and times."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, samplers, times
from ncsn_tf.samplers import methods
from ncsn_tf.sde import VE, VP, SubVP
from tests.support import laws
from tests.support.oracles import Cosine, Mixture

VARIANCE_EXPLODING = VE(sigma_max=50.0, sigma_min=0.01)
MIXTURE = Mixture()


def mixture_score(x, t):
    return MIXTURE.score_fn(lambda t: VARIANCE_EXPLODING.marginal(t)[1])(x, t)


def start(sde, count, shape=(2,), seed=0):
    seeds = random.per_example(random.seed(seed), tf.range(count))
    return sde.prior_sample(random.fold_each(seeds, random.Stream.PRIOR), shape), seeds


@pytest.mark.parametrize("name", methods.STEPS)
def test_every_sampler_recovers_the_weights_of_the_mixture(name):
    """Modes 1/5 and 4/5 of unit deviation, by XLA, within four standard errors, and 0.05 for the bias of steps."""
    x, seeds = start(VARIANCE_EXPLODING, 2_000)
    # The norm of a score of two dimensions is often far from its mean.
    options = {"corrector": "annealed"} if name == "predictor_corrector" else {}
    drawn = samplers.make(name, VARIANCE_EXPLODING, 100, jit_compile=True, **options)(mixture_score, x, seeds)
    x = drawn.x.numpy()
    right = x.sum(axis=1) > 0.0
    assert abs(right.mean() - 0.8) < 4.0 * np.sqrt(0.16 / 2_000)
    np.testing.assert_allclose(x[right].mean(axis=0), 5.0, atol=4.0 / np.sqrt(1_600) + 0.05)
    assert set(drawn.evaluations.numpy()) == {201 if name in ("heun", "predictor_corrector") else 101}


@pytest.fixture(scope="module")
def two_replicas():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.mark.parametrize("name", methods.STEPS)
def test_a_sample_depends_on_its_seed_alone(name, two_replicas):
    """Neither on its batch, nor on the number of replicas, nor on segments, between which a state must pass."""
    options = {"churn": 1.0} if name == "heun" else {}
    sampler, frames = samplers.make(name, VARIANCE_EXPLODING, 6, **options), []
    x, seeds = start(VARIANCE_EXPLODING, 64)
    many = sampler(mixture_score, x, seeds).x.numpy()
    one = sampler(mixture_score, x[17:18], seeds[17:18], on_frame=lambda *frame: frames.append(frame)).x.numpy()
    assert [number for number, _ in frames] == [1, 2, 3, 4, 5, 6]
    # A vector of one is computed by other instructions than one of many, which differ in the last bits.
    np.testing.assert_allclose(one[0], many[17], rtol=2e-5, atol=2e-4)

    def halves(whole):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(whole, 2)[context.replica_id_in_sync_group]
        )

    sampler = samplers.make(name, VARIANCE_EXPLODING, 6, strategy=two_replicas, **options)
    two = sampler(mixture_score, halves(x), halves(seeds)).x
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in two.values]), many, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("sde", [VARIANCE_EXPLODING, VP(), SubVP(), Cosine()])
@pytest.mark.parametrize("name", methods.STEPS)
def test_every_sampler_draws_gaussian_data_from_every_sde(name, sde):
    """From the prior itself, in float32; the user's cosine SDE has no signal at t=1, so its walk starts just below."""
    grid = np.linspace(0.98, 1e-3, 41) if isinstance(sde, Cosine) else times.karras(sde, 41, 1e-3)
    x, seeds = start(sde, 64, (64,))
    drawn = samplers.make(name, sde, 40, grid=grid)(laws.exact_score(sde, 0.5), x, seeds).x
    assert np.std(drawn) == pytest.approx(0.5, abs=0.12)


def test_churn_adds_noise_and_keeps_the_law():
    sde = VE(sigma_max=20.0, sigma_min=0.002)
    options = {"churn": 10.0, "churn_from": 0.05, "churn_to": 5.0, "grid": "karras", "last_time": 0.0}
    x, seeds = start(sde, 256, (64,))
    quiet = samplers.make("heun", sde, 30, grid="karras", last_time=0.0)(laws.exact_score(sde, 0.5), x, seeds).x
    noisy = samplers.make("heun", sde, 30, **options)(laws.exact_score(sde, 0.5), x, seeds).x
    assert np.std(noisy) == pytest.approx(0.5, rel=4.0 / np.sqrt(2 * 256 * 64) + 0.01)
    assert np.corrcoef(np.ravel(quiet), np.ravel(noisy))[0, 1] < 0.9


# Grids


@pytest.mark.parametrize("sde", [VARIANCE_EXPLODING, VP(), SubVP(), Cosine()])
def test_grids_are_equally_spaced_in_what_they_are_named_for(sde):
    last = 0.01
    for name, transform in (("karras", lambda rho: rho ** (1 / 7)), ("log_snr", np.log)):
        if isinstance(sde, Cosine):
            continue  # at t=1 it has no signal, and its noise ratio is not finite
        grid = times.GRIDS[name](sde, 9, last)
        assert grid[0] == 1.0 and grid[-1] == np.float32(last) and grid.shape == (9,) and grid.dtype == np.float32
        alpha, sigma = (part.numpy() for part in sde.marginal(tf.constant(grid, tf.float64)))
        np.testing.assert_allclose(np.diff(transform(sigma / alpha), 2), 0.0, atol=2e-5)


def test_impossible_grids_are_refused():
    with pytest.raises(ValueError, match="positive at the last time .* last_time=0"):
        times.karras(VP(), 5, 0.0)
    with pytest.raises(ValueError, match="not distinct.*from 1.6.*e.16 to"):
        times.log_snr(Cosine(), 5, 0.1)
    with pytest.raises(ValueError, match="rho=0"):
        times.karras(VP(), 5, 0.1, rho=0)
    with pytest.raises(ValueError, match="2 or more levels"):
        times.karras(VP(), 1, 0.1)


@pytest.mark.parametrize(
    ("name", "num_steps", "options", "message"),
    [
        ("eular", 10, {}, "`sampler` to be one of euler_maruyama, .*Received: 'eular'"),
        ("eular", None, {}, "one of euler_maruyama, .*, probability_flow, adaptive_sde. Received: 'eular'"),
        ("ddim", None, {}, "1 or more steps. Received: num_steps=None"),
        ("probability_flow", 10, {}, "chooses its own steps: leave num_steps and grid out"),
        ("probability_flow", None, {"grid": "karras"}, "chooses its own steps"),
        ("probability_flow", None, {"rtol": 0.0}, "rtol must be at least .*Received: 0.0"),
        ("probability_flow", None, {"tolerance": 0.1}, "are: rtol, atol, method. Received: tolerance"),
        ("probability_flow", None, {"method": "euler"}, "one of dormand_prince, bogacki_shampine. Received: 'euler'"),
        ("probability_flow", None, {"last_time": 0.0}, "there must be noise"),
        ("ddim", 0, {}, "1 or more steps. Received: num_steps=0"),
        ("ddim", 2.5, {}, "1 or more steps. Received: num_steps=2.5"),
        ("ddim", 10, {"eta": 1.0}, "options of the sampler ddim are: none. Received: eta"),
        ("unipc", 10, {"ordre": 2}, "options of the sampler unipc are: order, correct. Received: ordre"),
        ("unipc", 10, {"order": 5}, "orders 1, 2 and 3 here. Received: 5"),
        ("adams_bashforth", 10, {"order": 5}, "orders 1, 2, 3 and 4. Received: 5"),
        ("adams_bashforth", 10, {"clock": "rho"}, "clock must be one of .*Received: 'rho'"),
        ("adams_bashforth", 10, {"weights": "equal"}, "weights must be exact or fixed. Received: 'equal'"),
        ("heun", 10, {"churn": -1.0}, "churn must be at least 0"),
        ("dpm_solver_sde", 10, {"eta": -1.0}, "eta must be at least 0"),
        ("predictor_corrector", 10, {"order": "both"}, "order must be corrector_first or predictor_first"),
        ("predictor_corrector", 10, {"corrections": 0}, "1 or more steps. Received: corrections=0"),
        ("predictor_corrector", 10, {"corrector": "metropolis"}, "`corrector` to be one of langevin, annealed"),
        ("predictor_corrector", 10, {"predictor": "predictor_corrector"}, "must be another sampler"),
        ("predictor_corrector", 10, {"predictor": "ddim", "eta": 1.0}, "options of the sampler ddim are: none"),
        ("ddim", 10, {"grid": "cosine"}, "`grid` to be one of uniform, karras, log_snr. Received: 'cosine'"),
        ("ddim", 3, {"grid": [1.0, 0.5, 0.1]}, "3 steps need a grid of 4 times. Received: 3"),
        ("ddim", 2, {"grid": [0.1, 0.5, 1.0]}, "decrease strictly"),
        ("ddim", 2, {"grid": [1.0, 0.5, 0.0]}, "there must be noise.*Received: last_time=0"),
        ("ddim", 2, {"last_time": 0.0}, "there must be noise.*such as 1e-05.*last_time=0"),
        ("ddim", 2, {"last_time": 1.0}, r"\[0, 1\). Received: last_time=1"),
    ],
)
def test_impossible_samplers_are_refused(name, num_steps, options, message):
    with pytest.raises(ValueError, match=message):
        samplers.make(name, VP(), num_steps, **options)


def test_other_types_than_float32_are_refused():
    with pytest.raises(ValueError, match="take float32; cast x. Received: float64"):
        samplers.make("ddim", VP(), 3)(lambda x, t: -x, tf.ones([2, 3], tf.float64), tf.zeros([2, 2], tf.int32))
