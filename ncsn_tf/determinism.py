"""Gradients that repeat bit for bit.

Grappler, TensorFlow's graph optimizer, rewrites the sum of the gradients that reach one tensor from several ops, so
that they are added in order of arrival. Two calls of the same graph on the same values then differ in their last bits,
and two trainings of NCSN end with different weights. The rewrite is part of Grappler's `arithmetic_optimization`;
without it, three runs of 60 steps gave equal weights on a CPU (TensorFlow 2.21). Neither a single thread nor
`tf.config.experimental.enable_op_determinism` prevents it. Small networks are not affected.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

_OPTION = "arithmetic_optimization"
DESCRIPTION = f"Grappler's {_OPTION} is off"
"""For the record of a run."""


_lock = threading.Lock()
_inside: list[Any] = []
"""The option as it was, once for each block that is being executed."""


@contextlib.contextmanager
def repeatable_gradients() -> Iterator[None]:
    """Within it, graphs that hold gradients are optimized so that their sums have one order.

    TensorFlow reads the option at each call of a compiled function, so the call must be inside, not only the tracing.
    The option belongs to the process, and is restored when the last thread leaves. A thread that had called a compiled
    function before keeps what it knew: every thread that computes gradients needs a block of its own.
    """
    with _lock:
        before = _inside[0] if _inside else tf.config.optimizer.get_experimental_options().get(_OPTION)
        _inside.append(before)
        tf.config.optimizer.set_experimental_options({_OPTION: False})
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                # None leaves the choice to TensorFlow, as at its start.
                tf.config.optimizer.set_experimental_options({_OPTION: before})
