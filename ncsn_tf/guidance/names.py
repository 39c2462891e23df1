"""Names that flags list; kept apart, so that they can be read before TensorFlow is imported."""

MASKS = ("left", "right", "top", "bottom", "centre", "random", "strokes")
"""`left`: the left half is known, and so on; `centre`: all but a square in the middle, half as wide as the image."""
