"""Compiled functions of samplers: on the replicas of a strategy, and one per score function."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import tensorflow as tf

_KEPT = 8
"""The number of pairs of score function and guidance for which a sampler keeps what it compiled."""

T = TypeVar("T")


def on_replicas(function: Callable, strategy: tf.distribute.Strategy | None, jit_compile: bool) -> Callable:
    """The function, compiled, on the replicas of the strategy if there is one."""
    compiled = tf.function(function, jit_compile=jit_compile, autograph=False)
    if strategy is None:
        return compiled

    # A plain function for `run`: around a compiled one, it would compile all replicas as one program, which XLA
    # refuses where they read variables of several devices.
    def on_replica(*arguments):
        return compiled(*arguments)

    return tf.function(lambda *arguments: strategy.run(on_replica, args=arguments), autograph=False)


class Recent(Generic[T]):
    """What `make` made of the most recent arguments; the same arguments give the same object.

    Args:
      make: makes an object of hashable arguments.
    """

    def __init__(self, make: Callable[..., T]):
        self._make = make
        self._made: dict[tuple[Hashable, ...], T] = {}

    def __call__(self, *arguments: Hashable) -> T:
        """The object for these arguments."""
        if arguments not in self._made:
            if len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[arguments] = self._make(*arguments)
        return self._made[arguments]
