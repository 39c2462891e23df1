"""The calibration of a run: what is kept, found again, replaced, and missing."""

import pytest

from ncsn_tf import calibration
from ncsn_tf.config import sections


def section(name, **values):
    return {**sections.section("sampler", name).to_dict(), **values}


def test_a_fitted_grid_is_found_for_its_method_options_and_steps(tmp_path):
    five = section("unipc", num_steps=2, order=2)
    calibration.keep(tmp_path, "grids", calibration.grid_key(five), {"times": [1.0, 0.5, 1e-3], "step": 7})
    asked = section("unipc", num_steps=2, order=2, grid="fitted", denoise=False)
    assert calibration.resolved(tmp_path, asked) == {**asked, "times": [1.0, 0.5, 1e-3]}
    for other in ({"num_steps": 3}, {"order": 3}, {"last_time": 1e-2}):
        with pytest.raises(ValueError, match=r"no fitted grid for unipc,.*Known: unipc,.*num_steps=2"):
            calibration.resolved(tmp_path, {**asked, **other})
    calibration.keep(tmp_path, "grids", calibration.grid_key(five), {"times": [1.0, 0.4, 1e-3], "step": 8})
    assert calibration.resolved(tmp_path, asked)["times"] == [1.0, 0.4, 1e-3]
    assert len(calibration.read(tmp_path)["grids"]) == 1


def test_numbers_of_another_checkpoint_are_said(tmp_path):
    own = section("ddim", num_steps=1)
    calibration.keep(tmp_path, "grids", calibration.grid_key(own), {"times": [1.0, 1e-3], "step": 7})
    found = calibration.resolved(tmp_path, {**own, "grid": "fitted"})
    assert calibration.caveats(tmp_path, found, 7) == calibration.caveats(tmp_path, own, 8) == []
    (line,) = calibration.caveats(tmp_path, found, 8)
    assert "is of step 7, the weights are of step 8: launch.calibrate --checkpoint=8" in line


def test_norms_are_found_for_their_last_time(tmp_path):
    own = section("predictor_corrector")
    assert calibration.resolved(tmp_path, own) == own
    with pytest.raises(ValueError, match=r"no measured norms for last_time=0.001. Run launch.calibrate.*Known: none"):
        calibration.resolved(tmp_path, {**own, "norms": "expected"})
    calibration.keep(tmp_path, "norms", calibration.norms_key(own), {"norm_table": [1.0, 2.0], "step": 7})
    found = calibration.resolved(tmp_path, {**own, "norms": "expected"})
    assert found["norm_table"] == [1.0, 2.0]
    assert calibration.resolved(tmp_path, found) == found


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"grids": 3, "norms": []}',
        '{"grids": [{}], "norms": []}',
        '{"grids": [{"of": {}, "step": 1}], "norms": []}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / calibration.NAME).write_text(text)
    with pytest.raises(ValueError, match=r"calibration.json cannot be read.*Remove it"):
        calibration.read(tmp_path)
