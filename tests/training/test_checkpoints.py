"""Checkpoints: resumed runs, retention, damage, kills, and what does not fit."""

import contextlib
import errno
import os
import pathlib
import resource

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.config import build, sections
from ncsn_tf.training import checkpoints
from ncsn_tf.training.checkpoints import CheckpointError, Checkpoints, CheckpointWriteError
from ncsn_tf.training.optimizers import ReducedAdam, WarmUp
from tests.support.tiny import TinyNetwork, make, run


def test_a_resumed_run_equals_an_uninterrupted_run_bit_for_bit(tmp_path):
    whole = make()
    losses = [result.loss for result in run(whole, 6)]
    first = make()
    run(first, 3)
    Checkpoints(tmp_path, first, keep=2).save()
    second = make()
    assert Checkpoints(tmp_path, second, keep=2).restore() == 3
    assert [result.loss for result in run(second, 3)] == losses[3:]
    for network in ("network", "average"):
        weights = zip(getattr(second, network).get_weights(), getattr(whole, network).get_weights(), strict=True)
        for ours, theirs in weights:
            np.testing.assert_array_equal(ours, theirs)


def test_every_weight_of_the_real_network_is_restored(tmp_path):
    """The weights of layers in lists were once missing from the file, and nothing failed."""
    values = sections.ncsn().to_dict()
    values["data"]["name"], values["network"]["filters"] = "digits", 2
    saved, fresh = (
        build.Builder({**values, "seed": seed}).trainer(tf.distribute.get_strategy(), (8, 8, 1)) for seed in (1, 2)
    )
    rng = np.random.default_rng(0)
    for variables in (saved.network.weights, saved.average.weights, saved.optimizer.variables[1:]):
        for variable in variables:
            variable.assign(rng.normal(size=variable.shape))
    path = Checkpoints(tmp_path, saved, keep=1).save()
    Checkpoints(tmp_path, fresh, keep=1).restore()
    sampling = build.Builder({**values, "seed": 3}).network((8, 8, 1))
    checkpoints.load_average(path, sampling)
    for ours, theirs in (
        (fresh.network.weights, saved.network.weights),
        (fresh.average.weights, saved.average.weights),
        (fresh.optimizer.variables, saved.optimizer.variables),
        (sampling.weights, saved.average.weights),
    ):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_fresh_directory_starts_at_zero(tmp_path):
    assert Checkpoints(tmp_path, make(), keep=1).restore() == 0


