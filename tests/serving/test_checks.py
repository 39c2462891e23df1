"""Requests of another shape are refused by the graph itself, whoever feeds it."""

import re

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.serving import checks

SPECS = [
    tf.TensorSpec([None, 4, 3, 1], tf.float32, name="image"),
    tf.TensorSpec([None, 2], tf.int64, name="seed"),
    tf.TensorSpec([], tf.float32, name="epsilon"),
]


def function(image, seed, epsilon=0.5):
    """Answers to any shape."""
    return {"sizes": tf.stack([tf.size(image), tf.size(seed), tf.size(epsilon)])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("model"))
    signature = tf.function(checks.checked(function, SPECS), input_signature=SPECS, autograph=False)
    tf.saved_model.save(tf.Module(), path, signatures={"run": signature})
    return path


@pytest.fixture(scope="module")
def loaded(folder):
    signature = tf.saved_model.load(folder).signatures["run"]
    return lambda **inputs: signature(**{name: tf.constant(value) for name, value in inputs.items()})["sizes"].numpy()


@pytest.fixture(scope="module")
def fed(folder):
    """Feeds the graph as TF Serving does: `Session.run` of Python would compare the shapes first."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        definition = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def["run"]

    def tensor(info):
        return graph.get_tensor_by_name(info.name)._as_tf_output()

    def run(**inputs):
        feed = {tensor(definition.inputs[name]): value for name, value in inputs.items()}
        return session._call_tf_sessionrun(None, feed, [tensor(definition.outputs["sizes"])], [], None)[0]

    yield run
    session.close()


RIGHT = {"image": (2, 4, 3, 1), "seed": (2, 2), "epsilon": ()}
DECLARED = {"image": "[rows, 4, 3, 1]", "seed": "[rows, 2]", "epsilon": "[]"}
WRONG = [
    ("image", (2, 4, 3, 3)),
    ("image", (2, 4, 2, 1)),
    ("image", (2, 1, 3, 1)),
    ("image", (2, 3, 4, 1)),
    ("image", (2, 4, 3)),
    ("image", (4, 3, 1)),
    ("image", (2, 4, 3, 1, 1)),
    ("image", ()),
    ("image", (2, 4, 0, 1)),
    ("seed", (2,)),
    ("seed", (2, 3)),
    ("seed", (2, 2, 1)),
    ("epsilon", (1,)),
    ("epsilon", (2, 2)),
]


def inputs(**shapes):
    types = {spec.name: spec.dtype.as_numpy_dtype for spec in SPECS}
    return {name: np.ones(shape, types[name]) for name, shape in (RIGHT | shapes).items()}


@pytest.mark.parametrize("way", ["loaded", "fed"])
def test_inputs_of_the_declared_shapes_pass(way, request):
    call = request.getfixturevalue(way)
    np.testing.assert_array_equal(call(**inputs()), [24, 4, 1])
    np.testing.assert_array_equal(call(**inputs(image=(5, 4, 3, 1), seed=(5, 2))), [60, 10, 1])


@pytest.mark.parametrize("way", ["loaded", "fed"])
@pytest.mark.parametrize(("name", "shape"), WRONG)
def test_another_rank_or_side_is_refused_with_what_is_expected(name, shape, way, request):
    found = " ".join(map(str, shape))
    message = re.escape(f"{name} must have the shape {DECLARED[name]}. Received:] [{found}]")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        request.getfixturevalue(way)(**inputs(**{name: shape}))


@pytest.mark.parametrize("way", ["loaded", "fed"])
def test_all_inputs_have_the_same_number_of_rows_and_at_least_one(way, request):
    call = request.getfixturevalue(way)
    for rows, seeds, message in ((3, 2, r"the same number of rows. Received:\] \[3 2\]"), (0, 0, "at least one row")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call(**inputs(image=(rows, 4, 3, 1), seed=(seeds, 2)))


def test_the_declared_shapes_and_defaults_stay_in_the_record(folder):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definition = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def["run"]
    shapes = {name: [side.size for side in info.tensor_shape.dim] for name, info in definition.inputs.items()}
    assert shapes == {"image": [-1, 4, 3, 1], "seed": [-1, 2], "epsilon": []}
    assert not definition.inputs["epsilon"].tensor_shape.unknown_rank


def test_a_message_shows_the_values_that_fail():
    values = tf.constant([1.0, 2.0, 3.0, np.nan, 0.5])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)at most two. Received:.*3.0, nan"):
        checks.require(values <= 2.0, "at most two", values)
    checks.require(values[:2] <= 2.0, "at most two", values[:2])
