"""Samplers: one small file per method, the driver that walks, and what draws and keeps many samples."""


def __getattr__(name: str):
    if name == "make":  # imported when it is asked for: it brings all methods
        from ncsn_tf.samplers.methods import make

        return make
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
