"""A small convolutional classifier of images, whose pooled activations serve as features of its own dataset."""

import keras
from keras import ops

from ncsn_tf.networks.layers import LayerSeeds, own_dtype

_SMALLEST_SIDE = 4
"""The smallest side, in pixels, that a halving may leave."""
_WIDEST = 4
"""The largest ratio of the last stage's width to the first one's."""


@keras.saving.register_keras_serializable("ncsn_tf")
class Classifier(keras.Model):
    """Stages of convolutions, between which the image is halved, a global average, and a linear layer.

    One rule adapts it to any image size: the image is halved, with odd sides rounded up, while its shorter side has 8
    pixels or more, and each halving doubles the width, to at most four times `filters`. So with 32 filters images of
    8x8 have features of length D = 64, those of 28x28 and 32x32 D = 128, and those of 5x7, which are never halved,
    D = 32. A stage is a 3x3 convolution, batch normalisation and a rectifier; the last stage, where they cost least,
    has them twice.

    A call normalises by frozen statistics, as in TF-GAN's Inception, so an image's features do not depend on its
    batch; `training=True` uses the statistics of the batch and moves the frozen ones towards them.

    Args:
      num_classes: number of classes, K, at least 2.
      filters: width of the first stage.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name` and `dtype` of `keras.Model`.

    Call arguments:
      images: float [B, H, W, C] in [-1, 1], as TF-GAN's Inception takes them, of the size the network was built for.
      training: whether the network is being trained.

    Returns:
      A dict: `logits`, float [B, K], and `pool_3`, float [B, D], named as Inception's global average pool.

    Raises:
      ValueError: if a size is not an integer or too small, if `seed` is invalid, or at `build`, if the image size is
        unknown.
    """

    def __init__(self, num_classes: int, filters: int = 32, seed: int | None = None, **kwargs):
        super().__init__(**own_dtype(kwargs))
        for name, value, smallest in (("num_classes", num_classes, 2), ("filters", filters, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise ValueError(
                    f"Classifier needs `{name}` to be an integer of at least {smallest}. Received: {value!r}."
                )
        self.num_classes = num_classes
        self.filters = filters
        self.seed = seed
        self._seeds = LayerSeeds(seed)
        self.image_shape: tuple[int, int, int] | None = None
        self.convolutions: list[keras.layers.Layer] = []
        self.norms: list[keras.layers.Layer] = []
        self.halve = keras.layers.MaxPooling2D(2, padding="same", data_format="channels_last", dtype=self.dtype_policy)
        head_initializer = keras.initializers.GlorotUniform(self._seeds())
        self.head = keras.layers.Dense(num_classes, kernel_initializer=head_initializer, dtype=self.dtype_policy)

    def build(self, images_shape):
        height, width, channels = images_shape[1:]
        if None in (height, width, channels):
            raise ValueError(f"Classifier is built for one image size, [B, H, W, C]. Received: {tuple(images_shape)}.")
        self.image_shape = (height, width, channels)
        widths = self._widths(min(height, width))
        widths.append(widths[-1])
        for size, filters in zip([channels, *widths], widths, strict=False):
            # Without a bias, which the normalisation would remove again.
            convolution = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                data_format="channels_last",
                use_bias=False,
                kernel_initializer=keras.initializers.HeNormal(self._seeds()),
                dtype=self.dtype_policy,
            )
            norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy)
            convolution.build((None, None, None, size))
            norm.build((None, None, None, filters))
            self.convolutions.append(convolution)
            self.norms.append(norm)
        self.head.build((None, widths[-1]))

    def _widths(self, side: int) -> list[int]:
        """The width of each stage, for images whose shorter side is `side`."""
        widths = [self.filters]
        while side >= 2 * _SMALLEST_SIDE:
            side = -(-side // 2)  # rounded up, as the pooling does
            widths.append(min(2 * widths[-1], _WIDEST * self.filters))
        return widths

    def call(self, images, training=False):
        h = ops.cast(images, self.compute_dtype)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if 0 < number < len(self.norms) - 1:
                h = self.halve(h)
            h = ops.relu(norm(convolution(h), training=training))
        pooled = ops.mean(h, axis=(1, 2))
        return {"logits": self.head(pooled), "pool_3": pooled}

    def get_config(self):
        config = super().get_config()
        return {**config, "num_classes": self.num_classes, "filters": self.filters, "seed": self.seed}
