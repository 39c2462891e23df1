"""The evaluation room: what a set of images is worth, by TF-GAN's metrics, and the doubts that go with every number."""


class EvaluationError(ValueError):
    """What is to be judged, or what it is to be held against, is not fit for it."""
