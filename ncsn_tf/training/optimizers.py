"""Adam for gradients that are summed already, its schedule, and the loss scale that float16 needs."""

import keras
import tensorflow as tf
from keras import ops

_SMALLEST_SCALE, _LARGEST_SCALE = 1.0, 2.0**24


@keras.saving.register_keras_serializable("ncsn_tf")
class ReducedAdam(keras.optimizers.Adam):
    """Adam that is handed gradients already summed over the replicas.

    Keras sums them itself, inside `apply`; the trainer has done so before, since the norm of the global gradient is
    wanted, and a second reduction would multiply by the number of replicas.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


@keras.saving.register_keras_serializable("ncsn_tf")
class SkippingAdam(ReducedAdam):
    """The same, but a gradient that is not finite leaves its weight and its moments as they were.

    The step still counts, so that the number of steps stays the position in the data. `LossScale` relies on it.
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
    """A learning rate that rises linearly to its peak, and then follows a decay of Keras, if there is one.

    Step s, from 0, has the rate `decay(s) * min(1, (s + 1) / steps)`: the first step is taken at 1 / steps of the
    rate, step `steps - 1` at the whole of it. A decay counts from step 0, so its end does not move with the warm-up.

    Args:
      decay: the rate without warm-up, a number or a schedule of Keras.
      steps: length of the warm-up in steps; 0 for none.
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
    """The learning rate of a run, by Keras's decays.

    Args:
      peak: the rate before it decays, and after it has warmed up.
      warmup_steps: length of the warm-up in steps; 0 for none.
      decay: "cosine", "linear" or "exponential", or None for a rate that stays.
      decay_steps: steps from the run's start to the decay's end, where "exponential" goes on and the others stay.
      final_fraction: of the peak, what is left after `decay_steps`.

    Raises:
      ValueError: if a number is out of range, or there is a decay without its length or a length without a decay.
    """
    if warmup_steps < 0:
        raise ValueError(f"optim.warmup_steps must not be negative. Received: {warmup_steps}.")
    if (decay is None) != (decay_steps is None) or (decay_steps is not None and decay_steps < 1):
        raise ValueError(
            "A decay of the learning rate has a kind and a length, optim.decay and optim.decay_steps >= 1. "
            f"Received: {decay!r} and {decay_steps!r}."
        )
    if not 0.0 <= final_fraction <= 1.0 or (decay == "exponential" and final_fraction == 0.0):
        raise ValueError(
            f"optim.final_fraction lies in [0, 1], and above 0 for an exponential decay. Received: {final_fraction}."
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
"""Each takes (peak, steps, final fraction)."""


class LossScale:
    """A factor on the loss that keeps the gradients of a float16 network above the smallest float16.

    Dynamic, as in Micikevicius et al., Mixed precision training, 2018, section 3.2, and as Keras and PyTorch have it:
    halved by a step whose gradient is not finite, which is passed over, and doubled after `interval` steps that were.
    It stays within [1, 2^24].

    Both numbers are a part of the run's checkpoints. Create within the scope of the strategy.

    Args:
      initial: the first scale, a power of two, so that scaling is exact.
      interval: steps until it is doubled.
    """

    def __init__(self, initial: float = 2.0**15, interval: int = 2_000):
        self._interval = interval
        self.scale = tf.Variable(tf.constant(initial), trainable=False, name="loss_scale")
        self._finite_steps = tf.Variable(tf.constant(0), trainable=False, name="finite_steps")

    @property
    def variables(self) -> list[tf.Variable]:
        """The state to save: the scale, and the steps since it last changed."""
        return [self.scale, self._finite_steps]

    def at_its_end(self) -> tf.Tensor:
        """Whether the scale is 1, where a gradient that is not finite is no fault of the scale, a bool scalar."""
        return tf.convert_to_tensor(self.scale) <= _SMALLEST_SCALE

    def update(self, strategy: tf.distribute.Strategy, finite: tf.Tensor) -> None:
        """Adapts the scale after a step; called in cross-replica context, it updates every replica's copy."""
        scale, steps = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self._finite_steps) + 1
        grown = finite & (steps >= self._interval)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        new_scale = tf.clip_by_value(scale * factor, _SMALLEST_SCALE, _LARGEST_SCALE)
        new_steps = tf.where(finite & tf.logical_not(grown), steps, 0)
        for variable, value in zip(self.variables, (new_scale, new_steps), strict=True):
            strategy.extended.update(variable, lambda v, new: v.assign(new), args=(value,), group=False)
