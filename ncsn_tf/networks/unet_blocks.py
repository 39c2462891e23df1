"""Blocks of the U-Nets DDPM, DDPM++ and NCSN++ (Ho et al. 2020; Song et al. 2021, appendix H).

Feature maps are [B, H, W, C] with static H, W and C. The order inside a block is normalise, swish, convolve.
"""

import keras
from keras import ops

from ncsn_tf.networks.layers import LayerSeeds, wide_dtype
from ncsn_tf.networks.resampling import blur, double, halve
from ncsn_tf.networks.unet_layers import Block, GroupNorm, add_skip, along_channels, convolution, dense, drop

_POINTWISE_SCALE = 0.1
"""Scale of the initial weights of dense layers along the channels, as in the authors' programs."""


@keras.saving.register_keras_serializable("ncsn_tf")
class UNetBlock(Block):
    """Residual block with two convolutions, between which the embedding of noise and class enters.

        h = conv1(resample(swish(norm1(x)))) + dense(embedding)
        y = shortcut(resample(x)) + conv2(dropout(swish(norm2(h))))

    A "biggan" block may resample; its shortcut is a 1x1 convolution where it does or the width changes. A "ddpm" block
    does not; its shortcut is a dense layer along the channels, which starts smaller, where the width changes. Else the
    shortcut is the identity.

    Args:
      in_filters: channels of the input.
      filters: channels of the output.
      kind: "biggan" or "ddpm".
      resample: "down" halves the sides, "up" doubles them, None keeps them.
      method: how to resample, one of `resampling.METHODS`.
      embedded: whether there is an embedding.
      dropout: probability of an element to be dropped, in [0, 1).
      rescale_skip: divide the sum by sqrt(2).
      init_scale: scale of the initial variance of conv2; 0 stands for 1e-10.
      groups: groups of the normalisations; with None min(C // 4, 32).
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: [B, H, W, in_filters].
      embedding: [B, E], already through the swish before `dense`; None without `embedded`.
      seeds: int32 [B, 2] for dropout, or None for none.

    Returns:
      [B, H', W', filters].
    """

    arguments = (
        *("in_filters", "filters", "kind", "resample", "method", "embedded", "dropout", "rescale_skip", "init_scale"),
        *("groups", "seed"),
    )

    def __init__(
        self,
        in_filters: int,
        filters: int,
        *,
        kind: str = "biggan",
        resample: str | None = None,
        method: str = "fir",
        embedded: bool = True,
        dropout: float = 0.0,
        rescale_skip: bool = True,
        init_scale: float = 0.0,
        groups: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.in_filters = in_filters
        self.filters = filters
        self.kind = kind
        self.resample = resample
        self.method = method
        self.embedded = embedded
        self.dropout = dropout
        self.rescale_skip = rescale_skip
        self.init_scale = init_scale
        self.groups = groups
        self.seed = seed
        seeds, dtype = LayerSeeds(seed), self.dtype_policy
        self.norm1, self.norm2 = GroupNorm(groups, dtype=dtype), GroupNorm(groups, dtype=dtype)
        self.conv1 = convolution(filters, seeds=seeds, dtype=dtype)
        self.conv2 = convolution(filters, seeds=seeds, scale=init_scale, dtype=dtype)
        self.dense = dense(filters, seeds=seeds, dtype=wide_dtype(self.compute_dtype)) if embedded else None
        self.shortcut = None
        if kind == "biggan" and (resample or in_filters != filters):
            self.shortcut = convolution(filters, 1, seeds=seeds, dtype=dtype)
        elif in_filters != filters:
            self.shortcut = dense(filters, seeds=seeds, scale=_POINTWISE_SCALE, dtype=dtype)

    def build(self, x_shape, embedding_shape=None, seeds_shape=None):
        middle_shape = (*x_shape[:-1], self.filters)
        for layer, shape in ((self.norm1, x_shape), (self.norm2, middle_shape), (self.conv1, x_shape)):
            layer.build(shape)
        self.conv2.build(middle_shape)
        if self.dense is not None:
            self.dense.build(embedding_shape)
        if self.shortcut is not None:
            self.shortcut.build(x_shape)

    def call(self, x, embedding=None, seeds=None):
        h = ops.silu(self.norm1(x))
        if self.resample is not None:
            change = halve if self.resample == "down" else double
            h, x = change(h, self.method), change(x, self.method)
        h = self.conv1(h)
        # The normalisation adds the embedding, which spares a pass over the feature map.
        h = self.norm2(h, None if self.dense is None else self.dense(embedding))
        h = self.conv2(drop(ops.silu(h), seeds, self.dropout))
        if self.shortcut is not None:
            x = self.shortcut(x) if self.kind == "biggan" else along_channels(self.shortcut, x)
        return add_skip(x, h, self.rescale_skip)


@keras.saving.register_keras_serializable("ncsn_tf")
class Attention(Block):
    """Self-attention of all pixels with one head, softmax(q k' / sqrt(C)) v, in a residual block.

    Args:
      rescale_skip: divide the sum of x and the attention's output by sqrt(2).
      init_scale: scale of the initial variance of the last dense layer; 0 stands for 1e-10.
      groups: groups of the normalisation; with None min(C // 4, 32).
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`. The softmax is in float32 where the dtype has 16 bits.

    Call arguments:
      x: [B, H, W, C].

    Returns:
      [B, H, W, C].
    """

    arguments = ("rescale_skip", "init_scale", "groups", "seed")

    def __init__(
        self,
        *,
        rescale_skip: bool = True,
        init_scale: float = 0.0,
        groups: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.rescale_skip = rescale_skip
        self.init_scale = init_scale
        self.groups = groups
        self.seed = seed

    def build(self, x_shape):
        features, seeds, dtype = x_shape[-1], LayerSeeds(self.seed), self.dtype_policy
        self.norm = GroupNorm(self.groups, dtype=dtype)
        self.norm.build(x_shape)
        self.query, self.key, self.value = (
            dense(features, seeds=seeds, scale=_POINTWISE_SCALE, dtype=dtype) for _ in range(3)
        )
        self.out = dense(features, seeds=seeds, scale=self.init_scale, dtype=dtype)
        for layer in (self.query, self.key, self.value, self.out):
            layer.build((None, features))

    def call(self, x):
        _, height, width, features = x.shape
        h = self.norm(x)
        layers = self.query, self.key, self.value
        q, k, v = (ops.reshape(along_channels(layer, h), (-1, height * width, features)) for layer in layers)
        logits = ops.matmul(q * features**-0.5, ops.swapaxes(k, 1, 2))
        weights = ops.softmax(ops.cast(logits, wide_dtype(self.compute_dtype)), axis=-1)
        h = ops.reshape(ops.matmul(ops.cast(weights, v.dtype), v), (-1, height, width, features))
        return add_skip(x, along_channels(self.out, h), self.rescale_skip)


@keras.saving.register_keras_serializable("ncsn_tf")
class Resample(Block):
    """Halves or doubles the sides, and convolves with a 3x3 kernel that may change the width.

    With "fir" the filter and the convolution are one: padded once, outside both. Halving, the filter comes first, and
    the convolution takes every second pixel (Zhang 2019). Doubling, a transposed convolution comes first (Karras et al.
    2020, appendix B). With "plain" a convolution of stride 2 halves, its padding at the lower right; to double, pixels
    are repeated first.

    Args:
      direction: "down" or "up".
      filters: channels of the output.
      method: one of `resampling.METHODS`.
      convolve: whether to convolve; without, `filters` must be the channels of the input.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: [B, H, W, C].

    Returns:
      [B, H', W', filters].
    """

    arguments = ("direction", "filters", "method", "convolve", "seed")

    def __init__(
        self,
        direction: str,
        filters: int,
        *,
        method: str = "fir",
        convolve: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.direction = direction
        self.filters = filters
        self.method = method
        self.convolve = convolve
        self.seed = seed
        self.conv = None
        if convolve:
            options = {"seeds": LayerSeeds(seed), "dtype": self.dtype_policy}
            if direction == "down":
                options.update(strides=2, padding="valid" if method == "fir" else "same")
            self.conv = convolution(filters, **options)

    def build(self, x_shape):
        if self.conv is not None:
            self.conv.build(x_shape)

    def call(self, x):
        down = self.direction == "down"
        if self.conv is None:
            return halve(x, self.method) if down else double(x, self.method)
        if self.method == "plain":
            return self.conv(x if down else double(x, self.method))
        if down:
            return self.conv(blur(x, 2))
        # The transposed convolution gives 2 H + 1 rows, zeros between the pixels included, hence the factor.
        kernel = ops.swapaxes(ops.flip(ops.cast(self.conv.kernel, x.dtype), axis=(0, 1)), 2, 3)
        h = ops.conv_transpose(x, kernel, 2, padding="valid", data_format="channels_last")
        return 4.0 * blur(h, 1) + ops.cast(self.conv.bias, x.dtype)


@keras.saving.register_keras_serializable("ncsn_tf")
class Combine(Block):
    """Brings a pyramid's image into a feature map, through a 1x1 convolution.

    Args:
      filters: channels of the convolution's output; those of the feature map, to be added to it.
      method: "sum" adds it, "cat" puts it before the feature map's channels.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: [B, H, W, C], the image.
      h: [B, H, W, filters], the feature map.

    Returns:
      [B, H, W, filters], or twice as many channels.
    """

    arguments = ("filters", "method", "seed")

    def __init__(self, filters: int, method: str = "sum", seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.method = method
        self.seed = seed
        self.conv = convolution(filters, 1, seeds=LayerSeeds(seed), dtype=self.dtype_policy)

    def build(self, x_shape, h_shape=None):
        self.conv.build(x_shape)

    def call(self, x, h):
        x = self.conv(x)
        return x + h if self.method == "sum" else ops.concatenate([x, h], axis=-1)
