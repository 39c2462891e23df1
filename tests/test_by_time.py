"""Scores that change with time, and the samples that they draw."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import by_time, runs
from ncsn_tf.data import images
from ncsn_tf.evaluation import measure, memorisation, names, report
from ncsn_tf.training.run_directory import RunDirectory
from tests.support import tiny

TRAIN, HELD_OUT = images.load("digits", "train"), images.load("digits", "held_out")
EDGES = [1.0, 0.5, 0.25]


def times_of(bins):
    """Times in each bin, its largest one first and its border with the next one just above."""
    inside = {0: [1.0, 0.7, np.nextafter(np.float32(0.5), 1.0)], 1: [0.5, 0.3], 2: [0.25, 0.1, 0.0]}
    return np.array([time for number in bins for time in inside[number]], np.float32)


def test_a_walk_is_divided_into_bins_with_equal_numbers_of_segments():
    starts = np.array([1.0, 0.9, 0.5, 0.4, 0.25], np.float32)
    assert by_time.edges_of(starts, 1) == [1.0]
    assert by_time.edges_of(starts, 2) == [1.0, 0.5]
    assert by_time.edges_of(starts, 5) == [float(start) for start in starts]
    for number in (0, 6):
        with pytest.raises(ValueError, match=f"The walk has 5 segments.*Received: {number}"):
            by_time.edges_of(starts, number)
    with pytest.raises(ValueError, match="from noise to data"):
        by_time.edges_of(np.zeros(4, np.float32), 2)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_time_on_a_border_belongs_to_the_bin_below_it(number, graph):
    score_fn = by_time.spliced(lambda x, t: x, lambda x, t: -x, EDGES, number)
    score_fn = tf.function(score_fn) if graph else score_fn
    t = times_of(range(3))
    x = tf.random.stateless_uniform([len(t), 2, 3], seed=(1, 2)) + 1.0
    signs = np.where(np.isin(t, times_of([number])), 1.0, -1.0)
    np.testing.assert_array_equal(score_fn(x, tf.constant(t)), x.numpy() * signs[:, None, None])
    for row, sign in enumerate(signs):  # a row does not depend on the others
        np.testing.assert_array_equal(
            score_fn(x[row : row + 1], tf.constant(t[row : row + 1])), sign * x[row : row + 1]
        )


def test_the_bins_make_up_all_times():
    t = tf.constant(times_of(range(3)))
    x = tf.ones([len(t), 2])
    parts = [by_time.spliced(lambda x, t: x, lambda x, t: 0.0 * x, EDGES, number)(x, t) for number in range(3)]
    np.testing.assert_array_equal(tf.add_n(parts), x)


def test_what_no_row_needs_is_not_computed():
    def fails(x, t):
        raise AssertionError("not needed")

    x = tf.ones([3, 2])
    np.testing.assert_array_equal(by_time.spliced(lambda x, t: x, fails, EDGES, 1)(x, tf.fill([3], 0.4)), x)
    np.testing.assert_array_equal(by_time.spliced(fails, lambda x, t: x, EDGES, 1)(x, tf.fill([3], 0.9)), x)


class Measure:
    """An evaluator that measures the mean of the samples' bytes, and how near they are to training images."""

    kind = names.CLASSIFIER

    def __init__(self):
        self.calls = 0

    def about(self):
        return {"feature_network": "none"}

    def evaluate(self, samples, output, *, metrics, held_out, caveats, progress, labels):
        self.calls += 1
        found = measure.Measurement(measure.named(*metrics, self.kind), float(samples.mean()), len(samples))
        return report.Report([found], [], [], memorisation.compare(samples, TRAIN.images, HELD_OUT.images, k=1))


def test_samples_are_near_the_training_images_where_the_exact_score_ends_the_walk(tmp_path):
    """The score -x leaves normal noise normal under the VP SDE. With two bins, each set of samples is drawn twice."""
    tiny.save_run(tmp_path / "vp", config=tiny.flow_config())
    sampler = {"num_steps": 8, "grid": "log_snr"}
    run = runs.TrainedRun(RunDirectory(tmp_path / "vp"), sampler=sampler)
    run.load()
    run = run.with_score(lambda x, t: -x, {"of": "normal noise"})
    assert run.sampling_key(0, 4)["score"] == {"of": "normal noise"}
    evaluator, said = Measure(), []
    options = {"metric": "fid", "num_samples": 6, "batch_size": 4, "seed": 0, "log": said.append}
    found = by_time.measure_by_time(run, evaluator, 2, tmp_path / "out", **options)
    assert found.metric == "classifier_fid" and evaluator.calls == len(said) == 6
    assert found.exact.nearer == found.exact_in[1].nearer == found.network_in[0].nearer == 1.0
    assert max(found.network.nearer, found.exact_in[0].nearer, found.network_in[1].nearer) < 0.1
    assert found.exact_in == found.network_in[::-1]
    assert len({found.network.value, found.exact.value, *(part.value for part in found.exact_in)}) == 4
    again = by_time.measure_by_time(run, evaluator, 2, tmp_path / "out", **options)
    assert again == found and evaluator.calls == 6, "nothing is drawn twice"
    by_time.write(tmp_path / "out", found)
    heading, *lines = (tmp_path / "out" / "by_time.csv").read_text().splitlines()
    assert heading.startswith("bin,from_time,to_time,network_in_value") and len(lines) == 2
    assert (tmp_path / "out" / "by_time.png").exists()
    assert by_time.summary(found)["bins"][1]["from_time"] == found.edges[1]
