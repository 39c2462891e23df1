"""An evaluation from end to end: digits and copies of them, compared by a small classifier; the cache of statistics."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from ncsn_tf.data import images
from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import classifier, evaluator, features, references, report
from ncsn_tf.evaluation.features import FeatureNetworkError
from ncsn_tf.evaluation.held_out import HeldOutLoss
from ncsn_tf.evaluation.image_files import ImagesError
from ncsn_tf.evaluation.references import ReferenceStatisticsError
from ncsn_tf.networks.classifier import Classifier
from tests.support.tiny import random_pixels

SHAPE = (8, 8, 1)
NAMES = ["score", "fid", "fid_infinity", "kid", "precision", "recall"]
HELD_OUT_LOSS = HeldOutLoss(np.array([1.0, 0.1]), np.array([0.5, 2.5]), np.array([0.01, 0.02]), 40)


@pytest.fixture(scope="module")
def train():
    return images.load("digits", "train")


@pytest.fixture(scope="module")
def held_out():
    return images.load("digits", "held_out")


@pytest.fixture(scope="module")
def network(tmp_path_factory, train):
    """An untrained classifier: its features distinguish digits from noise, as any features do."""
    path = tmp_path_factory.mktemp("networks") / "classifier"
    untrained = Classifier(10, 4, seed=1)
    untrained.build((None, *SHAPE))
    classifier.export(untrained, path, {"dataset": train.describe()})
    return features.load_classifier(path)


@pytest.fixture(scope="module")
def reference(network, train):
    return references.compute(network, train, split="train", preparation={}, batch_size=500)


@pytest.fixture
def digits_evaluator(network, reference, train, held_out):
    return evaluator.Evaluator(
        network, reference, shape=SHAPE, dataset=train.describe(), train=train, held_out=held_out, batch_size=128
    )


class Progress:
    """Adds up the images of each activity."""

    def __init__(self):
        self.rows = {}

    def __call__(self, activity, rows):
        self.rows[activity] = self.rows.get(activity, 0) + rows


def strictly(text):
    """Reads JSON as the standard defines it, without NaN."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


# Evaluating


def test_unseen_digits_have_the_probability_one_half(digits_evaluator, held_out, tmp_path):
    progress = Progress()
    found = digits_evaluator.evaluate(held_out.images, tmp_path, held_out=HELD_OUT_LOSS, progress=progress)
    assert [one.name for one in found.measurements] == [f"classifier_{name}" for name in NAMES]
    assert found.absent == [] and found.caveats == []
    for comparison in found.copies.values():
        assert comparison.probability_nearer == 0.5
    assert found.copies["pixels"].copies == 0
    assert progress.rows["features of samples"] == progress.rows["features of held-out images"] == len(held_out)
    assert "features of training images" not in progress.rows, "the reference holds their features"
    assert "classifier_precision, classifier_recall" in progress.rows and "nearest training images" in progress.rows
    for name in ("neighbours_pixels.png", "neighbours_features.png", "distances.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 100

    path = report.write(tmp_path, found, {**digits_evaluator.about(), "checkpoint": 7})
    assert path == tmp_path / "results.json"
    content = strictly(path.read_text(encoding="utf-8"))
    assert content["metrics"]["classifier_fid"]["value"] == found.measurements[1].value
    assert content["metrics"]["classifier_fid"]["num_reference"] == 1501
    assert content["copies"]["features"]["probability_nearer"] == 0.5
    assert content["copies"]["pixels"]["copies"] == 0
    assert content["checkpoint"] == 7 and content["not_measured"] == content["warnings"] == []
    assert content["reference"]["images"] == 1501 and content["reference"]["dataset"]["name"] == "digits"
    assert content["feature_network"]["trained_on"] == "digits"
    assert content["held_out_denoising_loss"] == {
        "mean": 1.5,
        "images": 40,
        "sigmas": [1.0, 0.1],
        "by_level": [0.5, 2.5],
        "standard_errors": [0.01, 0.02],
    }


def test_a_copied_training_set_is_found(digits_evaluator, train, tmp_path):
    copied = train.images[100:400]
    found = digits_evaluator.evaluate(copied, tmp_path, metrics=["fid"])
    assert [one.name for one in found.measurements] == ["classifier_fid"]
    assert found.copies["pixels"].copies == 300
    assert found.copies["pixels"].probability_nearer > 0.99
    assert found.copies["features"].probability_nearer > 0.95
    line = next(line for line in found.lines() if line.startswith("copies, by pixels"))
    assert "300 exact" in line and "with probability 1.000" in line


def test_noise_is_far_from_the_digits(digits_evaluator, held_out, tmp_path):
    noise = digits_evaluator.evaluate(random_pixels(296, *SHAPE), tmp_path)
    digits = digits_evaluator.evaluate(held_out.images)
    values = [{one.name: one.value for one in found.measurements} for found in (noise, digits)]
    for name in ("classifier_fid", "classifier_fid_infinity", "classifier_kid"):
        assert values[0][name] > 10 * values[1][name]
    assert values[0]["classifier_precision"] < 0.5 * values[1]["classifier_precision"]
    assert noise.copies["pixels"].probability_nearer < 0.01


def test_copies_are_looked_for_only_with_an_output_and_both_sets_of_images(
    digits_evaluator, network, reference, train, tmp_path
):
    samples = random_pixels(30, *SHAPE)
    assert digits_evaluator.evaluate(samples, metrics=[]).copies == {}
    alone = evaluator.Evaluator(network, reference, shape=SHAPE, train=train)
    assert alone.evaluate(samples, tmp_path, metrics=[]).copies == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"features": None}, {"about": None}])
