"""Layers that several score networks share, written in `keras.ops` alone."""

import keras
import numpy as np
from keras import ops


class LayerSeeds:
    """Hands out one integer seed per call, for the initializers of a network's layers.

    The n-th seed is a hash of (seed, n), so it depends on no global random state.

    Args:
      seed: the network's or block's seed, a non-negative integer; with None every handed-out seed is None, and Keras's
        initializers seed themselves from Python's global generator.

    Raises:
      ValueError: if `seed` is neither None nor a non-negative integer.
    """

    def __init__(self, seed: int | None):
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
            raise ValueError(f"`seed` must be a non-negative integer or None. Received: {seed!r}.")
        self._seed = seed
        self._count = 0

    def __call__(self) -> int | None:
        """Returns the next seed, an integer in [0, 2^30) or None."""
        if self._seed is None:
            return None
        sequence = np.random.SeedSequence(self._seed, spawn_key=(self._count,))
        self._count += 1
        # 30 bits, because Keras takes seeds modulo 2^31 - 2.
        return int(sequence.generate_state(1, np.uint32)[0]) >> 2


def own_dtype(arguments: dict) -> dict:
    """The arguments of a layer or network, with the dtype float32 if they give none.

    Keras would take the global policy, which a user may have set for other networks.
    """
    return {**arguments, "dtype": arguments.get("dtype") or "float32"}


def refuse_labels(network: keras.Model, labels) -> None:
    """Raises ValueError if labels are given to a network that has no classes."""
    if labels is not None:
        raise ValueError(
            f"{type(network).__name__} is not class-conditional: call it without labels. "
            f"Received: labels of shape {ops.shape(labels)}."
        )


def convolution(
    in_filters: int,
    filters: int,
    kernel_size: int = 3,
    *,
    seeds: LayerSeeds,
    dilation: int = 1,
    use_bias: bool = True,
    dtype="float32",
) -> keras.layers.Conv2D:
    """A size-preserving convolution with PyTorch's default initialisation, as in the paper's networks.

    Kernel and bias are uniform on +-1/sqrt(fan_in): a third of the variance that Keras would give by default.

    Args:
      in_filters: channels of the input, which set the fan-in.
      filters: channels of the output.
      kernel_size: side of the square kernel.
      seeds: gives the seeds of the kernel and of the bias.
      dilation: spacing of the kernel's taps; padding grows with it.
      use_bias: whether to add a bias.
      dtype: dtype policy of the layer.

    Returns:
      An unbuilt `keras.layers.Conv2D`.
    """
    bound = 1.0 / np.sqrt(in_filters * kernel_size**2)
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        padding="same",
        data_format="channels_last",
        dilation_rate=dilation,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound, seeds()),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound, seeds()) if use_bias else "zeros",
        dtype=dtype,
    )


