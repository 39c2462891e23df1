"""Layers and functions that the blocks of the U-Nets share.

Initial weights are uniform with variance `scale` over the mean of fan-in and fan-out, and biases zero, as in the
authors' programs of DDPM and NCSN++.
"""

import math

import keras
from keras import ops

from ncsn_tf.networks.layers import LayerSeeds, own_dtype, wide_dtype


def _initializer(seeds: LayerSeeds, scale: float) -> keras.initializers.Initializer:
    # No weight is exactly zero, so that all of them have gradients from the first step on.
    return keras.initializers.VarianceScaling(scale or 1e-10, "fan_avg", "uniform", seeds())


def convolution(
    filters: int,
    kernel_size: int = 3,
    *,
    seeds: LayerSeeds,
    scale: float = 1.0,
    strides: int = 1,
    padding: str = "same",
    dtype="float32",
) -> keras.layers.Conv2D:
    """A convolution with the initial weights of these networks.

    Args:
      filters: channels of the output.
      kernel_size: side of the square kernel.
      seeds: gives the seed of the kernel.
      scale: scale of the initial variance; 0 stands for 1e-10.
      strides: step of the kernel.
      padding: "same" or "valid".
      dtype: dtype policy of the layer.

    Returns:
      An unbuilt `keras.layers.Conv2D`.
    """
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        data_format="channels_last",
        kernel_initializer=_initializer(seeds, scale),
        dtype=dtype,
    )


def dense(units: int, *, seeds: LayerSeeds, scale: float = 1.0, dtype="float32") -> keras.layers.Dense:
    """A dense layer with the initial weights of these networks; the arguments are those of `convolution`."""
    return keras.layers.Dense(units, kernel_initializer=_initializer(seeds, scale), dtype=dtype)


def along_channels(layer: keras.layers.Dense, x):
    """A dense layer applied to the vector of each pixel."""
    # As one product of two matrices: the gradient of a batched one would first be computed for each image.
    y = layer(ops.reshape(x, (-1, x.shape[-1])))
    return ops.reshape(y, (-1, *x.shape[1:-1], y.shape[-1]))


def add_skip(x, h, rescale: bool):
    """The sum of a skip connection and a branch; with `rescale` over sqrt(2), which keeps the variance of its terms."""
    return (x + h) * math.sqrt(0.5) if rescale else x + h


def dropout_streams(seeds, layers: int) -> list:
    """Seeds of dropout layers, a list of int32 [B, 2]: the layer's number folded into the seeds of the examples.

    Masks depend on the example and the layer alone, so they are the same in any batch and on any number of replicas.

    Args:
      seeds: int32 [B, 2].
      layers: number of layers.
    """
    # Imported only here and in `drop`: it needs TensorFlow, and without dropout the networks run on any backend.
    from ncsn_tf import random

    # All layers at once, because a fold is two hundred small operations.
    numbers = ops.zeros_like(seeds[:, :1]) + ops.arange(layers, dtype="int32")
    folded = random.per_row(ops.repeat(seeds, layers, axis=0), ops.reshape(numbers, (-1,)))
    return ops.unstack(ops.reshape(folded, (-1, layers, 2)), layers, axis=1)


def drop(h, seeds, rate: float):
    """Sets elements of [B, ...] to zero with probability `rate` and enlarges the others, so that the mean stays.

    Args:
      h: [B, ...] with static sizes but for B.
      seeds: int32 [B, 2], or None for h as it is.
      rate: the probability, in [0, 1).
    """
    if seeds is None or not rate:
        return h
    from ncsn_tf import random

    return h * ops.cast(random.keep_mask(seeds, h.shape[1:], rate), h.dtype)


class Block(keras.layers.Layer):
    """Base class of the blocks, which keep their arguments as attributes.

    Attributes:
      arguments: the names of these attributes, for the configuration.
    """

    arguments: tuple[str, ...] = ()

    def __init__(self, **kwargs):
        super().__init__(**own_dtype(kwargs))
        # An embedding comes in float32 and keeps its precision; feature maps come in the block's own dtype.
        self.autocast = False

    def get_config(self):
        return {**super().get_config(), **{name: getattr(self, name) for name in self.arguments}}


@keras.saving.register_keras_serializable("ncsn_tf")
class GroupNorm(Block):
    """Group normalisation with a scale and a shift for each feature map, gamma and beta.

    With m and v the mean and the variance of x + offset over space and over the feature maps of a group,

        y = gamma * (x + offset - m) / sqrt(v + eps) + beta.

    It is one multiply-add on the feature map. The variance of a group is the mean over its feature maps of their own
    variances and of the squared distances of their means from m: no large numbers cancel, whatever mean or offset is.

    Args:
      groups: number of groups of successive feature maps; with None min(C // 4, 32).
      epsilon: eps.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: [B, H, W, C].
      offset: [B, C], added to x first, or None.

    Raises:
      ValueError: at build, if the groups do not divide C.

    Reference:
      Wu & He 2018.
    """

    arguments = ("groups", "epsilon")

    def __init__(self, groups: int | None = None, epsilon: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, x_shape, offset_shape=None):
        features = x_shape[-1]
        groups = min(features // 4, 32) if self.groups is None else self.groups
        if groups < 1 or features % groups:
            raise ValueError(
                f"Group norm makes groups of one size: choose `groups`, or filters and multipliers, that fit. "
                f"Received: {features} feature maps, {groups} groups."
            )
        self.split = (groups, features // groups)
        self.gamma = self.add_weight(shape=(features,), initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=(features,), initializer="zeros", autocast=False, name="beta")

    def call(self, x, offset=None):
        dtype = wide_dtype(self.compute_dtype)
        wide, gamma, beta = (ops.cast(each, dtype) for each in (x, self.gamma, self.beta))
        mean = ops.mean(wide, axis=(1, 2), keepdims=True)
        own = self._grouped(ops.mean(ops.square(wide - mean), axis=(1, 2)))
        offset = ops.zeros_like(mean[:, 0, 0]) if offset is None else ops.cast(offset, dtype)
        means = self._grouped(mean[:, 0, 0] + offset)
        m = ops.mean(means, axis=-1, keepdims=True)
        variance = ops.mean(own + ops.square(means - m), axis=-1, keepdims=True)
        scale = self._grouped(gamma) * ops.rsqrt(variance + self.epsilon)
        shift = self._grouped(beta) + scale * (self._grouped(offset) - m)
        scale, shift = (ops.reshape(each, (-1, 1, 1, x.shape[-1])) for each in (scale, shift))
        return ops.cast(wide * scale + shift, x.dtype)

    def _grouped(self, values):
        return ops.reshape(values, (-1, *self.split))
