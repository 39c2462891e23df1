"""Checks of a request inside the graph of a served model; a wrong request returns an InvalidArgument error.

The shapes that a SavedModel declares are a record for people: TensorFlow's C library and a signature loaded in Python
compare the dtypes of what they feed, but no shapes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_PRINTED = 8
"""The number of values of a refused input that a message shows."""


def require(condition: tf.Tensor, requirement: str, received: tf.Tensor | None = None) -> tf.Operation:
    """An operation that fails unless a condition holds everywhere.

    Args:
      condition: bool, of any shape.
      requirement: a sentence without its full stop.
      received: what was given instead, shown after the requirement; if the condition is no scalar, of the same shape,
        and only the values that fail it are shown.
    """
    data: list = [f"{requirement}."]
    if received is not None:
        shown = tf.boolean_mask(received, tf.logical_not(condition)) if condition.shape.rank else received
        data = [f"{requirement}. Received:", shown]
    return tf.debugging.Assert(tf.reduce_all(condition), data, summarize=_PRINTED)


def checked(function: Callable, specs: Sequence[tf.TensorSpec]) -> Callable:
    """A function of tensors that compares the rank and every side of each with what is declared, and their rows.

    Nothing of the function runs before all inputs have passed.

    Args:
      function: the function.
      specs: the name and the declared shape of each input, in the order of the arguments. A first side that is unknown
        is the number of rows: the same for all inputs that have it, and at least one.

    Returns:
      A function with the same arguments and defaults.
    """

    def passed(*inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.control_dependencies([_shape(value, spec) for value, spec in zip(inputs, specs, strict=True)]):
            return tuple(map(tf.identity, inputs))

    # A graph's optimizer believes that an input has its declared shape and computes tf.shape of it in advance, so that
    # a check would pass whatever is fed. It does so through identities and placeholders with defaults, and backwards
    # from tf.ensure_shape, but not across the border of a function that is not inlined.
    any_shape: Any = None  # TensorFlow's stubs do not know None as a shape
    unknown = [tf.TensorSpec(any_shape, spec.dtype) for spec in specs]
    passed = tf.function(passed, input_signature=unknown, autograph=False, experimental_attributes={"_noinline": True})

    @functools.wraps(function)
    def guarded(*inputs: tf.Tensor):
        inputs = tuple(tf.ensure_shape(value, spec.shape) for value, spec in zip(passed(*inputs), specs, strict=True))
        with tf.control_dependencies(_rows(inputs, specs)):
            return function(*map(tf.identity, inputs))

    return guarded


def _shape(value: tf.Tensor, spec: tf.TensorSpec) -> tf.Operation:
    rank, unknown = len(spec.shape), -1
    expected = tf.constant([unknown if side is None else side for side in spec.shape], tf.int32)
    shape = tf.shape(value)
    # As many sides as expected, so that they can be compared whatever the rank.
    sides = tf.concat([shape, tf.fill([rank], -2)], axis=0)[:rank]
    fits = tf.equal(sides, expected) | tf.equal(expected, unknown)
    declared = ", ".join("rows" if side is None else str(side) for side in spec.shape)
    return require(
        tf.equal(tf.size(shape), rank) & tf.reduce_all(fits),
        f"{spec.name} must have the shape [{declared}]",
        shape,
    )


def _rows(inputs: Sequence[tf.Tensor], specs: Sequence[tf.TensorSpec]) -> list[tf.Operation]:
    with_rows = [
        (str(spec.name), tf.shape(value)[0])
        for value, spec in zip(inputs, specs, strict=True)
        if spec.shape.rank and spec.shape[0] is None
    ]
    names, counts = ", ".join(name for name, _ in with_rows), tf.stack([count for _, count in with_rows])
    return [
        require(counts > 0, f"there must be at least one row; {names} has none"),
        require(tf.reduce_all(tf.equal(counts, counts[0])), f"{names} must have the same number of rows", counts),
    ]
