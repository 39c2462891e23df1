"""Training, testing and exporting a dataset's classifier; the export is read back with TensorFlow alone."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ncsn_tf import random
from ncsn_tf.data import images
from ncsn_tf.evaluation import classifier
from ncsn_tf.networks.classifier import Classifier
from ncsn_tf.objectives import NonFiniteLossError
from tests.support import processes
from tests.support.tiny import random_pixels

ABOUT = {"dataset": {"name": "noise", "images": 12, "shape": [5, 7, 1], "checksum": 1}, "seed": 3}


def of_one_class(winner, num_classes=3, shape=(5, 7, 1)):
    """A classifier whose largest logit is that of class `winner` for any image."""
    network = Classifier(num_classes, 4)
    network.build((None, *shape))
    kernel, bias = network.head.get_weights()
    network.head.set_weights([0 * kernel, np.eye(num_classes)[winner]])
    return network


def network_of(shape=(5, 7, 1)):
    network = Classifier(3, 4, seed=1)
    network.build((None, *shape))
    return network


# Training


def test_bytes_are_scaled_as_in_tf_gan():
    levels = np.array([0, 64, 128, 255], np.uint8)
    np.testing.assert_array_equal(classifier.scaled(levels), [-1.0, -0.5, 0.0, 127 / 128])


@pytest.mark.parametrize("shape", [(9, 8, 3), (5, 7, 1)])
def test_training_batches_hold_scaled_images_with_their_labels(shape):
    pictures = random_pixels(11, *shape)
    targets = np.arange(11, dtype=np.int32) % 3
    stream = classifier._batches(images.ImageSource("noise", pictures), targets, seed=2, batch_size=4)
    shown, told = (np.concatenate(parts) for parts in zip(*stream.take(6).as_numpy_iterator(), strict=True))
    expected = (pictures.astype(np.float32) - 128) / 128
    variants = {x.tobytes(): (i, k) for i, picture in enumerate(expected) for k, x in enumerate(augmented(picture))}
    found = [variants[x.tobytes()] for x in shown]  # raises KeyError if it is not a variant of a picture
    of, kinds = zip(*found, strict=True)
    np.testing.assert_array_equal(told, targets[list(of)])
    assert sorted(of[:11]) == list(range(11)) and sorted(of[11:22]) == list(range(11))
    if shape == (9, 8, 3):
        assert len(set(kinds)) > 6 and min(kinds) < 9 <= max(kinds)  # the second half are mirrored


def augmented(picture):
    """The variants of a picture in training: 5x7 grey stays, 9x8 colour is mirrored and shifted by up to one pixel."""
    if picture.shape == (5, 7, 1):
        return [picture]
    both = [picture, picture[:, ::-1]]
    return [moved(x, down, right) for x in both for down in (-1, 0, 1) for right in (-1, 0, 1)]


def moved(x, down, right):
    """The picture shifted down and right, with its border repeated."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)), mode="edge")
    return padded[2 - down : 2 - down + height, 2 - right : 2 - right + width]


def test_shifts_are_whole_pixels_and_equally_frequent():
    count, most = 1800, 1
    picture = np.arange(20, dtype=np.float32).reshape(4, 5, 1)
    example_seeds = random.per_example(random.seed(4), tf.range(count))
    out = np.asarray(classifier._shifted(tf.constant(np.tile(picture, (count, 1, 1, 1))), most, example_seeds))
    frequencies = [
        np.sum((out == moved(picture, down, right)).all(axis=(1, 2, 3))) for down in (-1, 0, 1) for right in (-1, 0, 1)
    ]
    assert sum(frequencies) == count
    expected = count / 9
    assert np.abs(np.array(frequencies) - expected).max() < 4 * np.sqrt(expected * 8 / 9)


