"""The noise-conditional score network of Song & Ermon 2019."""

import keras
from keras import ops

from ncsn_tf.networks.layers import (
    ConditionalInstanceNormPlusPlus,
    LayerSeeds,
    convolution,
    own_dtype,
    refuse_labels,
    rematerialised,
    wide_dtype,
)
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock


@keras.saving.register_keras_serializable("ncsn_tf")
class NCSN(keras.Model):
    """NCSN: a four-cascade RefineNet with dilated residual blocks and conditional instance norm++.

    The resolution is halved once, after the first cascade; the third and fourth enlarge their receptive fields by
    dilations 2 and 4 instead. Any static height and width is allowed, including odd ones.

    The output is the score itself, not divided by sigma, as in the official network (later networks divide).

    Args:
      channels: image channels.
      num_levels: number of noise levels, L.
      filters: width of the first cascade (`ngf` in the official code): 64 for MNIST, 128 for CIFAR-10 and CelebA.
      rematerialise: recompute activations inside residual and refinement blocks in the backward pass instead of keeping
        them, which trades time for memory. On a CPU, for 64 images of 28x28 and 32 filters, a gradient step takes 0.6
        of the memory and 1.2 of the time. Weights, their names and their order are the same, so checkpoints are
        interchangeable. Training by objectives that contain derivatives of the score (exact and sliced) needs False.
      centre_input: True if the input spans [0, 1]: it is mapped to [-1, 1] first, as the official program does outside
        its network. The output remains the gradient with respect to the image in [0, 1]; the network learns the factor
        2. False leaves the input as it is.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name` and `dtype` of `keras.Model`. With `dtype="mixed_bfloat16"` all but the statistics of the
        normalisations and the last convolution runs in bfloat16.

    Call arguments:
      x: float [B, H, W, channels], images in [0, 1] (see `centre_input`).
      condition: int [B], the noise level's index in [0, L), 0 the noisiest.
      labels: None, because the network has no classes.
      dropout_seeds: ignored, because the network has no dropout.

    Returns:
      float32 [B, H, W, channels], the score at each pixel.

    Raises:
      ValueError: if a size is too small or not an integer, or `seed` is invalid; when called with labels.
      NotImplementedError: with `rematerialise`, if a gradient is differentiated again; TensorFlow's message is
        "recompute_grad tried to transpose grad of rematerialised_block". Under `tf.vectorized_map` it works, correctly.

    Reference:
      Song & Ermon, Generative modeling by estimating gradients of the data distribution, 2019, section 4 and
      appendix A.
    """

    def __init__(
        self,
        channels: int,
        num_levels: int,
        filters: int = 128,
        *,
        rematerialise: bool = False,
        centre_input: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**own_dtype(kwargs))
        # The input is centred in its own dtype; the layers cast it to theirs.
        self.autocast = False
        for name, value in (("channels", channels), ("num_levels", num_levels), ("filters", filters)):
            smallest = 2 if name == "filters" else 1
            if not isinstance(value, int) or value < smallest:
                raise ValueError(f"NCSN needs `{name}` to be an integer of at least {smallest}. Received: {value!r}.")
        self.channels = channels
        self.num_levels = num_levels
        self.filters = filters
        self.rematerialise = rematerialise
        self.centre_input = centre_input
        self.seed = seed
        self._seeds = LayerSeeds(seed)
        self.begin_conv = convolution(channels, filters, seeds=self._seeds, dtype=self.dtype_policy)
        self.cascades = self._make_cascades(filters, 2 * filters)
        self.refinements = self._make_refinements(filters, 2 * filters)
        self.norm = ConditionalInstanceNormPlusPlus(num_levels, **self._shared())
        wide = wide_dtype(self.compute_dtype)
        self.end_conv = convolution(filters, channels, seeds=self._seeds, dtype=wide)

    def _shared(self):
        """Arguments of the next block: a seed of its own and the network's dtype policy."""
        return {"seed": self._seeds(), "dtype": self.dtype_policy}

    def _make_cascades(self, narrow: int, wide: int) -> list[list[ResidualBlock]]:
        def block(in_filters, filters, **options):
            return ResidualBlock(self.num_levels, in_filters, filters, **options, **self._shared())

        return [
            [block(narrow, narrow), block(narrow, narrow)],
            [block(narrow, wide, downsample=True), block(wide, wide)],
            # The official network has a convolution in the first shortcut even where the widths agree.
            *([block(wide, wide, dilation=d, project=True), block(wide, wide, dilation=d)] for d in (2, 4)),
        ]

    def _make_refinements(self, narrow: int, wide: int) -> list[RefineBlock]:
        def block(in_filters, filters, **options):
            return RefineBlock(self.num_levels, in_filters, filters, **options, **self._shared())

        return [
            block([wide], wide),
            block([wide, wide], wide),
            block([wide, wide], narrow),
            block([narrow, narrow], narrow, output_units=3),
        ]

    def build(self, x_shape, condition_shape=None):
        # Weights depend on widths alone, so the network can be built before an image size is known.
        encoding_shape = (None, self.num_levels)
        full, half = (None, None, None, self.filters), (None, None, None, 2 * self.filters)
        self.begin_conv.build(x_shape)
        inputs = [full, full, half, half]
        for cascade, shape, output in zip(self.cascades, inputs, [full, half, half, half], strict=True):
            cascade[0].build(shape, encoding_shape)
            cascade[1].build(output, encoding_shape)
        for block, shapes in zip(self.refinements, [[half], [half, half], [half, half], [full, full]], strict=True):
            block.build(shapes, encoding_shape)
        self.norm.build(full)
        self.end_conv.build(full)

    def call(self, x, condition, labels=None, dropout_seeds=None):
        refuse_labels(self, labels)
        if self.centre_input:
            x = 2.0 * x - 1.0
        encoding = ops.one_hot(condition, self.num_levels, dtype=wide_dtype(self.compute_dtype))
        h = self.begin_conv(x)
        features = []
        for cascade in self.cascades:
            for block in cascade:
                h = self._run(block, h, encoding)
            features.append(h)
        h = self._run(self.refinements[0], [features[3]], encoding)
        for block, skip in zip(self.refinements[1:], features[2::-1], strict=True):
            h = self._run(block, [skip, h], encoding)
        return self.end_conv(ops.elu(self.norm(h, encoding)))

    def _run(self, block, x, encoding):
        return rematerialised(block, x, encoding) if self.rematerialise else block(x, encoding)

    def get_config(self):
        names = ("channels", "num_levels", "filters", "rematerialise", "centre_input", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
