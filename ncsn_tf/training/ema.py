"""An exponential moving average of a network's weights, kept in a second network."""

import keras
import tensorflow as tf


class MovingAverage:
    """Averages the weights of one network into another.

    After step n (from 1) the average moves by

        average <- average + (1 - d_n) (raw - average),   d_n = min(decay, (1 + n) / (10 + n)),

    so that the average soon forgets the random initial weights; with a decay of 0.999 the warm-up ends at step 8,990.
    Song & Ermon 2019 sample from the raw weights; averaging is Technique 5 of Song & Ermon 2020.

    Args:
      raw: the network that is trained; it must be built.
      average: a network of the same architecture; its weights are overwritten with the raw weights at once.
      decay: the final decay, in [0, 1); 0 keeps the average equal to the raw weights.

    Raises:
      ValueError: if `decay` is outside [0, 1).
    """

    def __init__(self, raw: keras.Model, average: keras.Model, decay: float):
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"The decay of a moving average must be in [0, 1). Received: {decay}.")
        self.decay = decay
        self._pairs = [(a.value, r.value) for a, r in zip(average.weights, raw.weights, strict=True)]
        average.set_weights(raw.get_weights())

    def decay_at(self, step: tf.Tensor) -> tf.Tensor:
        """d_n for step n, a float32 scalar."""
        n = tf.cast(step, tf.float32)
        return tf.minimum(tf.constant(self.decay), (1.0 + n) / (10.0 + n))

    def update(self, strategy: tf.distribute.Strategy, step: tf.Tensor) -> None:
        """Moves the average after step n, in every replica's copy; must be called in cross-replica context."""
        rate = 1.0 - self.decay_at(step)

        def move(average, raw):
            average.assign_add(rate * (raw - average))

        for average, raw in self._pairs:
            strategy.extended.update(average, move, args=(raw,), group=False)
