"""The U-Net of DDPM, DDPM++ and NCSN++, in all their variants."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
from keras import ops

from ncsn_tf.networks import unet_checks
from ncsn_tf.networks.embeddings import ClassEmbedding, sinusoidal
from ncsn_tf.networks.layers import LayerSeeds, own_dtype, refuse_labels, wide_dtype
from ncsn_tf.networks.resampling import double, halve
from ncsn_tf.networks.unet_blocks import Combine, UNetBlock
from ncsn_tf.networks.unet_layers import add_skip, dropout_streams
from ncsn_tf.networks.unet_levels import Builder


@keras.saving.register_keras_serializable("ncsn_tf")
class UNet(keras.Model):
    """The U-Net of score-based models: DDPM, DDPM++, NCSN++ and their deep forms, each a choice of arguments.

    Residual blocks on the way down halve the image level by level; on the way up each block also sees a feature map of
    the same size from the way down. There is attention at chosen resolutions, and in the middle. For CIFAR-10:

        NCSN++  UNet(3, progressive_input="residual", output_sigmas="condition"); condition sigma
        DDPM++  UNet(3, resampling="plain", embedding="positional", centre_input=False); condition 999 t
        DDPM    DDPM++ with blocks=2, block="ddpm", rescale_skips=False, groups=32

    and with blocks=8 the deep forms of the first two. The output for a condition is that of the authors' programs for
    theirs, and `parts` is in the order of their modules.

    Args:
      channels: image channels.
      filters: width of the first level, at least 4.
      multipliers: for each level its width as a multiple of `filters`; sides are halved between levels.
      blocks: residual blocks per level on the way down; on the way up there is one more.
      attention: sides of the feature maps at which each block has attention after it; on the way up, the last one of
        the level. Where height and width differ, the shorter one counts.
      block: "biggan" blocks change the resolution themselves; "ddpm" blocks leave that to layers between the levels.
      resampling: "fir" filters by [1, 3, 3, 1]; "plain" takes means of 2x2 cells and repeats pixels.
      resampling_convolution: whether the layers between levels of "ddpm" blocks convolve.
      progressive_input: "input_skip" brings the halved image into each level through a 1x1 convolution; "residual"
        adds an image pyramid made of convolutions to the feature map, which becomes the pyramid; "none" has neither.
      progressive_output: "output_skip" sums images made on all levels, "residual" adds a pyramid made of convolutions
        to the feature map, which becomes the pyramid; with "none" the output is made on the last level.
      combiner: how "input_skip" brings in the image: "sum", or "cat" as further channels.
      embedding: how the network sees the condition: "log_fourier", Fourier features of its logarithm, for noise levels;
        "fourier", those of itself; "positional", a sinusoidal embedding, for 999 t or an index; "none", not at all.
      fourier_scale: standard deviation of the frequencies of Fourier features.
      dropout: probability of dropout in the blocks, in [0, 1).
      rescale_skips: divide sums of skip connections by sqrt(2).
      init_scale: scale of the initial weights of each branch's last layer and of the output; 0 stands for 1e-10.
      groups: groups of each normalisation; with None a quarter of the feature maps, 32 at most.
      num_classes: number of classes, K, of a class-conditional network. The embedding of the class, zero at first, is
        added to that of the condition.
      output_sigmas: None leaves the output as it is; "condition" divides it by the condition; (largest, smallest, L)
        divides it by the condition's level, an index of L geometric ones.
      centre_input: True if the input spans [0, 1]: it is mapped to [-1, 1] first, see `ncsn.NCSN`. False for one that
        already spans [-1, 1].
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name` and `dtype` of `keras.Model`. With 16-bit dtypes, statistics of normalisations, softmax,
        embeddings and the convolutions that make the output are in float32.

    Attributes:
      parts: once built, the layers in the order of the authors' programs; that of the classes is not among them.

    Call arguments:
      x: float [B, H, W, channels], of the size that the network was built for; see `centre_input`.
      condition: float or int [B], as `embedding` and `output_sigmas` need it.
      labels: int [B] in [0, K], where K is no class; None is K for all. Without `num_classes` only None.
      dropout_seeds: int32 [B, 2], the seed of each example's dropout; None for no dropout.

    Returns:
      float32 [B, H, W, channels] (float64 with that dtype).

    Raises:
      ValueError: if an argument is impossible; at `build`, if the image's size is unknown, cannot be halved, or lacks a
        side of `attention`, or if groups do not divide a width; when called, if the image's size is another, or labels
        are out of range. Labels that are known only when a graph runs give NaN instead.

    References:
      Ho, Jain & Abbeel 2020, appendix B (DDPM); Song et al. 2021, appendix H (DDPM++, NCSN++).
    """

    def __init__(
        self,
        channels: int,
        filters: int = 128,
        *,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        block: str = "biggan",
        resampling: str = "fir",
        resampling_convolution: bool = True,
        progressive_input: str = "none",
        progressive_output: str = "none",
        combiner: str = "sum",
        embedding: str = "log_fourier",
        fourier_scale: float = 16.0,
        dropout: float = 0.1,
        rescale_skips: bool = True,
        init_scale: float = 0.0,
        groups: int | None = None,
        num_classes: int | None = None,
        output_sigmas: str | Sequence[float] | None = None,
        centre_input: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**own_dtype(kwargs))
        # The input is centred in its own dtype; the layers cast it to theirs.
        self.autocast = False
        self.channels = channels
        self.filters = filters
        self.multipliers = _as_tuple(multipliers)
        self.blocks = blocks
        self.attention = _as_tuple(attention)
        self.block = block
        self.resampling = resampling
        self.resampling_convolution = resampling_convolution
        self.progressive_input = progressive_input
        self.progressive_output = progressive_output
        self.combiner = combiner
        self.embedding = embedding
        self.fourier_scale = fourier_scale
        self.dropout = dropout
        self.rescale_skips = rescale_skips
        self.init_scale = init_scale
        self.groups = groups
        self.num_classes = num_classes
        self.output_sigmas: str | tuple[float, ...] | None = _as_tuple(output_sigmas)
        self.centre_input = centre_input
        self.seed = seed
        unet_checks.check_arguments(self._arguments())
        LayerSeeds(seed)  # refuses a seed that is not one
        self.image_shape: tuple[int, int, int] | None = None
        self.parts: list[keras.layers.Layer] = []

    def _arguments(self):
        names = (
            *("channels", "filters", "multipliers", "blocks", "attention", "block", "resampling"),
            *("resampling_convolution", "progressive_input", "progressive_output", "combiner", "embedding"),
            *("fourier_scale", "dropout", "rescale_skips", "init_scale", "groups", "num_classes", "output_sigmas"),
            *("centre_input", "seed"),
        )
        return {name: getattr(self, name) for name in names}

    def build(self, x_shape, condition_shape=None, labels_shape=None, dropout_seeds_shape=None):
        unet_checks.check_image(x_shape[1:], self.channels, len(self.multipliers), self.attention)
        self.image_shape = tuple(x_shape[1:])
        builder = Builder(self, self.image_shape)
        features, hidden = builder.embedding()
        first = builder.first()
        downs, widths = builder.down()
        middle = builder.middle(widths[-1])
        ups = builder.up(widths)
        last = None if self.progressive_output == "output_skip" else builder.last()
        # Keras lists weights in the order in which it meets the layers, so all of them come first in theirs.
        self.parts = builder.parts
        self.features, self.hidden, self.first, self.last = features, hidden, first, last
        self.downs, self.middle, self.ups = downs, middle, ups
        self.class_table = None
        if self.num_classes is not None:
            self.class_table = ClassEmbedding(self.num_classes, 4 * self.filters, dtype=wide_dtype(self.compute_dtype))
            self.class_table.build()

    def call(self, x, condition, labels=None, dropout_seeds=None):
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"UNet was built for images of {self.image_shape}; build another for other sizes. Received: images of "
                f"{tuple(x.shape[1:])}."
            )
        for name, value in (("condition", condition), ("labels", labels), ("dropout_seeds", dropout_seeds)):
            if value is not None and None not in (rows := (x.shape[0], *value.shape[:1])) and len(set(rows)) > 1:
                raise ValueError(f"`{name}` must have one entry per image, {rows[0]}. Received: {tuple(value.shape)}.")
        if self.centre_input:
            x = 2.0 * x - 1.0
        x = ops.cast(x, self.compute_dtype)
        if labels is None and self.num_classes is not None:
            labels = ops.full_like(x[:, 0, 0, 0], self.num_classes, dtype="int32")
        embedding = self._embed(condition, labels)
        streams: Iterator = itertools.repeat(None)
        if dropout_seeds is not None and self.dropout:
            streams = iter(dropout_streams(dropout_seeds, sum(isinstance(part, UNetBlock) for part in self.parts)))

        def run(layer, h):
            return layer(h, embedding, next(streams)) if isinstance(layer, UNetBlock) else layer(h)

        skips = self._run_down(x, run)
        first, attention, second = self.middle
        h = run(second, attention(run(first, skips[-1])))
        return self._scaled(self._run_up(h, skips, run), condition)

    def _embed(self, condition, labels):
        """The embedding of condition and class, [B, 4 filters], through the swish of the blocks; or None."""
        embedding = None
        if self.num_classes is None:
            refuse_labels(self, labels)
        if self.embedding != "none":
            if self.features is None:
                embedding = sinusoidal(condition, self.filters, wide_dtype(self.compute_dtype))
            else:
                embedding = self.features(condition)
            embedding = self.hidden[1](ops.silu(self.hidden[0](embedding)))
        if self.class_table is not None:
            classes = self.class_table(labels)
            embedding = classes if embedding is None else embedding + classes
        return None if embedding is None else ops.silu(embedding)

    def _run_down(self, x, run: Callable) -> list:
        """The feature maps of the way down."""
        pyramid = x
        maps = [self.first(x)]
        for level in self.downs:
            for block, attention in level.blocks:
                h = run(block, maps[-1])
                maps.append(h if attention is None else attention(h))
            if level.resample is None:
                break
            h = run(level.resample, maps[-1])
            if isinstance(level.pyramid, Combine):
                pyramid = halve(pyramid, self.resampling)
                h = level.pyramid(pyramid, h)
            elif level.pyramid is not None:
                h = pyramid = add_skip(level.pyramid(pyramid), h, self.rescale_skips)
            maps.append(h)
        return maps

    def _run_up(self, h, skips: list, run: Callable):
        """The output, from the feature map of the middle and those of the way down."""
        pyramid = None
        for level in self.ups:
            for block, attention in level.blocks:
                h = run(block, ops.concatenate([h, skips.pop()], axis=-1))
                h = h if attention is None else attention(h)
            if level.output is not None:
                norm, conv = level.output
                output = conv(ops.silu(norm(h)))
                pyramid = output if pyramid is None else double(pyramid, self.resampling) + output
            elif level.pyramid is not None:
                h = pyramid = add_skip(level.pyramid(pyramid), h, self.rescale_skips)
            if level.resample is not None:
                h = run(level.resample, h)
        if self.last is None:
            return pyramid
        norm, conv = self.last
        return conv(ops.silu(norm(h)))

    def _scaled(self, h, condition):
        """The output divided by the sigma of `output_sigmas`."""
        if self.output_sigmas is None:
            return h
        sigma = condition
        if isinstance(self.output_sigmas, tuple):
            largest, smallest, count = self.output_sigmas
            sigmas = ops.convert_to_tensor(np.geomspace(largest, smallest, int(count)), dtype=h.dtype)
            index = ops.cast(condition, "int32")
            known = (index >= 0) & (index < int(count)) & (ops.cast(index, condition.dtype) == condition)
            sigma = ops.where(known, ops.take(sigmas, ops.clip(index, 0, int(count) - 1)), np.nan)
        return h / ops.cast(sigma, h.dtype)[:, None, None, None]

    def get_config(self):
        return {**super().get_config(), **self._arguments()}


def _as_tuple(values):
    """Lists, as JSON has them, as tuples; anything else stays, to be refused."""
    return tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else values
