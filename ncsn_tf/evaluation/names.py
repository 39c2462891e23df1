"""The names of metrics and of feature networks; importing this module does not import TensorFlow."""

METRICS = ("inception_score", "fid", "fid_infinity", "kid", "precision", "recall")
"""The metrics by Inception; those by a classifier begin with `classifier_`, so that the two are not confused."""

INCEPTION = "inception"
CLASSIFIER = "classifier"
FEATURE_KINDS = (INCEPTION, CLASSIFIER)
"""The kinds of feature networks."""
