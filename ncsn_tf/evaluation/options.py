"""The `evaluation` section of a configuration."""

import dataclasses

from ncsn_tf.evaluation.names import FEATURE_KINDS


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How a run's samples are judged.

    Attributes:
      features: the feature network's kind: "inception", or "classifier" for one of the dataset's classes.
      num_samples: how many samples are drawn.
      batch_size: how many a replica draws at a time.
      held_out_examples: on how many held-out images the loss by level is measured, the first ones; 0 for none.
    """

    features: str
    num_samples: int
    batch_size: int
    held_out_examples: int

    def __post_init__(self):
        if self.features not in FEATURE_KINDS:
            raise ValueError(f"evaluation.features is one of {', '.join(FEATURE_KINDS)}. Received: {self.features!r}.")
        for name, least in (("num_samples", 2), ("batch_size", 1), ("held_out_examples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"evaluation.{name} must be at least {least}. Received: {getattr(self, name)}.")
