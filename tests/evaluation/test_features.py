"""Feature networks: their inputs, checked by a stand-in for Inception whose outputs are known, and their errors."""

import hashlib
import json
import pathlib
import shutil
import socket
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import classifier, features
from ncsn_tf.evaluation.features import CLASSIFIER, INCEPTION, FeatureNetwork, FeatureNetworkError
from ncsn_tf.networks.classifier import Classifier
from tests.support.tiny import random_pixels

CELLS = 13 * 13 * 3
"""The number of means over squares of 23x23 in an image of 299x299x3."""
IMAGES = tf.TensorSpec([None, 299, 299, 3], tf.float32)


class StandIn(tf.Module):
    """Has Inception's input and the sizes of its outputs: means over squares, and fixed projections of them."""

    def __init__(self, pooled=2048, classes=1008, names=("pool_3", "logits")):
        super().__init__()
        generator = np.random.default_rng(0)
        self.matrices = [
            tf.Variable(generator.standard_normal((CELLS, size)).astype(np.float32)) for size in (pooled, classes)
        ]
        self.names = names

    @tf.function(input_signature=[IMAGES], autograph=False)
    def __call__(self, images):
        cells = tf.reshape(tf.nn.avg_pool2d(images, 23, 23, "VALID"), [-1, CELLS])
        pooled, logits = (cells @ matrix for matrix in self.matrices)
        return dict(zip(self.names, (pooled[:, None, None], logits), strict=True))  # [B, 1, 1, D], as in TF-GAN


