"""Weights and score models from the checkpoints of the authors' PyTorch programs."""

from ncsn_tf import backend

backend.require_tensorflow()


def __getattr__(name: str):
    if name == "load":  # imported when it is asked for: it brings the networks of all families
        from ncsn_tf.interop.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
