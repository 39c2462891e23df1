"""The record of a run: TensorBoard's curves by bin, grids of samples, and lines of text."""

import io
import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.training.results import LoopResult
from ncsn_tf.training.run_directory import RunDirectory
from ncsn_tf.training.summaries import Record
from tests.support.tiny import random_pixels

BINS = ("level_000_sigma_1", "level_001_sigma_0.1")
RESULT = LoopResult(4, np.array([6.0, 0.0]), np.array([3.0, 0.0]), norm_sum=8.0, seconds=2.0, skipped=0)


def curves(directory):
    """The scalars in the event files, by (step, tag)."""
    found = {}
    for file in directory.tensorboard.iterdir():
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    found[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
    return found


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path / "run")


def test_each_bin_with_examples_has_a_curve_under_its_name(directory):
    record = Record(directory, BINS, log=lambda line: None)
    record.training(8, RESULT, batch_size=5)
    record.held_out(8, 0.75, np.array([0.5, 1.0]))
    record.flush()
    assert curves(directory) == {
        (8, "loss/training"): 2.0,
        (8, "gradient_norm"): 2.0,
        (8, "images_per_second"): 10.0,
        (8, f"training_loss_by_bin/{BINS[0]}"): 2.0,
        (8, "loss/held_out"): 0.75,
        (8, f"held_out_loss_by_bin/{BINS[0]}"): 0.5,
        (8, f"held_out_loss_by_bin/{BINS[1]}"): 1.0,
    }


@pytest.mark.parametrize("name", ["new[1]", "*", os.fsdecode(b"\xe9")])
def test_a_run_of_any_name_has_its_curves(tmp_path, name):
    record = Record(RunDirectory(tmp_path / name), BINS, log=lambda line: None)
    record.training(8, RESULT, batch_size=5)
    record.flush()
    (tmp_path / name).rename(tmp_path / "run")  # TensorFlow could not read them where they are
    assert curves(RunDirectory(tmp_path / "run"))[8, "loss/training"] == 2.0


def test_skipped_steps_diverged_samples_and_held_out_losses_are_reported(directory):
    directory.samples.mkdir(parents=True)
    lines = []
    record = Record(directory, BINS, log=lines.append)
    record.training(8, LoopResult(4, RESULT.loss_sums, RESULT.counts, 8.0, 2.0, skipped=3), batch_size=5)
    record.held_out(8, 0.75, np.array([0.5, 1.0]))
    record.samples(8, None)
    record.samples(9, random_pixels(4, 8, 8, 1), ["2.0% of the values are odd"])
    assert [line.split(":")[0] for line in lines] == ["step 8"] * 3 + ["step 9"]
    assert "3 steps with a gradient beyond float16 were skipped" in lines[0]
    assert (
        lines[1].endswith("0.75")
        and "samples diverged" in lines[2]
        and lines[3] == "step 9: 2.0% of the values are odd"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_of_text_go_beside_the_progress(directory, monkeypatch, terminal):
    """Through the log where there is no bar to disturb, else above the bar, which is drawn again below."""
    lines, shown = [], io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(sys, "stdout", said := io.StringIO())
    record = Record(directory, BINS, log=lines.append)
    with record.progress(0, 8):
        record.advance(RESULT)
        record.say("a line")
    record.say("the end")
    assert lines == (["the end"] if terminal else ["a line", "the end"])
    assert said.getvalue() == ("a line\n" if terminal else "")
    assert ("\r" in shown.getvalue()) == terminal == bool(shown.getvalue())


def test_a_grid_of_samples_is_written_under_its_step(directory):
    directory.samples.mkdir(parents=True)
    Record(directory, BINS).samples(12, random_pixels(4, 8, 8, 1))
    assert [path.name for path in directory.samples.iterdir()] == ["step_00000012.png"]


def test_a_worker_that_does_not_write_leaves_nothing(directory):
    lines = []
    record = Record(directory, BINS, writes=False, log=lines.append)
    record.training(8, RESULT, batch_size=5)
    record.held_out(8, 0.75, np.array([0.5, 1.0]))
    record.samples(8, random_pixels(4, 8, 8, 1))
    with record.progress(0, 4):
        record.advance(RESULT)
    record.flush()
    assert not directory.path.exists() and lines == []
