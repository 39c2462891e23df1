"""How smooth the border is between what an image was given and what was made up."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Seams:
    """Mean absolute differences of neighbouring pixels, in units of the image's range.

    Where a seam is invisible, `across` is to `across_original` as `inside` is to `inside_original`, and all are alike.

    Attributes:
      across: of pairs of which one pixel was known and one was not, in the completed images.
      inside: of pairs of which neither was known.
      across_original: of the pairs of `across`, in the original images.
      inside_original: of the pairs of `inside`, in the original images.
    """

    across: float
    inside: float
    across_original: float
    inside_original: float


def measure(completed: np.ndarray, original: np.ndarray, known: np.ndarray) -> Seams:
    """Compares the differences of neighbours across the border with those inside, and with the originals'.

    Args:
      completed: floats [N, H, W, C].
      original: floats of the same shape, the images that were occluded.
      known: bool [N, H, W, 1] or of the same shape.

    Returns:
      The means over all pairs of vertical and horizontal neighbours; NaN where there is no such pair.
    """
    known = np.broadcast_to(known, completed.shape)
    found: dict[str, list[np.ndarray]] = {field.name: [] for field in dataclasses.fields(Seams)}
    for axis in (1, 2):
        first, second = (np.take(known, range(*span), axis) for span in _pairs(known.shape[axis]))
        for name, images in (("", completed), ("_original", original)):
            steps = np.abs(np.diff(images, axis=axis))
            found[f"across{name}"].append(steps[first != second])
            found[f"inside{name}"].append(steps[~first & ~second])
    return Seams(**{name: _mean(np.concatenate(parts)) for name, parts in found.items()})


def _pairs(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, size - 1), (1, size)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
