"""The keys of the `network` section, one frozen dataclass per network; image channels, levels and seed are not keys."""

import dataclasses

from ncsn_tf.config import checks

_DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class NCSN:
    """The network of Song & Ermon 2019, `networks.ncsn.NCSN`.

    Attributes:
      filters: width of the first cascade.
      dtype: "float32", "mixed_bfloat16" or "mixed_float16".
      rematerialise: recompute activations in the backward pass: less memory, more time.
    """

    filters: int = 128
    dtype: str = "float32"
    rematerialise: bool = False

    def __post_init__(self):
        checks.at_least("network", 2, filters=self.filters)
        checks.one_of("network", _DTYPES, dtype=self.dtype)


@dataclasses.dataclass(frozen=True)
class NCSNv2:
    """The network of Song & Ermon 2020, `networks.ncsnv2.NCSNv2`, which is not told the noise level.

    Attributes:
      filters: width of the first cascade.
      cascades: 4 for images of 32 and 64 pixels, 5 for 128, 6 for 256.
      dtype: "float32", "mixed_bfloat16" or "mixed_float16".
      rematerialise: recompute activations in the backward pass: less memory, more time.
    """

    filters: int = 128
    cascades: int = 4
    dtype: str = "float32"
    rematerialise: bool = False

    def __post_init__(self):
        checks.at_least("network", 2, filters=self.filters)
        checks.at_least("network", 4, 6, cascades=self.cascades)
        checks.one_of("network", _DTYPES, dtype=self.dtype)


@dataclasses.dataclass(frozen=True)
class UNet:
    """The U-Net of DDPM, DDPM++ and NCSN++, `networks.unet.UNet`; the defaults are NCSN++'s in continuous time.

    Attributes:
      filters: width of the first convolution.
      multipliers: the width of each resolution as a multiple of `filters`; every resolution halves the one before.
      blocks: residual blocks per resolution on the way down.
      attention: sides, in pixels, of the resolutions with attention.
      block: "biggan" or "ddpm".
      resampling: "fir" or "plain".
      resampling_convolution: whether a resampling that is no residual block has a convolution.
      progressive_input: "none", "input_skip" or "residual".
      progressive_output: "none", "output_skip" or "residual".
      combiner: "sum" or "cat", of the input's pyramid with the features.
      embedding: of the condition: "log_fourier", "fourier", "positional" or "none".
      fourier_scale: deviation of the frequencies of Fourier features.
      dropout: rate in the residual blocks, in [0, 1).
      rescale_skips: divide sums of skips by the square root of 2.
      init_scale: scale of the initial weights of the last convolution in each block.
      groups: groups of each group normalisation; None for a quarter of the width, at most 32.
      num_classes: the number of classes of a class-conditional network, which is trained with the labels of the data;
        None for a network without classes.
      label_dropout: the rate at which training leaves out the class of an example, in [0, 1], so that the network also
        learns the score of all classes together (Ho & Salimans 2022 take 0.1 to 0.2).
      output_sigmas: what the network divides its output by: "none", "condition" or "levels", the sigma of the level.
      centre_input: map an input in [0, 1] to [-1, 1]; None does so if the SDE's data are in [0, 1].
      dtype: "float32", "mixed_bfloat16" or "mixed_float16".
    """

    filters: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    block: str = "biggan"
    resampling: str = "fir"
    resampling_convolution: bool = True
    progressive_input: str = "residual"
    progressive_output: str = "none"
    combiner: str = "sum"
    embedding: str = "log_fourier"
    fourier_scale: float = 16.0
    dropout: float = 0.1
    rescale_skips: bool = True
    init_scale: float = 0.0
    groups: int | None = None
    num_classes: int | None = None
    label_dropout: float = 0.1
    output_sigmas: str = "condition"
    centre_input: bool | None = None
    dtype: str = "float32"

    def __post_init__(self):
        checks.at_least("network", 4, filters=self.filters)
        checks.at_least("network", 1, blocks=self.blocks)
        if not self.multipliers:
            raise ValueError("config.network.multipliers must have one or more numbers. Received: none.")
        for name in ("multipliers", "attention"):
            for number in getattr(self, name):
                checks.at_least("network", 1, **{name: number})
        if self.groups is not None:
            checks.at_least("network", 1, groups=self.groups)
        for names, key in (
            (("biggan", "ddpm"), "block"),
            (("fir", "plain"), "resampling"),
            (("none", "input_skip", "residual"), "progressive_input"),
            (("none", "output_skip", "residual"), "progressive_output"),
            (("sum", "cat"), "combiner"),
            (("log_fourier", "fourier", "positional", "none"), "embedding"),
            (("none", "condition", "levels"), "output_sigmas"),
            (_DTYPES, "dtype"),
        ):
            checks.one_of("network", names, **{key: getattr(self, key)})
        if self.num_classes is not None:
            checks.at_least("network", 1, num_classes=self.num_classes)
        checks.positive("network", fourier_scale=self.fourier_scale)
        checks.fraction("network", dropout=self.dropout)
        checks.at_least("network", 0.0, 1.0, label_dropout=self.label_dropout)
        if self.init_scale < 0.0:
            raise ValueError(f"config.network.init_scale must be at least 0. Received: {self.init_scale}.")
