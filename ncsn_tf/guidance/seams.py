"""A measure of the smoothness of the border between known and generated pixels."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Seams:
    """Mean absolute differences of neighbouring pixels, in units of the image's range.

    If a seam is invisible, across / across_original is about inside / inside_original.

    Attributes:
      across: the mean over pairs of a known and an unknown pixel, in the completed images.
      inside: the mean over pairs of two unknown pixels, in the completed images.
      across_original: the mean over the pairs of `across`, in the original images.
      inside_original: the mean over the pairs of `inside`, in the original images.
    """

    across: float
    inside: float
    across_original: float
    inside_original: float


def measure(completed: np.ndarray, original: np.ndarray, known: np.ndarray) -> Seams:
    """Measures the differences of neighbours across the border and inside, in completed and original images.

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
