"""The law of samplers on Gaussian data with the exact score, without Monte Carlo: every step is then affine in x and z.

Data are N(0, deviation^2), so that x_t has the variance V(t) = alpha^2 deviation^2 + sigma^2. All in float64.
"""

import numpy as np
import tensorflow as tf

from ncsn_tf import score


def variance(sde, deviation, t):
    """V(t), [N], for times [N]."""
    alpha, sigma = sde.marginal(tf.constant(np.atleast_1d(t), tf.float64))
    return (alpha.numpy() * deviation) ** 2 + sigma.numpy() ** 2


def exact_score(sde, deviation):
    """The score of the perturbed data."""

    def score_fn(x, t):
        alpha, sigma = sde.marginal(t)
        return -x / score.expand((alpha * deviation) ** 2 + sigma**2, x)

    return score_fn


def impulse(seeds, shape):
    """Noise that is 1 in the row whose number is that of the step, and 0 in the others; see `responses`."""
    hit = tf.cast(seeds[:, 0] == seeds[:, 1], tf.float64)
    return tf.broadcast_to(score.expand(hit, tf.zeros([1, *shape])), [tf.shape(seeds)[0], *shape])


def responses(step, sde, deviation, rows, noisy):
    """What a walk along rows [N, 2] makes of its start and of the noise of each step: ([1] or [1 + N]) factors.

    Row 0 starts from 1 and has no noise; row k + 1 starts from 0 and has the noise 1 in step k alone, which `impulse`
    gives it. A walk makes of N(0, v) the variance factors[0]^2 v + the sum of the squares of the others.
    """
    rows = tf.constant(np.asarray(rows), tf.float64)
    count = len(rows) + 1 if noisy else 1
    score_fn = exact_score(sde, deviation)

    @tf.function
    def walk():
        x = tf.one_hot([0] * 1 + [1] * (count - 1), 1, dtype=tf.float64)
        numbers = tf.range(count)

        def body(k, x, state):
            t, t_next = tf.fill([count], rows[k, 0]), tf.fill([count], rows[k, 1])
            seeds = tf.stack([numbers, tf.fill([count], k + 1)], axis=1)
            x, _, state = step(score_fn, x, t, t_next, seeds, state)
            return k + 1, x, state

        return tf.while_loop(lambda k, *_: k < len(rows), body, (0, x, step.start(x)))[1]

    return walk().numpy()[:, 0]


def variance_made(step, sde, deviation, rows, noisy, start=None):
    """The variance at the end of a walk that starts with the variance `start`, V(rows[0, 0]) by default."""
    first, *others = responses(step, sde, deviation, rows, noisy)
    start = variance(sde, deviation, rows[0][0])[0] if start is None else start
    return first**2 * start + np.sum(np.square(others))
