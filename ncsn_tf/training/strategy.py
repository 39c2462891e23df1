"""Choosing how training is distributed over devices."""

import tensorflow as tf


def default_strategy() -> tf.distribute.Strategy:
    """MirroredStrategy where two or more GPUs are visible, else TensorFlow's default strategy on one device."""
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    return tf.distribute.get_strategy()


def describe(strategy: tf.distribute.Strategy) -> str:
    """One line for people: the strategy's kind, its replicas and their devices."""
    replicas = strategy.num_replicas_in_sync
    kind = type(strategy).__name__.lstrip("_")
    device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return f"{kind}, {replicas} replica{'s' if replicas > 1 else ''} on {device}"
