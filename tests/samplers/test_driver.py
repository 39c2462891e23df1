"""The driver: seeds, segments, frames, counting, and independence of batch and compilation."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, score, times
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian

SDE = VE(1.0, 0.01)
DATA = Gaussian(0.4, 0.3)
TIMES = times.uniform(4)
SCHEDULE = driver.dwell(TIMES, 5)
STEP = langevin.Langevin(langevin.annealed(SDE, 4e-5))
SHAPE = (3, 2, 1)


def score_fn(x, t):
    return DATA.score_fn(lambda t: SDE.marginal(t)[1])(x, t)


def draw(sampler, num_samples=6, batch_size=6, run_seed=0, **kwargs):
    made = driver.generate(
        sampler,
        driver.uniform_prior,
        SHAPE,
        run_seed=run_seed,
        num_samples=num_samples,
        batch_size=batch_size,
        **kwargs,
    )
    return np.concatenate([samples.x.numpy() for samples in made])


def test_samples_do_not_depend_on_batch_size_segments_or_xla():
    reference = draw(driver.Sampler(STEP, score_fn, SCHEDULE))
    assert len(np.unique(reference.round(5), axis=0)) == 6, "samples of different numbers must differ"
    # Not to the bit: log and cos differ in the last place between a vector's body and its tail.
    for others in (
        draw(driver.Sampler(STEP, score_fn, SCHEDULE), batch_size=4),
        draw(driver.Sampler(STEP, score_fn, SCHEDULE), batch_size=1),
        draw(driver.Sampler(STEP, score_fn, SCHEDULE, segments=4)),
        draw(driver.Sampler(STEP, score_fn, SCHEDULE, jit_compile=True)),
    ):
        np.testing.assert_allclose(others, reference, atol=5e-6)
    assert not np.allclose(draw(driver.Sampler(STEP, score_fn, SCHEDULE), run_seed=1), reference)


def test_the_loop_is_the_steps_one_after_another():
    rows = random.per_example(random.seed(3), tf.range(2))
    x = tf.ones([2, *SHAPE])
    by_loop = driver.Sampler(STEP, score_fn, SCHEDULE, segments=2)(x, rows).x
    for k, (t, t_next) in enumerate(SCHEDULE):
        step_seeds = random.fold_each(rows, random.Stream.SAMPLER_STEP, k)
        x, _ = STEP(score_fn, x, tf.fill([2], t), tf.fill([2], t_next), step_seeds)
    np.testing.assert_allclose(by_loop, x, atol=1e-6)


def test_evaluations_are_counted():
    """By a score function that counts its own executions on the host."""
    executed = []

    def counting(x, t):
        tf.py_function(lambda: executed.append(1), [], [])
        return score_fn(x, t)

    def twice(score_fn, x, t, t_next, step_seeds):
        x, _ = STEP(score_fn, x, t, t_next, step_seeds)
        return STEP(score_fn, x, t, t_next, step_seeds)

    finish = lambda score_fn, x, t: score.denoise(score_fn, SDE, x, t)  # noqa: E731
    rows = random.per_example(random.seed(3), tf.range(2))
    for step, end in ((STEP, None), (twice, finish)):
        executed.clear()
        samples = driver.Sampler(step, counting, SCHEDULE, segments=4, finish=end)(tf.ones([2, *SHAPE]), rows)
        assert samples.evaluations == len(executed) > 0


def test_finish_denoises_at_the_last_time():
    rows = random.per_example(random.seed(3), tf.range(2))
    x = driver.Sampler(STEP, score_fn, SCHEDULE)(tf.ones([2, *SHAPE]), rows).x
    finish = lambda score_fn, x, t: score.denoise(score_fn, SDE, x, t)  # noqa: E731
    finished = driver.Sampler(STEP, score_fn, SCHEDULE, finish=finish)(tf.ones([2, *SHAPE]), rows).x
    np.testing.assert_allclose(finished, DATA.denoised(x.numpy(), 0.01), atol=1e-6)


def test_frames_come_after_each_segment_and_the_last_is_the_result():
    frames = []
    sampler = driver.Sampler(STEP, score_fn, SCHEDULE, segments=4)
    result = draw(sampler, 5, 2, on_frame=lambda start, number, x: frames.append((start, number, x.numpy())))
    assert [(start, number) for start, number, _ in frames] == [(s, n) for s in (0, 2, 4) for n in (1, 2, 3, 4)]
    np.testing.assert_array_equal(np.concatenate([x for _, number, x in frames if number == 4]), result)


def test_one_trace_serves_every_batch():
    traces = []

    def counting(x, t):
        traces.append(1)
        return score_fn(x, t)

    draw(driver.Sampler(STEP, counting, SCHEDULE, segments=4), num_samples=7, batch_size=3)
    assert len(traces) == 1


@pytest.mark.parametrize(("steps", "match"), [(0, "steps_per_level=0"), (-1, "steps_per_level=-1")])
def test_empty_schedules_are_refused(steps, match):
    with pytest.raises(ValueError, match=match):
        driver.dwell(TIMES, steps)


@pytest.mark.parametrize(("schedule", "segments"), [(SCHEDULE, 3), (SCHEDULE, 0), (SCHEDULE[:, 0], 1)])
def test_schedules_that_do_not_divide_are_refused(schedule, segments):
    with pytest.raises(ValueError, match=f"segments={segments}"):
        driver.Sampler(STEP, score_fn, schedule, segments=segments)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(0, 4), (4, 0)])
def test_no_samples_are_refused(num_samples, batch_size):
    with pytest.raises(ValueError, match="positive"):
        draw(driver.Sampler(STEP, score_fn, SCHEDULE), num_samples, batch_size)
