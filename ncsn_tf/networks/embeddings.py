"""Embeddings of a noise condition and of a class, as vectors that every block of a network takes in."""

import math

import keras
import numpy as np
from keras import ops

from ncsn_tf.networks.layers import own_dtype


@keras.saving.register_keras_serializable("ncsn_tf")
class FourierFeatures(keras.layers.Layer):
    """Sines and cosines of a number, or of its logarithm, at random frequencies that are not trained.

    The features of c are [sin(2 pi W u), cos(2 pi W u)], where u is c or log c, and W is drawn from N(0, scale^2) once.

    Args:
      frequencies: number of frequencies, F.
      scale: standard deviation of W.
      logarithm: whether u = log c, for c > 0.
      seed: integer seed of W; with None Keras chooses one.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      condition: float or int [B].

    Returns:
      [B, 2 F].

    Reference:
      Song et al. 2021, appendix C; Tancik et al. 2020.
    """

    def __init__(
        self, frequencies: int, scale: float = 16.0, *, logarithm: bool = False, seed: int | None = None, **kwargs
    ):
        super().__init__(**own_dtype(kwargs))
        self.autocast = False
        self.count = frequencies
        self.scale = scale
        self.logarithm = logarithm
        self.seed = seed

    def build(self, condition_shape=None):
        initializer = keras.initializers.RandomNormal(0.0, self.scale, self.seed)
        self.frequencies = self.add_weight(
            shape=(self.count,), initializer=initializer, trainable=False, autocast=False, name="frequencies"
        )

    def call(self, condition):
        u = ops.cast(condition, self.compute_dtype)
        if self.logarithm:
            u = ops.log(u)
        # In the order of the authors' program: an angle has up to a thousand radians, and rounding counts.
        angle = u[:, None] * self.frequencies[None, :] * 2.0 * math.pi
        return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)

    def get_config(self):
        options = {"frequencies": self.count, "scale": self.scale, "logarithm": self.logarithm, "seed": self.seed}
        return {**super().get_config(), **options}


def sinusoidal(condition, width: int, dtype: str = "float32"):
    """Sines and cosines of a number at geometric frequencies, from 1 down to 1/10000.

    With h = width // 2 and w_i = 10000^(-i / (h - 1)), i = 0 ... h - 1, the embedding of c is
    [sin(w c), cos(w c)], and a zero if the width is odd.

    Args:
      condition: float or int [B].
      width: length of the embedding, at least 4.
      dtype: dtype of the result.

    Returns:
      [B, width].

    Reference:
      Vaswani et al. 2017, section 3.5, with the frequencies of Ho et al. 2020.
    """
    half = width // 2
    frequencies = ops.exp(ops.arange(half, dtype=dtype) * (-math.log(10000.0) / (half - 1)))
    angle = ops.cast(condition, dtype)[:, None] * frequencies[None, :]
    parts = [ops.sin(angle), ops.cos(angle)]
    if width % 2:
        parts.append(ops.zeros_like(angle[:, :1]))
    return ops.concatenate(parts, axis=-1)


@keras.saving.register_keras_serializable("ncsn_tf")
class ClassEmbedding(keras.layers.Layer):
    """A vector for each of K classes, and one for no class; all are zero at first.

    Args:
      num_classes: number of classes, K.
      width: length of the vectors.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      labels: int [B] in [0, K]; K is no class.

    Returns:
      [B, width]. In a graph, which cannot raise an error under XLA, NaN where a label is out of range.

    Raises:
      ValueError: when called, if a label is out of range and known, as in eager mode.
    """

    def __init__(self, num_classes: int, width: int, **kwargs):
        super().__init__(**own_dtype(kwargs))
        self.num_classes = num_classes
        self.width = width

    def build(self, labels_shape=None):
        shape = (self.num_classes + 1, self.width)
        self.table = self.add_weight(shape=shape, initializer="zeros", name="table")

    def call(self, labels):
        labels = ops.convert_to_tensor(labels)
        if "int" not in str(labels.dtype):
            raise ValueError(f"Labels are integers; cast them. Received: {labels.dtype}.")
        if hasattr(labels, "numpy"):
            values = np.asarray(labels.numpy())
            if np.any((values < 0) | (values > self.num_classes)):
                raise ValueError(
                    f"Labels are 0 to {self.num_classes - 1}, and {self.num_classes} for no class. Received: "
                    f"{values.min()} to {values.max()}."
                )
        # A product with the one-hot label gives dense gradients on every device.
        vectors = ops.matmul(ops.one_hot(labels, self.num_classes + 1, dtype=self.compute_dtype), self.table)
        possible = ops.logical_and(labels >= 0, labels <= self.num_classes)
        return ops.where(possible[:, None], vectors, math.nan)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes, "width": self.width}
