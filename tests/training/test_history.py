"""The curve of a run in plain text."""

import math

import numpy as np
import pytest

from ncsn_tf.training import history
from ncsn_tf.training.results import LoopResult
from ncsn_tf.training.run_directory import RunDirectory
from ncsn_tf.training.summaries import Record


def result(steps, seconds, loss=1.5):
    return LoopResult(steps, np.array([2.0 * loss]), np.array([2.0]), norm_sum=1.0, seconds=seconds)


def test_times_add_up_over_steps_and_starts(tmp_path):
    path = tmp_path / history.NAME
    first = history.History(path)
    first.training(10, result(10, 3.0))
    first.held_out(10, 0.75)
    first.training(20, result(10, 2.0))
    first.write()
    second = history.History(path)  # resumed at the checkpoint of step 20
    second.training(25, result(5, 4.0, loss=0.5))
    second.write()
    points = history.read(path)
    assert [(point.step, point.seconds, point.loss) for point in points] == [
        (10, 3.0, 1.5),
        (20, 5.0, 1.5),
        (25, 9.0, 0.5),
    ]
    assert points[0].held_out_loss == 0.75 and math.isnan(points[1].held_out_loss)


def test_points_of_a_lost_start_are_replaced(tmp_path):
    path = tmp_path / history.NAME
    lost = history.History(path)
    for step in (10, 20, 30):
        lost.training(step, result(10, 1.0))
    lost.write()
    again = history.History(path)
    again.training(20, result(10, 7.0))  # from the checkpoint of step 10
    again.write()
    assert [(point.step, point.seconds) for point in history.read(path)] == [(10, 1.0), (20, 8.0)]


def test_a_held_out_loss_between_two_summaries_has_a_point_of_its_own(tmp_path):
    curve = history.History(tmp_path / history.NAME)
    curve.training(10, result(10, 1.0))
    curve.held_out(15, 0.5)
    curve.write()
    between = history.read(tmp_path / history.NAME)[1]
    assert (between.step, between.seconds, between.held_out_loss) == (15, 1.0, 0.5)
    assert math.isnan(between.loss)


@pytest.mark.parametrize("content", ["", "step,seconds\n1,2\n", "step,seconds,loss,held_out_loss\nx,1,1,1\n", "\0"])
def test_a_damaged_file_is_begun_anew(tmp_path, content):
    path = tmp_path / history.NAME
    path.write_text(content)
    curve = history.History(path)
    curve.training(1, result(1, 2.0))
    curve.write()
    assert [point.step for point in history.read(path)] == [1]


def test_a_record_writes_the_curve_with_its_checkpoints_and_held_out_losses(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    record = Record(directory, ("all",), log=lambda line: None)
    record.training(4, result(4, 2.0), batch_size=2)
    assert not (directory.path / history.NAME).exists()
    record.flush()
    assert len(history.read(directory.path / history.NAME)) == 1
    record.held_out(4, 0.25, np.array([0.25]))
    assert history.read(directory.path / history.NAME) == [history.Point(4, 2.0, 1.5, 0.25)]


def test_a_worker_that_is_not_the_chief_writes_no_curve(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    record = Record(directory, ("all",), writes=False)
    record.training(4, result(4, 2.0), batch_size=2)
    record.flush()
    assert not (directory.path / history.NAME).exists()
