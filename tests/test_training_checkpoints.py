"""Checkpoints: resuming is never having stopped; retention; what does not fit is refused."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import build, defaults
from ncsn_tf.training import checkpoints
from ncsn_tf.training.checkpoints import CheckpointError, Checkpoints
from tests.tiny import TinyNetwork, make, run


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
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


def test_every_weight_of_the_real_network_comes_back(tmp_path):
    """A layer that holds others in lists once lost their weights in the file, and nothing failed."""
    values = defaults.ncsn().to_dict()
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


def test_the_newest_few_are_kept_and_found_by_step(tmp_path):
    trainer = make()
    kept = Checkpoints(tmp_path, trainer, keep=2)
    for _ in range(3):
        run(trainer, 1)
        path = kept.save()
        assert kept.save() == path, "a step that is saved already is not saved again"
    assert checkpoints.step_of(checkpoints.find(tmp_path)) == 3
    assert checkpoints.step_of(checkpoints.find(tmp_path, 2)) == 2
    with pytest.raises(CheckpointError, match=r"step 1 .*\[2, 3\]"):
        checkpoints.find(tmp_path, 1)

    network = TinyNetwork()
    network.build()
    checkpoints.load_average(checkpoints.find(tmp_path), network)
    for ours, theirs in zip(network.get_weights(), trainer.average.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("damage", ["truncated data", "no data", "truncated index"])
def test_a_damaged_checkpoint_is_named_and_the_older_one_offered(tmp_path, damage):
    trainer = make()
    kept = Checkpoints(tmp_path, trainer, keep=2)
    kept.save()
    run(trainer, 1)
    path = kept.save()
    data, index = pathlib.Path(f"{path}.data-00000-of-00001"), pathlib.Path(f"{path}.index")
    if damage == "truncated data":
        data.write_bytes(data.read_bytes()[:100])
    elif damage == "no data":
        data.unlink()
    else:
        index.write_bytes(index.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r"checkpoint-1 is damaged.*there are: \[0\]"):
        Checkpoints(tmp_path, make(), keep=2).restore()
    network = TinyNetwork()
    network.build()
    with pytest.raises(CheckpointError, match="checkpoint-1 is damaged"):
        checkpoints.load_average(path, network)


def test_a_lost_list_of_checkpoints_does_not_start_anew(tmp_path):
    trainer = make()
    run(trainer, 2)
    Checkpoints(tmp_path, trainer, keep=1).save()
    (tmp_path / "checkpoint").unlink()
    assert Checkpoints(tmp_path, make(), keep=1).restore() == 2


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="No checkpoint in"):
        checkpoints.find(tmp_path)


def test_another_architecture_is_refused(tmp_path):
    trainer = make()
    path = Checkpoints(tmp_path, trainer, keep=1).save()
    network = TinyNetwork(kernel_size=5)
    network.build()
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoints.load_average(path, network)
