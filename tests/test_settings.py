"""Settings of others: results do not depend on a user's Keras, Matplotlib and environment, which stay as they are."""

import json
import os
import re
import subprocess
import sys

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import pictures
from ncsn_tf.networks.classifier import Classifier
from ncsn_tf.networks.mlp import MLP
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.training import optimizers
from tests.support import processes


@pytest.fixture(params=["float16", "float64"])
def hostile_keras(request):
    before = (
        keras.config.floatx(),
        keras.config.epsilon(),
        keras.config.image_data_format(),
        keras.config.dtype_policy(),
    )
    settings = (keras.config.set_floatx, keras.config.set_epsilon, keras.config.set_image_data_format)

    def apply():
        for setting, value in zip(settings, (request.param, 0.1, "channels_first"), strict=True):
            setting(value)
        keras.config.set_dtype_policy("mixed_bfloat16")

    yield apply
    for setting, value in zip(settings, before, strict=False):
        setting(value)
    keras.config.set_dtype_policy(before[3])


def outputs():
    """The outputs of each network, and weights after steps of each optimizer."""
    x = np.random.default_rng(0).random((2, 9, 8, 3), dtype=np.float32)
    level = np.array([0, 2])
    ncsn = NCSN(3, 3, 2, seed=1)
    ncsn.build((None, *x.shape[1:]), (None,))
    classifier = Classifier(3, 2, seed=1)
    classifier.build((None, *x.shape[1:]))
    found = [ncsn(x, level), classifier(x, training=True)["logits"], MLP(3, 3, width=4, seed=1)(x[:, 0, 0], level)]
    for adam in (optimizers.ReducedAdam, optimizers.SkippingAdam):
        for decay in (None, "cosine", "linear", "exponential"):
            steps = None if decay is None else 5
            rate = optimizers.learning_rate(0.1, warmup_steps=0, decay=decay, decay_steps=steps, final_fraction=0.3)
            optimizer, weight = adam(rate, global_clipnorm=1.0), keras.Variable(np.ones(3, np.float32), dtype="float32")
            optimizer.build([weight])
            for _ in range(2):
                optimizer.apply([tf.constant([0.001, 2.0, 3.0])], [weight])
            found += [weight.value, tf.convert_to_tensor(optimizer.learning_rate)]
    return [np.asarray(one) for one in found]


def test_networks_and_optimizers_are_the_same_under_any_settings_of_keras(hostile_keras):
    expected = outputs()
    hostile_keras()
    settings = keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()
    for one, other in zip(expected, outputs(), strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    assert (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()) == settings


HOSTILE_STYLE = {
    "text.usetex": True,
    "savefig.transparent": True,
    "savefig.dpi": 21,
    "lines.linewidth": 9.0,
    "font.size": 30.0,
    "axes.grid": True,
    "image.cmap": "gray",
    "axes.prop_cycle": matplotlib.cycler(color=["k"]),
}


def picture(path):
    with pictures.drawn(3.0, 2.0) as figure:
        left, right = figure.subplots(1, 2)
        left.plot([1, 2], [3, 5], label="$x$ 100%")
        left.legend()
        right.imshow(np.eye(3))
    pictures.save_figure(path, figure)
    return path.read_bytes()


def test_pictures_are_the_same_under_any_settings_of_matplotlib(tmp_path):
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        expected = picture(tmp_path / "plain.png")
    with matplotlib.rc_context(HOSTILE_STYLE):
        assert picture(tmp_path / "hostile.png") == expected
        assert all(matplotlib.rcParams[name] == value for name, value in HOSTILE_STYLE.items())


def run(command, **environment):
    """Runs a program in this environment with additions."""
    return subprocess.run(
        command,
        cwd=processes.ROOT,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )


def test_a_launcher_works_in_a_hostile_environment(tmp_path):
    settings = {"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first", "backend": "jax"}
    (tmp_path / "keras.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\naxes.formatter.use_locale: True\n", encoding="utf-8")
    ended = run(
        processes.command("train", "--config=digits", f"--workdir={tmp_path / 'ein Läuf'}", "--dry_run"),
        **dict.fromkeys(("KERAS_HOME", "MPLCONFIGDIR"), tmp_path),
        **{"HOME": "/proc/none", "MPLBACKEND": "nonsense", "CUDA_VISIBLE_DEVICES": "nonsense", "PYTHONUTF8": "0"},
        **{"PYTHONCOERCECLOCALE": "0", "LC_ALL": "tr_TR.ISO-8859-9", "TF2_BEHAVIOR": "0", "TF_USE_LEGACY_KERAS": "1"},
        **{"TF_NUM_INTRAOP_THREADS": "many", "PYTHONWARNINGS": "error", "KERAS_BACKEND": "torch"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "would train to step 2000" in ended.stdout


def test_another_backend_of_keras_is_refused_at_import(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}', encoding="utf-8")
    by_file, by_name = {"KERAS_HOME": tmp_path, "KERAS_BACKEND": ""}, {"KERAS_BACKEND": "torch"}
    code = [sys.executable, "-c", "from ncsn_tf.networks import ncsn"]
    for environment, backend, where in ((by_file, "jax", tmp_path / "keras.json"), (by_name, "torch", "KERAS_BACKEND")):
        ended = run(code, **environment)
        last = ended.stderr.splitlines()[-1]
        assert ended.returncode == 1 and last.startswith("ImportError: "), ended.stderr
        assert repr(backend) in last and str(where) in last and "KERAS_BACKEND=tensorflow" in last


def test_every_package_that_imports_keras_checks_its_backend_first():
    root = processes.ROOT / "ncsn_tf"
    users = {file.parent for file in root.rglob("*.py") if re.search(r"^(import|from) keras\b", file.read_text(), re.M)}
    assert len(users) > 5 and root not in users
    for package in users:
        assert "backend.require_tensorflow()" in (package / "__init__.py").read_text(), package


def test_wrong_settings_of_keras_are_named(tmp_path):
    (tmp_path / "keras.json").write_text("[]", encoding="utf-8")
    ended = run(processes.command("sample", f"--workdir={tmp_path}"), KERAS_HOME=tmp_path)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "keras.json" in ended.stderr, ended.stderr
