"""The value range of an SDE's data; images are converted only at the data boundary.

Users, files, masks and exports use images in [0, 1]. Between the data boundary and the samples, images are in the range
of the SDE: [0, 1] for VE, [-1, 1] for VP.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class ValueRange:
    """Maps images in [0, 1] to [low, high] and back.

    Attributes:
      low: the value to which 0 is mapped.
      high: the value to which 1 is mapped.

    Raises:
      ValueError: unless low < high.
    """

    low: float
    high: float

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"A value range needs low < high. Received: low={self.low}, high={self.high}.")

    def encode(self, images: Any) -> Any:
        """Maps images, a float tensor or array, from [0, 1] to [low, high]; returns the same object for [0, 1]."""
        return images if self == UNIT else images * (self.high - self.low) + self.low

    def decode(self, images: Any) -> Any:
        """Maps images, a float tensor or array, from [low, high] to [0, 1]; returns the same object for [0, 1]."""
        return images if self == UNIT else (images - self.low) * (1.0 / (self.high - self.low))


UNIT = ValueRange(0.0, 1.0)
SYMMETRIC = ValueRange(-1.0, 1.0)
