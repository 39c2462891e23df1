"""Runs that start from the weights of another: which file is meant, what fits, what is refused."""

import json
import shutil
import zlib

import numpy as np
import pytest

from ncsn_tf.config import build
from ncsn_tf.training import initial
from ncsn_tf.training.checkpoints import CheckpointError, Checkpoints
from ncsn_tf.training.run_directory import RunDirectory, RunDirectoryError
from tests.support import tiny


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run on two levels of the digits, with checkpoints 2 and 5; and its trainer, at step 5."""
    path = tmp_path_factory.mktemp("runs") / "other"
    return path, tiny.save_run(path, steps=(2, 5))


def read(other, given=None, channels=1, **changes):
    """Reads for the network of the other run, by its configuration with other values in its sections."""
    path, trainer = other
    config = RunDirectory(path).config()
    for name, values in changes.items():
        config[name] |= values
    network = trainer.network
    if channels != 1 or not {"network", "times"}.isdisjoint(changes):
        network = build.Builder(config).network((8, 8, channels))
    return initial.read(given or path, network, config, channels)


def equal(ours, theirs):
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["", "checkpoints", "checkpoints/checkpoint-5", "checkpoints/checkpoint-5.index"])
def test_the_average_of_a_run_or_of_one_checkpoint_is_read(other, name):
    path, trainer = other
    found = read(other, path / name)
    assert equal(found.values, trainer.average.get_weights())
    assert (found.given, found.checkpoint) == (str(path / name), str(path / "checkpoints" / "checkpoint-5"))
    assert not equal(read(other, path / "checkpoints" / "checkpoint-2").values, found.values)


def test_the_record_names_the_checkpoint_and_the_checksum_of_its_weights(other, tmp_path):
    path, trainer = other
    read(other).record(RunDirectory(tmp_path))
    checkpoint = str(path / "checkpoints" / "checkpoint-5")
    checksum = zlib.crc32(b"".join(weight.tobytes() for weight in trainer.average.get_weights()))
    record = json.loads((tmp_path / "init.json").read_text())
    assert record == {"given": str(path), "checkpoint": checkpoint, "step": 5, "weights": checksum}


def test_both_networks_start_with_the_weights_and_the_optimizer_is_fresh(tmp_path):
    values = [np.full(weight.shape, 0.25, np.float32) for weight in tiny.make().network.weights]
    trainer, fresh = tiny.make(), tiny.make()
    assert Checkpoints(tmp_path, trainer, keep=1).restore(values) == 0
    assert equal(trainer.network.get_weights(), values) and equal(trainer.average.get_weights(), values)
    assert equal(
        [variable.numpy() for variable in trainer.optimizer.variables],
        [variable.numpy() for variable in fresh.optimizer.variables],
    )
    Checkpoints(tmp_path, trainer, keep=1).save()
    resumed = tiny.make()
    Checkpoints(tmp_path, resumed, keep=1).restore([2.0 * value for value in values])
    assert equal(resumed.average.get_weights(), values), "a checkpoint of the run itself comes first"


MISFITS = {
    "width": ({"network": {"filters": 4}}, 1, "network.filters: 2 there, 4 now"),
    "levels": ({"times": {"num_levels": 3}}, 1, "times.num_levels: 2 there, 3 now"),
    "channels": ({}, 3, "images: 1 channels there, 3 channels now"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_does_not_fit_is_named(other, kind):
    changes, channels, words = MISFITS[kind]
    with pytest.raises(CheckpointError, match=f"other do not fit this run: {words}"):
        read(other, channels=channels, **changes)


def test_weights_that_were_trained_otherwise_are_taken_with_a_warning(other):
    with pytest.warns(UserWarning, match="trained differently: sde.sigma_max: 1.0 there, 5.0 now"):
        read(other, sde={"sigma_max": 5.0})


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one_or_refused(other, tmp_path):
    path = tmp_path / "damaged"
    shutil.copytree(other[0], path)
    (path / "checkpoints" / "checkpoint-5.data-00000-of-00001").write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint-5 is damaged"):
        assert read(other, path).checkpoint.endswith("checkpoint-2")
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is damaged.*Other checkpoints: \[2\]"):
        read(other, path / "checkpoints" / "checkpoint-5")


def nothing(path):
    return path / "none"


def no_checkpoint(path):
    (path / "run" / "checkpoints").mkdir(parents=True)
    (path / "run" / "config.json").write_text("{}")
    return path / "run"


def torch_file(path):
    (path / "c.pth").write_bytes(b"content")
    return path / "c.pth"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nothing, "There is nothing at .*none to start from. Expected a run's directory"),
        (no_checkpoint, "The run .*run has no checkpoint yet"),
        (torch_file, r"c\.pth is a file of PyTorch: make a run of it with launch\.import_checkpoint"),
        (lambda path: path, "holds no checkpoint to start from. Expected a run's directory"),
        (lambda path: path / "checkpoint-3", "No checkpoint in"),
    ],
)
def test_init_from_names_a_path_that_is_not_a_run(other, tmp_path, make, words):
    with pytest.raises(CheckpointError, match=words):
        read(other, make(tmp_path))


def test_a_step_that_is_not_there_lists_those_that_are(other):
    with pytest.raises(CheckpointError, match=r"No checkpoint of step 3 .*\[2, 5\]"):
        read(other, other[0] / "checkpoints" / "checkpoint-3")


def test_a_run_that_resumes_takes_the_same_source_alone(other, tmp_path):
    path, directory = other[0], RunDirectory(tmp_path / "new")
    assert initial.source(directory, None) is None
    assert initial.source(directory, path) == path
    directory.path.mkdir()
    read(other).record(directory)
    assert initial.source(directory, None) == path, "it has no weights of its own yet"
    assert initial.source(directory, path / "checkpoints") == path / "checkpoints", "it may still start from others"
    Checkpoints(directory.checkpoints, tiny.make(), keep=1).save()
    link = tmp_path / "link"
    link.symlink_to(path)
    for same in (None, path, link, f"{path}/", path / "checkpoints" / "checkpoint-5"):
        assert initial.source(directory, same) is None
    with pytest.raises(RunDirectoryError, match=f"holds a run that started from {path}, not from .*checkpoint-2"):
        initial.source(directory, path / "checkpoints" / "checkpoint-2")
    (directory.path / "init.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="init.json cannot be read"):
        initial.source(directory, path)
    (directory.path / "init.json").unlink()
    with pytest.raises(RunDirectoryError, match="holds a run that started from random weights, not from"):
        initial.source(directory, path)


def test_a_run_does_not_start_from_itself(other, tmp_path):
    (tmp_path / "link").symlink_to(other[0])
    for own in (other[0], other[0] / "checkpoints", tmp_path / "link" / "checkpoints" / "checkpoint-2"):
        with pytest.raises(RunDirectoryError, match="A run cannot start from its own weights"):
            initial.source(RunDirectory(other[0]), own)
