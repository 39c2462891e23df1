"""Blocks: the same bits on any number of replicas and workers."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.blocks import BlockSampler
from tests.support import processes, rows

SHAPE = (3, 2)


def draw_rows(numbers):
    """Row i is noise of seed (0, i), less a mean of the whole block, so that a block's company shows in its bits."""
    x = random.normal(random.per_example(random.seed(0), numbers), SHAPE)
    return x - tf.reduce_mean(x), numbers + 5


def blocks(strategy=None, block=4):
    return rows.blocks(strategy or tf.distribute.get_strategy(), draw_rows, block=block)


@pytest.fixture(scope="module")
def two():
    return blocks(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))


def test_a_block_holds_the_rows_of_its_numbers():
    drawn = blocks(block=3).draw(2)
    x, evaluations = draw_rows(tf.range(6, 9))
    np.testing.assert_array_equal(drawn["x"], x)
    np.testing.assert_array_equal(drawn["evaluations"], evaluations)
    assert (drawn["x"].dtype, drawn["evaluations"].dtype) == (np.float32, np.int32)


def test_rows_are_cut_to_the_requested_number(two):
    whole = np.concatenate([two.draw(0)["x"], two.draw(2)["x"]])
    for count in (1, 8, 11):
        for drawn_by in (two, blocks()):
            np.testing.assert_array_equal(drawn_by.draw_rows(count)["x"], whole[:count])
            np.testing.assert_array_equal(drawn_by.starts(count), whole[:count])


def test_frames_hold_the_rows_of_all_replicas(two):
    frames = []
    drawn = two.draw(2, on_frame=lambda *frame: frames.append(frame))
    ((first, number, x),) = frames
    assert (first, number) == (8, 1)
    np.testing.assert_array_equal(x, drawn["x"])


def test_arguments_reach_the_start_and_given_tensors_reach_the_end():
    drawn_by = BlockSampler(
        rows.Still(),
        None,
        lambda numbers, shift: (numbers, tf.cast(numbers, tf.float32) + shift, (numbers,)),
        block=2,
        strategy=tf.distribute.get_strategy(),
        end=lambda x, given: 10.0 * x + tf.cast(given[0], tf.float32),
    )
    np.testing.assert_array_equal(drawn_by.draw(1, tf.constant(0.5))["x"], [27.0, 38.0])


def test_two_replicas_draw_the_same_bits_as_one(two):
    one = blocks()
    assert (one.replicas, two.replicas) == (1, 2)
    together, apart = two.draw(2), [one.draw(2), one.draw(3)]
    for name, values in together.items():
        np.testing.assert_array_equal(values, np.concatenate([drawn[name] for drawn in apart]), err_msg=name)
    assert len(np.unique(together["x"].reshape(8, -1), axis=0)) == 8


WORKER = """
import sys
import numpy as np
from ncsn_tf.cluster import strategies
from tests.samplers.test_blocks import draw_rows
from tests.support import rows
strategy = strategies.create("multi_worker", timeout=60.0)  # before any other operation of TensorFlow
np.savez(sys.argv[1], **rows.blocks(strategy, draw_rows, workers=2).draw(2))
strategies.wait_for_everyone(strategy)
"""


def test_each_of_two_workers_has_the_rows_of_both(two, tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in processes.free_ports(2)]
    calls, environments = [], []
    for index in range(2):
        config = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        calls.append((processes.execute, WORKER, tmp_path / f"{index}.npz"))
        environments.append({"TF_CONFIG": config})
    for ended in processes.finish(calls, environments):
        assert ended.returncode == 0, ended.stderr
    expected = two.draw(2)
    for index in range(2):
        with np.load(tmp_path / f"{index}.npz") as found:
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_blocks_without_rows_and_strategies_without_workers_are_refused():
    with pytest.raises(ValueError, match="Received: block=0, workers=1"):
        blocks(block=0)
    with pytest.raises(ValueError, match="Received: block=4, workers=0"):
        rows.blocks(tf.distribute.get_strategy(), draw_rows, workers=0)
