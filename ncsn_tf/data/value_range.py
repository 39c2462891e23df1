"""The value range of an SDE's data, entered and left at the data boundary alone.

Users, files, masks and exports speak of images within [0, 1]. Between the data boundary and the samples, images are in
the range of the SDE: [0, 1] for VE, [-1, 1] for VP.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class ValueRange:
    """Maps images within [0, 1] to [low, high] and back.

    Attributes:
      low: what 0 is mapped to.
      high: what 1 is mapped to.

    Raises:
      ValueError: unless low < high.
    """

    low: float
    high: float

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"A value range needs low < high. Received: low={self.low}, high={self.high}.")

    def encode(self, images: Any) -> Any:
        """Images of [0, 1], a float tensor or array, in [low, high]; the same object for the range [0, 1]."""
        return images if self == UNIT else images * (self.high - self.low) + self.low

    def decode(self, images: Any) -> Any:
        """Images of [low, high], a float tensor or array, in [0, 1]; the same object for the range [0, 1]."""
        return images if self == UNIT else (images - self.low) * (1.0 / (self.high - self.low))


UNIT = ValueRange(0.0, 1.0)
SYMMETRIC = ValueRange(-1.0, 1.0)
