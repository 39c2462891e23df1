"""`launch.export` as a person runs it: what its flags change in the export, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ncsn_tf import runs
from ncsn_tf.config import choices
from ncsn_tf.serving import export
from ncsn_tf.training.run_directory import RunDirectory
from tests.support import processes, tiny


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
        tiny.save_run(path, steps=(1, 2))
    return RunDirectory(path)


def launch(directory, output, *flags):
    return processes.launch("export", f"--workdir={directory.path}", f"--output={output}", *flags, stand_in=True)


def test_an_export_has_the_newest_weights_and_the_sampler_of_the_flags(directory, tmp_path, monkeypatch):
    sampler = {"epsilon": 2e-3, "steps_per_level": 3, "denoise": True}
    result = launch(directory, tmp_path, *(f"--{name}={value}" for name, value in sampler.items()))
    assert result.returncode == 0, result.stderr
    path = tmp_path / "1"
    assert f"SavedModel: {path}" in result.stdout
    loaded, about = export.load(tmp_path)
    monkeypatch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
    run = runs.TrainedRun(directory, sampler=sampler)
    run.load(2)
    expected = run.block_sampler(run.start_samples(5), 1).draw(0)["x"]
    found = loaded.signatures["sample"](seed=tf.constant([5], tf.int64))["samples_float"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    defaults = content.meta_graphs[0].signature_def["inpaint_tuned"].defaults
    defaults = {key: tf.make_ndarray(value) for key, value in defaults.items()}
    assert defaults == {"steps_per_level": 3, "epsilon": np.float32(2e-3)}
    assert about["dataset"] == "digits" and about["step"] == 2 and about["image"]["shape"] == [8, 8, 1]
    assert len(about["sigmas"]) == 2 and {"config", "versions", "commit", "weights"} <= about.keys()
    assert about["sampler"].items() >= sampler.items() and "seed" not in about
    again = launch(directory, tmp_path, "--version=1")
    assert again.returncode == 2 and "Received: 1" in again.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed=0", "--jit_compile=False", "--strategy=auto", "--logical_devices=2", "--num_workers=1"],
        ["--dry_run", "--epsilon=0.0401"],  # the smallest level is 0.1
        ["--dry_run", "--steps_per_level=100001"],
    ],
)
def test_flags_without_an_effect_or_that_cannot_work_are_refused(flags, directory, tmp_path):
    result = launch(directory, tmp_path, *flags)
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("error: "), result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""
    for flag in (flag for flag in flags if flag != "--dry_run"):
        name, value = flag.removeprefix("--").split("=")
        assert name in result.stderr and value in result.stderr
    assert not list(tmp_path.iterdir())
