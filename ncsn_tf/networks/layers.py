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


def check_several_maps(x_shape) -> None:
    """Raises ValueError unless feature maps of shape [B, H, W, C] are two or more: one has no unbiased variance."""
    features = x_shape[-1]
    if features is None or features < 2:
        raise ValueError(
            f"Instance norm++ takes a variance over feature maps and needs 2 or more. Received: {x_shape}."
        )


def instance_norm_plus_plus(x, gamma, alpha, beta, epsilon: float):
    """Instance normalisation with a term for the mean intensity that it removes.

    With mu, s^2 an image's mean and variance in one feature map over space, and m, v the mean and the unbiased variance
    of mu over the feature maps,

        y = gamma * ((x - mu) / sqrt(s^2 + eps) + alpha * (mu - m) / sqrt(v + eps)) + beta.

    The paper's equation omits eps and the unbiased v; the official PyTorch code has both, and so has this function.

    The arithmetic is folded into one multiply-add on the feature map, y = scale * x + shift. s^2 is the mean of
    (x - mu)^2, because E[x^2] - mu^2 saves no time and loses digits where a map is nearly constant.

    Args:
      x: [B, H, W, C] with C >= 2.
      gamma: [B, 1, 1, C], or [C] for all images. Its dtype, that of alpha and beta too, is that of the statistics.
      alpha: of the shape of gamma.
      beta: of the shape of gamma.
      epsilon: eps, added to both variances.

    Returns:
      [B, H, W, C] in the dtype of x.

    Reference:
      Song & Ermon 2019, appendix A.
    """
    wide = ops.cast(x, gamma.dtype)
    # All statistics keep their dimensions: taking and adding them by indices would be a third of a network's graph.
    mean = ops.mean(wide, axis=(1, 2), keepdims=True)
    variance = ops.mean(ops.square(wide - mean), axis=(1, 2), keepdims=True)
    centred = mean - ops.mean(mean, axis=-1, keepdims=True)
    spread = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (x.shape[-1] - 1)

    scale = gamma * ops.rsqrt(variance + epsilon)
    shift = gamma * alpha * centred * ops.rsqrt(spread + epsilon) + beta - mean * scale
    return x * ops.cast(scale, x.dtype) + ops.cast(shift, x.dtype)


@keras.saving.register_keras_serializable("ncsn_tf")
class InstanceNormPlusPlus(keras.layers.Layer):
    """Instance norm++ (`instance_norm_plus_plus`) with one gamma, alpha and beta for all images, each [C].

    As in the official code gamma and alpha start from N(1, 0.02^2), beta from zero.

    Args:
      epsilon: eps, added to both variances.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: [B, H, W, C] with C >= 2.

    Raises:
      ValueError: if `seed` is invalid, or at `build`, if C < 2.

    Reference:
      Song & Ermon, Improved techniques for training score-based generative models, 2020, appendix B.1.
    """

    def __init__(self, epsilon: float = 1e-5, seed: int | None = None, **kwargs):
        super().__init__(**own_dtype(kwargs))
        self.epsilon = epsilon
        self.seed = seed
        self._seeds = LayerSeeds(seed)

    def build(self, x_shape):
        check_several_maps(x_shape)
        shape = (x_shape[-1],)
        near_one = keras.initializers.RandomNormal
        self.gamma = self.add_weight(shape=shape, initializer=near_one(1.0, 0.02, self._seeds()), name="gamma")
        self.alpha = self.add_weight(shape=shape, initializer=near_one(1.0, 0.02, self._seeds()), name="alpha")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, x):
        dtype = wide_dtype(self.compute_dtype)
        gamma, alpha, beta = (ops.cast(weight, dtype) for weight in (self.gamma, self.alpha, self.beta))
        return instance_norm_plus_plus(x, gamma, alpha, beta, self.epsilon)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "seed": self.seed}


@keras.saving.register_keras_serializable("ncsn_tf")
class ConditionalInstanceNormPlusPlus(keras.layers.Layer):
    """Instance norm++ (`instance_norm_plus_plus`) whose gamma, alpha and beta depend on the noise level.

    Args:
      num_levels: number of noise levels, L.
      epsilon: eps, added to both variances.
      seed: integer seed of the table's initial values; with None Keras chooses one.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: [B, H, W, C] with C >= 2.
      encoding: [B, L], the one-hot level of each image. A product with it gives dense gradients on every device.

    Raises:
      ValueError: at build, if C < 2.
    """

    def __init__(self, num_levels: int, epsilon: float = 1e-5, seed: int | None = None, **kwargs):
        super().__init__(**own_dtype(kwargs))
        self.num_levels = num_levels
        self.epsilon = epsilon
        self.seed = seed

    def build(self, x_shape, encoding_shape=None):
        check_several_maps(x_shape)
        self.features = x_shape[-1]
        self.table = self.add_weight(
            shape=(self.num_levels, 3, self.features), initializer=ScaleAndShiftInitializer(self.seed), name="table"
        )

    def call(self, x, encoding):
        dtype = wide_dtype(self.compute_dtype)
        table = ops.reshape(ops.cast(self.table, dtype), (self.num_levels, 3 * self.features))
        looked_up = ops.matmul(ops.cast(encoding, dtype), table)
        gamma, alpha, beta = ops.split(ops.reshape(looked_up, (-1, 1, 1, 3 * self.features)), 3, axis=-1)
        return instance_norm_plus_plus(x, gamma, alpha, beta, self.epsilon)

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


def max_pool(x, size: int):
    """Maxima over windows of size x size cells, with stride 1; windows at an edge have the cells that exist.

    TensorFlow's own max pooling has no sound second-order gradient: that of two poolings in succession is zero in a
    `tf.function`, silently, and XLA rounds it or refuses. Pairwise maxima are correct at every order, and faster.

    Args:
      x: [B, H, W, C] with static H and W.
      size: side of the window, odd.

    Returns:
      [B, H, W, C]. Among equal cells the gradient goes to one.
    """
    return _running_maximum(_running_maximum(x, size, axis=1), size, axis=2)


def _running_maximum(x, size: int, axis: int):
    """Maxima over `size` consecutive cells along an axis, for each cell as the middle one."""
    margins = [(0, 0)] * len(x.shape)
    margins[axis] = (size // 2, size // 2)
    x = ops.pad(x, margins, constant_values=-float("inf"))
    covered = 1
    while covered < size:
        # Each x[i] is a maximum over `covered` cells from i on; two of them that meet or overlap make a longer one.
        step = min(covered, size - covered)
        # `split`, because its gradient is the cheapest of all ways to cut out a part.
        former, _ = ops.split(x, [x.shape[axis] - step], axis)
        _, latter = ops.split(x, [step], axis)
        x = ops.maximum(former, latter)
        covered += step
    return x


def rematerialised(block: keras.layers.Layer, *tensors):
    """Runs block(*tensors), and again for its gradient, instead of keeping the block's activations.

    Raises:
      NotImplementedError: if the gradient is differentiated again; TensorFlow's message is "recompute_grad tried to
        transpose grad of rematerialised_block". Under `tf.vectorized_map` it works, correctly.
    """

    # A function, because TensorFlow's error message needs its name. It runs all of `__call__`, which sets the block's
    # dtypes, both times. Tensors are arguments: the gradient of a captured tensor would be lost silently.
    def rematerialised_block(*tensors):
        return block(*tensors)

    return keras.remat(rematerialised_block)(*tensors)
