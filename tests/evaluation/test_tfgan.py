"""TF-GAN's metrics are imported without its `__init__`, without output, and agree with NumPy and SciPy."""

import importlib.util
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import scipy.linalg

from ncsn_tf.evaluation import tfgan
from ncsn_tf.evaluation.moments import Moments

_MODULES = "[name for name in sys.modules if name.split('.')[0] == 'tensorflow_gan']"


@pytest.fixture(scope="module")
def fresh_process():
    """A new process that computes distances, and then imports `tensorflow_gan` itself."""
    script = f"""
import sys
import numpy as np
import tensorflow
print("START", file=sys.stderr, flush=True)
from ncsn_tf.evaluation import tfgan
print("imported", {_MODULES})
distance = tfgan.kernel_distance(np.eye(4, 3), np.eye(4, 3), block_size=2)
tfgan.classifier_score(np.eye(3))
print("used", {_MODULES})
print("END", file=sys.stderr, flush=True)
try:
    import tensorflow_gan
    print("complete", hasattr(tensorflow_gan, "eval"))
except AttributeError as error:
    print("unchanged", "'tensorflow' has no attribute 'estimator'" in str(error))
tfgan._classifier_metrics.cache_clear()
print("again", tfgan.kernel_distance(np.eye(4, 3), np.eye(4, 3), block_size=2) == distance)
"""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    return process


def test_importing_tensorflow_gan_behaves_as_without_this_module(fresh_process):
    lines = fresh_process.stdout.splitlines()
    assert lines[:2] == ["imported []", "used []"]
    assert lines[2] in ("unchanged True", "complete True"), "complete if TensorFlow has estimators"
    assert lines[3:] == ["again True"]


def test_importing_and_computing_print_nothing(fresh_process):
    assert fresh_process.stderr.partition("START\n")[2].partition("END\n")[0] == ""


@pytest.fixture
def forgotten():
    """Imports the module again, in this test and in the next."""
    tfgan._classifier_metrics.cache_clear()
    yield
    tfgan._classifier_metrics.cache_clear()


def test_modules_that_the_user_imported_stay(forgotten, monkeypatch):
    own = types.ModuleType("tensorflow_gan")
    own.__path__ = list(importlib.util.find_spec("tensorflow_gan").submodule_search_locations)
    monkeypatch.setitem(sys.modules, "tensorflow_gan", own)
    assert tfgan.classifier_score(np.zeros((3, 2))) == 1.0
    assert sys.modules["tensorflow_gan"] is own
    assert [name for name in sys.modules if name.startswith("tensorflow_gan")] == ["tensorflow_gan"]


def test_an_imported_module_is_used_as_it_is(forgotten, monkeypatch):
    theirs = types.ModuleType("tensorflow_gan.python.eval.classifier_metrics")
    theirs.classifier_score_from_logits = lambda logits: 42.0
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    assert tfgan.classifier_score(np.zeros((3, 2))) == 42.0


def test_the_error_for_a_missing_package_names_the_remedy(forgotten, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorflow-gan"):
        tfgan.classifier_score(np.zeros((3, 2)))


def test_the_score_of_a_balanced_one_hot_set_is_its_number_of_classes():
    for logit in (60.0, 1e4):
        np.testing.assert_allclose(tfgan.classifier_score(logit * np.tile(np.eye(7), (5, 1))), 7.0, rtol=1e-12)


def test_a_class_of_probability_zero_does_not_change_the_score():
    logits = np.concatenate([1e4 * np.tile(np.eye(3), (4, 1)), np.full((12, 2), -1e4)], axis=1)
    np.testing.assert_allclose(tfgan.classifier_score(logits), 3.0, rtol=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.8, 0.999])
