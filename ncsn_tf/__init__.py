"""Score-based generative models in TensorFlow and Keras."""

__version__ = "0.2.0"
