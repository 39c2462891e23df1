"""Score-based generative models in TensorFlow and Keras."""

__version__ = "0.1.0"