def wide_dtype(dtype: str) -> str:
    """The dtype in which sums over many pixels are safe: float32 for 16-bit types, else the type itself."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


@keras.saving.register_keras_serializable("ncsn_tf")
class ScaleAndShiftInitializer(keras.initializers.Initializer):
    """Initializes a [levels, 3, features] table: gamma and alpha from N(1, 0.02^2), beta zero.

    Args:
      seed: an integer; with None Keras chooses one.
    """

    def __init__(self, seed: int | None = None):
        self.seed = seed

    def __call__(self, shape, dtype="float32"):
        levels, _, features = shape
        scales = keras.initializers.RandomNormal(1.0, 0.02, self.seed)((levels, 2, features), dtype=dtype)
        return ops.concatenate([scales, ops.zeros((levels, 1, features), dtype=dtype)], axis=1)

    def get_config(self):
        return {"seed": self.seed}


@keras.saving.register_keras_serializable("ncsn_tf")
class ConditionalInstanceNormPlusPlus(keras.layers.Layer):
    """Instance normalisation with a scale, a shift and a mean term for each noise level.

    With mu, s^2 an image's mean and variance in one feature map over space, and m, v the mean and the unbiased variance
    of mu over the feature maps,

        y = gamma[level] * ((x - mu) / sqrt(s^2 + eps) + alpha[level] * (mu - m) / sqrt(v + eps)) + beta[level].

    The alpha term restores the mean intensity that instance normalisation removes. The paper's equation omits eps and
    the unbiased v; the official code and this layer have both (Song & Ermon 2019, appendix A).

    The arithmetic is folded into one multiply-add on the feature map, y = scale * x + shift, and s^2 is computed as
    E[x^2] - mu^2 in float32: half the time of the formula written op by op. Its rounding error is about 1e-7 mu^2,
    which matters only for maps whose mean exceeds their deviation a thousandfold.

    Args:
      num_levels: number of noise levels, L.
      epsilon: eps, added to both variances.
      seed: integer seed of the table's initial values; with None Keras chooses one.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: [B, H, W, C] with C >= 2.
      encoding: [B, L], the one-hot level of each image. A product with it gives dense gradients on every device.

    Raises:
      ValueError: at build, if C < 2, for which v does not exist.
    """

    def __init__(self, num_levels: int, epsilon: float = 1e-5, seed: int | None = None, **kwargs):
        super().__init__(**own_dtype(kwargs))
        self.num_levels = num_levels
        self.epsilon = epsilon
        self.seed = seed

    def build(self, x_shape, encoding_shape=None):
        features = x_shape[-1]
        if features is None or features < 2:
            raise ValueError(
                f"Instance norm++ takes a variance over feature maps and needs 2 or more. Received: {x_shape}."
            )
        self.table = self.add_weight(
            shape=(self.num_levels, 3, features), initializer=ScaleAndShiftInitializer(self.seed), name="table"
        )
        self.features = features

    def call(self, x, encoding):
        dtype = wide_dtype(self.compute_dtype)
        table = ops.reshape(ops.cast(self.table, dtype), (self.num_levels, 3 * self.features))
        gamma, alpha, beta = ops.split(ops.matmul(ops.cast(encoding, dtype), table), 3, axis=-1)

        wide = ops.cast(x, dtype)
        mean = ops.mean(wide, axis=(1, 2))
        variance = ops.maximum(ops.mean(wide * wide, axis=(1, 2)) - mean * mean, 0.0)
        centred = mean - ops.mean(mean, axis=-1, keepdims=True)
        spread = ops.sum(centred * centred, axis=-1, keepdims=True) / (self.features - 1)

        scale = gamma * ops.rsqrt(variance + self.epsilon)
        shift = gamma * alpha * centred * ops.rsqrt(spread + self.epsilon) + beta - mean * scale
        scale, shift = ops.cast(scale, x.dtype), ops.cast(shift, x.dtype)
        return x * scale[:, None, None, :] + shift[:, None, None, :]

    def get_config(self):
        config = super().get_config()
        return {**config, "num_levels": self.num_levels, "epsilon": self.epsilon, "seed": self.seed}


def interpolation_matrix(size: int, new_size: int) -> np.ndarray:
    """Returns the matrix of linear interpolation from `size` points to `new_size` points with the same ends.

    Args:
      size: number of points, at least 1.
      new_size: number of points wanted, at least 1.

    Returns:
      float32 [new_size, size], rows summing to 1 (`align_corners=True` in PyTorch's terms).
    """
    positions = np.linspace(0.0, size - 1.0, new_size) if new_size > 1 else np.zeros(1)
    lower = np.minimum(positions.astype(np.int64), max(size - 2, 0))
    upper = np.minimum(lower + 1, size - 1)
    matrix = np.zeros((new_size, size), np.float32)
    rows = np.arange(new_size)
    np.add.at(matrix, (rows, lower), 1.0 - (positions - lower))
    np.add.at(matrix, (rows, upper), positions - lower)
    return matrix


def resize_bilinear(x, height: int, width: int):
    """Bilinear resize with aligned corners, as two matrix products.

    The resize ops of TensorFlow and Keras have no second-order gradient (it is None, silently), so sliced and exact
    score matching would train on a wrong gradient. A product with a constant matrix is correct at every order.

    Args:
      x: [B, H, W, C] with static H, W, C.
      height: the new H.
      width: the new W.

    Returns:
      [B, height, width, C].
    """
    _, old_height, old_width, channels = x.shape
    if old_height != height:
        rows = ops.convert_to_tensor(interpolation_matrix(old_height, height), dtype=x.dtype)
        x = ops.reshape(x, (-1, old_height, old_width * channels))
        x = ops.reshape(ops.matmul(rows, x), (-1, height, old_width, channels))
    if old_width != width:
        columns = ops.convert_to_tensor(interpolation_matrix(old_width, width), dtype=x.dtype)
        x = ops.matmul(columns, x)
    return x