def test_training_learns_arbitrary_labels_and_depends_on_the_seed_alone():
    pictures, targets = random_pixels(12, 5, 7, 1), np.array([0, 1, 2, 2, 1, 0, 0, 0, 1, 2, 1, 1])
    told = []
    options = {"steps": 80, "batch_size": 8}
    keras.utils.set_random_seed(99)
    first = classifier.train(pictures, targets, 3, seed=5, log=lambda *line: told.append(line), **options)
    assert classifier.accuracy(first, pictures, targets) == 1.0
    assert [step for step, _ in told] == list(range(1, 81))
    assert told[-1][1] < np.log(3) / 2  # half the loss of a guess among three classes
    keras.utils.set_random_seed(11)
    same = classifier.train(pictures, targets, 3, seed=5, **options)
    other = classifier.train(pictures, targets, 3, seed=6, **options)
    for one, two in zip(first.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.allclose(first.head.kernel, other.head.kernel)


def test_gradients_are_repeatable_during_training():
    def option():
        return tf.config.optimizer.get_experimental_options().get("arithmetic_optimization")

    before, during = option(), []
    options = {"seed": 0, "steps": 2, "batch_size": 4, "log": lambda step, loss: during.append(option())}
    classifier.train(random_pixels(4, 5, 7, 1), np.array([0, 1, 0, 1]), 2, **options)
    assert before is not False and during == [False, False] and option() == before


def test_a_loss_that_is_not_finite_ends_the_training(monkeypatch):
    monkeypatch.setattr(classifier, "_LEARNING_RATE", float("nan"))
    with pytest.raises(NonFiniteLossError, match="loss at step 2 is nan"):
        classifier.train(random_pixels(4, 5, 7, 1), np.array([0, 1, 0, 1]), 2, seed=0, steps=5, batch_size=4)


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (np.array([0, 1, 2]), {}, r"4 images need integer labels \[4\]. Received: int64 \(3,\)"),
        (np.array([0.0, 1, 1, 1]), {}, "Received: float64"),
        (np.array([0, 1, 2, 3]), {}, r"Labels of 3 classes must be in \[0, 3\). Received: 0 to 3"),
        (np.array([0, 1, 2, -1]), {}, "Received: -1 to 2"),
        (np.array([0, 1, 2, 1]), {"steps": 0}, "1 step of at least 1 image.*Received: steps=0"),
        (np.array([0, 1, 2, 1]), {"batch_size": 0}, "Received: steps=2, batch_size=0"),
        (np.array([0, 1, 2, 1]), {"steps": 2**30}, "fewer than 2.31 images"),
        (np.array([0, 1, 2, 1]), {"seed": -1}, "seed must be"),
    ],
)
def test_wrong_training_arguments_are_refused(targets, options, message):
    with pytest.raises(ValueError, match=message):
        classifier.train(random_pixels(4, 5, 7, 1), targets, 3, **{"seed": 0, "steps": 2, "batch_size": 4, **options})


def test_accuracy_is_the_share_of_images_whose_largest_logit_is_that_of_their_label():
    pictures, targets = random_pixels(7, 5, 7, 1), np.array([0, 1, 2, 2, 1, 2, 2])
    for winner, share in enumerate((1 / 7, 2 / 7, 4 / 7)):
        assert classifier.accuracy(of_one_class(winner), pictures, targets, batch_size=3) == pytest.approx(share)
    with pytest.raises(ValueError, match="7 images need integer labels"):
        classifier.accuracy(of_one_class(0), pictures, targets[:3])


# Exporting


