"""The option that makes gradients repeatable: in force while it is needed, and as it was afterwards."""

import threading

import tensorflow as tf

from ncsn_tf import determinism, objectives
from tests.support.tiny import SDE, make, run


def test_the_options_of_the_graph_optimizer_are_as_before():
    before = tf.config.optimizer.get_experimental_options()
    options, inside = tf.config.optimizer.get_experimental_options, []

    def watching(score_fn, x, t, z):
        inside.append(options())
        return objectives.annealed_denoising(score_fn, SDE, x, t, z)

    run(make(objective=watching), 1)
    assert inside and all(found["arithmetic_optimization"] is False for found in inside)
    assert options() == before
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
    with determinism.repeatable_gradients():
        assert options()["arithmetic_optimization"] is False
    assert options()["arithmetic_optimization"] is True
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": None})
    assert options() == before


def test_threads_that_overlap_keep_the_option_until_the_last_one_leaves():
    options = tf.config.optimizer.get_experimental_options
    before, entered, leave = options(), threading.Event(), threading.Event()

    def other():
        with determinism.repeatable_gradients():
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    with determinism.repeatable_gradients():
        thread.start()
        assert entered.wait(20)
    assert options()["arithmetic_optimization"] is False, "the other thread is still inside"
    leave.set()
    thread.join()
    assert options() == before