def test_features_of_training_images_are_computed_once_if_the_reference_lacks_them(
    network, reference, train, held_out, tmp_path, change
):
    strange = dataclasses.replace(reference, **change)
    digits_evaluator = evaluator.Evaluator(network, strange, shape=SHAPE, train=train, held_out=held_out)
    progress = Progress()
    for _ in range(2):
        found = digits_evaluator.evaluate(train.images[:20], tmp_path, metrics=[], progress=progress)
        assert found.copies["features"].probability_nearer > 0.95
    assert progress.rows["features of training images"] == len(train)
    assert progress.rows["features of held-out images"] == len(held_out)
    assert progress.rows["features of samples"] == 40


# Errors


def test_samples_of_another_shape_and_meaningless_samples_are_refused(digits_evaluator, tmp_path):
    with pytest.raises(ImagesError, match=r"are \(8, 8, 1\). Received samples \(8, 8, 3\)"):
        digits_evaluator.evaluate(random_pixels(30, 8, 8, 3), tmp_path)
    with pytest.raises(ImagesError, match="All 30 images are the same"):
        digits_evaluator.evaluate(np.zeros((30, *SHAPE), np.uint8), tmp_path)
    with pytest.raises(ImagesError, match="estimated from 1 image"):
        digits_evaluator.evaluate(random_pixels(1, *SHAPE))


def test_parts_that_do_not_belong_together_are_refused_at_once(network, reference, train):
    with pytest.raises(FeatureNetworkError, match="for images"):
        evaluator.Evaluator(network, reference, shape=(9, 8, 1))
    theirs = {**train.describe(), "name": "mnist", "checksum": 0}
    with pytest.raises(ReferenceStatisticsError, match="trained on mnist"):
        evaluator.Evaluator(network, reference, shape=SHAPE, dataset=theirs)


def test_caveats_about_reference_and_samples_are_in_the_report(network, reference, held_out):
    foreign = dataclasses.replace(reference, about=None)
    digits_evaluator = evaluator.Evaluator(network, foreign, shape=SHAPE)
    found = digits_evaluator.evaluate(np.repeat(held_out.images[:30], 2, axis=0), metrics=["fid", "inception_score"])
    assert "record neither" in found.caveats[0] and "no copies are looked for" in found.caveats[1]
    assert found.caveats[2:] == ["of 60 images only 30 are distinct"]
    assert digits_evaluator.about()["reference"] == {"images": 1501}


# The cache


def test_statistics_are_computed_once_and_again_if_the_file_is_damaged(network, held_out, tmp_path, monkeypatch):
    monkeypatch.setenv("NCSN_TF_CACHE", str(tmp_path))

    def ask(source=held_out):
        progress = Progress()
        found = evaluator.cached_reference(network, source, split="held_out", preparation={}, progress=progress)
        return found, sum(progress.rows.values())

    first, work = ask()
    assert work == len(held_out) == first.moments.count
    again, work = ask()
    assert work == 0 and again.about == first.about
    np.testing.assert_array_equal(again.moments.covariance, first.moments.covariance)
    np.testing.assert_array_equal(again.features, first.features)
    path = references.cached_path(network, held_out)
    path.write_bytes(path.read_bytes()[:-100])
    repaired, work = ask()
    assert work == len(held_out)
    np.testing.assert_array_equal(repaired.moments.mean, first.moments.mean)
    assert ask()[1] == 0
    assert ask(ImageSource("digits", held_out.images[:50]))[1] == 50
    assert len(list(path.parent.iterdir())) == 2
    with pytest.raises(FeatureNetworkError, match="for images"):
        ask(ImageSource("noise", random_pixels(9, 7, 8, 1)))
