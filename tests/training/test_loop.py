"""The run: what is due when, what is in its directory, and resuming."""

import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ncsn_tf import pictures
from ncsn_tf.data import pipeline
from ncsn_tf.objectives import NonFiniteLossError
from ncsn_tf.training import loop
from ncsn_tf.training.checkpoints import Checkpoints
from ncsn_tf.training.preemption import Preempted
from ncsn_tf.training.run_directory import RunDirectory, RunDirectoryError
from ncsn_tf.training.summaries import Record, Summaries
from tests.support.tiny import BINS, SOURCE, batches, make

CONFIG = {"seed": 0, "training": {"steps": 7}, "optim": {"learning_rate": 0.01}}


def cadence(**changes):
    values = {"steps": 7, "steps_per_loop": 3, "evaluate_every": 2, "sample_every": 5, "checkpoint_every": 4}
    return loop.Cadence(**{**values, **changes})


def opened(path, config=CONFIG):
    directory = RunDirectory(path)
    directory.open(config, SOURCE.describe(), devices="a CPU")
    return directory


def fit(path, trainer, lines, draw_samples=lambda _: (np.zeros((4, 4, 4, 1), np.uint8), ["odd samples"]), **changes):
    directory = opened(path)
    checkpoints = Checkpoints(directory.checkpoints, trainer, keep=9)
    checkpoints.restore()
    loop.fit(
        trainer,
        lambda step: batches(trainer, step),
        cadence(**changes),
        checkpoints=checkpoints,
        record=Record(directory, BINS, log=lines.append),
        held_out_loss=lambda: trainer.held_out_loss(iter(pipeline.evaluation_batches(SOURCE, batch_size=40)), 1),
        draw_samples=draw_samples,
    )
    return directory


def test_stops_are_the_next_due_step():
    stops, step = [], 0
    while step < 7:
        step = cadence().next_stop(step)
        stops.append(step)
    assert stops == [2, 3, 4, 5, 6, 7]
    assert cadence(evaluate_every=0, sample_every=0).next_stop(0) == 3
    assert cadence().due(7, 4) and not cadence().due(6, 4) and not cadence().due(7, 0)


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"steps_per_loop": 0}, {"checkpoint_every": 0}, {"sample_every": -1}]
)
def test_impossible_cadences_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        cadence(**changes)


def test_a_run_writes_its_files_and_resumes(tmp_path):
    lines = []
    trainer = make()
    directory = fit(tmp_path, trainer, lines)
    assert trainer.step == 7 and "from step 0 to 7" in lines[0]
    saved = sorted(path.name for path in directory.checkpoints.glob("*.index"))
    assert saved == ["checkpoint-4.index", "checkpoint-7.index"]
    grids = sorted(path.name for path in directory.samples.glob("*.png"))
    assert grids == ["step_00000005.png", "step_00000007.png"]
    assert Image.open(directory.samples / grids[0]).size == (67, 67)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment[0]["versions"]["tensorflow"] and environment[0]["command"]
    assert environment[0]["devices"] == "a CPU" and "is off" in environment[0]["gradients"]

    events = EventAccumulator(str(directory.tensorboard))
    events.Reload()
    curves = set(events.Tags()["tensors"])
    assert {"loss/training", "loss/held_out", "gradient_norm", "images_per_second", "samples"} <= curves
    assert "held_out_loss_by_bin/level_3" in curves
    assert [event.step for event in events.Tensors("loss/held_out")] == [2, 4, 6, 7]

    fit(tmp_path, make(), lines)
    assert "complete" in lines[-1] and "step 5: odd samples" in lines
    longer = make()
    fit(tmp_path, longer, lines, steps=9)
    assert longer.step == 9 and "Training from step 7 to 9." in lines
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 3


def test_a_directory_of_another_configuration_is_refused_with_the_differences(tmp_path):
    opened(tmp_path, {**CONFIG, "optim": {"learning_rate": 0.5}})
    directory = opened(tmp_path)  # nothing is trained yet, so the configuration may still be corrected
    directory.checkpoints.mkdir()
    (directory.checkpoints / "checkpoint-1.index").touch()
    opened(tmp_path, {**CONFIG, "training": {"steps": 9}, "sampler": {"epsilon": 1.0}})
    with pytest.raises(RunDirectoryError, match=r"optim.learning_rate: 0.01 there, 0.5 now"):
        opened(tmp_path, {**CONFIG, "optim": {"learning_rate": 0.5}})
    assert RunDirectory(tmp_path).config()["optim"]["learning_rate"] == 0.01
    assert RunDirectory(tmp_path).shape() == (4, 4, 1)
    with pytest.raises(RunDirectoryError, match=r"images \(4, 4, 1\)"):
        directory.check(CONFIG, {**SOURCE.describe(), "shape": [5, 4, 1]})
    (tmp_path / "config.json").unlink()
    with pytest.raises(RunDirectoryError, match="config.json"):
        directory.check(CONFIG, SOURCE.describe())


