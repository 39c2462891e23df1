"""Blocks of the RefineNets of NCSN and NCSNv2 (Song & Ermon 2019, appendix A; 2020, appendix B.1; Lin et al. 2017).

Every block maps `(x, encoding)` to a feature map, where `encoding` is the one-hot noise level [B, L] that its
normalisations look up. With `num_levels=None` they do not depend on the level, and a block is called with x alone. The
order inside is normalise, ELU, convolve.
"""

import keras
from keras import ops

from ncsn_tf.networks.layers import (
    ConditionalInstanceNormPlusPlus,
    InstanceNormPlusPlus,
    LayerSeeds,
    convolution,
    max_pool,
    own_dtype,
    resize_bilinear,
)


class _Block(keras.layers.Layer):
    """Base class of the blocks: keeps level count, widths and seed as attributes and in the configuration."""

    def __init__(self, num_levels: int | None, in_filters, filters: int, seed: int | None = None, **kwargs):
        super().__init__(**own_dtype(kwargs))
        self.num_levels = num_levels
        self.in_filters = in_filters
        self.filters = filters
        self.seed = seed
        self._seeds = LayerSeeds(seed)

    def _norm(self):
        options = {"seed": self._seeds(), "dtype": self.dtype_policy}
        if self.num_levels is None:
            return InstanceNormPlusPlus(**options)
        return ConditionalInstanceNormPlusPlus(self.num_levels, **options)

    def _normalised(self, norm, x, encoding):
        return norm(x) if self.num_levels is None else norm(x, encoding)

    def _convolution(self, in_filters: int, filters: int, kernel_size: int = 3, **kwargs):
        return convolution(in_filters, filters, kernel_size, seeds=self._seeds, dtype=self.dtype_policy, **kwargs)

    def get_config(self):
        sizes = {"num_levels": self.num_levels, "in_filters": self.in_filters, "filters": self.filters}
        return {**super().get_config(), **sizes, "seed": self.seed}


class _ConvolutionsBlock(_Block):
    """Base class of the blocks with a list of convolutions, `convs`, and one of normalisations before them, `norms`.

    Without `normalise`, `norms` is empty.
    """

    def __init__(self, num_levels, in_filters, filters: int, *, normalise: bool = True, **kwargs):
        super().__init__(num_levels, in_filters, filters, **kwargs)
        self.normalise = normalise
        self.norms: list[keras.layers.Layer] = []
        self.convs: list[keras.layers.Layer] = []

    def _add_convolutions(self, widths, **options):
        """Makes one convolution, and its normalisation, for each width of an input."""
        if self.normalise:
            self.norms = [self._norm() for _ in widths]
        self.convs = [self._convolution(width, self.filters, **options) for width in widths]

    def build(self, x_shape, encoding_shape=None):
        for layer in (*self.norms, *self.convs):
            layer.build(x_shape)

    def _input(self, stage: int, x, encoding):
        """The input of a convolution after its normalisation, if it has one."""
        return self._normalised(self.norms[stage], x, encoding) if self.normalise else x

    def get_config(self):
        return {**super().get_config(), "normalise": self.normalise}


def _mean_pool(x):
    """Means of 2x2 cells; an odd last row or column is averaged over the cells that exist."""
    return ops.average_pool(x, 2, 2, padding="same", data_format="channels_last")


