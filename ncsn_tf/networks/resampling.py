"""Halving and doubling the sides of feature maps, by the filter [1, 3, 3, 1] or plainly.

The filter is a product with a constant matrix along each side, which is sound at every order of differentiation, and
fast with and without XLA. For 16 maps of 32x32x128 on two CPU cores, halving and its gradient take 10 ms, and 7 ms
under XLA; as a depthwise convolution 9 and 292 ms, as one convolution of all maps as single images 57 and 54 ms, as
sums of strided slices 116 and 5 ms.
"""

import math
from collections.abc import Callable

import numpy as np
from keras import ops

METHODS = ("fir", "plain")
"""The filter [1, 3, 3, 1]; means of 2x2 cells and the nearest neighbour."""

_TAPS = np.array([1.0, 3.0, 3.0, 1.0]) / 8.0
_LONGEST = 128
_TILE = 32
"""Sides longer than the first are filtered in tiles of the second: a product costs as much as its matrix is long."""


def halve(x, method: str):
    """Halves the sides of feature maps.

    "fir" filters by the outer product of [1, 3, 3, 1] / 8 with itself, centred on each 2x2 cell; outside the map
    everything is zero, so a constant map gets darker at its border. "plain" takes the mean of each cell.

    Args:
      x: [B, H, W, C] with static, even H and W.
      method: one of `METHODS`.

    Returns:
      [B, H / 2, W / 2, C].
    """
    if method == "plain":
        return ops.average_pool(x, 2, 2, data_format="channels_last")
    return _resample(_resample(x, 1, _halving), 2, _halving)


def double(x, method: str):
    """Doubles the sides of feature maps.

    "fir" puts zeros between the pixels and filters by four times the outer product of [1, 3, 3, 1] / 8: four times the
    adjoint of `halve`. "plain" repeats each pixel.

    Args:
      x: [B, H, W, C] with static H and W.
      method: one of `METHODS`.

    Returns:
      [B, 2 H, 2 W, C].
    """
    if method == "plain":
        return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
    return _resample(_resample(x, 1, _doubling), 2, _doubling)


def blur(x, padding: int):
    """Filters feature maps by the outer product of [1, 3, 3, 1] / 8 with itself, at their own resolution.

    Args:
      x: [B, H, W, C] with static H and W.
      padding: zeros put on each side of a map first, at most 3.

    Returns:
      [B, H + 2 padding - 3, W + 2 padding - 3, C].
    """
    for axis in (1, 2):
        size = x.shape[axis]
        x = _multiply(_blurring(size + 2 * padding)[:, padding : padding + size], x, axis)
    return x


def _blurring(size: int) -> np.ndarray:
    """The matrix [size - 3, size] whose rows have the four taps, each row one column further than the last."""
    matrix = np.zeros((size - 3, size))
    for row in range(size - 3):
        matrix[row, row : row + 4] = _TAPS
    return matrix


def _halving(size: int) -> np.ndarray:
    """The matrix [size / 2, size + 2] that halves `size` samples, given one more at either end."""
    return _blurring(size + 2)[::2]


def _doubling(size: int) -> np.ndarray:
    """The matrix [2 size, size + 2] that doubles `size` samples, given one more at either end."""
    # The other columns would meet the zeros between the samples. The factor makes up for those.
    return 2.0 * _blurring(2 * size + 3)[:, ::2]


def _resample(x, axis: int, matrix: Callable[[int], np.ndarray]):
    """Halves or doubles along an axis, whole or in tiles to which their neighbours' nearest samples are added."""
    shape, size = x.shape, x.shape[axis]
    tiles = size // _TILE if size > _LONGEST and size % _TILE == 0 else 1
    weights = matrix(size // tiles)
    inner, ends = weights[:, 1:-1], weights[:, [0, -1]]
    if tiles == 1:
        return _multiply(inner, x, axis)
    x = ops.reshape(x, (-1, tiles, _TILE, math.prod(shape[axis + 1 :])))
    before = ops.pad(x[:, :-1, -1:], ((0, 0), (1, 0), (0, 0), (0, 0)))
    after = ops.pad(x[:, 1:, :1], ((0, 0), (0, 1), (0, 0), (0, 0)))
    y = _multiply(inner, x, 2) + _multiply(ends, ops.concatenate([before, after], axis=2), 2)
    return ops.reshape(y, (-1, *shape[1:axis], tiles * len(weights), *shape[axis + 1 :]))


def _multiply(matrix: np.ndarray, x, axis: int):
    """The product of a constant matrix [M, N] with each vector along an axis of x, whose size is N."""
    shape = x.shape
    x = ops.reshape(x, (-1, shape[axis], math.prod(shape[axis + 1 :])))
    x = ops.matmul(ops.convert_to_tensor(matrix, dtype=x.dtype), x)
    return ops.reshape(x, (-1, *shape[1:axis], len(matrix), *shape[axis + 1 :]))
