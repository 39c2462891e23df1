"""Gradients that repeat bit for bit.

Grappler, TensorFlow's graph optimizer, rewrites the sum of the gradients that reach one tensor from several ops, so
that they are added in order of arrival. Two calls of the same graph on the same values then differ in their last bits,
and two trainings of NCSN end with different weights. The rewrite is part of Grappler's `arithmetic_optimization`;
without it, three runs of 60 steps gave equal weights on a CPU (TensorFlow 2.21). Neither a single thread nor
`tf.config.experimental.enable_op_determinism` prevents it. Small networks are not affected.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

_OPTION = "arithmetic_optimization"
DESCRIPTION = f"Grappler's {_OPTION} is off"
"""For the record of a run."""


@contextlib.contextmanager
def repeatable_gradients() -> Iterator[None]:
    """Makes the gradients of compiled functions that are called in this context sum in a fixed order.

    TensorFlow reads the option at each call of a compiled function, so the call must be inside, not only the tracing.
    The option is global: until it is restored at the end of the context, it applies to all threads of the process.
    """
    before = tf.config.optimizer.get_experimental_options()
    if before.get(_OPTION) is False:
        yield
        return
    tf.config.optimizer.set_experimental_options({_OPTION: False})
    try:
        yield
    finally:
        unset: dict[str, Any] = {_OPTION: before.get(_OPTION)}  # None leaves the choice to TensorFlow, as at its start
        tf.config.optimizer.set_experimental_options(unset)
