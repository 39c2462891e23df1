"""A multilayer perceptron for vectors, as a score network or, with one output, as an energy."""

import keras
from keras import ops

from ncsn_tf.networks.layers import LayerSeeds, own_dtype, refuse_labels


@keras.saving.register_keras_serializable("ncsn_tf")
class MLP(keras.Model):
    """Dense layers whose biases depend on the noise level.

    Args:
      dimensions: length of the input vectors, D.
      num_levels: number of noise levels, L.
      outputs: length of the output: D, the default, for a score; 1 for an energy.
      width: units of each hidden layer.
      depth: number of hidden layers.
      activation: activation of the hidden layers. Objectives that differentiate the score, and even more so energies,
        need a smooth one: ReLU's second derivative is zero almost everywhere.
      seed: non-negative integer from which the initial weights are drawn; with None Keras chooses seeds.
      **kwargs: `name` and `dtype` of `keras.Model`.

    Call arguments:
      x: float [B, D].
      condition: int [B], the noise level's index in [0, L).
      labels: None, because the network has no classes.
      dropout_seeds: ignored, because the network has no dropout.

    Returns:
      float [B, outputs].

    Raises:
      ValueError: if a size is not a positive integer or `seed` is invalid; when called with labels.

    Reference:
      Song & Ermon 2019, appendix B.1: two hidden layers of 128 softplus units and a linear one learn the toy densities.
    """

    def __init__(
        self,
        dimensions: int,
        num_levels: int,
        outputs: int | None = None,
        width: int = 128,
        depth: int = 2,
        activation: str = "softplus",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**own_dtype(kwargs))
        outputs = dimensions if outputs is None else outputs
        sizes = {"dimensions": dimensions, "num_levels": num_levels, "outputs": outputs, "width": width, "depth": depth}
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"MLP needs `{name}` to be a positive integer. Received: {value!r}.")
        self.dimensions = dimensions
        self.num_levels = num_levels
        self.outputs = outputs
        self.width = width
        self.depth = depth
        self.activation = activation
        self.seed = seed
        seeds = LayerSeeds(seed)
        widths = [width] * depth + [outputs]
        shared = {"use_bias": False, "dtype": self.dtype_policy}
        self.affine = [
            keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seeds()), **shared)
            for units in widths
        ]
        self.biases = [keras.layers.Dense(units, kernel_initializer="zeros", **shared) for units in widths]

    def build(self, x_shape, condition_shape=None):
        inputs = [self.dimensions] + [self.width] * self.depth
        for affine, bias, size in zip(self.affine, self.biases, inputs, strict=True):
            affine.build((None, size))
            bias.build((None, self.num_levels))

    def call(self, x, condition, labels=None, dropout_seeds=None):
        refuse_labels(self, labels)
        encoding = ops.one_hot(condition, self.num_levels, dtype=self.compute_dtype)
        activation = keras.activations.get(self.activation)
        h = ops.cast(x, self.compute_dtype)
        for affine, bias in zip(self.affine[:-1], self.biases[:-1], strict=True):
            h = activation(affine(h) + bias(encoding))
        return self.affine[-1](h) + self.biases[-1](encoding)

    def get_config(self):
        sizes = {name: getattr(self, name) for name in ("dimensions", "num_levels", "outputs", "width", "depth")}
        return {**super().get_config(), **sizes, "activation": self.activation, "seed": self.seed}
