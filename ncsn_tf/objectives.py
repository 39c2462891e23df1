"""Score matching objectives: functions of a score function, data and noise that return one loss per example.

Nothing is drawn here: the times t, the noise z and the slices v are arguments, so an objective is a deterministic
function. `exact`, `sliced` and `denoising` match the score of one density; the `annealed_` forms perturb the data to
each example's time first and weight the levels. The minimiser is the score of the density of the score function's
inputs: the examples' own density for `exact` and `sliced`, the blurred density wherever noise is added.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import SDE
from ncsn_tf.weightings import Weighting, sigma_squared

_FEW_DIMENSIONS = 64
"""Up to this many dimensions, directions are differentiated together: there the overhead of ops costs more than their
arithmetic. Beyond it, one after the other is about as fast, on large batches of images twice as fast, and traces no
vectorised copy of the network (`benchmarks/objectives.py --ways`)."""


class NonFiniteLossError(ArithmeticError):
    """A loss or a gradient of training is NaN or infinite."""


def perturb(sde: SDE, x: tf.Tensor, t: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """x_t = alpha(t) x + sigma(t) z, [B, ...], of x [B, ...], t [B] and standard normal z [B, ...]."""
    _check_inputs(x, t, z)
    alpha, sigma = sde.marginal(t)
    return expand(tf.cast(alpha, x.dtype), x) * x + expand(tf.cast(sigma, x.dtype), x) * z


def exact(score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, *, directions_at_once: int | None = None) -> tf.Tensor:
    """Score matching as Hyvarinen defined it.

        loss = tr(d score / dx) + 1/2 || score(x, t) ||^2

    Its expectation is 1/2 E || score - grad log p ||^2 minus a constant that depends only on p. Each of the trace's D
    entries takes one differentiation. For D up to 64 they are computed together, as a Jacobian; otherwise in a loop
    over the basis vectors, whose gradient is computed by a second loop, so that memory does not grow with D.

    Args:
      score_fn: the score function, (x [B, ...], t [B]) -> [B, ...].
      x: [B, ...], examples of the density whose score is wanted; D values each, known statically.
      t: [B], one time per example.
      directions_at_once: the number of the D directions that are differentiated together: more take more memory and
        less time. By default all of them up to D = 64, else one.

    Returns:
      [B], the loss of each example.

    Raises:
      ValueError: if D is unknown, `directions_at_once` is below 1, or the score has another shape than x.

    Reference:
      Hyvarinen, Estimation of non-normalized statistical models by score matching, 2005, theorem 1; Song & Ermon 2019,
      equation 1.
    """
    score, trace = score_and_trace(score_fn, x, t, directions_at_once=directions_at_once)
    return trace + 0.5 * _squared_norm(score)


def score_and_trace(
    score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, *, directions_at_once: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The score, [B, ...], and the trace of its Jacobian, [B]; arguments and errors are those of `exact`."""
    _check_inputs(x, t)
    dimensions = x.shape[1:].num_elements()
    if not dimensions:
        raise ValueError(f"The trace needs a static number of values per example. Received shape: {x.shape}.")
    at_once = directions_at_once
    if at_once is None:
        at_once = dimensions if dimensions <= _FEW_DIMENSIONS else 1
    if at_once < 1:
        raise ValueError(f"directions_at_once must be at least 1. Received: {at_once}.")
    if at_once >= dimensions:
        return _partial_trace(score_fn, x, t, tf.range(dimensions), dimensions)
    return _score(score_fn, x, t), _swept_trace(score_fn, x, t, dimensions, at_once)


def sliced(
    score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, v: tf.Tensor, *, variance_reduced: bool = False
) -> tf.Tensor:
    """Sliced score matching: exact score matching along random directions v with E[v v'] = I.

        loss                   = mean over v of  v' (d score / dx) v + 1/2 (v' score(x, t))^2
        loss, variance_reduced = mean over v of  v' (d score / dx) v + 1/2 || score(x, t) ||^2

    The second integrates the last term over v in closed form. In expectation over v both equal `exact`. The slices
    share one evaluation of the score; each adds one backward pass.

    Args:
      score_fn: the score function, (x [B, ...], t [B]) -> [B, ...].
      x: [B, ...], examples of the density whose score is wanted.
      t: [B], one time per example.
      v: [B, M, ...], M slices per example; `random.normal`, `random.rademacher` and `random.spherical` draw them.
      variance_reduced: whether to use the second form.

    Returns:
      [B], the loss of each example.

    Raises:
      ValueError: if there is no slice, or a shape does not fit.

    Reference:
      Song, Garg, Shi & Ermon, Sliced score matching, 2019, section 3; Song & Ermon 2019, equation 3.
    """
    _check_inputs(x, t)
    of_one = [*v.shape[:1], *v.shape[2:]] if v.shape.rank == x.shape.rank + 1 else None
    if of_one is None or not x.shape.is_compatible_with(of_one):
        raise ValueError(
            f"Slices of examples [B, ...] need shape [B, M, ...]. Received: slices {v.shape} for examples {x.shape}."
        )
    count = v.shape[1]
    if not count:
        raise ValueError(f"Slices [B, M, ...] need a static M of at least 1. Received: slices {v.shape}.")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        score = _score(score_fn, x, t)
    squares = _squared_norm(score)

    def along(direction: tf.Tensor) -> tf.Tensor:
        curvature = _inner(direction, pull_back(tape, score, x, direction))
        return curvature + 0.5 * (squares if variance_reduced else _inner(direction, score) ** 2)

    by_slice = tf.transpose(v, [1, 0, *range(2, v.shape.rank)])
    if count == 1:
        return along(by_slice[0])
    if (x.shape[1:].num_elements() or math.inf) <= _FEW_DIMENSIONS:
        return tf.reduce_mean(tf.vectorized_map(along, by_slice), axis=0)
    return _sum_over(count, lambda m: along(by_slice[m]), squares) / count