@keras.saving.register_keras_serializable("ncsn_tf")
class ResidualBlock(_Block):
    """Pre-activation residual block, optionally dilated, halving the resolution or changing the width.

    Args:
      num_levels: number of noise levels; None for normalisations that do not depend on the level.
      in_filters: channels of the input.
      filters: channels of the output.
      dilation: dilation of its 3x3 convolutions.
      downsample: average over 2x2 cells at the end of both branches.
      project: put a convolution in the shortcut even where the identity would fit.
      **kwargs: `seed` of the initial weights; `name`, `dtype`, ... of `keras.layers.Layer`.

    The width changes in the second convolution. The shortcut is the identity where the shape allows; else a 1x1
    convolution, or, in a dilated block, a dilated 3x3 one. Both are as in the official networks.
    """

    def __init__(
        self,
        num_levels: int | None,
        in_filters: int,
        filters: int,
        *,
        dilation: int = 1,
        downsample: bool = False,
        project: bool = False,
        **kwargs,
    ):
        super().__init__(num_levels, in_filters, filters, **kwargs)
        self.dilation = dilation
        self.downsample = downsample
        self.project = project
        self.norm1, self.norm2 = self._norm(), self._norm()
        self.conv1 = self._convolution(in_filters, in_filters, dilation=dilation)
        self.conv2 = self._convolution(in_filters, filters, dilation=dilation)
        self.shortcut = None
        if project or downsample or in_filters != filters:
            self.shortcut = self._convolution(in_filters, filters, 3 if dilation > 1 else 1, dilation=dilation)

    def build(self, x_shape, encoding_shape=None):
        for layer in (self.norm1, self.conv1, self.norm2, self.conv2):
            layer.build(x_shape)
        if self.shortcut is not None:
            self.shortcut.build(x_shape)

    def call(self, x, encoding=None):
        h = self.conv1(ops.elu(self._normalised(self.norm1, x, encoding)))
        h = self.conv2(ops.elu(self._normalised(self.norm2, h, encoding)))
        if self.downsample:
            # A 1x1 convolution commutes with averaging, so the shortcut convolves a quarter of the pixels.
            h, x = _mean_pool(h), _mean_pool(x)
        return h + (x if self.shortcut is None else self.shortcut(x))

    def get_config(self):
        options = {"dilation": self.dilation, "downsample": self.downsample, "project": self.project}
        return {**super().get_config(), **options}


@keras.saving.register_keras_serializable("ncsn_tf")
class ResidualConvolutionUnits(_ConvolutionsBlock):
    """RefineNet's RCU: `num_units` residual units of two (norm, ELU, 3x3 convolution) each; the width does not change.

    Args:
      num_levels: number of noise levels; None for normalisations that do not depend on the level.
      filters: channels of input and output.
      num_units: number of consecutive residual units.
      **kwargs: `normalise`, whether there are normalisations (True by default); `seed` of the initial weights; `name`,
        `dtype`, ... of `keras.layers.Layer`.
    """

    def __init__(self, num_levels, filters, num_units: int, **kwargs):
        super().__init__(num_levels, filters, filters, **kwargs)
        self.num_units = num_units
        self._add_convolutions([filters] * (2 * num_units), use_bias=False)

    def call(self, x, encoding=None):
        for unit in range(self.num_units):
            h = x
            for stage in (2 * unit, 2 * unit + 1):
                h = self.convs[stage](ops.elu(self._input(stage, h, encoding)))
            x = x + h
        return x

    def get_config(self):
        config = super().get_config()
        del config["in_filters"]
        return {**config, "num_units": self.num_units}


@keras.saving.register_keras_serializable("ncsn_tf")
class MultiResolutionFusion(_ConvolutionsBlock):
    """RefineNet's MSF: brings feature maps of several resolutions to one width and one size, and adds them.

    Args:
      num_levels: number of noise levels; None for normalisations that do not depend on the level.
      in_filters: channels of each input, a sequence.
      filters: channels of the output.
      **kwargs: `normalise`, whether there are normalisations (True by default); `seed` of the initial weights; `name`,
        `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: a list of feature maps; the output takes the size of the first.
      encoding: [B, L].
    """

    def __init__(self, num_levels, in_filters, filters, **kwargs):
        super().__init__(num_levels, in_filters, filters, **kwargs)
        self._add_convolutions(in_filters)

    def build(self, x_shape, encoding_shape=None):
        for layers in (self.norms, self.convs):
            for shape, layer in zip(x_shape, layers, strict=False):  # `norms` may be empty
                layer.build(shape)

    def call(self, x, encoding=None):
        _, height, width, _ = x[0].shape
        total = 0.0
        for stage, (h, conv) in enumerate(zip(x, self.convs, strict=True)):
            total = total + resize_bilinear(conv(self._input(stage, h, encoding)), height, width)
        return total


