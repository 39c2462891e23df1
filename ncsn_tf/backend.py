"""The backend of Keras, which must be TensorFlow; checked before a package of this library imports Keras."""

import json
import os
import sys


def require_tensorflow() -> None:
    """Raises ImportError if Keras has, or will have when it is imported, another backend than TensorFlow."""
    backend, where = _keras_backend()
    if backend != "tensorflow":
        raise ImportError(
            f"ncsn_tf needs Keras with the backend 'tensorflow'. Received: {backend!r} ({where}). "
            "Set the environment variable KERAS_BACKEND=tensorflow."
        )


def _keras_backend() -> tuple[str, str]:
    """The backend that Keras has, or will have when it is imported, and where that is set."""
    imported = getattr(sys.modules.get("keras"), "config", None)
    if imported is not None:
        return imported.backend(), "Keras has been imported with it"
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND sets it"
    home = os.path.expanduser("~")
    default = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    path = os.path.expanduser(os.path.join(os.environ.get("KERAS_HOME", default), "keras.json"))
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file).get("backend", "tensorflow"), f"{path} sets it"
    except (OSError, ValueError, AttributeError):
        return "tensorflow", "the default"