def test_weights_that_give_no_finite_loss_are_not_saved(tmp_path):
    trainer = make()
    directory = opened(tmp_path)
    checkpoints = Checkpoints(directory.checkpoints, trainer, keep=9)
    probe = next(iter(pipeline.evaluation_batches(SOURCE, batch_size=4)))
    options = {"checkpoints": checkpoints, "record": Record(directory, BINS), "probe": probe}
    quiet = {"evaluate_every": 0, "sample_every": 0, "checkpoint_every": 2}
    loop.fit(trainer, lambda step: batches(trainer, step), cadence(steps=4, **quiet), **options)
    before = {path.name: path.read_bytes() for path in directory.checkpoints.glob("checkpoint-*")}
    trainer.optimizer.learning_rate.assign(1e30)  # the losses of steps 5 and 6 use weights from before
    with pytest.raises(NonFiniteLossError):
        loop.fit(trainer, lambda step: batches(trainer, step), cadence(steps=5, **quiet), **options)
    assert {path.name: path.read_bytes() for path in directory.checkpoints.glob("checkpoint-*")} == before
    fresh = make()
    assert Checkpoints(directory.checkpoints, fresh, keep=9).restore() == 4
    fresh.check_weights(probe)


def test_a_folder_that_is_not_a_run_directory_is_reported(tmp_path):
    with pytest.raises(RunDirectoryError, match="config.json"):
        RunDirectory(tmp_path).config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="not valid JSON"):
        RunDirectory(tmp_path).config()


def test_a_run_that_is_asked_to_stop_saves_its_step_and_resumes(tmp_path):
    trainer, lines = make(), []
    run, asked = trainer.run, []

    def run_and_ask(iterator, steps):
        if trainer.step == 2:
            trainer.stop.make("a test", 15)
        asked.append(steps)
        return run(iterator, steps)

    trainer.run = run_and_ask
    with pytest.raises(Preempted, match="Stopped at step 3, which is saved: a test") as stopped:
        fit(tmp_path, trainer, lines, steps=50, steps_per_loop=10, evaluate_every=0, sample_every=0, checkpoint_every=2)
    assert stopped.value.signal_number == 15 and asked[-1] == 2, "the loop was asked for more than it took"
    resumed = make()
    fit(tmp_path, resumed, lines, steps=4)
    assert "Training from step 3 to 4." in lines


def test_a_request_to_stop_interrupts_drawing_samples(tmp_path):
    """A request during sampling ends the sampling; one more step is taken and saved, and the run ends. Sampling is
    repeated when the run resumes from the step at which it was due."""
    trainer, drawn = make(), []

    def draw(between_levels):
        for level in range(4):
            drawn.append(level)
            if level == 1:
                trainer.stop.make("a test")
            between_levels()
        return np.zeros((4, 4, 4, 1), np.uint8), []

    quiet = {"evaluate_every": 0, "sample_every": 2, "checkpoint_every": 2, "steps_per_loop": 2}
    with pytest.raises(Preempted, match="step 3"):
        fit(tmp_path, trainer, [], draw_samples=draw, **quiet)
    assert drawn == [0, 1] and not list((tmp_path / "samples").iterdir())
    for path in (tmp_path / "checkpoints").glob("checkpoint-3.*"):
        path.unlink()  # as if it had been killed instead
    fit(tmp_path, make(), [], steps=4, **quiet)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step_00000002.png", "step_00000004.png"]


def test_a_directory_belongs_to_one_job_at_a_time(tmp_path):
    directory = RunDirectory(tmp_path / "new")
    with directory.locked(), pytest.raises(RunDirectoryError, match=r"Another job trains in .*process \d+ on .* since"):
        with RunDirectory(tmp_path / "new").locked():
            pass
    with directory.locked():
        pass
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="is a file"), RunDirectory(tmp_path / "file").locked():
        pass


def test_other_images_are_refused(tmp_path):
    """A folder to which somebody added an image has another order, and the run would not be the one it was."""
    directory = opened(tmp_path)
    directory.checkpoints.mkdir()
    (directory.checkpoints / "checkpoint-1.index").touch()
    other = {**SOURCE.describe(), "images": 41, "checksum": 1}
    with pytest.raises(RunDirectoryError, match="a run on 40 images of checksum .* now has 41 of checksum 1"):
        directory.check(CONFIG, other)
    imported = {**SOURCE.describe(), "images": 0, "checksum": None}
    (tmp_path / "dataset.json").write_text(json.dumps(imported))
    directory.check(CONFIG, other)


def test_curves_that_cannot_be_written_do_not_stop_a_run(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for name in ("training", "held_out", "samples", "flush"):
        monkeypatch.setattr(Summaries, name, full)
    monkeypatch.setattr(pictures, "save_grid", full)
    trainer = make()
    with pytest.warns(UserWarning, match="cannot be written, and the run continues.*No space") as warned:
        fit(tmp_path, trainer, [])
    assert trainer.step == 7 and sum("Curves" in str(warning.message) for warning in warned) == 1
    assert Checkpoints(tmp_path / "checkpoints", make(), keep=9).restore() == 7


@pytest.mark.parametrize(
    "name, text", [("dataset.json", '{"shape": null}'), ("config.json", "[]"), ("config.json", "")]
)
def test_damaged_files_of_a_run_are_named_with_a_remedy(tmp_path, name, text):
    directory = opened(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(RunDirectoryError, match=f"{name} .*Restore the file from a copy"):
        directory.shape() if name == "dataset.json" else directory.config()
