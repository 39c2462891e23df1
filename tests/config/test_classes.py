"""Runs whose network has classes: the labels that training gets, and wrong numbers of classes."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.config import build, sections
from ncsn_tf.data import labels


def config(**network):
    """A small U-Net of the VP SDE on the digits."""
    values = sections.ncsn().to_dict()
    values["data"]["name"] = "digits"
    for section, name in (
        ("sde", "vp"),
        ("times", "uniform"),
        ("condition", "scaled_time"),
        ("output", "noise"),
        ("sampler", "ddim"),
    ):
        values[section] = sections.section(section, name).to_dict()
    small = {"filters": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "embedding": "positional"}
    plain = {"dropout": 0.0, "output_sigmas": "none", "progressive_input": "none"}
    values["network"] = {**sections.section("network", "unet").to_dict(), **small, **plain, **network}
    return values


def test_a_network_with_classes_is_trained_with_the_labels_of_the_data():
    builder, strategy = build.Builder(config(num_classes=10, label_dropout=0.25)), tf.distribute.get_strategy()
    source = builder.load_images("train")
    batch = next(iter(builder.batches(source, strategy, 0)))
    known = labels.load("digits", "train").values
    np.testing.assert_array_equal(batch["label"], known[batch["example"].numpy() % len(source)])
    held_out, _ = builder.held_out_batches(builder.load_images("held_out"), strategy, 8)
    np.testing.assert_array_equal(next(iter(held_out))["label"][:8], labels.load("digits", "held_out").values[:8])
    trainer = builder.trainer(strategy, (8, 8, 1))
    assert trainer.network.num_classes == 10 == trainer._no_class and trainer._label_dropout == 0.25
    assert np.isfinite(trainer.run(iter(builder.batches(source, strategy, 0)), 1).loss)
    assert build.Builder(config()).load_labels("train") is None


def test_other_numbers_of_classes_are_refused_and_what_is_not_trained_is_said():
    with pytest.raises(ValueError, match=r"digits has 10 classes: give network.num_classes=10. Received: 7"):
        build.Builder(config(num_classes=7)).load_labels("train")
    with pytest.raises(ValueError, match=r"network\.label_dropout must be .* 1\.?.* Received: 1.5"):
        build.Builder(config(num_classes=10, label_dropout=1.5))
    with pytest.warns(UserWarning, match="label_dropout=0: the score without a class is not trained"):
        build.Builder(config(num_classes=10, label_dropout=0.0)).trainer(tf.distribute.get_strategy(), (8, 8, 1))
