"""Evaluation: TF-GAN's metrics of a set of images, a check for copies, and the caveats that belong to every number."""

from ncsn_tf import backend

backend.require_tensorflow()


class EvaluationError(ValueError):
    """The images to evaluate, or what they are compared with, are unsuitable."""
