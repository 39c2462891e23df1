"""Makes the layers of a U-Net, level by level."""

import dataclasses
from collections.abc import Sequence

import keras

from ncsn_tf.networks.embeddings import FourierFeatures
from ncsn_tf.networks.layers import LayerSeeds, wide_dtype
from ncsn_tf.networks.unet_blocks import Attention, Combine, Resample, UNetBlock
from ncsn_tf.networks.unet_layers import GroupNorm, convolution, dense


@dataclasses.dataclass
class Level:
    """The layers of one resolution, on the way down or on the way up.

    Attributes:
      blocks: each with the attention after it, or None.
      resample: to the next resolution; None on the last level.
      pyramid: down, brings the image's pyramid into the feature map; up, makes the output's pyramid one level finer.
      output: the normalisation and the convolution that begin the output's pyramid, or that are added to it.
    """

    blocks: list[tuple[UNetBlock, Attention | None]] = dataclasses.field(default_factory=list)
    resample: UNetBlock | Resample | None = None
    pyramid: Combine | Resample | None = None
    output: tuple[GroupNorm, keras.layers.Conv2D] | None = None


class Builder:
    """Makes and builds the layers of a `unet.UNet`; its methods are called in the order in which they stand here.

    Args:
      network: the network, whose arguments say what to make.
      image_shape: height, width and channels.

    Attributes:
      parts: the layers made so far, in the order of the modules of the authors' programs.
    """

    def __init__(self, network: keras.Model, image_shape: tuple[int, int, int]):
        self.parts: list[keras.layers.Layer] = []
        self._network = network
        self._channels = image_shape[-1]
        levels = range(len(network.multipliers))
        self._sides = [(image_shape[0] >> level, image_shape[1] >> level) for level in levels]
        self._widths = [network.filters * multiplier for multiplier in network.multipliers]
        self._seeds = LayerSeeds(network.seed)
        self._dtype = network.dtype_policy
        self._wide = wide_dtype(network.compute_dtype)

    def embedding(self) -> tuple[FourierFeatures | None, list[keras.layers.Dense]]:
        """The layers that embed the condition: the features if they have weights, and two dense layers or none."""
        network, features, hidden, size = self._network, None, [], self._network.filters
        if network.embedding in ("fourier", "log_fourier"):
            features = FourierFeatures(
                network.filters,
                network.fourier_scale,
                logarithm=network.embedding == "log_fourier",
                seed=self._seeds(),
                dtype=self._wide,
            )
            self._add(features, ())
            size = 2 * network.filters
        if network.embedding != "none":
            for inputs in (size, 4 * network.filters):
                layer = dense(4 * network.filters, seeds=self._seeds, dtype=self._wide)
                hidden.append(self._add(layer, (inputs,)))
        return features, hidden

    def first(self) -> keras.layers.Conv2D:
        """The convolution of the image."""
        return self._convolution((*self._sides[0], self._channels), self._network.filters)

    def down(self) -> tuple[list[Level], list[int]]:
        """The levels of the way down, and the widths of all feature maps that the way up will see."""
        network, levels = self._network, []
        width, pyramid_width = network.filters, self._channels
        widths = [width]
        for number, (sides, level_width) in enumerate(zip(self._sides, self._widths, strict=True)):
            level = Level()
            for _ in range(network.blocks):
                block = self._block((*sides, width), level_width)
                width = level_width
                level.blocks.append((block, self._attention_if_chosen((*sides, width))))
                widths.append(width)
            if number + 1 < len(self._sides):
                level.resample = self._between((*sides, width), "down")
                if network.progressive_input == "input_skip":
                    combine = Combine(width, network.combiner, **self._shared())
                    level.pyramid = self._add(combine, (*self._sides[number + 1], self._channels))
                    width *= 2 if network.combiner == "cat" else 1
                elif network.progressive_input == "residual":
                    level.pyramid = self._resample((*sides, pyramid_width), "down", width)
                    pyramid_width = width
                widths.append(width)
            levels.append(level)
        return levels, widths

    def middle(self, width: int) -> tuple[UNetBlock, Attention, UNetBlock]:
        """The layers between the two ways, for a feature map of the lowest resolution."""
        shape = (*self._sides[-1], width)
        return self._block(shape, width), self._attention(shape), self._block(shape, width)

    def up(self, widths: Sequence[int]) -> list[Level]:
        """The levels of the way up, for feature maps of the way down of these widths."""
        network, levels, remaining = self._network, [], list(widths)
        width, pyramid_width = widths[-1], 0
        for number in reversed(range(len(self._sides))):
            level, sides = Level(), self._sides[number]
            for place in range(network.blocks + 1):
                block = self._block((*sides, width + remaining.pop()), self._widths[number])
                width = self._widths[number]
                last = place == network.blocks
                level.blocks.append((block, self._attention_if_chosen((*sides, width)) if last else None))
            if network.progressive_output == "output_skip":
                level.output = self._output((*sides, width))
            elif network.progressive_output == "residual":
                if number + 1 == len(self._sides):
                    level.output = self._normalised_convolution((*sides, width), width)
                else:
                    level.pyramid = self._resample((*self._sides[number + 1], pyramid_width), "up", width)
                pyramid_width = width
            if number > 0:
                level.resample = self._between((*sides, width), "up")
            levels.append(level)
        return levels

    def last(self) -> tuple[GroupNorm, keras.layers.Conv2D]:
        """The layers that make the output from the last feature map."""
        return self._output((*self._sides[0], self._widths[0]))

    def _add(self, layer, shape: Sequence[int], *other_shapes):
        """Builds the next part for examples of a shape."""
        layer.build((None, *shape), *other_shapes)
        self.parts.append(layer)
        return layer

    def _shared(self):
        """Arguments of the next block: a seed of its own and the network's dtype policy."""
        return {"seed": self._seeds(), "dtype": self._dtype}

    def _block(self, shape, filters: int, resample: str | None = None) -> UNetBlock:
        network = self._network
        block = UNetBlock(
            shape[-1],
            filters,
            kind=network.block,
            resample=resample,
            method=network.resampling,
            embedded=network.embedding != "none" or network.num_classes is not None,
            dropout=network.dropout,
            rescale_skip=network.rescale_skips,
            init_scale=network.init_scale,
            groups=network.groups,
            **self._shared(),
        )
        return self._add(block, shape, (None, 4 * network.filters))

    def _attention(self, shape) -> Attention:
        network = self._network
        options = {"rescale_skip": network.rescale_skips, "init_scale": network.init_scale, "groups": network.groups}
        return self._add(Attention(**options, **self._shared()), shape)

    def _attention_if_chosen(self, shape) -> Attention | None:
        return self._attention(shape) if min(shape[:2]) in self._network.attention else None

    def _resample(self, shape, direction: str, filters: int, convolve: bool = True) -> Resample:
        options = {"method": self._network.resampling, "convolve": convolve, **self._shared()}
        return self._add(Resample(direction, filters, **options), shape)

    def _between(self, shape, direction: str) -> UNetBlock | Resample:
        """The layer that changes the resolution."""
        if self._network.block == "biggan":
            return self._block(shape, shape[-1], direction)
        return self._resample(shape, direction, shape[-1], self._network.resampling_convolution)

    def _convolution(self, shape, filters: int, scale: float = 1.0, dtype=None) -> keras.layers.Conv2D:
        return self._add(convolution(filters, seeds=self._seeds, scale=scale, dtype=dtype or self._dtype), shape)

    def _normalised_convolution(self, shape, filters: int, **options) -> tuple[GroupNorm, keras.layers.Conv2D]:
        norm = self._add(GroupNorm(self._network.groups, dtype=self._dtype), shape)
        return norm, self._convolution(shape, filters, **options)

    def _output(self, shape) -> tuple[GroupNorm, keras.layers.Conv2D]:
        return self._normalised_convolution(shape, self._channels, scale=self._network.init_scale, dtype=self._wide)