@pytest.fixture(scope="module")
def inception_path(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("networks") / "inception"
    tf.saved_model.save(StandIn(), str(path))
    return path


@pytest.fixture(scope="module")
def inception(inception_path):
    return features.load_inception(inception_path)


SOURCE = ImageSource("noise", random_pixels(11, 5, 7, 1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    network = Classifier(3, 4)
    network.build((None, *SOURCE.shape))
    path = tmp_path_factory.mktemp("networks") / "classifier"
    classifier.export(network, path, {"dataset": SOURCE.describe()})
    return network, path


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Sends every connection to a local port at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        value = "" if name == "no_proxy" else closed
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    monkeypatch.setenv("NCSN_TF_CACHE", str(tmp_path / "cache"))


# Inputs of the networks


def triangle(old, new):
    """Bilinear resizing with half-pixel centres as a matrix [new, old].

    If the image becomes smaller, the triangle widens to the step. Weights beyond the border are left out, and the
    others are normalised to the sum 1.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(1.0 - distances, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def expected(images):
    """The stand-in's outputs for bytes, float64 [B, 2048] and [B, 1008], from NumPy alone."""
    x = np.asarray(images, np.float64) * np.ones(3)  # grey to RGB
    height, width = (triangle(side, 299) for side in x.shape[1:3])
    x = np.einsum("ih,bhwc->biwc", height, x, optimize=True)
    x = np.einsum("jw,biwc->bijc", width, x, optimize=True)
    cells = ((x - 128.0) / 128.0).reshape(-1, 13, 23, 13, 23, 3).mean(axis=(2, 4)).reshape(-1, CELLS)
    generator = np.random.default_rng(0)
    return [cells @ generator.standard_normal((CELLS, size)) for size in (2048, 1008)]


@pytest.mark.parametrize(
    "shape",
    [(8, 8, 1), (8, 8, 3), (10, 33, 3), (299, 299, 3), (299, 299, 1), (897, 897, 1), (350, 40, 3)],
    ids=str,
)
def test_inceptions_input_is_resized_repeated_and_scaled(inception, shape):
    images = random_pixels(2, *shape)
    found = inception(images)
    assert found.pooled.dtype == found.logits.dtype == np.float32 and len(found) == 2
    pooled, logits = expected(images)
    # Values of about sqrt(507) from float32 sums. An error of one level in one cell would change them by more.
    np.testing.assert_allclose(found.pooled, pooled, atol=2e-3)
    np.testing.assert_allclose(found.logits, logits, atol=2e-3)


def test_the_oracle_resizes_as_computed_by_hand():
    np.testing.assert_allclose(triangle(2, 4) @ [0.0, 1.0], [0.0, 0.25, 0.75, 1.0])
    # Every third pixel of a row is 1: it is at each centre, and has a third of each triangle except at the borders.
    np.testing.assert_allclose(triangle(9, 3) @ np.tile([0, 1, 0], 3), [3 / 8, 1 / 3, 3 / 8])


def test_a_classifiers_input_is_scaled(exported):
    network, path = exported
    loaded = features.load_classifier(path)
    found, own = loaded(SOURCE.images), network((SOURCE.images.astype(np.float32) - 128) / 128)
    np.testing.assert_allclose(found.pooled, own["pool_3"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, own["logits"], rtol=1e-5, atol=1e-6)
    assert loaded.data_name == "noise"
    assert loaded.describe() == {
        "kind": "classifier",
        "sha256": loaded.fingerprint,
        "resize": "none",
        "trained_on": "noise",
    }


def test_inception_describes_itself(inception, inception_path):
    assert inception.data_name is None
    assert inception.describe() == {"kind": "inception", "sha256": inception.fingerprint, "resize": inception.resize}
    assert "299x299" in inception.resize and "half-pixel" in inception.resize
    # The SHA-256 of sizes and bytes, computed independently.
    digest = hashlib.sha256()
    for name in ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"):
        content = (inception_path / name).read_bytes()
        digest.update(f"{name}:{len(content)}:".encode() + content)
    assert inception.fingerprint == digest.hexdigest()


def test_the_fingerprint_covers_graph_weights_and_assets_but_not_descriptions(exported, tmp_path):
    original = features.load_classifier(exported[1]).fingerprint
    path = shutil.copytree(exported[1], tmp_path / "copy")
    for name in ("about.json", "fingerprint.pb", "keras_metadata.pb"):
        (path / name).write_text('{"kind": "classifier", "dataset": {"shape": [5, 7, 1]}}')
    assert features.load_classifier(path).fingerprint == original
    seen = {original}
    for name in ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"):
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)
        seen.add(features._fingerprint(path))
    (path / "assets").mkdir(exist_ok=True)
    (path / "assets" / "words.txt").write_text("cat")
    seen.add(features._fingerprint(path))
    assert len(seen) == 5


# Errors


def test_the_error_for_a_missing_saved_model_names_both_remedies(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FeatureNetworkError, match="no SavedModel.*--inception_path.*--classifier_path"):
            features.load_inception(path)
    with pytest.raises(ValueError, match="inception, classifier. Received: 'clip'"):
        FeatureNetwork(tmp_path, "clip")


def test_a_damaged_saved_model_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(FeatureNetworkError, match="cannot be loaded as a SavedModel"):
        features.load_inception(tmp_path)


def test_a_network_of_the_other_kind_is_refused(exported, inception_path, tmp_path):
    with pytest.raises(FeatureNetworkError, match="is a dataset's classifier, not Inception: give --classifier_path"):
        features.load_inception(exported[1])
    for about in (None, "no JSON", "[]", "{}", '{"dataset": null}', '{"dataset": {"shape": [8, 8]}}'):
        path = shutil.copytree(inception_path, tmp_path / "network", dirs_exist_ok=True)
        if about is not None:
            (path / "about.json").write_text(about)
        with pytest.raises(FeatureNetworkError, match=r"about.json has no dataset.shape"):
            features.load_classifier(path)


@pytest.mark.parametrize("sizes", [(64, 1008), (2048, 1000)])
def test_a_network_with_outputs_of_other_sizes_is_not_inception(tmp_path, sizes):
    tf.saved_model.save(StandIn(*sizes), str(tmp_path))
    with pytest.raises(FeatureNetworkError, match=f"its own are .*{sizes[0]}.*{sizes[1]}.*not be a FID"):
        features.load_inception(tmp_path)


def test_a_missing_output_is_named(tmp_path):
    tf.saved_model.save(StandIn(names=("pool_3", "softmax")), str(tmp_path))
    with pytest.raises(FeatureNetworkError, match=r"has no output logits, but \['pool_3', 'softmax'\]"):
        features.load_inception(tmp_path)


def test_a_model_that_cannot_be_called_with_one_batch_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "nothing"))
    module: Any = tf.Module()
    styled = lambda images, style: {"pool_3": images + style, "logits": images}  # noqa: E731
    two = tf.function(styled, input_signature=[IMAGES, IMAGES], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "two"), signatures={"serving_default": two.get_concrete_function()})
    for name in ("nothing", "two"):
        with pytest.raises(FeatureNetworkError, match="cannot be called, and has no signature .*one batch"):
            features.load_inception(tmp_path / name)


def test_a_signature_is_used_if_the_model_cannot_be_called(tmp_path, inception):
    module: Any = tf.Module()
    module.inner = StandIn()
    signature = tf.function(lambda images: module.inner(images), input_signature=[IMAGES])
    tf.saved_model.save(module, str(tmp_path), signatures=signature.get_concrete_function())
    images = random_pixels(2, 8, 8, 1)
    np.testing.assert_array_equal(features.load_inception(tmp_path)(images).pooled, inception(images).pooled)


