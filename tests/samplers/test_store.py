"""The store of drawn rows: the same bytes after any kill, and never those of another sampling key."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.data import pipeline
from ncsn_tf.samplers.store import DivergedError, SampleStore, SamplingKeyError, caveats, is_free_for
from tests.support import rows
from tests.support.rows import fill
from tests.support.tiny import random_pixels

SHAPE = (3, 2, 1)
KEY = {"step": 7, "seed": 0, "sampler": {"epsilon": 4e-5}}


def draw_rows(numbers):
    """Row i is uniform noise of seed (0, i), and takes 12 evaluations."""
    x = random.uniform(random.per_example(random.seed(0), numbers), SHAPE)
    return x, tf.fill(tf.shape(numbers), 12)


@pytest.fixture(scope="module")
def one():
    return rows.blocks(tf.distribute.get_strategy(), draw_rows)


@pytest.fixture(scope="module")
def two():
    return rows.blocks(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), draw_rows)


@pytest.fixture(scope="module")
def expected(one):
    """The first 12 rows, float32."""
    return np.concatenate([one.draw(k)["x"] for k in range(3)])


def quantise(x):
    return pipeline.to_uint8(x), int(np.sum(x > 0.5))


def drawn(blocks, store, count):
    fill(blocks, store, store.done, count, quantise)
    return store.finish(count).pixels


def archive(folder):
    with np.load(folder / "samples.npz") as found:
        return dict(found)


@pytest.mark.parametrize("count", [1, 4, 6, 8, 11])
def test_a_longer_request_begins_with_the_rows_of_a_shorter_one(one, two, expected, tmp_path, count):
    for name, blocks in (("one", one), ("two", two)):
        pixels = drawn(blocks, SampleStore(tmp_path / name, KEY, SHAPE), count)
        np.testing.assert_array_equal(pixels, pipeline.to_uint8(expected[:count]))
        found = archive(tmp_path / name)
        assert found.keys() == {"samples"}
        assert found["samples"].dtype == np.uint8 and len(found["samples"]) == count
        assert {path.name for path in (tmp_path / name).iterdir()} == {"samples.npz", "samples.json"}


def test_rows_are_kept_as_floats_on_request(one, two, expected, tmp_path):
    for name, blocks in (("one", one), ("two", two)):
        for count in (6, 11):  # the second continues from the first
            pixels = drawn(blocks, SampleStore(tmp_path / name, KEY, SHAPE, floats=True), count)
            found = archive(tmp_path / name)
            assert found.keys() == {"samples", "samples_float"} and found["samples_float"].dtype == np.float32
            np.testing.assert_array_equal(found["samples_float"], expected[:count])
            np.testing.assert_array_equal(found["samples"], pixels)
            np.testing.assert_array_equal(pixels, pipeline.to_uint8(expected[:count]))
            assert {path.name for path in (tmp_path / name).iterdir()} == {"samples.npz", "samples.json"}


def test_a_later_request_continues_from_the_rows_that_are_done(one, two, expected, tmp_path):
    few = drawn(one, SampleStore(tmp_path, KEY, SHAPE), 6)
    taken = []
    store = SampleStore(tmp_path, KEY, SHAPE)
    assert store.done == 6 and store.evaluations_per_row == 12
    fill(two, store, store.done, 11, quantise, taken.append)
    more = store.finish(11).pixels
    assert sum(taken) == 5 and len(store.finish(3).pixels) == 3
    np.testing.assert_array_equal(more[:6], few)
    np.testing.assert_array_equal(more, pipeline.to_uint8(expected[:11]))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("call", ["append", "fsync", "replace", "unlink"])
def test_a_kill_at_any_write_costs_a_block_at_most_and_changes_nothing(
    one, expected, tmp_path, monkeypatch, call, floats
):
    """Every moment at which the folder is about to change is a moment to be killed at."""
    kills, whole = 0, False
    for moment in range(60):
        folder = tmp_path / str(moment)
        left, store = moment, None

        def count(real, *arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            owner = SampleStore if call == "append" else os
            real_call = getattr(owner, call)
            patch.setattr(owner, call, lambda *args, real=real_call, **options: count(real, *args, **options))
            try:
                for wanted in (5, 10):  # the second request unpacks the archive of the first
                    store = SampleStore(folder, KEY, SHAPE, floats=floats)
                    drawn(one, store, wanted)
            except Killed:
                kills += 1
        whole = left >= 0
        before = store.done if store is not None else 0
        resumed = SampleStore(folder, KEY, SHAPE, floats=floats)
        assert before - resumed.done <= 4, "more than a block was lost"
        np.testing.assert_array_equal(drawn(one, resumed, 10), pipeline.to_uint8(expected[:10]))
        if floats:
            np.testing.assert_array_equal(archive(folder)["samples_float"], expected[:10])
        assert resumed.total_evaluations == 120 and resumed.out_of_range == np.sum(expected[:10] > 0.5)
        if whole:
            break
    assert kills > 0 and whole, "no kill ever met the store, or the store never finished"


def test_incomplete_rows_are_cut_off_and_damaged_rows_are_drawn_again(one, expected, tmp_path):
    expected = pipeline.to_uint8(expected[:8])
    store = SampleStore(tmp_path, KEY, SHAPE)
    fill(one, store, 0, 4, quantise)
    raw = tmp_path / "samples.raw"
    with open(raw, "ab") as file:
        file.write(b"half an image")
    again = SampleStore(tmp_path, KEY, SHAPE)
    assert again.done == 4 and raw.stat().st_size == 4 * 6
    fill(one, again, 4, 8, quantise)
    content = bytearray(raw.read_bytes())
    content[5] ^= 1
    raw.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged and are drawn again"):
        fresh = SampleStore(tmp_path, KEY, SHAPE)
    assert fresh.done == fresh.total_evaluations == fresh.out_of_range == 0
    np.testing.assert_array_equal(drawn(one, fresh, 8), expected)
    (tmp_path / "samples.npz").write_bytes(b"no archive")
    with pytest.warns(UserWarning, match="damaged"):
        assert SampleStore(tmp_path, KEY, SHAPE).done == 0


def test_damage_to_the_floats_alone_is_detected(one, tmp_path):
    fill(one, SampleStore(tmp_path, KEY, SHAPE, floats=True), 0, 4, quantise)
    raw = tmp_path / "samples_float.raw"
    content = bytearray(raw.read_bytes())
    content[-1] ^= 1
    raw.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert SampleStore(tmp_path, KEY, SHAPE, floats=True).done == 0


def test_other_samples_are_refused(one, tmp_path):
    drawn(one, SampleStore(tmp_path, KEY, SHAPE), 4)
    with pytest.raises(SamplingKeyError, match="seed: 0 there, 1 now"):
        SampleStore(tmp_path, {**KEY, "seed": 1}, SHAPE)
    with pytest.raises(SamplingKeyError, match="the arrays samples of these .* writes samples, samples_float"):
        SampleStore(tmp_path, KEY, SHAPE, floats=True)
    (tmp_path / "samples.json").write_text("{")
    with pytest.raises(SamplingKeyError, match="cannot be read"):
        SampleStore(tmp_path, KEY, SHAPE)
    (tmp_path / "samples.json").unlink()
    with pytest.raises(SamplingKeyError, match="no samples.json"):
        SampleStore(tmp_path, KEY, SHAPE)
    assert issubclass(SamplingKeyError, ValueError)


def test_a_folder_is_free_for_its_own_key_and_for_any_while_it_holds_no_samples(one, tmp_path):
    folder, other = tmp_path / "new", {**KEY, "seed": 1}
    assert is_free_for(folder, KEY) and not folder.exists()
    new = SampleStore(folder, KEY, SHAPE)
    assert is_free_for(folder, other), "no row is there yet"
    fill(one, new, 0, 4, quantise)
    for _ in range(2):
        assert is_free_for(folder, KEY) and not is_free_for(folder, other)
        new.finish(4)
    (folder / "samples.json").write_text("{")
    assert not is_free_for(folder, KEY)
    (folder / "samples.json").unlink()
    assert not is_free_for(folder, KEY), "the archive may be of any origin"


@pytest.mark.parametrize("raw", [b"", b"a torn copy of what the archive holds"])
def test_a_kill_while_rows_are_added_leaves_those_that_were_complete(one, tmp_path, raw):
    expected = drawn(one, SampleStore(tmp_path, KEY, SHAPE), 8)
    (tmp_path / "samples.raw").write_bytes(raw)
    store = SampleStore(tmp_path, KEY, SHAPE)
    assert store.done == 8
    np.testing.assert_array_equal(drawn(one, store, 11)[:8], expected)


def test_two_programs_in_one_folder_are_detected(one, tmp_path):
    first, second = SampleStore(tmp_path, KEY, SHAPE), SampleStore(tmp_path, KEY, SHAPE)
    for start in (0, 4):
        for store in (first, second):
            fill(one, store, start, start + 4, quantise)
    for store in (first, second):
        with pytest.raises(OSError, match="another program has written there"):
            store.finish(8)


class Broken:
    """Draws blocks of 4 vectors, of which row 9 is not finite."""

    def __init__(self, replicas):
        self.block, self.replicas = 4, replicas

    def draw(self, first):
        x = np.zeros([self.replicas * 4, 5], np.float32)
        if 0 <= 9 - 4 * first < len(x):
            x[9 - 4 * first, 2] = np.inf
        return {"x": x, "evaluations": np.ones(len(x), np.int32)}


@pytest.mark.parametrize("replicas", [1, 4])
def test_divergence_names_the_row_if_it_was_requested(tmp_path, replicas):
    for count in (8, 9):
        assert len(drawn(Broken(replicas), SampleStore(tmp_path / str(count), KEY, (5,)), count)) == count
    with pytest.raises(DivergedError, match="Sample 9 is not finite"):
        drawn(Broken(replicas), SampleStore(tmp_path / "10", KEY, (5,)), 10)


class Uneven:
    """Draws one block of 4 at a time, whose row i takes i evaluations."""

    block, replicas = 4, 1

    def draw(self, first):
        return {"x": np.zeros([4, 5], np.float32), "evaluations": np.arange(4 * first, 4 * first + 4, dtype=np.int32)}


def test_evaluations_are_added_up_row_by_row(tmp_path):
    fill(Uneven(), SampleStore(tmp_path, KEY, (5,)), 0, 6, quantise)
    store = SampleStore(tmp_path, KEY, (5,))
    assert store.total_evaluations == 15 and store.evaluations_per_row == 2.5
    fill(Uneven(), store, 6, 7, quantise)  # draws its block again, and counts row 6 alone
    assert store.total_evaluations == 21 and store.evaluations_per_row == 3
    assert SampleStore(tmp_path / "empty", KEY, (5,)).evaluations_per_row == 0


def test_values_out_of_range_are_counted_across_a_kill(one, expected, tmp_path):
    fill(one, SampleStore(tmp_path, KEY, SHAPE), 0, 4, quantise)
    store = SampleStore(tmp_path, KEY, SHAPE)
    fill(one, store, 4, 8, quantise)
    assert store.out_of_range == SampleStore(tmp_path, KEY, SHAPE).out_of_range == np.sum(expected[:8] > 0.5) > 0


def test_rows_of_another_shape_or_dtype_are_refused(tmp_path):
    store = SampleStore(tmp_path, KEY, (5,), floats=True)
    pixels, floats = np.zeros([3, 5], np.uint8), np.zeros([3, 5], np.float32)
    for wrong in ((pixels.astype(np.int64), floats), (pixels[:, :4], floats), (pixels, floats[:2])):
        with pytest.raises(ValueError, match="Received: "):
            store.append(*wrong, evaluations=3)
    assert store.done == 0 and not list(tmp_path.iterdir())


def test_the_journal_holds_plain_values(one, tmp_path):
    drawn(one, SampleStore(tmp_path, KEY, SHAPE), 4)
    content = json.loads((tmp_path / "samples.json").read_text())
    assert content["sampling_key"] == KEY and content["done"] == 4 and content["total_evaluations"] == 48


@pytest.mark.parametrize("complete", [False, True])
def test_a_folder_with_a_journal_of_the_former_keys_resumes(one, expected, tmp_path, complete):
    store = SampleStore(tmp_path, KEY, SHAPE)
    fill(one, store, 0, 8, quantise)
    if complete:
        store.finish(8)
    content = json.loads((tmp_path / "samples.json").read_text())
    former = {
        "plan": KEY,
        "done": 8,
        "checksum": content["checksums"]["samples"],
        "evaluations": 12,
        "wild": content["out_of_range"],
    }
    (tmp_path / "samples.json").write_text(json.dumps(former))
    with pytest.raises(SamplingKeyError, match="seed: 0 there, 1 now"):
        SampleStore(tmp_path, {**KEY, "seed": 1}, SHAPE)
    resumed = SampleStore(tmp_path, KEY, SHAPE)
    assert resumed.done == 8 and resumed.evaluations_per_row == 12 and resumed.out_of_range == store.out_of_range
    np.testing.assert_array_equal(drawn(one, resumed, 11), pipeline.to_uint8(expected[:11]))


def test_a_caveat_is_reported_where_many_values_are_out_of_range(tmp_path):
    pixels = random_pixels(2, 10, 10, 1)
    for share, count in ((0.0, 0), (0.005, 0), (0.02, 1)):
        store = SampleStore(tmp_path / str(share), KEY, (10, 10, 1))
        store.append(pixels, pixels.astype(np.float32), evaluations=2, out_of_range=round(200 * share))
        found = store.finish(2)
        assert found.out_of_range == share and len(found.caveats()) == count and found.floats is None
        # Where a quarter of the values was drawn and the others are given, the share is that of the quarter.
        assert len(found.caveats(0.25)) == (share > 0.0)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.where(random_pixels(4, 8, 8, 3) < 100, 0, 255), "100.0% of the samples' values are 0 or 255"),
        (np.zeros([4, 8, 8, 1]), "of one colour"),
        (random_pixels(4, 1, 1, 3) * np.ones([1, 8, 8, 1]), "of one colour"),
        (random_pixels(4, 8, 8, 1), None),
        (np.clip(random_pixels(4, 8, 8, 1), 120, 255), None),
        (random_pixels(4, 1, 1, 3), None),
    ],
    ids=["saturated", "black", "each of one colour", "noise", "half white", "one pixel"],
)
def test_samples_that_look_as_if_they_had_diverged_are_described(pixels, said):
    found = caveats(pixels.astype(np.uint8), 0.0)
    assert [said in line for line in found] == ([True] if said else [])
