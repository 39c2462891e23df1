"""The noise-conditional score network of Song & Ermon 2019."""

import keras
from keras import ops

from ncsn_tf.networks.layers import ConditionalInstanceNormPlusPlus, convolution, wide_dtype
from ncsn_tf.networks.refinenet import RefineBlock, ResidualBlock


@keras.saving.register_keras_serializable("ncsn_tf")
class NCSN(keras.Model):
    """NCSN: a four-cascade RefineNet with dilated residual blocks and conditional instance norm++.

    The resolution is halved once, after the first cascade; the third and fourth widen their view by dilations 2 and 4
    instead. Any height and width will do, odd ones too.

    The output is the score itself, not divided by sigma, as in the official network (later networks divide). It was
    trained on images mapped from [0, 1] to [-1, 1] at its entry: that map belongs to `ncsn_tf.score.ScoreModel`.

    Args:
      channels: image channels.
      num_levels: number of noise levels, L.
      filters: width of the first cascade (`ngf` in the official code): 64 for MNIST, 128 for CIFAR-10 and CelebA.
      rematerialise: keep no activation inside a residual or refinement block for the backward pass but compute it again
        there: memory for time. On a CPU, 64 images of 28x28 and 32 filters, a gradient step takes 0.6 of the memory and
        1.2 of the time. Weights, their names and their order stay, so checkpoints fit both ways. Training by objectives
        that hold derivatives of the score (exact and sliced) needs False.
      **kwargs: `name` and `dtype` of `keras.Model`. With `dtype="mixed_bfloat16"` all but the statistics of the
        normalisations and the last convolution runs in bfloat16.

    Call arguments:
      x: float [B, H, W, channels], centred images.
      level: int [B], the noise level's index in [0, L), 0 the noisiest.

    Returns:
      float32 [B, H, W, channels], the score at each pixel.

    Raises:
      ValueError: if a size is not a positive integer.
      NotImplementedError: with `rematerialise`, where a gradient is differentiated again; TensorFlow's words are
        "recompute_grad tried to transpose grad of rematerialised_block". Under `tf.vectorized_map` it is right instead.

    Reference:
      Song & Ermon, Generative modeling by estimating gradients of the data distribution, 2019, section 4 and
      appendix A.
    """

    def __init__(self, channels: int, num_levels: int, filters: int = 128, *, rematerialise: bool = False, **kwargs):
        super().__init__(**kwargs)
        for name, value in (("channels", channels), ("num_levels", num_levels), ("filters", filters)):
            smallest = 2 if name == "filters" else 1
            if not isinstance(value, int) or value < smallest:
                raise ValueError(f"NCSN needs `{name}` to be an integer of at least {smallest}. Received: {value!r}.")
        self.channels = channels
        self.num_levels = num_levels
        self.filters = filters
        self.rematerialise = rematerialise

        narrow, wide = filters, 2 * filters
        shared = {"dtype": self.dtype_policy}
        self.begin_conv = convolution(channels, narrow, **shared)
        self.cascades = [
            [ResidualBlock(num_levels, narrow, narrow, **shared), ResidualBlock(num_levels, narrow, narrow, **shared)],
            [
                ResidualBlock(num_levels, narrow, wide, downsample=True, **shared),
                ResidualBlock(num_levels, wide, wide, **shared),
            ],
            *(
                [
                    # The official network has a convolution in the first shortcut even where the widths agree.
                    ResidualBlock(num_levels, wide, wide, dilation=dilation, project=True, **shared),
                    ResidualBlock(num_levels, wide, wide, dilation=dilation, **shared),
                ]
                for dilation in (2, 4)
            ),
        ]
        self.refinements = [
            RefineBlock(num_levels, [wide], wide, **shared),
            RefineBlock(num_levels, [wide, wide], wide, **shared),
            RefineBlock(num_levels, [wide, wide], narrow, **shared),
            RefineBlock(num_levels, [narrow, narrow], narrow, output_units=3, **shared),
        ]
        self.norm = ConditionalInstanceNormPlusPlus(num_levels, **shared)
        self.end_conv = convolution(narrow, channels, dtype=wide_dtype(self.compute_dtype))

    def build(self, x_shape, level_shape=None):
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

    def call(self, x, level):
        encoding = ops.one_hot(level, self.num_levels, dtype=wide_dtype(self.compute_dtype))
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
        """block(x, encoding), with `rematerialise` run again for its gradient."""
        if not self.rematerialise:
            return block(x, encoding)

        # A function, because TensorFlow's refusal needs its name. All of `__call__`, which sets the block's dtypes, the
        # second time too. Tensors come as arguments: the gradient of a captured one would be lost without a word.
        def rematerialised_block(x, encoding):
            return block(x, encoding)

        return keras.remat(rematerialised_block)(x, encoding)

    def get_config(self):
        sizes = {"channels": self.channels, "num_levels": self.num_levels, "filters": self.filters}
        return {**super().get_config(), **sizes, "rematerialise": self.rematerialise}
