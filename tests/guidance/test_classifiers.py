"""Classifiers of noisy images in their folders: the same logits come back, and only the run's own are taken."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.guidance import classes, classifiers
from ncsn_tf.sde import VE, VP

PERTURBATION = {"sde.name": "vp", "sde.beta_max": 20.0, "times.name": "uniform"}
SHAPE = (4, 4, 1)
X, T = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32), tf.constant([1e-3, 0.5, 1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifiers")
    made = classifiers.make(3, 4, SHAPE, VP(), seed=1)
    classifiers.save(made, path / "saved", PERTURBATION, {"seed": 1})
    (path / "clean").mkdir()
    (path / "clean" / "about.json").write_text(json.dumps({"kind": "classifier"}))
    (path / "damaged").mkdir()
    (path / "damaged" / "about.json").write_text((path / "saved" / "about.json").read_text())
    (path / "damaged" / "weights.npz").write_bytes((path / "saved" / "weights.npz").read_bytes()[:100])
    return path


def test_a_saved_classifier_gives_the_same_logits(folder):
    found = classifiers.load(folder / "saved", PERTURBATION, SHAPE, VP())
    made = classifiers.make(3, 4, SHAPE, VP(), seed=1)
    np.testing.assert_array_equal(found.logits(X, T), made.logits(X, T))
    assert found.checksum() == made.checksum() != classifiers.make(3, 4, SHAPE, VP(), seed=2).checksum()
    chosen = classes.of_classifier([2, 0], 3.0, found)
    assert chosen.key == {"labels": [2, 0], "guidance_scale": 3.0, "classifier": found.checksum()}
    with pytest.raises(ValueError, match="labels 0 to 2. Received: 3"):
        classes.of_classifier([3], 3.0, found)


@pytest.mark.parametrize("sde", [VP(), VE(sigma_max=50.0, sigma_min=0.01)], ids=["vp", "ve"])
def test_the_network_sees_images_of_one_size_and_the_logarithm_of_the_noise(sde):
    seen = []

    def network(x, condition):
        seen.append((x.numpy(), condition.numpy()))
        return tf.zeros([len(x), 3])

    classifiers.NoiseConditional(network, sde).logits(tf.constant(X), T)
    alpha, sigma = (part.numpy() for part in sde.marginal(T))
    (x, condition), size = seen[0], np.sqrt(alpha**2 + sigma**2)
    np.testing.assert_allclose(x, X / size[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(condition, np.log(sigma / alpha), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "perturbation", "shape", "message"),
    [
        ("saved", PERTURBATION, (8, 8, 1), r"classifies images \[4, 4, 1\], the run's are \[8, 8, 1\]"),
        ("saved", PERTURBATION | {"sde.beta_max": 10.0}, SHAPE, "sde.beta_max: 20.0 there, 10.0 now"),
        ("saved", PERTURBATION | {"times.name": "log_snr"}, SHAPE, "times.name: 'uniform' there, 'log_snr' now"),
        ("none", PERTURBATION, SHAPE, "a classifier of noisy images. Received: none"),
        ("clean", PERTURBATION, SHAPE, "Received: a classifier of clean images"),
        ("damaged", PERTURBATION, SHAPE, "cannot be read as a classifier"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused_with_the_remedy(folder, name, perturbation, shape, message):
    with pytest.raises(classifiers.ClassifierError, match=f"{message}.*launch.train_classifier --noisy --workdir=RUN"):
        classifiers.load(folder / name, perturbation, shape, VP())


def test_nothing_is_overwritten(folder):
    with pytest.raises(ValueError, match="saved exists and is not an empty folder"):
        classifiers.save(classifiers.make(3, 4, SHAPE, VP(), seed=1), folder / "saved", PERTURBATION, {})