@keras.saving.register_keras_serializable("ncsn_tf")
class ChainedResidualPooling(_ConvolutionsBlock):
    """RefineNet's CRP with two stages of (norm, 5x5 pooling, 3x3 convolution), each added to the running sum.

    Average pooling divides by 25 everywhere: it counts the zero padding, as the official network does. Max pooling
    takes no account of the padding.

    Args:
      num_levels: number of noise levels; None for normalisations that do not depend on the level.
      filters: channels of input and output.
      max_pooling: pool by the maximum, as NCSNv2 does, instead of the average, as NCSN does.
      **kwargs: `normalise`, whether there are normalisations (True by default); `seed` of the initial weights; `name`,
        `dtype`, ... of `keras.layers.Layer`.
    """

    def __init__(self, num_levels, filters, *, max_pooling: bool = False, **kwargs):
        super().__init__(num_levels, filters, filters, **kwargs)
        self.max_pooling = max_pooling
        self._add_convolutions([filters] * 2, use_bias=False)

    def call(self, x, encoding=None):
        x = path = ops.elu(x)
        for stage, conv in enumerate(self.convs):
            path = conv(self._pool(self._input(stage, path, encoding)))
            x = x + path
        return x

    def _pool(self, x):
        if self.max_pooling:
            return max_pool(x, 5)
        x = ops.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        return ops.average_pool(x, 5, 1, padding="valid", data_format="channels_last")

    def get_config(self):
        config = super().get_config()
        del config["in_filters"]
        return {**config, "max_pooling": self.max_pooling}


@keras.saving.register_keras_serializable("ncsn_tf")
class RefineBlock(_Block):
    """One RefineNet block: adapt each input, fuse them at the first one's size, pool in a chain, refine.

    Args:
      num_levels: number of noise levels; None for normalisations that do not depend on the level.
      in_filters: channels of each input, a sequence; with one input there is nothing to fuse.
      filters: channels of the output.
      output_units: residual units after the pooling (1; 3 in the network's last block).
      normalise: whether there are normalisations: True in NCSN, False in NCSNv2.
      max_pooling: pool by the maximum, as NCSNv2 does, instead of the average, as NCSN does.
      **kwargs: `seed` of the initial weights; `name`, `dtype`, ... of `keras.layers.Layer`.

    Call arguments:
      x: a list of feature maps, the finest first.
      encoding: [B, L].
    """

    def __init__(
        self,
        num_levels,
        in_filters,
        filters,
        *,
        output_units: int = 1,
        normalise: bool = True,
        max_pooling: bool = False,
        **kwargs,
    ):
        super().__init__(num_levels, in_filters, filters, **kwargs)
        self.output_units = output_units
        self.normalise = normalise
        self.max_pooling = max_pooling
        self.adapters = [ResidualConvolutionUnits(num_levels, width, 2, **self._shared()) for width in in_filters]
        self.fusion = None
        if len(in_filters) > 1:
            self.fusion = MultiResolutionFusion(num_levels, in_filters, filters, **self._shared())
        self.pooling = ChainedResidualPooling(num_levels, filters, max_pooling=max_pooling, **self._shared())
        self.output_convs = ResidualConvolutionUnits(num_levels, filters, output_units, **self._shared())

    def _shared(self):
        """Arguments of the next inner block: a seed of its own, this block's dtype policy, and `normalise`."""
        return {"seed": self._seeds(), "dtype": self.dtype_policy, "normalise": self.normalise}

    def build(self, x_shape, encoding_shape=None):
        for adapter, shape in zip(self.adapters, x_shape, strict=True):
            adapter.build(shape, encoding_shape)
        if self.fusion is not None:
            self.fusion.build(x_shape, encoding_shape)
        fused_shape = (*x_shape[0][:-1], self.filters)
        self.pooling.build(fused_shape, encoding_shape)
        self.output_convs.build(fused_shape, encoding_shape)

    def call(self, x, encoding=None):
        adapted = [adapter(h, encoding) for adapter, h in zip(self.adapters, x, strict=True)]
        fused = adapted[0] if self.fusion is None else self.fusion(adapted, encoding)
        return self.output_convs(self.pooling(fused, encoding), encoding)

    def get_config(self):
        names = ("output_units", "normalise", "max_pooling")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
