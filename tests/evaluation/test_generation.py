"""Samples in blocks: the same bits on any number of replicas, after any kill, and never another plan's."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import times
from ncsn_tf.data import pipeline
from ncsn_tf.evaluation.generation import BlockSampler, DivergedError, PlanError, SampleStore, fill
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.score import denoise
from ncsn_tf.sde import VE
from tests.support.oracles import Gaussian

SDE = VE(1.0, 0.01)
DATA = Gaussian(0.4, 0.3)
TIMES = times.uniform(3)
SHAPE = (3, 2, 1)
PLAN = {"step": 7, "seed": 0, "sampler": {"epsilon": 4e-5}}


def score_fn(x, t):
    return DATA.score_fn(lambda t: SDE.marginal(t)[1])(x, t)


def sampler(score_fn=score_fn, **options):
    step = langevin.Langevin(langevin.annealed(SDE, 4e-5))
    return driver.Sampler(step, score_fn, driver.dwell(TIMES, 4), segments=3, **options)


def blocks(strategy=None, block=4, made=None, seed=0):
    strategy = strategy or tf.distribute.get_strategy()
    return BlockSampler(strategy, made or sampler(), driver.uniform_prior, SHAPE, run_seed=seed, block=block)


@pytest.fixture(scope="module")
def one():
    return blocks()


@pytest.fixture(scope="module")
def two():
    return blocks(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))


def quantise(x):
    return pipeline.to_uint8(x), int(np.sum(x > 0.5))


def drawn(drawer, store, count):
    fill(drawer, store, store.done, count, quantise)
    return store.finish(count)


def test_two_replicas_draw_the_bits_of_one(one, two):
    assert (one.replicas, two.replicas) == (1, 2)
    together, evaluations = two.draw(2)
    apart = np.concatenate([one.draw(2)[0], one.draw(3)[0]])
    np.testing.assert_array_equal(together, apart)
    assert evaluations == len(TIMES) * 4
    assert len(np.unique(together.reshape(8, -1), axis=0)) == 8


def test_they_are_the_samples_that_the_driver_draws(one):
    made = driver.generate(sampler(), driver.uniform_prior, SHAPE, run_seed=0, num_samples=8, batch_size=8)
    np.testing.assert_allclose(np.concatenate([one.draw(0)[0], one.draw(1)[0]]), next(made).x, atol=5e-6)
    assert not np.allclose(blocks(seed=1).draw(0)[0], one.draw(0)[0])


def test_a_last_denoising_is_applied_and_counted():
    def finish(score_fn, x, t):
        return denoise(score_fn, SDE, x, t)

    rough, _ = blocks().draw(0)
    smooth, evaluations = blocks(made=sampler(finish=finish)).draw(0)
    assert evaluations == len(TIMES) * 4 + 1
    np.testing.assert_allclose(smooth, DATA.denoised(rough, 0.01), atol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 6, 8, 11])
def test_any_number_of_samples_begins_with_those_of_a_smaller_one(one, two, tmp_path, count):
    everything = pipeline.to_uint8(np.concatenate([one.draw(k)[0] for k in range(3)]))
    for name, drawer in (("one", one), ("two", two)):
        pixels = drawn(drawer, SampleStore(tmp_path / name, PLAN, SHAPE), count)
        np.testing.assert_array_equal(pixels, everything[:count])
        with np.load(tmp_path / name / "samples.npz") as archive:
            assert archive["samples"].dtype == np.uint8 and len(archive["samples"]) == count
        assert not (tmp_path / name / "samples.raw").exists()


def test_more_samples_go_on_from_those_that_are_there(one, two, tmp_path):
    few = drawn(one, SampleStore(tmp_path, PLAN, SHAPE), 6)
    taken = []
    store = SampleStore(tmp_path, PLAN, SHAPE)
    assert store.done == 6 and store.evaluations == 12
    fill(two, store, store.done, 11, quantise, taken.append)
    more = store.finish(11)
    assert sum(taken) == 5 and len(store.finish(3)) == 3
    np.testing.assert_array_equal(more[:6], few)
    np.testing.assert_array_equal(more, drawn(one, SampleStore(tmp_path / "other", PLAN, SHAPE), 11))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "unlink"])
def test_a_kill_at_any_write_costs_a_batch_at_most_and_changes_nothing(one, tmp_path, monkeypatch, call):
    """Every moment at which the folder is about to change is a moment to be killed at."""
    expected = pipeline.to_uint8(np.concatenate([one.draw(k)[0] for k in range(3)]))[:10]
    name = {"write": "append", "fsync": "fsync", "replace": "replace", "unlink": "unlink"}[call]
    kills, whole = 0, False
    for moment in range(30):
        folder = tmp_path / str(moment)
        left, store = moment, None

        def count(real, *arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            if call == "write":
                real_append = SampleStore.append
                patch.setattr(SampleStore, "append", lambda *args, real=real_append: count(real, *args))
            else:
                real_call = getattr(os, name)
                patch.setattr(os, name, lambda *args, real=real_call, **options: count(real, *args, **options))
            try:
                store = SampleStore(folder, PLAN, SHAPE)
                drawn(one, store, 10)
            except Killed:
                kills += 1
        whole = left >= 0
        before = store.done if store is not None else 0
        resumed = SampleStore(folder, PLAN, SHAPE)
        assert before - resumed.done <= 4, "more than a batch was lost"
        np.testing.assert_array_equal(drawn(one, resumed, 10), expected)
        if whole:
            break
    assert kills > 0 and whole, "no kill ever met the store, or the store never finished"


def test_a_torn_tail_is_cut_off_and_damage_is_drawn_anew(one, tmp_path):
    expected = drawn(one, SampleStore(tmp_path / "whole", PLAN, SHAPE), 8)
    store = SampleStore(tmp_path, PLAN, SHAPE)
    fill(one, store, 0, 4, quantise)
    with open(tmp_path / "samples.raw", "ab") as file:
        file.write(b"half an image")
    again = SampleStore(tmp_path, PLAN, SHAPE)
    assert again.done == 4
    fill(one, again, 4, 8, quantise)
    raw = tmp_path / "samples.raw"
    content = bytearray(raw.read_bytes())
    content[5] ^= 1
    raw.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        fresh = SampleStore(tmp_path, PLAN, SHAPE)
    assert fresh.done == 0
    np.testing.assert_array_equal(drawn(one, fresh, 8), expected)
    (tmp_path / "samples.npz").write_bytes(b"no archive")
    with pytest.warns(UserWarning, match="damaged"):
        assert SampleStore(tmp_path, PLAN, SHAPE).done == 0


def test_other_samples_are_refused(one, tmp_path):
    drawn(one, SampleStore(tmp_path, PLAN, SHAPE), 4)
    with pytest.raises(PlanError, match="seed: 0 there, 1 now"):
        SampleStore(tmp_path, {**PLAN, "seed": 1}, SHAPE)
    (tmp_path / "samples.json").write_text("{")
    with pytest.raises(PlanError, match="cannot be read"):
        SampleStore(tmp_path, PLAN, SHAPE)
    (tmp_path / "samples.json").unlink()
    with pytest.raises(PlanError, match="no samples.json"):
        SampleStore(tmp_path, PLAN, SHAPE)


@pytest.mark.parametrize("raw", [b"", b"a torn copy of what the archive holds"])
def test_a_kill_while_samples_are_added_leaves_those_that_were_complete(one, tmp_path, raw):
    expected = drawn(one, SampleStore(tmp_path, PLAN, SHAPE), 8)
    (tmp_path / "samples.raw").write_bytes(raw)
    store = SampleStore(tmp_path, PLAN, SHAPE)
    assert store.done == 8
    np.testing.assert_array_equal(drawn(one, store, 11)[:8], expected)


def test_two_programs_in_one_folder_do_not_pass_for_one(one, tmp_path):
    first, second = SampleStore(tmp_path, PLAN, SHAPE), SampleStore(tmp_path, PLAN, SHAPE)
    for start in (0, 4):
        for store in (first, second):
            fill(one, store, start, start + 4, quantise)
    for store in (first, second):
        with pytest.raises(OSError, match="another program has written there"):
            store.finish(8)


class Broken:
    """Draws blocks of 4, whose sample 9 is not finite."""

    def __init__(self, replicas):
        self.block, self.replicas = 4, replicas

    def draw(self, first):
        x = np.zeros([self.replicas * 4, *SHAPE], np.float32)
        if 0 <= 9 - 4 * first < len(x):
            x[9 - 4 * first] = np.inf
        return x, 1


@pytest.mark.parametrize("replicas", [1, 4])
def test_divergence_names_the_sample_if_somebody_asked_for_it(tmp_path, replicas):
    for count in (8, 9):
        assert len(drawn(Broken(replicas), SampleStore(tmp_path / str(count), PLAN, SHAPE), count)) == count
    with pytest.raises(DivergedError, match="Sample 9 is not finite"):
        drawn(Broken(replicas), SampleStore(tmp_path / "10", PLAN, SHAPE), 10)


def test_values_far_off_are_counted_over_a_kill(one, tmp_path):
    fill(one, SampleStore(tmp_path, PLAN, SHAPE), 0, 4, quantise)
    store = SampleStore(tmp_path, PLAN, SHAPE)
    fill(one, store, 4, 8, quantise)
    floats = np.concatenate([one.draw(0)[0], one.draw(1)[0]])
    assert store.wild == SampleStore(tmp_path, PLAN, SHAPE).wild == np.sum(floats > 0.5) > 0


def test_the_journal_is_plain(one, tmp_path):
    drawn(one, SampleStore(tmp_path, PLAN, SHAPE), 4)
    content = json.loads((tmp_path / "samples.json").read_text())
    assert content["plan"] == PLAN and content["done"] == 4 and content["evaluations"] == 12