def test_the_newest_are_kept_and_found_by_step(tmp_path):
    trainer = make()
    kept = Checkpoints(tmp_path, trainer, keep=2)
    for _ in range(3):
        pretend(trainer)
        path = kept.save()
        assert kept.save() == path, "a saved step must not be saved again"
    assert checkpoints.step_of(checkpoints.find(tmp_path)) == 3
    assert checkpoints.step_of(checkpoints.find(tmp_path, 2)) == 2
    with pytest.raises(CheckpointError, match=r"step 1 .*\[2, 3\]"):
        checkpoints.find(tmp_path, 1)

    network = TinyNetwork()
    network.build()
    checkpoints.load_average(checkpoints.find(tmp_path), network)
    for ours, theirs in zip(network.get_weights(), trainer.average.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def pretend(trainer, steps=1):
    """Changes what training steps change, without tracing a step."""
    for variable in (*trainer.network.weights, *trainer.average.weights):
        variable.assign(variable + 1.0)
    trainer.optimizer.iterations.assign_add(steps)


def saved_twice(directory):
    """Saves checkpoints of steps 0 and 1; returns the files of the second."""
    trainer = make()
    kept = Checkpoints(directory, trainer, keep=3)
    kept.save()
    pretend(trainer)
    path = kept.save()
    return pathlib.Path(f"{path}.data-00000-of-00001"), pathlib.Path(f"{path}.index")


def flip(path, place):
    """Changes one bit of a file; the middle of a data file belongs to a weight."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


DAMAGE = {
    "truncated data": lambda data, index: data.write_bytes(data.read_bytes()[:100]),
    "data short of a byte": lambda data, index: data.write_bytes(data.read_bytes()[:-1]),
    "empty data": lambda data, index: data.write_bytes(b""),
    "no data": lambda data, index: data.unlink(),
    "a bit of a weight": lambda data, index: flip(data, 0.5),
    "truncated index": lambda data, index: index.write_bytes(index.read_bytes()[:50]),
    "empty index": lambda data, index: index.write_bytes(b""),
    "a bit of the index": lambda data, index: flip(index, 0.5),
    "another file": lambda data, index: index.write_bytes(data.read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_previous_one_restored(tmp_path, damage):
    DAMAGE[damage](*saved_twice(tmp_path))
    network = TinyNetwork()
    network.build()
    with pytest.raises(CheckpointError, match=r"checkpoint-1 is damaged.*Other checkpoints: \[0\]"):
        checkpoints.load_average(str(tmp_path / "checkpoint-1"), network)
    resumed = make()
    kept = Checkpoints(tmp_path, resumed, keep=3)
    with pytest.warns(UserWarning, match="checkpoint-1 is damaged.*Continuing from step 0"):
        assert kept.restore() == 0
    for ours, expected in zip(resumed.network.get_weights(), make().network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)
    pretend(resumed)
    kept.save()
    assert Checkpoints(tmp_path, make(), keep=3).restore() == 1, "the step must be saved again over its damaged files"


def test_sampling_loads_the_newest_undamaged_checkpoint_or_the_given_step(tmp_path):
    DAMAGE["a bit of a weight"](*saved_twice(tmp_path))
    network = TinyNetwork()
    network.build()
    with pytest.warns(UserWarning, match="checkpoint-1 is damaged.*Loading the previous checkpoint"):
        assert checkpoints.load_newest_average(tmp_path, network).endswith("checkpoint-0")
    for ours, expected in zip(network.get_weights(), make().average.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)
    with pytest.raises(CheckpointError, match="checkpoint-1 is damaged"):
        checkpoints.load_newest_average(tmp_path, network, step=1)
    (tmp_path / "checkpoint-0.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match="checkpoint-0 is damaged"), pytest.warns(UserWarning):
        checkpoints.load_newest_average(tmp_path, network)


def test_damaged_checkpoints_do_not_displace_good_ones(tmp_path):
    DAMAGE["a bit of a weight"](*saved_twice(tmp_path))
    resumed = make()
    kept = Checkpoints(tmp_path, resumed, keep=1)
    with pytest.warns(UserWarning):
        kept.restore()
    kept.save()
    assert checkpoints.find(tmp_path).endswith("checkpoint-0")


def test_a_run_with_only_damaged_checkpoints_does_not_start_again(tmp_path):
    for path in saved_twice(tmp_path)[0].parent.glob("*.data-*"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="checkpoint-1 is damaged.*checkpoint-0 is damaged.*No other is left"):
        Checkpoints(tmp_path, make(), keep=2).restore()


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path):
    """A limit on the size of files ends the writing in the middle of the weights; room would not help against it."""
    trainer = make()
    kept = Checkpoints(tmp_path, trainer, keep=1)
    kept.save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    pretend(trainer)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, unlimited[1]))
    try:
        with pytest.raises(CheckpointWriteError, match="checkpoint-1 cannot be written .*File too large") as caught:
            kept.save()
        assert "room" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert Checkpoints(tmp_path, make(), keep=1).restore() == 0
    kept.save()
    assert Checkpoints(tmp_path, make(), keep=1).restore() == 1


@pytest.mark.parametrize("call", range(8))
def test_a_kill_at_any_moment_of_writing_leaves_an_undamaged_checkpoint(tmp_path, monkeypatch, call):
    """An exception that nothing catches stands in for the kill, at each of the calls that change the directory."""
    trainer = make()
    Checkpoints(tmp_path, trainer, keep=1).save()
    pretend(trainer)
    moments = iter(range(100))

    class Killed(BaseException):
        pass

    def dying(function):
        def call_or_die(*arguments, **options):
            if next(moments) == call:
                raise Killed
            return function(*arguments, **options)

        return call_or_die

    for name in ("replace", "fsync"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    monkeypatch.setattr(pathlib.Path, "unlink", dying(pathlib.Path.unlink))
    with contextlib.suppress(Killed):
        Checkpoints(tmp_path, trainer, keep=1).save()
    monkeypatch.undo()
    resumed = make()
    kept = Checkpoints(tmp_path, resumed, keep=1)
    assert kept.restore() in (0, 1)
    pretend(resumed, 2 - resumed.step)
    kept.save()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-2.data-00000-of-00001", "checkpoint-2.index"], "leftovers must be removed"


def test_a_missing_checkpoint_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="No checkpoint in"):
        checkpoints.find(tmp_path)


def test_another_architecture_is_refused(tmp_path):
    trainer = make()
    path = Checkpoints(tmp_path, trainer, keep=1).save()
    network = TinyNetwork(kernel_size=5)
    network.build()
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoints.load_average(path, network)


def test_a_changed_optimizer_is_refused_and_not_half_loaded(tmp_path):
    """A schedule has no variable for its rate; the message names the first variables that differ."""
    saved_twice(tmp_path)
    other = make(optimizer=lambda: ReducedAdam(WarmUp(1e-2, 5), epsilon=1e-8))
    before = other.network.get_weights()
    with pytest.raises(CheckpointError, match=r"optimizer's variables differ, first number 0001: \(\) there"):
        Checkpoints(tmp_path, other, keep=2).restore()
    for ours, theirs in zip(other.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


NAMES = ("new[1]", "*", "a?b", "back\\slash", "{a,b}", "ü", os.fsdecode(b"\xe9"), "two\nlines")


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_may_have_any_name(tmp_path, monkeypatch, name):
    """Also one that was relative, before the program changed its directory."""
    monkeypatch.chdir(tmp_path)
    directory = pathlib.Path(name, "..", name, "checkpoints")
    trainer = make()
    kept = Checkpoints(directory, trainer, keep=1)
    (tmp_path / name).mkdir()
    monkeypatch.chdir("/")
    kept.save()
    pretend(trainer)
    path = kept.save()
    assert path == str(tmp_path / name / ".." / name / "checkpoints" / "checkpoint-1")
    resumed, network = make(), TinyNetwork()
    network.build()
    assert Checkpoints(tmp_path / name / "checkpoints", resumed, keep=1).restore() == 1
    assert checkpoints.load_newest_average(tmp_path / name / "checkpoints", network)
    for ours, expected in zip(network.get_weights(), trainer.average.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)


def failing(number):
    """The error of TensorFlow for an error of the operating system, as far as it has one of its own."""
    words = f"{{{{function_node __wrapped__SaveV2}}}} /r/data.tempstate; {os.strerror(number)} [Op:SaveV2]"
    return {
        errno.ENOSPC: tf.errors.ResourceExhaustedError(None, None, words),
        errno.EMFILE: tf.errors.ResourceExhaustedError(None, None, words),
        errno.EACCES: tf.errors.PermissionDeniedError(None, None, words),
    }.get(number, OSError(number, os.strerror(number)))


def test_only_a_full_disk_asks_for_room(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path, make(), keep=1)
    said = {}
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EACCES, errno.EIO, errno.EROFS, errno.ENOTDIR):
        with monkeypatch.context() as patched, pytest.raises(CheckpointWriteError) as caught:
            patched.setattr(tf.train.Checkpoint, "write", raising(failing(number)))
            kept.save()
        said[number] = str(caught.value)
        assert os.strerror(number) in said[number] and "run the same command again" in said[number]
    assert {number for number, text in said.items() if "Make room" in text} == {errno.ENOSPC, errno.EDQUOT}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO, errno.ENOTDIR])
def test_a_checkpoint_that_may_not_be_read_is_not_damaged(tmp_path, monkeypatch, number):
    """It is neither set aside nor passed over for an older one."""
    saved_twice(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(tf.train, "load_checkpoint", raising(failing(number)))
    for read in (
        lambda: Checkpoints(tmp_path, make(), keep=3).restore(),
        lambda: checkpoints.load_newest_average(tmp_path, make().network),
    ):
        with pytest.raises(CheckpointError, match=f"checkpoint-1 cannot be read .*{os.strerror(number)}"):
            read()
    assert sorted(tmp_path.iterdir()) == before


def raising(error):
    def fail(*_, **__):
        raise error

    return fail
