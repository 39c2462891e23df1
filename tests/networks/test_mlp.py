"""The perceptron: parameter count, noise levels, saving."""

import keras
import numpy as np
import pytest

from ncsn_tf.networks.mlp import MLP


def built(**options):
    network = MLP(2, 3, width=16, seed=1, **options)
    network.build((None, 2), (None,))
    return network


def test_parameter_count_is_that_of_the_papers_layers_with_a_bias_per_level():
    network = MLP(2, 1)
    network.build((None, 2), (None,))
    assert network.count_params() == (2 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 2


@pytest.mark.parametrize("outputs", [None, 1])
def test_each_example_depends_on_its_own_input_and_level(outputs):
    network = built(outputs=outputs)
    for bias in network.biases:
        bias.kernel.assign(np.random.default_rng(0).normal(size=bias.kernel.shape))
    x, level = np.array([[1.0, 2.0], [1.0, 2.0], [0.0, -1.0]], np.float32), np.array([0, 2, 2])
    y = np.asarray(network(x, level))
    assert y.shape == (3, outputs or 2) and y.dtype == np.float32
    assert not np.allclose(y[0], y[1])
    np.testing.assert_allclose(network(x[1:2], level[1:2]), y[1:2], rtol=1e-5)


def test_save_and_load(tmp_path):
    network = built(outputs=1, activation="tanh")
    x, level = np.ones((2, 2), np.float32), np.array([0, 2])
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_allclose(loaded(x, level), network(x, level), rtol=1e-6)
    assert loaded.get_config() == network.get_config() and loaded.seed == 1


def test_equal_seeds_give_equal_weights_and_others_do_not(assert_seeded):
    assert_seeded(MLP, (2, 3), (None, 2))


def test_labels_are_refused_and_dropout_seeds_ignored(assert_call_contract):
    assert_call_contract(built(), np.ones((2, 2), np.float32))


@pytest.mark.parametrize("sizes", [(0, 1), (2, 0), (2, 1, 0), (2, 1, 2, 1.5)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="Received"):
        MLP(*sizes)
