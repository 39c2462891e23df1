"""A check of saved figures, and trained runs of one convolution for figures and tables that show runs."""

import json

import numpy as np
import pytest
from PIL import Image

from ncsn_tf import runs
from ncsn_tf.config import choices, sections
from ncsn_tf.evaluation import measure, report
from ncsn_tf.training.run_directory import RunDirectory
from tests.support import tiny


class Mean:
    """An evaluator whose metric is the mean of the pixels: no features, no statistics."""

    kind = "classifier"

    def about(self):
        return {"feature_network": "none"}

    def evaluate(self, pixels, output, **_):
        return report.Report([measure.Measurement("classifier_fid", float(pixels.mean()), len(pixels))], [], [])


@pytest.fixture(scope="session")
def mean_evaluator():
    return Mean()


@pytest.fixture(scope="module")
def small_runs(tmp_path_factory):
    """Runs in continuous time on the digits: vp, subvp, and vp_likelihood with that weighting and other weights."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    kinds = {
        "vp": ("vp", "sigma_power", (2,)),
        "subvp": ("subvp", "sigma_power", (2,)),
        "vp_likelihood": ("vp", "likelihood", (2, 3)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choices.NETWORKS, "unet", tiny.timeless)
        for name, (sde, weighting, steps) in kinds.items():
            config = tiny.flow_config()
            config["sde"] = sections.section("sde", sde).to_dict()
            tiny.save_run(folder / name, config=config, steps=steps, objective={"weighting": weighting})
            found[name] = runs.TrainedRun(RunDirectory(folder / name))
            found[name].load()
        yield found


@pytest.fixture
def check_saved(tmp_path):
    """A function that checks that a figure's saved numbers are JSON and that its picture is not blank."""

    def check(figure):
        picture, numbers = figure.save(tmp_path, "figure")
        assert json.loads(numbers.read_text()) == {"caption": figure.caption, **figure.numbers}
        assert np.ptp(np.asarray(Image.open(picture).convert("L"))) > 100

    return check