def test_images_that_do_not_fit_are_refused(exported, inception, tmp_path):
    loaded = features.load_classifier(exported[1])
    loaded.check_shape((5, 7, 1))
    with pytest.raises(FeatureNetworkError, match=r"is for images \(5, 7, 1\). Received: images \(7, 5, 1\)"):
        features.extract(loaded, random_pixels(3, 7, 5, 1))
    with pytest.raises(FeatureNetworkError, match="grey or RGB images. Received: 4 channels"):
        features.extract(inception, random_pixels(3, 8, 8, 4))
    path = shutil.copytree(exported[1], tmp_path / "copy")
    (path / "about.json").write_text('{"kind": "classifier", "dataset": {"shape": [5, 7, 3]}}')
    with pytest.raises(FeatureNetworkError, match=r"does not take images \(5, 7, 3\)"):
        features.load_classifier(path)


# Many images


class Counting:
    """A network whose features are the first pixel and its double; it records its batches."""

    def __init__(self, broken=()):
        self.broken, self.batches = broken, []

    def check_shape(self, shape):
        assert shape == (2, 2, 1)

    def __call__(self, images):
        self.batches.append(images)
        first = images[:, 0, 0].astype(np.float32)
        return features.Features(np.where(np.isin(first, self.broken), np.nan, first), np.hstack([first, 2 * first]))


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
def test_features_do_not_depend_on_the_batches(exported, batch_size):
    loaded = features.load_classifier(exported[1])
    rows = []
    found = features.extract(loaded, SOURCE.images, batch_size=batch_size, on_batch=rows.append)
    whole = loaded(SOURCE.images)
    np.testing.assert_allclose(found.pooled, whole.pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, whole.logits, rtol=1e-5, atol=1e-6)
    assert sum(rows) == 11 and max(rows) == min(batch_size, 11)


def test_the_last_batch_is_padded_and_the_padding_is_left_out():
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    network: Any = Counting()
    rows = []
    found = features.extract(network, images, batch_size=4, on_batch=rows.append)
    assert rows == [4, 4, 2] and [len(batch) for batch in network.batches] == [4, 4, 4]
    np.testing.assert_array_equal(found.pooled, np.arange(10)[:, None])
    np.testing.assert_array_equal(found.logits, np.arange(10)[:, None] * [1, 2])


def test_features_that_are_not_finite_are_refused():
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    network: Any = Counting(broken=(5, 8))
    with pytest.raises(FeatureNetworkError, match="features of 2 images are not finite, the first of image 5"):
        features.extract(network, images, batch_size=3)


# The download of Inception


def test_without_a_connection_the_error_names_both_remedies(tmp_path):
    before = socket.getdefaulttimeout()
    with pytest.raises(FeatureNetworkError, match="not be downloaded .*refused.*--inception_path.*--classifier_path"):
        features.load_inception()
    assert socket.getdefaulttimeout() == before
    assert not list((tmp_path / "hub").glob("*.lock"))


@pytest.mark.filterwarnings("ignore:pkg_resources")
def test_the_error_for_a_failed_download_names_both_remedies(monkeypatch):
    def resolve(address):
        assert address == features.INCEPTION_ADDRESS and socket.getdefaulttimeout() == 60.0
        raise EOFError("half an archive")

    monkeypatch.setattr("tensorflow_hub.resolve", resolve)
    with pytest.raises(
        FeatureNetworkError, match=r"\(EOFError: half an archive\).*--inception_path.*--classifier_path"
    ):
        features.load_inception()


@pytest.mark.parametrize("set_by_the_user", [True, False])
def test_an_earlier_download_is_found(monkeypatch, tmp_path, inception_path, inception, set_by_the_user):
    cache = tmp_path / "hub" if set_by_the_user else tmp_path / "cache" / "tfhub"
    if not set_by_the_user:
        monkeypatch.delenv("TFHUB_CACHE_DIR")
    # TensorFlow Hub names the folder after the SHA-1 of the address.
    place = cache / hashlib.sha1(b"https://tfhub.dev/tensorflow/tfgan/eval/inception/1").hexdigest()
    shutil.copytree(inception_path, place)
    found = features.load_inception()
    assert found.kind == INCEPTION and found.path == place and found.fingerprint == inception.fingerprint


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    for value, expected_path in (("/own", "/own"), ("~/own", str(tmp_path / "own")), ("", "/elsewhere/ncsn_tf")):
        monkeypatch.setenv("NCSN_TF_CACHE", value)
        assert str(features.cache_directory()) == expected_path
    monkeypatch.delenv("NCSN_TF_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert features.cache_directory() == tmp_path / ".cache" / "ncsn_tf"


def test_inception_may_have_any_about_file(inception_path, tmp_path, inception):
    path = shutil.copytree(inception_path, tmp_path / "copy")
    (path / "about.json").write_text(json.dumps({"from": "elsewhere"}))
    assert features.load_inception(path).describe() == inception.describe()
    with pytest.raises(FeatureNetworkError):
        FeatureNetwork(path, CLASSIFIER)