def denoising(score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, z: tf.Tensor, sigma: float | tf.Tensor) -> tf.Tensor:
    """Denoising score matching at one sigma, or at one per example.

    With x~ = x + sigma z, whose kernel has the score -(x~ - x) / sigma^2 = -z / sigma,

        loss = 1/2 || score(x~, t) + z / sigma ||^2.

    Its minimiser is the score of the blurred density; no derivative of the score is needed.

    Args:
      score_fn: the score function, (x [B, ...], t [B]) -> [B, ...].
      x: [B, ...], clean examples.
      t: [B], the time that is passed to the score function.
      z: [B, ...], standard normal noise.
      sigma: the noise's standard deviation in data units, positive; a number or [B].

    Returns:
      [B], the loss of each example.

    Raises:
      ValueError: if a sigma that is known statically is not positive, or a shape does not fit.

    Reference:
      Vincent, A connection between score matching and denoising autoencoders, 2011; Song & Ermon 2019, equations 2
      and 5.
    """
    _check_inputs(x, t, z)
    # A number is converted directly to x's dtype: by way of TensorFlow's float32 it would lose half its digits.
    width = sigma if tf.is_tensor(sigma) else tf.constant(np.asarray(sigma, np.float64))
    known = tf.get_static_value(width)
    if known is not None and not np.all((known > 0.0) & (known < math.inf)):
        raise ValueError(
            "Denoising needs noise, a positive finite sigma; without noise use exact or sliced score matching. "
            f"Received: sigma={known}."
        )
    deviation = tf.broadcast_to(tf.cast(width, x.dtype), tf.shape(x)[:1])
    scale = expand(deviation, x)
    residual = scale * _score(score_fn, x + scale * z, t) + z
    return 0.5 * _squared_norm(residual) / deviation**2


def annealed_exact(
    score_fn: ScoreFunction,
    sde: SDE,
    x: tf.Tensor,
    t: tf.Tensor,
    z: tf.Tensor,
    *,
    weighting: Weighting = sigma_squared,
    directions_at_once: int | None = None,
) -> tf.Tensor:
    """`exact` on the data perturbed to time t, times the weighting: [B]. Arguments as for `annealed_denoising`."""
    loss = exact(score_fn, perturb(sde, x, t, z), t, directions_at_once=directions_at_once)
    return tf.cast(weighting(sde, t), x.dtype) * loss


def annealed_sliced(
    score_fn: ScoreFunction,
    sde: SDE,
    x: tf.Tensor,
    t: tf.Tensor,
    z: tf.Tensor,
    v: tf.Tensor,
    *,
    weighting: Weighting = sigma_squared,
    variance_reduced: bool = False,
) -> tf.Tensor:
    """`sliced` on the data perturbed to time t, times the weighting: [B] (Song & Ermon 2019, section 4.2).

    Arguments as for `annealed_denoising` and `sliced`.
    """
    loss = sliced(score_fn, perturb(sde, x, t, z), t, v, variance_reduced=variance_reduced)
    return tf.cast(weighting(sde, t), x.dtype) * loss


def annealed_denoising(
    score_fn: ScoreFunction,
    sde: SDE,
    x: tf.Tensor,
    t: tf.Tensor,
    z: tf.Tensor,
    *,
    weighting: Weighting = sigma_squared,
) -> tf.Tensor:
    """`denoising` about alpha(t) x with sigma(t), times the weighting: the objective of NCSN.

    Args:
      score_fn: the score function, (x [B, ...], t [B]) -> [B, ...].
      sde: the SDE that perturbs the data.
      x: [B, ...], clean examples.
      t: [B], one time per example.
      z: [B, ...], standard normal noise.
      weighting: weight of the loss at each time.

    Returns:
      [B], the loss of each example, summed over its dimensions.

    Reference:
      Song & Ermon 2019, equation 6.
    """
    alpha, sigma = (tf.cast(value, x.dtype) for value in sde.marginal(t))
    return tf.cast(weighting(sde, t), x.dtype) * denoising(score_fn, expand(alpha, x) * x, t, z, sigma)


