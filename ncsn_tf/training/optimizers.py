"""Adam for gradients that are already summed, learning-rate schedules, and the loss scale for float16."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras import ops

_SMALLEST_SCALE, _LARGEST_SCALE = 1.0, 2.0**24
_REDUCTION = "_all_reduce_sum_gradients"
"""The private method in which Keras's `apply` sums gradients over the replicas."""
_KNOWN_KERAS = "3.15.0"
"""A version of Keras whose `apply` calls that method."""


@keras.saving.register_keras_serializable("ncsn_tf")
class ReducedAdam(keras.optimizers.Adam):
    """Adam for gradients that are already summed over the replicas.

    Keras sums gradients inside `apply`, in a private method that this class overrides. The trainer has already summed
    them, because it needs the norm of the global gradient, and a second sum would multiply them by the number of
    replicas.

    Args:
      *args: as for `keras.optimizers.Adam`.
      **kwargs: as for `keras.optimizers.Adam`.

    Raises:
      RuntimeError: if this version of Keras does not have the private method, or, at `apply`, if it does not call it.
    """

    def __init__(self, *args, **kwargs):
        if not callable(getattr(keras.optimizers.Adam, _REDUCTION, None)):
            raise _unknown_keras(f"keras.optimizers.Adam has no method {_REDUCTION}")
        with _float32():
            super().__init__(*args, **kwargs)
        self._called = False  # never reset, because replicas call `apply` from several threads

    def _all_reduce_sum_gradients(self, grads_and_vars):
        self._called = True
        return grads_and_vars

    def apply(self, grads, trainable_variables=None):
        """Updates the variables as `keras.optimizers.Adam.apply` does, without summing over the replicas."""
        super().apply(grads, trainable_variables)
        if len(grads) and not self._called:
            raise _unknown_keras(f"keras.optimizers.Adam.apply does not call {_REDUCTION}")


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Within it, Keras's default type is float32, in which an optimizer then keeps its learning rate.

    Keras offers no argument for it; a user's own default stays as it is.
    """
    before = keras.config.floatx()
    keras.config.set_floatx("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def _unknown_keras(fault: str) -> RuntimeError:
    return RuntimeError(
        f"Gradients would be summed over the replicas twice: in Keras {keras.__version__}, {fault}. "
        f"Keras {_KNOWN_KERAS} is known to work; install it."
    )


@keras.saving.register_keras_serializable("ncsn_tf")
class SkippingAdam(ReducedAdam):
    """`ReducedAdam` that skips gradients that are not finite: their weights and moments stay as they are.

    The step still counts, so that the number of steps remains the position in the data. `LossScale` relies on it.
    """

    def update_step(self, gradient, variable, learning_rate):
        # Every assignment of Adam's formula goes through the two methods below.
        self._finite = ops.all(ops.isfinite(gradient))
        super().update_step(gradient, variable, learning_rate)

    def assign_add(self, variable, value):
        super().assign_add(variable, ops.where(self._finite, value, ops.zeros_like(value)))

    def assign_sub(self, variable, value):
        super().assign_sub(variable, ops.where(self._finite, value, ops.zeros_like(value)))


@keras.saving.register_keras_serializable("ncsn_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly to its peak, and then follows a schedule of Keras, if there is one.

    Step s, from 0, has the rate `decay(s) * min(1, (s + 1) / steps)`: 1 / steps of the rate at the first step, the full
    rate from step `steps - 1` on. The decay counts from step 0, so its end does not move with the warm-up.

    Args:
      decay: the rate without warm-up, a number or a schedule of Keras.
      steps: the length of the warm-up in steps; 0 for none.
    """

    def __init__(self, decay: float | keras.optimizers.schedules.LearningRateSchedule, steps: int):
        self.decay = decay
        self.steps = steps

    def __call__(self, step):
        rate = ops.convert_to_tensor(self.decay(step) if callable(self.decay) else self.decay, "float32")
        share = (ops.cast(step, "float32") + 1.0) / max(1, self.steps)
        return rate * ops.minimum(1.0, share)

    def get_config(self):
        return {"decay": keras.saving.serialize_keras_object(self.decay), "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["decay"]), config["steps"])


def learning_rate(
    peak: float, *, warmup_steps: int, decay: str | None, decay_steps: int | None, final_fraction: float
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of a run, with the decay schedules of Keras.

    Args:
      peak: the rate after the warm-up and before the decay.
      warmup_steps: the length of the warm-up in steps; 0 for none.
      decay: "cosine", "linear" or "exponential", or None for a constant rate.
      decay_steps: steps from the start of the run to the end of the decay, where "exponential" continues to decay and
        the others stay constant.
      final_fraction: the rate after `decay_steps`, as a fraction of the peak.

    Raises:
      ValueError: if a number is out of range, or if only one of `decay` and `decay_steps` is given.
    """
    if warmup_steps < 0:
        raise ValueError(f"optim.warmup_steps must not be negative. Received: {warmup_steps}.")
    if (decay is None) != (decay_steps is None) or (decay_steps is not None and decay_steps < 1):
        raise ValueError(
            "A decay of the learning rate needs both optim.decay and optim.decay_steps >= 1. "
            f"Received: {decay!r} and {decay_steps!r}."
        )
    if not 0.0 <= final_fraction <= 1.0 or (decay == "exponential" and final_fraction == 0.0):
        raise ValueError(
            f"optim.final_fraction must be in [0, 1], and above 0 for an exponential decay. Received: {final_fraction}."
        )
    if decay is None:
        return WarmUp(peak, warmup_steps) if warmup_steps else peak
    if decay not in _DECAYS:
        raise ValueError(f"optim.decay must be one of {sorted(_DECAYS)}. Received: {decay!r}.")
    return WarmUp(_DECAYS[decay](peak, decay_steps, final_fraction), warmup_steps)


_DECAYS = {
    "cosine": keras.optimizers.schedules.CosineDecay,
    "exponential": keras.optimizers.schedules.ExponentialDecay,
    "linear": lambda peak, steps, final: keras.optimizers.schedules.PolynomialDecay(peak, steps, final * peak),
}
"""Schedules by name, as functions of (peak, steps, final fraction)."""


class LossScale:
    """A factor on the loss that keeps the gradients of a float16 network above the smallest float16.

    It is dynamic, as in Micikevicius et al., Mixed precision training, 2018, section 3.2, and in Keras and PyTorch. A
    step whose gradient is not finite is skipped and halves the scale; `interval` steps with finite gradients double it.
    It stays within [1, 2^24].

    The scale and the count of steps are part of the run's checkpoints. Create it within the scope of the strategy.

    Args:
      initial: the initial scale, a power of two, so that scaling is exact.
      interval: the number of steps after which the scale is doubled.

    Attributes:
      scale: float32 scalar variable.
    """

    def __init__(self, initial: float = 2.0**15, interval: int = 2_000):
        self._interval = interval
        self.scale = tf.Variable(tf.constant(initial), trainable=False, name="loss_scale")
        self._finite_steps = tf.Variable(tf.constant(0), trainable=False, name="finite_steps")

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables to save: the scale, and the number of finite steps since it last changed."""
        return [self.scale, self._finite_steps]

    def at_its_end(self) -> tf.Tensor:
        """A bool scalar, true if the scale is 1 and so cannot be the cause of a gradient that is not finite."""
        return tf.convert_to_tensor(self.scale) <= _SMALLEST_SCALE

    def update(self, strategy: tf.distribute.Strategy, finite: tf.Tensor) -> None:
        """Adapts the scale after a step, in every replica's copy; must be called in cross-replica context."""
        scale, steps = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self._finite_steps) + 1
        grown = finite & (steps >= self._interval)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        new_scale = tf.clip_by_value(scale * factor, _SMALLEST_SCALE, _LARGEST_SCALE)
        new_steps = tf.where(finite & tf.logical_not(grown), steps, 0)
        for variable, value in zip(self.variables, (new_scale, new_steps), strict=True):
            strategy.extended.update(variable, lambda v, new: v.assign(new), args=(value,), group=False)
