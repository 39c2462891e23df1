"""Integrals of the polynomial through past values, from which multistep methods take their weights."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def weights(nodes: list[tf.Tensor], kernel: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
    """The weights c_j with which values f(u_j) give the integral of their polynomial p.

        sum_j c_j f(u_j) = integral over u from 0 to 1 of kernel(u) p(u),   p(u_j) = f(u_j)

    The integral is Gauss's sum of twelve points, which is exact to the rounding of a float32 for kernels that change by
    up to e^10 over the interval; all its terms have one sign if the kernel has, so that nothing cancels in it.

    Args:
      nodes: the u_j, [B] each, distinct in each row. A value that a row does not have yet is at infinity: it takes no
        part, and its weight is 0.
      kernel: [12, 1] -> [12, B].

    Returns:
      The c_j, [B] each.
    """
    dtype = nodes[0].dtype
    u = tf.constant(0.5 * (_NODES + 1.0)[:, None], dtype)
    values = tf.constant(0.5 * _WEIGHTS[:, None], dtype) * kernel(u)
    found = []
    for j, node in enumerate(nodes):
        basis = values
        for i, other in enumerate(nodes):
            if i != j:
                there = tf.math.is_finite(other) & tf.math.is_finite(node)
                distance = tf.where(there, node - other, tf.ones_like(node))
                basis = basis * tf.where(there, (u - tf.where(there, other, 0.0)) / distance, tf.ones_like(u))
        found.append(tf.where(tf.math.is_finite(node), tf.reduce_sum(basis, axis=0), 0.0))
    return found