def _check_inputs(x: tf.Tensor, t: tf.Tensor, z: tf.Tensor | None = None) -> None:
    if not x.dtype.is_floating:
        raise ValueError(f"Examples must be floats; cast them. Received: {x.dtype.name}.")
    if not t.shape.is_compatible_with(x.shape[:1]):
        raise ValueError(f"There must be one time per example, {x.shape[:1]}. Received: {t.shape}.")
    if z is not None and not z.shape.is_compatible_with(x.shape):
        raise ValueError(f"Noise must have the shape of the examples, {x.shape}. Received: {z.shape}.")


def _score(score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    score = score_fn(x, t)
    if not score.shape.is_compatible_with(x.shape):
        raise ValueError(f"A score must have the shape of its examples, {x.shape}. Received: {score.shape}.")
    return tf.cast(score, x.dtype)


def _inner(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Inner product of each example, [B]."""
    return tf.reduce_sum(a * b, axis=tuple(range(1, a.shape.rank)))


def pull_back(tape: tf.GradientTape, score: tf.Tensor, x: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
    """direction' d score / dx for each example, [B, ...]; zero where the score does not depend on x."""
    pulled: Any = tape.gradient(score, [x], [direction], tf.UnconnectedGradients.ZERO)
    return pulled[0]


def _squared_norm(x: tf.Tensor) -> tf.Tensor:
    return _inner(x, x)


def _sum_over(count: int, term: Callable[[tf.Tensor], tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    """term(0) + ... + term(count - 1), one after the other in a loop of the graph; each of the shape of `like`."""
    _, total = tf.while_loop(
        lambda k, _: k < count,
        lambda k, total: (k + 1, total + term(k)),
        (tf.constant(0), tf.zeros_like(like)),
        maximum_iterations=count,  # XLA must know how much the gradient has to keep
    )
    return total


def _partial_trace(
    score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, indices: tf.Tensor, dimensions: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The score, and the sum of the given diagonal entries of its Jacobian, [B]; indices past the last add nothing."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        score = _score(score_fn, x, t)

    def entry(index: tf.Tensor) -> tf.Tensor:
        basis = tf.reshape(tf.one_hot(index, dimensions, dtype=x.dtype), [1, *x.shape[1:]])
        direction = tf.broadcast_to(basis, tf.shape(score))
        return _inner(basis, pull_back(tape, score, x, direction))

    if indices.shape[0] == 1:
        return score, entry(indices[0])
    return score, tf.reduce_sum(tf.vectorized_map(entry, indices), axis=0)


def _swept_trace(score_fn: ScoreFunction, x: tf.Tensor, t: tf.Tensor, dimensions: int, at_once: int) -> tf.Tensor:
    """The trace of the score's Jacobian, [B], `at_once` entries at a time.

    TensorFlow's own gradient of such a loop would keep the activations of all turns. Here the gradient is a second loop
    that computes them again and sums the gradients, so the memory is that of one turn.
    """
    turns = -(-dimensions // at_once)

    def part(turn: tf.Tensor, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        return _partial_trace(score_fn, x, t, turn * at_once + tf.range(at_once), dimensions)[1]

    # A custom gradient finds the variables that the function reads, but not other tensors; a trace lists those too.
    specs = (tf.TensorSpec(array.shape, array.dtype) for array in (x, t))
    traced = tf.function(lambda x, t: score_fn(x, t), autograph=False).get_concrete_function(*specs)
    tensors = [captured for captured in traced.captured_inputs if captured.dtype.is_floating]

    @tf.custom_gradient
    def trace(x: tf.Tensor, t: tf.Tensor, *tensors: tf.Tensor):
        def gradient(upstream: tf.Tensor, variables=()):
            sources = [x, t, *tensors, *variables]

            def add_turn(turn: tf.Tensor, *sums: tf.Tensor):
                with tf.GradientTape() as tape:
                    tape.watch([x, t, *tensors])
                    weighted = tf.reduce_sum(upstream * part(turn, x, t))
                added = tape.gradient(weighted, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                return turn + 1, *(old + tf.convert_to_tensor(new) for old, new in zip(sums, added, strict=True))

            start = (tf.constant(0), *(tf.zeros_like(source) for source in sources))
            _, *sums = tf.while_loop(lambda turn, *_: turn < turns, add_turn, start, maximum_iterations=turns)
            inputs = 2 + len(tensors)
            return (sums[:inputs], sums[inputs:]) if variables else sums

        return _sum_over(turns, lambda turn: part(turn, x, t), _squared_norm(x)), gradient

    swept: Any = trace(x, t, *tensors)
    return swept
