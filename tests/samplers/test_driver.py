"""The driver: seeds, state, segments, frames, guidance, counting, and independence of batch and compilation."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random, score, times
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import Cosine, Gaussian

SDE = VE(sigma_max=1.0, sigma_min=0.01)
DATA = Gaussian(0.4, 0.3)
TIMES = times.uniform(4)
ROWS = times.repeat_times(TIMES, 5)
STEP = langevin.Langevin(langevin.annealed(SDE, 4e-5))
SHAPE = (3, 2, 1)


def score_fn(x, t):
    return DATA.score_fn(lambda t: SDE.marginal(t)[1])(x, t)


def seeds_of(count):
    return random.per_example(random.seed(3), tf.range(count))


def draw(sampler, count=6, **options):
    seeds = seeds_of(count)
    return sampler(score_fn, random.uniform(seeds, SHAPE), seeds, **options).x.numpy()


def test_samples_do_not_depend_on_batch_size_segments_or_xla():
    sampler = driver.FixedSteps(SDE, STEP, ROWS)
    reference = draw(sampler)
    assert len(np.unique(reference.round(5), axis=0)) == 6, "samples of different seeds must differ"
    # Not to the bit: log and cos differ in the last place between a vector's body and its tail.
    np.testing.assert_allclose(draw(sampler, 1), reference[:1], atol=5e-6)
    in_segments = driver.FixedSteps(SDE, STEP, ROWS, segments=4)
    for others in (
        draw(in_segments),
        draw(in_segments, on_frame=lambda *_: None),
        draw(driver.FixedSteps(SDE, STEP, ROWS, jit_compile=True)),
        draw(driver.FixedSteps(SDE, STEP, ROWS, strategy=tf.distribute.get_strategy())),
        draw(driver.FixedSteps(SDE, STEP, tf.constant(ROWS), segments=4)),
    ):
        np.testing.assert_allclose(others, reference, atol=5e-6)


def test_the_loop_equals_its_steps_in_sequence():
    x, seeds = tf.ones([2, *SHAPE]), seeds_of(2)
    by_loop = driver.FixedSteps(SDE, STEP, ROWS, segments=2)(score_fn, x, seeds).x
    for k, (t, t_next) in enumerate(ROWS):
        step_seeds = random.fold_each(seeds, random.Stream.SAMPLER_STEP, k)
        x, _, _ = STEP(score_fn, x, tf.fill([2], t), tf.fill([2], t_next), step_seeds, ())
    np.testing.assert_allclose(by_loop, x, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class AdamsBashforth:
    """The probability flow of VE in sigma, dx/dsigma = -sigma score, by the two-step method; the first step is Euler's.

    Its state is the slope and the width of the step before, so it fails where the state is lost or starts anew.
    """

    def start(self, x):
        return {"slope": tf.zeros_like(x), "width": tf.zeros(tf.shape(x)[:1])}

    def __call__(self, score_fn, x, t, t_next, seeds, state):
        sigma, sigma_next = SDE.marginal(t)[1], SDE.marginal(t_next)[1]
        slope, width = -score.expand(sigma, x) * score_fn(x, t), sigma_next - sigma
        ratio = score.expand(tf.math.divide_no_nan(width, state["width"]), x)
        x = x + score.expand(width, x) * (slope + 0.5 * ratio * (slope - state["slope"]))
        return x, x, {"slope": slope, "width": width}


def test_a_multistep_method_keeps_its_state_over_segments_and_has_its_order():
    """The flow of Gaussian data is m + (x - m) sqrt((s^2 + b^2) / (s^2 + a^2)); half the step, a quarter the error."""
    x = tf.constant([[-1.0], [0.9], [2.0]])
    exact = DATA.mean + (x - DATA.mean) * np.sqrt(DATA.variance(0.01) / DATA.variance(1.0))
    errors = []
    for steps in (16, 32, 64):
        sampler = driver.FixedSteps(SDE, AdamsBashforth(), times.pairs(times.uniform(steps + 1)), segments=4)
        whole = sampler(score_fn, x, seeds_of(3))
        in_pieces = sampler(score_fn, x, seeds_of(3), on_frame=lambda *_: None)
        np.testing.assert_allclose(in_pieces.x, whole.x, atol=1e-6)
        np.testing.assert_array_equal(whole.evaluations, [steps] * 3)
        errors.append(float(tf.reduce_max(tf.abs(whole.x - exact))))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 1.7) & (orders < 2.6)), orders


def test_evaluations_are_counted():
    """By a score function that counts its own executions on the host."""
    executed = []

    def counting(x, t):
        tf.py_function(lambda: executed.append(1), [], [])
        return score_fn(x, t)

    class Twice(langevin.Langevin):
        def __call__(self, score_fn, x, t, t_next, seeds, state):
            x, _, state = super().__call__(score_fn, x, t, t_next, seeds, state)
            return super().__call__(score_fn, x, t, t_next, seeds, state)

    for step, end in ((STEP, None), (Twice(STEP.step_size), score.denoise)):
        executed.clear()
        sampler = driver.FixedSteps(SDE, step, ROWS, segments=4, finish=end)
        samples = sampler(counting, tf.ones([2, *SHAPE]), seeds_of(2))
        np.testing.assert_array_equal(samples.evaluations, [len(executed)] * 2)
        assert executed


def test_finish_is_applied_at_the_end_of_the_walk():
    """On a moving schedule too: at t_next of the last row, and of the last row of a span."""

    class Stay(langevin.Langevin):
        def __call__(self, score_fn, x, t, t_next, seeds, state):
            return x, x, state

    x, grid = tf.fill([2, *SHAPE], 0.7), times.uniform(5)
    sampler = driver.FixedSteps(SDE, Stay(STEP.step_size), times.pairs(grid), segments=4, finish=score.denoise)
    for span, arrival in ((None, grid[4]), ((1, 3), grid[3])):
        sigma = SDE.marginal(tf.constant(arrival))[1].numpy()
        finished = sampler(score_fn, x, seeds_of(2), span=span).x
        np.testing.assert_allclose(finished, DATA.denoised(x.numpy(), sigma), rtol=1e-5)


def test_the_noise_of_the_last_step_can_be_left_out():
    x, seeds = tf.ones([2, *SHAPE]), seeds_of(2)
    before = driver.FixedSteps(SDE, STEP, ROWS[:-1])(score_fn, x, seeds).x
    mean = before + 0.5 * 4e-5 * score_fn(before, tf.zeros([2]))
    found = driver.FixedSteps(SDE, STEP, ROWS, end_with_mean=True)(score_fn, x, seeds).x
    np.testing.assert_allclose(found, mean, atol=1e-6)


def test_frames_come_after_each_segment_and_the_last_is_the_result():
    frames = []
    sampler = driver.FixedSteps(SDE, STEP, ROWS, segments=4)
    result = draw(sampler, on_frame=lambda number, x: frames.append((number, x.numpy())))
    assert [number for number, _ in frames] == [1, 2, 3, 4]
    np.testing.assert_array_equal(frames[-1][1], result)


def test_a_span_walks_only_its_segments():
    sampler = driver.FixedSteps(SDE, STEP, ROWS, segments=4)
    part = driver.FixedSteps(SDE, STEP, ROWS[5:15], segments=2)
    np.testing.assert_allclose(draw(sampler, span=(1, 3)), draw(part), atol=1e-6)


def test_one_trace_serves_every_segment_batch_and_span():
    traces = []

    def counting(x, t):
        traces.append(1)
        return score_fn(x, t)

    sampler, seeds = driver.FixedSteps(SDE, STEP, ROWS, segments=4), seeds_of(3)
    for number in range(3):
        for span in ((0, 4), (1, 4), (2, 3)):
            sampler(counting, tf.fill([3, *SHAPE], float(number)), seeds, span=span)
    assert len(traces) == 1


class Recorded(driver.Guidance):
    """Adds what it is given to the score, and overwrites x by the time of arrival."""

    def score(self, score_fn, sde, given):
        return lambda x, t: score_fn(x, t) + given[0]

    def project(self, x, mean, t, seeds, given):
        return score.expand(t, x) + tf.zeros_like(x), mean


def test_guidance_changes_the_score_and_projects_after_each_step():
    x, seeds, given = tf.ones([2, *SHAPE]), seeds_of(2), (tf.fill([2, *SHAPE], 3.0),)
    moving = driver.FixedSteps(SDE, STEP, times.pairs(times.uniform(5)))
    found = moving(score_fn, x, seeds, Recorded(), given)
    np.testing.assert_array_equal(found.x, tf.zeros_like(x))
    np.testing.assert_array_equal(found.evaluations, [4, 4])

    class ScoreAlone(Recorded):
        def project(self, x, mean, t, seeds, given):
            return x, mean

    one_step = driver.FixedSteps(SDE, STEP, ROWS[:1], end_with_mean=True)
    difference = one_step(score_fn, x, seeds, ScoreAlone(), given).x - one_step(score_fn, x, seeds).x
    np.testing.assert_allclose(difference, tf.fill(x.shape, 0.5 * 4e-5 * 1e4 * 3.0), rtol=1e-4)


@pytest.mark.parametrize("moving", [True, False])
def test_the_start_is_projected_if_the_first_step_moves_in_time(moving):
    """At its own time, with seeds of its own, and before the first evaluation; also at the start of a span."""
    grid, seen, x, seeds = times.uniform(5), [], tf.ones([2, *SHAPE]), seeds_of(2)

    class Watched(driver.Guidance):
        def score(self, score_fn, sde, given):
            def watching(x, t):
                tf.py_function(lambda x, t: seen.append((x.numpy(), t.numpy())), [x, t], [])
                return score_fn(x, t)

            return watching

        def project(self, x, mean, t, seeds, given):
            return x + random.normal(seeds.step, x.shape[1:]), mean

    rows = times.pairs(grid) if moving else times.repeat_times(grid[:-1], 1)
    sampler = driver.FixedSteps(SDE, STEP, rows, segments=4)
    for span, time in ((None, 1.0), ((2, 4), 0.5)):
        seen.clear()
        sampler(score_fn, x, seeds, Watched(), span=span)
        own = random.fold_each(seeds, random.Stream.SAMPLER_STEP, -1)
        expected = x + random.normal(own, SHAPE) if moving else x
        np.testing.assert_allclose(seen[0][0], expected, atol=1e-6)
        np.testing.assert_array_equal(seen[0][1], [time] * 2)


def test_a_gradient_through_the_score_counts_as_one_evaluation_more():
    """In the denoising step at the end too, which follows the guided score."""

    class Gradient(driver.Guidance):
        def score(self, score_fn, sde, given):
            def guided(x, t):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    scores = score_fn(x, t)
                return scores - tape.gradient(scores, x)

            return guided

    sampler = driver.FixedSteps(SDE, STEP, ROWS, segments=4, finish=score.denoise)
    samples = sampler(score_fn, tf.ones([2, *SHAPE]), seeds_of(2), Gradient())
    np.testing.assert_array_equal(samples.evaluations, [2 * len(ROWS) + 2] * 2)


def test_the_level_of_a_step_is_its_segment_even_if_the_time_moves():
    seen = []

    class Levels(driver.Guidance):
        def project(self, x, mean, t, seeds, given):
            tf.py_function(lambda level: seen.append(int(level)), [seeds.level], [])
            return x, mean

    moving = times.pairs(times.uniform(9))
    for options in ({}, {"on_frame": lambda *_: None}):
        seen.clear()
        driver.FixedSteps(SDE, STEP, moving, segments=4)(
            score_fn, tf.ones([2, *SHAPE]), seeds_of(2), Levels(), **options
        )
        start, *seen_after = seen
        assert len(seen_after) == 8
        assert [seen_after[k] == seen_after[k + 1] for k in range(7)] == [k % 2 == 0 for k in range(7)]
        assert len(set(seen_after)) == 4 and start not in seen_after


def test_a_users_own_sde_is_sampled():
    """Data N(0, s^2) under the cosine SDE: Langevin at t has the stationary variance v / (1 - a / (4 v))."""
    sde, deviation, size = Cosine(), 0.5, 0.1

    def exact(x, t):
        alpha, sigma = sde.marginal(t)
        return -x / score.expand(alpha**2 * deviation**2 + sigma**2, x)

    step = langevin.Langevin(langevin.constant(size))
    sampler = driver.FixedSteps(sde, step, times.repeat_times(np.array([0.5]), 200), jit_compile=True)
    x = sampler(exact, sde.prior_sample(seeds_of(4_000), (1,)), seeds_of(4_000)).x.numpy()
    variance = 0.5 * deviation**2 + 0.5
    expected = variance / (1.0 - size / (4.0 * variance))
    assert abs(x.var() - expected) < 4 * expected * np.sqrt(2 / 4_000)


@pytest.mark.parametrize("segments", [1, 3, 4, 7])
def test_unequal_segments_give_the_same_walk_in_parts_and_as_a_whole(segments):
    """Seven steps in segments of unequal length, with guidance that depends on the number of the segment."""

    class Noisy(driver.Guidance):
        def project(self, x, mean, t, seeds, given):
            own = random.fold_each(seeds.walk, random.Stream.REFERENCE, seeds.level)
            return x + random.normal(own, x.shape[1:]), mean

    rows, guidance = times.pairs(times.uniform(8)), Noisy()
    sampler = driver.FixedSteps(SDE, STEP, rows, segments=segments)
    x, seeds, frames = tf.ones([3, 2]), seeds_of(3), []
    whole = sampler(score_fn, x, seeds, guidance)
    parts = sampler(score_fn, x, seeds, guidance, on_frame=lambda number, x: frames.append(number))
    np.testing.assert_array_equal(whole.x, parts.x)
    assert frames == list(range(1, segments + 1)) and set(whole.evaluations.numpy()) == {7}
    starts = driver.segment_starts(7, segments)
    assert starts == sorted(set(starts)) and np.ptp(np.diff([*starts, 7])) <= 1


@pytest.mark.parametrize(("rows", "segments"), [(ROWS, len(ROWS) + 1), (ROWS, 0), (ROWS[:, 0], 1), (ROWS[:0], 1)])
def test_impossible_schedules_are_refused(rows, segments):
    with pytest.raises(ValueError, match=f"segments={segments}"):
        driver.FixedSteps(SDE, STEP, rows, segments=segments)
