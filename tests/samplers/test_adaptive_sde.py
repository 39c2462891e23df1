"""The reverse SDE with error control: its law, its path, the noise of rejected steps, and refusals."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, samplers
from ncsn_tf.samplers import adaptive_sde, brownian
from ncsn_tf.sde import VE, VP, SubVP
from tests.support import laws
from tests.support.oracles import Cosine

SDES = {"ve": VE(sigma_max=50.0, sigma_min=0.01), "vp": VP(), "subvp": SubVP()}


def start(sde, count, shape):
    seeds = random.per_example(random.seed(0), tf.range(count))
    return sde.prior_sample(random.fold_each(seeds, random.Stream.PRIOR), shape), seeds


@pytest.mark.parametrize("name", SDES)
def test_it_draws_gaussian_data_from_every_sde(name):
    """In one dimension per sample, where steps depend on the noise most: the variance within four errors and 2 %."""
    sde, count = SDES[name], 4_000
    x, seeds = start(sde, count, (1,))
    sampler = samplers.make("adaptive_sde", sde, rtol=5e-3, atol=5e-3, denoise=False, jit_compile=True)
    drawn = sampler(laws.exact_score(sde, 0.5), x, seeds)
    wanted = laws.variance(sde, 0.5, 1e-3)[0]
    assert np.var(drawn.x) / wanted == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / count) + 0.02)
    assert abs(np.mean(drawn.x)) < 4.0 * np.sqrt(wanted / count)
    assert len(set(drawn.evaluations.numpy())) > 10 and not (drawn.evaluations.numpy() % 2).any()


def test_it_draws_from_a_users_sde():
    """A cosine schedule that ends before its rate becomes infinite."""
    sde = Cosine(angle=0.49 * np.pi)
    x, seeds = start(sde, 8, (64,))
    drawn = samplers.make("adaptive_sde", sde, denoise=False)(laws.exact_score(sde, 0.5), x, seeds)
    assert np.std(drawn.x) == pytest.approx(0.5, abs=0.1)


def test_it_converges_to_the_solution_along_its_path():
    """Against Euler-Maruyama with 4,000 steps along the same Brownian path."""
    sde, rows = VP(), 6
    x, seeds = start(sde, rows, (3,))
    x, score_fn = tf.cast(x, tf.float64), laws.exact_score(sde, 0.5)
    grid = np.linspace(1.0, 1e-3, 4_001)
    numbers = random.fold_each(seeds, random.Stream.BROWNIAN)
    flat = brownian.BrownianPath(tf.repeat(numbers, len(grid), axis=0), (3,), tf.float64)
    w = tf.reshape(flat(tf.tile(tf.constant(grid), [rows])), [rows, len(grid), 3]).numpy()
    fine = x.numpy()
    alpha, sigma = (part.numpy() for part in sde.marginal(tf.constant(grid)))
    drift = sde.drift(tf.constant(grid)).numpy() + sde.diffusion(tf.constant(grid)).numpy() ** 2 / (
        (alpha * 0.5) ** 2 + sigma**2
    )
    g = sde.diffusion(tf.constant(grid)).numpy()
    for k in range(len(grid) - 1):
        fine = fine - (grid[k] - grid[k + 1]) * drift[k] * fine + g[k] * (w[:, k + 1] - w[:, k])
    errors = []
    for tolerance in (0.1, 0.005):
        sampler = samplers.make("adaptive_sde", sde, rtol=tolerance, atol=tolerance, denoise=False)
        drawn = sampler(score_fn, x, seeds)
        errors.append(np.sqrt(np.mean((drawn.x.numpy() - fine) ** 2)))
    assert errors[0] > 4.0 * errors[1] and errors[1] < 0.01


def test_rejected_steps_do_not_bias_the_noise(monkeypatch):
    """With first steps far too long and fresh noise after rejections, the variance would be several times too large."""
    monkeypatch.setattr(adaptive_sde, "_FIRST_SIZE", 0.5)
    sde, count = VE(sigma_max=5.0, sigma_min=0.01), 20_000
    x, seeds = start(sde, count, (1,))
    sampler = samplers.make("adaptive_sde", sde, rtol=1e-2, atol=1e-2, denoise=False, jit_compile=True)
    drawn = sampler(laws.exact_score(sde, 0.5), x, seeds)
    wanted = laws.variance(sde, 0.5, 1e-3)[0]
    assert np.var(drawn.x) / wanted == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / count))


def test_a_sample_depends_on_its_seed_alone():
    sde = SDES["ve"]
    x, seeds = start(sde, 32, (4,))
    sampler = samplers.make("adaptive_sde", sde)
    many, one = (sampler(laws.exact_score(sde, 0.5), *part) for part in ((x, seeds), (x[17:18], seeds[17:18])))
    np.testing.assert_allclose(one.x[0], many.x[17], rtol=1e-4, atol=1e-4)
    assert int(one.evaluations[0]) == int(many.evaluations[17])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def halves(whole):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.split(whole, 2)[context.replica_id_in_sync_group]
        )

    two = samplers.make("adaptive_sde", sde, strategy=strategy)(laws.exact_score(sde, 0.5), halves(x), halves(seeds)).x
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in two.values]), many.x, rtol=1e-4, atol=1e-4)


def test_a_sample_that_does_not_converge_is_nan_and_others_are_not():
    def score_fn(x, t):
        return tf.where(x > 50.0, np.nan, -x)

    seeds = random.per_example(random.seed(0), tf.range(2))
    drawn = samplers.make("adaptive_sde", VP())(score_fn, tf.constant([[0.5], [99.0]]), seeds)
    np.testing.assert_array_equal(np.isnan(drawn.x[:, 0]), [False, True])
    few = samplers.make("adaptive_sde", VP(), max_steps=3)(lambda x, t: -x, tf.constant([[0.5], [1.0]]), seeds)
    assert np.isnan(few.x).all() and list(few.evaluations) == [7, 7]  # with the final denoising


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": 0.0}, "rtol must be at least .*Received: 0.0"),
        ({"atol": -1.0}, "atol must be positive and finite. Received: -1.0"),
        ({"max_steps": 0}, "max_steps must be at least 1. Received: 0"),
        ({"method": "heun"}, "options of the sampler adaptive_sde are: rtol, atol, max_steps. Received: method"),
        ({"num_steps": 10}, "adaptive_sde chooses its own steps"),
        ({"last_time": 0.0}, "there must be noise"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        samplers.make("adaptive_sde", VP(), **options)
