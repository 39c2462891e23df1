"""A small classifier of noisy images, which is told the noise."""

import keras
from keras import ops

from ncsn_tf.networks.embeddings import FourierFeatures
from ncsn_tf.networks.layers import LayerSeeds, own_dtype
from ncsn_tf.networks.unet_blocks import UNetBlock
from ncsn_tf.networks.unet_layers import GroupNorm, convolution, dense

_SMALLEST_SIDE = 4
"""The smallest side, in pixels, that a halving may leave."""
_WIDEST = 4
"""The largest ratio of the last stage's width to the first one's."""
_FOURIER_SCALE = 0.25
"""The deviation of the frequencies for the logarithm of the noise, which spans about ten units."""


@keras.saving.register_keras_serializable("ncsn_tf")
class NoisyClassifier(keras.Model):
    """The way down of a U-Net, a global average, and a linear layer: class logits of an image at a noise level.

    A stage is a residual block, which sees the embedding of the noise. While both sides are even and the shorter one
    has 8 pixels or more, a further stage halves them and doubles the width, to at most four times `filters`. All parts
    are smooth, because sampling follows the gradient of the logits, and act on each image alone.

    Args:
      num_classes: number of classes, K, at least 2.
      filters: width of the first stage, a multiple of 4.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name` and `dtype` of `keras.Model`.

    Call arguments:
      images: float [B, H, W, C], of about unit deviation, of the size that the network was built for.
      condition: float [B], the logarithm of the noise.

    Returns:
      Logits, float [B, K].

    Raises:
      ValueError: if a size is not an integer or is too small, if `seed` is invalid, or at `build`, if the image's size
        is unknown.

    Reference:
      Dhariwal & Nichol 2021, section 4: the way down of a U-Net as the classifier that guides.
    """

    def __init__(self, num_classes: int, filters: int = 32, seed: int | None = None, **kwargs):
        super().__init__(**own_dtype(kwargs))
        for name, value, smallest, unit in (("num_classes", num_classes, 2, 1), ("filters", filters, 4, 4)):
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest or value % unit:
                raise ValueError(
                    f"NoisyClassifier needs `{name}` to be an integer of at least {smallest}"
                    f"{' and a multiple of 4' * (unit > 1)}. Received: {value!r}."
                )
        self.num_classes = num_classes
        self.filters = filters
        self.seed = seed
        self.image_shape: tuple[int, int, int] | None = None
        seeds, dtype = LayerSeeds(seed), self.dtype_policy
        self.features = FourierFeatures(filters // 2, _FOURIER_SCALE, seed=seeds(), dtype=dtype)
        self.hidden = [dense(4 * filters, seeds=seeds, dtype=dtype) for _ in range(2)]
        self.first = convolution(filters, seeds=seeds, dtype=dtype)
        self.norm = GroupNorm(dtype=dtype)
        self.head = dense(num_classes, seeds=seeds, dtype=dtype)
        self._seeds = seeds
        self.stages: list[UNetBlock] = []

    def build(self, images_shape, condition_shape=None):
        height, width, channels = images_shape[1:]
        if None in (height, width, channels):
            raise ValueError(
                f"NoisyClassifier is built for one image size, [B, H, W, C]. Received: {tuple(images_shape)}."
            )
        self.image_shape = (height, width, channels)
        self.features.build((None,))
        for layer, size in zip(self.hidden, (2 * (self.filters // 2), 4 * self.filters), strict=True):
            layer.build((None, size))
        self.first.build((None, height, width, channels))
        features = self._stage(height, width, self.filters, self.filters, None)
        while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 2 * _SMALLEST_SIDE:
            wider = min(2 * features, _WIDEST * self.filters)
            features = self._stage(height, width, features, wider, "down")
            height, width = height // 2, width // 2
        features = self._stage(height, width, features, features, None)
        self.norm.build((None, height, width, features))
        self.head.build((None, features))

    def _stage(self, height: int, width: int, in_filters: int, filters: int, resample: str | None) -> int:
        block = UNetBlock(
            in_filters,
            filters,
            resample=resample,
            method="plain",
            init_scale=1.0,
            seed=self._seeds(),
            dtype=self.dtype_policy,
        )
        block.build((None, height, width, in_filters), (None, 4 * self.filters))
        self.stages.append(block)
        return filters

    def call(self, images, condition):
        embedding = ops.silu(self.hidden[1](ops.silu(self.hidden[0](self.features(condition)))))
        h = self.first(ops.cast(images, self.compute_dtype))
        for block in self.stages:
            h = block(h, embedding)
        return self.head(ops.mean(ops.silu(self.norm(h)), axis=(1, 2)))

    def get_config(self):
        config = super().get_config()
        return {**config, "num_classes": self.num_classes, "filters": self.filters, "seed": self.seed}
