"""The report of an evaluation: its lines, its JSON file, its curves."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.evaluation import report
from ncsn_tf.evaluation.held_out import HeldOutLoss
from ncsn_tf.evaluation.measure import Measurement
from ncsn_tf.evaluation.memorisation import Comparison

HELD_OUT_LOSS = HeldOutLoss(np.array([1.0, 0.1]), np.array([0.5, 2.5]), np.array([0.01, 0.02]), 40)
NEIGHBOURS = np.zeros((4, 1), np.int64)
COPIES = {"pixels": Comparison(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0]), NEIGHBOURS, NEIGHBOURS)}
FEW = "few samples"
MEASUREMENTS = [Measurement("fid", 3.0, 10, 20, caveats=(FEW,)), Measurement("kid", 0.5, 10, 20, caveats=(FEW,))]


def test_the_lines_have_values_first_and_each_caveat_once():
    made = report.Report(MEASUREMENTS, ["recall: no features"], ["strange"], COPIES, HELD_OUT_LOSS)
    # Among 16 pairs the sample is nearer in 4 + 3 + 2 + 1, and 3 are ties: 11.5 / 16.
    assert made.lines() == [
        "fid 3, 10 samples against 20 images",
        "kid 0.5, 10 samples against 20 images",
        "copies, by pixels: 1 exact; a sample is nearer to the training images than a held-out image with probability "
        f"0.719 (standard error {COPIES['pixels'].standard_error:.2g})",
        "held-out denoising loss 1.5, 40 images",
        "not measured: recall: no features",
        "warning: strange",
        "warning: few samples",
    ]


def test_the_json_file_holds_the_report_and_what_is_needed_to_repeat_it(tmp_path):
    made = report.Report(MEASUREMENTS, ["recall: no features"], ["strange"], COPIES, HELD_OUT_LOSS)
    path = report.write(tmp_path, made, {"checkpoint": 7})
    assert path == tmp_path / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() == {*made.as_dict(), "checkpoint"} and content["checkpoint"] == 7
    assert content["metrics"]["fid"] == MEASUREMENTS[0].as_dict()
    assert content["not_measured"] == ["recall: no features"] and content["warnings"] == ["strange"]
    assert content["copies"]["pixels"] == COPIES["pixels"].summary()
    assert content["held_out_denoising_loss"]["standard_errors"] == [0.01, 0.02]
    alone = HeldOutLoss(np.array([1.0]), np.array([0.5]), np.array([np.nan]), 1)
    assert report.Report([], [], [], held_out=alone).as_dict()["held_out_denoising_loss"]["standard_errors"] is None
    assert "held_out_denoising_loss" not in report.Report(MEASUREMENTS, [], []).as_dict()


def test_the_curves_can_be_read_back_and_hold_finite_values_only(tmp_path):
    measurements = [*MEASUREMENTS, Measurement("recall", math.nan, 60)]
    made = report.Report(measurements, [], [], COPIES, HELD_OUT_LOSS)
    report.write_scalars(tmp_path, 500, made)
    report.write_scalars(tmp_path, 600, report.Report([], [], [], held_out=HELD_OUT_LOSS))
    values = {}
    for file in tmp_path.iterdir():
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                values[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
    assert values == {
        (500, "evaluation/fid"): 3.0,
        (500, "evaluation/kid"): 0.5,
        (500, "evaluation/probability_nearer/pixels"): pytest.approx(COPIES["pixels"].probability_nearer),
        (500, "evaluation/held_out_denoising_loss"): 1.5,
        (600, "evaluation/held_out_denoising_loss"): 1.5,
    }


def test_curves_that_cannot_be_written_end_in_a_warning(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="curves could not be written"):
        report.write_scalars(tmp_path / "file", 500, report.Report(MEASUREMENTS, [], []))