@pytest.mark.parametrize("shape", [(5, 7, 1), (9, 8, 3)])
def test_the_exported_function_gives_the_same_outputs(tmp_path, shape):
    network, path = network_of(shape), tmp_path / "made" / "classifier"
    classifier.export(network, path, ABOUT)
    assert [other.name for other in path.parent.iterdir()] == ["classifier"]
    loaded = tf.saved_model.load(str(path))
    for count in (1, 5):
        x = np.random.default_rng(count).uniform(-1, 1, (count, *shape)).astype(np.float32)
        expected = network(x)
        for outputs in (loaded(x), loaded.signatures["serving_default"](images=tf.constant(x))):
            assert set(outputs) == {"logits", "pool_3"}
            for name in outputs:
                np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-5, atol=1e-6)
    about = json.loads((path / "about.json").read_text())
    assert about == {
        **ABOUT,
        "kind": "classifier",
        "classes": 3,
        "input": "float32 in [-1, 1], (byte - 128) / 128 as TF-GAN scales",
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def test_the_export_does_not_need_keras(tmp_path):
    classifier.export(network_of(), tmp_path / "classifier", ABOUT)
    model = saved_model_pb2.SavedModel.FromString((tmp_path / "classifier" / "saved_model.pb").read_bytes())
    nodes = model.meta_graphs[0].object_graph_def.nodes
    kinds = {node.user_object.identifier for node in nodes if node.WhichOneof("kind") == "user_object"}
    assert kinds <= {"_generic_user_object", "trackable_list_wrapper", "signature_map"}


def test_nothing_is_overwritten(tmp_path):
    network = network_of()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(ValueError, match=f"{name} exists and is not an empty folder"):
            classifier.export(network, tmp_path / name, ABOUT)
    assert (tmp_path / "full" / "note").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    classifier.export(network, tmp_path / "empty", ABOUT)
    assert (tmp_path / "empty" / "saved_model.pb").is_file()
    with pytest.raises(ValueError, match="build it first"):
        classifier.export(Classifier(3), tmp_path / "unbuilt", ABOUT)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(module, path, **_):
        tf.io.gfile.makedirs(path)
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        classifier.export(network_of(), tmp_path / "classifier", ABOUT)
    assert not list(tmp_path.iterdir())


# Digits


def test_the_digits_classifier_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setitem(classifier._TRAINING, "digits", {"steps": 50, "batch_size": 64})
    path = classifier.ensure_digits(tmp_path / "cache" / "digits")
    about = json.loads((path / "about.json").read_text())
    assert about["dataset"] == images.load("digits", "train").describe()
    assert (about["seed"], about["steps"], about["batch_size"], about["classes"]) == (0, 50, 64, 10)
    # After two epochs. A guess among ten classes has the accuracy 0.1, with a standard error of 0.02.
    assert about["held_out_images"] == 296 and about["held_out_accuracy"] > 0.9
    assert tf.saved_model.load(str(path))(tf.zeros([1, 8, 8, 1]))["pool_3"].shape == (1, 64)
    monkeypatch.setattr(classifier, "train", lambda *_, **__: pytest.fail("trained again"))
    assert classifier.ensure_digits(path) == path
    (tmp_path / "note").write_text("mine")
    for other in (tmp_path, tmp_path / "note"):
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            classifier.ensure_digits(other)


def test_if_two_processes_train_the_digits_classifier_at_once_the_first_result_is_kept(tmp_path, monkeypatch):
    path, save = tmp_path / "digits", tf.saved_model.save
    monkeypatch.setattr(classifier, "train", lambda *_, **__: of_one_class(0, 10, (8, 8, 1)))

    def save_while_another_process_finishes(*arguments, **options):
        save(*arguments, **options)
        path.mkdir()
        for name in ("saved_model.pb", "about.json"):
            (path / name).write_text("the first one's")

    monkeypatch.setattr(tf.saved_model, "save", save_while_another_process_finishes)
    assert classifier.ensure_digits(path) == path
    assert (path / "saved_model.pb").read_text() == "the first one's"
    assert [other.name for other in tmp_path.iterdir()] == ["digits"]


# The launcher


launch = functools.partial(processes.launch, "train_classifier")


def test_the_launcher_writes_a_classifier(tmp_path):
    result = launch("--data_name=digits", f"--output={tmp_path / 'digits'}", "--steps=3", "--seed=7", "--image_size=5")
    assert result.returncode == 0, result.stderr
    assert "10 classes of digits: 1501 images (5, 5, 1), 296 held out" in result.stdout
    assert "Held-out accuracy: " in result.stdout and f"Classifier: {tmp_path / 'digits'}" in result.stdout
    about = json.loads((tmp_path / "digits" / "about.json").read_text())
    assert (about["steps"], about["seed"], about["batch_size"], about["dataset"]["shape"]) == (3, 7, 64, [5, 5, 1])


def test_the_launcher_reports_a_mistake_in_one_line(tmp_path):
    (tmp_path / "note").write_text("mine")
    result = launch("--data_name=digits", f"--output={tmp_path}")
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ") and "is not an empty folder" in line