def test_the_score_of_two_mirrored_distributions_has_its_closed_form(p):
    # p(y) = (1/2, 1/2): KL = p log 2p + q log 2q for both.
    q = 1.0 - p
    logits = np.log([[p, q], [q, p], [p, q], [q, p]]) + np.array([[3.0], [-1.0], [0.0], [50.0]])
    expected = np.exp(p * np.log(2 * p) + q * np.log(2 * q))
    np.testing.assert_allclose(tfgan.classifier_score(logits), expected, rtol=1e-12)


def test_the_score_matches_numpy():
    logits = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32) * 3
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    kl = (p * np.log(p / p.mean(axis=0))).sum(axis=1)
    np.testing.assert_allclose(tfgan.classifier_score(logits), np.exp(kl.mean()), rtol=1e-12)


def test_the_distance_of_diagonal_gaussians_has_its_closed_form():
    a = Moments(10, np.array([1.0, 0.0, -2.0]), np.diag([1.0, 4.0, 9.0]))
    b = Moments(10, np.array([0.0, 2.0, -2.0]), np.diag([4.0, 4.0, 0.25]))
    np.testing.assert_allclose(tfgan.frechet_distance(a, b), 5.0 + 1.0 + 0.0 + 6.25, rtol=1e-12)


def test_the_frechet_distance_matches_scipy():
    generator = np.random.default_rng(1)
    x, y = (generator.standard_normal((200, 20)) @ generator.standard_normal((20, 20)) for _ in range(2))
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    np.testing.assert_allclose(tfgan.frechet_distance(Moments.of(x), Moments.of(y)), expected, rtol=1e-9)


def test_different_numbers_of_features_are_refused():
    with pytest.raises(ValueError, match="Received: 2 and 3 features"):
        tfgan.frechet_distance(Moments(5, np.zeros(2), np.eye(2)), Moments(5, np.zeros(3), np.eye(3)))


def kernel(x, y):
    return (x @ y / len(x) + 1.0) ** 3


@pytest.mark.parametrize("block_size", [5, 12])
def test_the_kernel_distance_is_that_of_a_double_loop(block_size):
    generator = np.random.default_rng(2)
    x, y = generator.standard_normal((10, 3)), 0.5 + generator.standard_normal((10, 3))
    blocks = [(x[:5], y[:5]), (x[5:], y[5:])] if block_size == 5 else [(x, y)]
    values = []
    for a, b in blocks:
        n = len(a)
        pairs = [(i, j) for i in range(n) for j in range(n)]
        within = sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i, j in pairs if i != j) / (n * (n - 1))
        values.append(within - 2 * sum(kernel(a[i], b[j]) for i, j in pairs) / n**2)
    value, error = tfgan.kernel_distance(x.astype(np.float64), y, block_size)
    np.testing.assert_allclose(value, np.mean(values), rtol=1e-12)
    if len(values) == 2:
        np.testing.assert_allclose(error, abs(values[0] - values[1]) / 2, rtol=1e-12)
    else:
        assert np.isnan(error)


def test_the_distance_of_two_point_masses_has_its_closed_form():
    # With all x = u and all y = v it is k(u, u) + k(v, v) - 2 k(u, v), unbiased or not.
    u, v = np.array([1.0, 2.0]), np.array([-1.0, 0.5])
    expected = (5 / 2 + 1) ** 3 + (1.25 / 2 + 1) ** 3 - 2 * (0.0 / 2 + 1) ** 3
    value, error = tfgan.kernel_distance(np.tile(u, (8, 1)), np.tile(v, (8, 1)), block_size=4)
    np.testing.assert_allclose([value, error], [expected, 0.0], atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e6])
def test_the_frechet_distance_scales_with_the_square_of_the_features(scale):
    generator = np.random.default_rng(7)
    sides = generator.standard_normal((2, 400, 6)) * np.linspace(0.5, 1.5, 6) + [[[0.0]], [[0.3]]]
    plain = tfgan.frechet_distance(*(Moments.of(side) for side in sides))
    scaled = tfgan.frechet_distance(*(Moments.of(scale * side) for side in sides))
    np.testing.assert_allclose(scaled / scale**2, plain, rtol=1e-8)
