"""The score network of Song & Ermon 2020, which is not told the noise level."""

import keras
from keras import ops

from ncsn_tf.networks.layers import (
    InstanceNormPlusPlus,
    LayerSeeds,
    convolution,
    own_dtype,
    refuse_labels,
    rematerialised,
    wide_dtype,
)
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock

_WIDTHS = {4: (1, 2, 2, 2), 5: (1, 2, 2, 4, 4), 6: (1, 2, 2, 2, 4, 4)}
"""The width of each cascade, in multiples of `filters`, by the number of cascades."""


@keras.saving.register_keras_serializable("ncsn_tf")
class NCSNv2(keras.Model):
    """NCSNv2: a RefineNet of four to six cascades that is not told the noise level.

    Unconditional instance norm++ is in its residual blocks and before its last convolution. The refinement blocks have
    no normalisations, and pool by maxima.

    The output is sigma times the score, with no knowledge of sigma: `ncsn_tf.score.score_over_sigma` divides it
    (Technique 3 of the paper). The official program divides inside its network.

    The last two cascades enlarge their receptive fields by dilations 2 and 4; the first halves nothing, and each of the
    others halves the resolution. Any static height and width is allowed, also an odd one: a last odd row or column is
    averaged over the cells that exist. The official program accepts only sizes that it can halve. Its `adjust_padding`,
    for images of 28x28, has no effect, because the block that takes it does not halve.

    `stages` has the cascades, each a list of two residual blocks, and `refinements` the refinement blocks, both in the
    order of execution: `refinements[0]` takes the output of the last cascade. In the official program they are res1,
    res2, ... and refine1, refine2, ...; with six cascades res1, res2, res3, res31, res4, res5 and refine1, refine2,
    refine31, refine3, refine4, refine5.

    Args:
      channels: image channels.
      filters: width of the first cascade (`ngf` in the official code).
      cascades: 4, 5 or 6, published as NCSNv2 for images of 32 and 64 pixels, NCSNv2Deeper for 96 and 128, and
        NCSNv2Deepest for 256. With 128 filters and 3 channels they have 29,694,083, 83,445,379 and 94,132,611 weights.
      centre_input: True if the input spans [0, 1]: it is mapped to [-1, 1] first. The output remains a gradient with
        respect to the image in [0, 1]; the network learns the factor 2. False leaves the input as it is.
      rematerialise: recompute activations inside residual and refinement blocks in the backward pass instead of keeping
        them, which trades time for memory. Weights, their names and their order are the same, so checkpoints are
        interchangeable. Training by objectives that contain derivatives of the score (exact and sliced) needs False.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name` and `dtype` of `keras.Model`. With `dtype="mixed_bfloat16"` all but the statistics of the
        normalisations and the last convolution runs in bfloat16.

    Call arguments:
      x: float [B, H, W, channels], images in [0, 1] (see `centre_input`).
      condition: ignored.
      labels: None, because the network has no classes.
      dropout_seeds: ignored, because the network has no dropout.

    Returns:
      float32 [B, H, W, channels], sigma times the score at each pixel.

    Raises:
      ValueError: if a size is too small or not an integer, `cascades` is another number, or `seed` is invalid; when
        called with labels.
      NotImplementedError: with `rematerialise`, if a gradient is differentiated again.

    Reference:
      Song & Ermon, Improved techniques for training score-based generative models, 2020, section 3.3 and appendix B.1.
    """

    def __init__(
        self,
        channels: int,
        filters: int = 128,
        *,
        cascades: int = 4,
        centre_input: bool = True,
        rematerialise: bool = False,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**own_dtype(kwargs))
        # The input is centred in its own dtype; the layers cast it to theirs.
        self.autocast = False
        for name, value, smallest in (("channels", channels, 1), ("filters", filters, 2)):
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise ValueError(f"NCSNv2 needs `{name}` to be an integer of at least {smallest}. Received: {value!r}.")
        if not isinstance(cascades, int) or cascades not in _WIDTHS:
            raise ValueError(f"NCSNv2 needs `cascades` to be 4, 5 or 6. Received: {cascades!r}.")
        self.channels = channels
        self.filters = filters
        self.cascades = cascades
        self.centre_input = centre_input
        self.rematerialise = rematerialise
        self.seed = seed
        self._seeds = LayerSeeds(seed)
        self._widths = [multiple * filters for multiple in _WIDTHS[cascades]]
        self._widths_before = [filters, *self._widths[:-1]]
        self.begin_conv = convolution(channels, filters, seeds=self._seeds, dtype=self.dtype_policy)
        self.stages = self._make_stages()
        self.refinements = self._make_refinements()
        self.norm = InstanceNormPlusPlus(**self._shared())
        wide = wide_dtype(self.compute_dtype)
        self.end_conv = convolution(filters, channels, seeds=self._seeds, dtype=wide)

    def _shared(self):
        """Arguments of the next block: a seed of its own and the network's dtype policy."""
        return {"seed": self._seeds(), "dtype": self.dtype_policy}

    def _make_stages(self) -> list[list[ResidualBlock]]:
        def block(in_filters, filters, **options):
            return ResidualBlock(None, in_filters, filters, **options, **self._shared())

        stages = []
        dilations = [1] * (self.cascades - 2) + [2, 4]
        for before, width, dilation in zip(self._widths_before, self._widths, dilations, strict=True):
            # The official network has a convolution in the first shortcut even where the widths agree.
            change = {"project": True} if dilation > 1 else {"downsample": bool(stages)}
            first = block(before, width, dilation=dilation, **change)
            stages.append([first, block(width, width, dilation=dilation)])
        return stages

    def _make_refinements(self) -> list[RefineBlock]:
        blocks = []
        # Each brings its features to the width of the cascade that joins them next.
        for before, width in zip(reversed(self._widths_before), reversed(self._widths), strict=True):
            in_filters = [width, width] if blocks else [width]
            output_units = 3 if len(blocks) == self.cascades - 1 else 1
            options = {"output_units": output_units, "normalise": False, "max_pooling": True}
            blocks.append(RefineBlock(None, in_filters, before, **options, **self._shared()))
        return blocks

    def build(self, x_shape, condition_shape=None):
        # Weights depend on widths alone, so the network can be built before an image size is known.
        def features(width):
            return (None, None, None, width)

        self.begin_conv.build(x_shape)
        for blocks in self.stages:
            for block in blocks:
                block.build(features(block.in_filters))
        for block in self.refinements:
            block.build([features(width) for width in block.in_filters])
        self.norm.build(features(self.filters))
        self.end_conv.build(features(self.filters))

    def call(self, x, condition=None, labels=None, dropout_seeds=None):
        refuse_labels(self, labels)
        if self.centre_input:
            x = 2.0 * x - 1.0
        h = self.begin_conv(x)
        features = []
        for blocks in self.stages:
            for block in blocks:
                h = self._run(block, h)
            features.append(h)
        h = self._run(self.refinements[0], [features[-1]])
        for block, skip in zip(self.refinements[1:], features[-2::-1], strict=True):
            h = self._run(block, [skip, h])
        return self.end_conv(ops.elu(self.norm(h)))

    def _run(self, block, x):
        return rematerialised(block, x) if self.rematerialise else block(x)

    def get_config(self):
        names = ("channels", "filters", "cascades", "centre_input", "rematerialise", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
