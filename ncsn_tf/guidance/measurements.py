"""Linear measurements y = A x of images, each with its singular value decomposition A = U S V'.

All of them are separable but for a choice of coefficients: A acts on rows, columns and channels by a matrix each, and
keeps some of the numbers that this gives. The decomposition is then that of three small matrices, computed once in
float64, and what a method does with it is done to each coefficient alone. Images and measurements are tensors [B, ...];
nothing here has to be compiled by XLA.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from ncsn_tf import random

LEAST = 1e-3
"""The smallest singular value that counts as measured, relative to the largest: a blur has ever smaller ones, and what
they say of an image drowns in rounding."""


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """A matrix that acts on one axis of images, and its decomposition U diag(s) V'.

    Attributes:
      matrix: float64 [M, N], M at most N.
      left: float64 [M, M], U.
      values: float64 [N], s, with zeros beyond M.
      right: float64 [N, N], V: its columns are a basis of the axis.
    """

    matrix: np.ndarray
    left: np.ndarray
    values: np.ndarray
    right: np.ndarray


def by_svd(matrix: np.ndarray) -> Axis:
    """The axis of a matrix [M, N]."""
    left, values, right = np.linalg.svd(matrix)
    return Axis(matrix, left, np.pad(values, (0, matrix.shape[1] - len(values))), right.T)


def orthonormal(rows: np.ndarray) -> Axis:
    """The axis of an orthogonal matrix [N, N], whose rows are the basis."""
    return Axis(rows, np.eye(len(rows)), np.ones(len(rows)), rows.T)


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """A linear measurement of images.

    In the basis of its singular vectors an image has the coefficients V' x, [B, H, W, C], and a measurement U' y, laid
    out likewise, with zeros where nothing is measured: U' y = S V' x, coefficient by coefficient.

    Attributes:
      name: names it in messages and records.
      shape: (H, W, C) of the images.
      axes: how it acts on rows, columns and channels; None for not at all.
      kept: bool, broadcast against the shape: the numbers that are kept; None for all. Only for axes that are square
        and orthogonal.

    Raises:
      ValueError: if nothing is measured.
    """

    name: str
    shape: tuple[int, int, int]
    axes: tuple[Axis | None, Axis | None, Axis | None] = (None, None, None)
    kept: np.ndarray | None = None

    def __post_init__(self):
        if self.count == 0:
            raise ValueError(f"The measurement {self.name} of images {self.shape} keeps nothing; give one that does.")

    @property
    def measured_shape(self) -> tuple[int, int, int]:
        """The shape of the measurement of one image; numbers that are not kept are 0 in it."""
        sizes = [size if axis is None else len(axis.matrix) for size, axis in zip(self.shape, self.axes, strict=True)]
        return sizes[0], sizes[1], sizes[2]

    @property
    def present(self) -> np.ndarray:
        """Which numbers of a measurement are kept, float64 of `measured_shape`: 1 or 0."""
        kept = np.ones((1, 1, 1)) if self.kept is None else self.kept.astype(np.float64)
        return np.broadcast_to(kept, self.measured_shape)

    @property
    def count(self) -> int:
        """How many numbers are kept of an image."""
        return int(self.present.sum())

    @property
    def singular_values(self) -> np.ndarray:
        """S, float64 (H, W, C), by coefficient; 0 for what is not measured, or so weakly that it counts as not."""
        pairs = zip(self.shape, self.axes, strict=True)
        each = [np.ones(size) if axis is None else axis.values for size, axis in pairs]
        values = each[0][:, None, None] * each[1][:, None] * each[2]
        if self.kept is not None:
            values = values * self.kept
        return np.where(values >= LEAST * values.max(), values, 0.0)

    def forward(self, x: tf.Tensor) -> tf.Tensor:
        """A x, [B, *measured_shape], of images x, [B, H, W, C].

        Raises:
          ValueError: for images of another shape.
        """
        self._check(x, self.shape, "images")
        y = self._along([axis and axis.matrix for axis in self.axes], x)
        return y if self.kept is None else tf.where(tf.constant(self.kept), y, tf.zeros_like(y))

    def spectrum(self, x: tf.Tensor) -> tf.Tensor:
        """V' x, the coefficients of images, [B, H, W, C] both."""
        self._check(x, self.shape, "images")
        return self._along([axis and axis.right.T for axis in self.axes], x)

    def image(self, coefficients: tf.Tensor) -> tf.Tensor:
        """V c, the images of coefficients, [B, H, W, C] both."""
        return self._along([axis and axis.right for axis in self.axes], coefficients)

    def measured_spectrum(self, y: tf.Tensor) -> tf.Tensor:
        """U' y, [B, H, W, C], of measurements y, [B, *measured_shape]; zeros where nothing is measured.

        Raises:
          ValueError: for measurements of another shape.
        """
        self._check(y, self.measured_shape, "measurements")
        turned = self._along([axis and axis.left.T for axis in self.axes], y)
        missing = [[0, size - had] for size, had in zip(self.shape, self.measured_shape, strict=True)]
        return tf.pad(turned, [[0, 0], *missing]) if np.any(missing) else turned

    def coefficients(self, y: tf.Tensor) -> tf.Tensor:
        """The coefficients that measurements y, [B, *measured_shape], have without noise; 0 for those not measured."""
        values = self.singular_values
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0.0)
        return tf.constant(inverse, y.dtype) * self.measured_spectrum(y)

    def pseudo_inverse(self, y: tf.Tensor) -> tf.Tensor:
        """The images of least norm with the measurements y, [B, *measured_shape]; [B, H, W, C]."""
        return self.image(self.coefficients(y))

    def put_back(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The images nearest to x, [B, H, W, C], whose measurements are y, [B, *measured_shape]."""
        known = tf.constant(self.singular_values > 0.0)
        return self.image(tf.where(known, self.coefficients(y), self.spectrum(x)))

    def noisy(self, x: tf.Tensor, noise: float, seeds: tf.Tensor) -> tf.Tensor:
        """A x + noise z, [B, *measured_shape], of images x, [B, H, W, C], with z from seeds, int32 [B, 2]."""
        y = self.forward(x)
        if noise == 0.0:
            return y
        return y + tf.constant(noise * self.present, y.dtype) * random.normal(seeds, self.measured_shape)

    @staticmethod
    def _along(matrices: list[np.ndarray | None], x: tf.Tensor) -> tf.Tensor:
        """x with a matrix applied to rows, columns and channels each."""
        for matrix, equation in zip(matrices, ("ij,bjwc->biwc", "ij,bhjc->bhic", "ij,bhwj->bhwi"), strict=True):
            if matrix is not None:
                x = tf.einsum(equation, tf.constant(matrix, x.dtype), x)
        return x

    def _check(self, x: tf.Tensor, shape: tuple[int, int, int], what: str) -> None:
        if tuple(x.shape[1:]) != shape:
            raise ValueError(
                f"The measurement {self.name} takes {what} [B, {', '.join(map(str, shape))}]; make one for yours. "
                f"Received: {tuple(x.shape)}."
            )


def mask(known: np.ndarray, channels: int, name: str = "mask") -> Measurement:
    """The known pixels; `known` is bool (H, W, 1) or (H, W, C), True where a pixel is known."""
    if known.dtype != bool or known.ndim != 3 or known.shape[-1] not in (1, channels):
        raise ValueError(f"A mask must be bool (H, W, 1) or (H, W, {channels}). Received: {known.dtype} {known.shape}.")
    return Measurement(name, (*known.shape[:2], channels), kept=known)


def grey(shape: tuple[int, int, int]) -> Measurement:
    """The grey values, means of three channels.

    They are the first coefficient in an orthonormal basis of the channels, divided by the root of 3 (Song et al. 2021,
    appendix I.3).
    """
    if shape[-1] != 3:
        raise ValueError(
            f"Grey values are measured of images with 3 channels: take a run on colour images. Received: {shape}."
        )
    return Measurement("grey", shape, (None, None, by_svd(np.full((1, 3), 1.0 / 3.0))))


def downsample(shape: tuple[int, int, int], factor: int) -> Measurement:
    """The means of blocks of factor by factor pixels: images that are that many times smaller."""
    name = f"downsample:{factor}"
    if factor < 2 or any(side % factor for side in shape[:2]):
        raise ValueError(
            f"Blocks of pixels have a side of 2 or more, which divides the images' {shape[:2]}; give such a factor. "
            f"Received: {name}."
        )
    rows, columns = (by_svd(np.kron(np.eye(side // factor), np.full((1, factor), 1.0 / factor))) for side in shape[:2])
    return Measurement(name, shape, (rows, columns, None))


def blur(shape: tuple[int, int, int], kernel: np.ndarray, name: str = "blur") -> Measurement:
    """Images blurred by a kernel, float [2 R + 1], on rows and columns; beyond its border an image is its mirror image.

    So a blurred constant is that constant, and no border grows dark or meets the opposite one.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 1 or len(kernel) % 2 == 0 or not np.isfinite(kernel).all():
        raise ValueError(f"A kernel is an odd number of finite weights. Received: {kernel}.")
    rows, columns = (by_svd(_mirrored(kernel, side)) for side in shape[:2])
    return Measurement(name, shape, (rows, columns, None))


def _mirrored(kernel: np.ndarray, side: int) -> np.ndarray:
    """The matrix [side, side] of a convolution with a kernel, mirrored beyond the ends."""
    matrix, radius = np.zeros((side, side)), len(kernel) // 2
    for offset, weight in zip(range(-radius, radius + 1), kernel, strict=True):
        place = np.mod(np.arange(side) + offset, 2 * side)
        np.add.at(matrix, (np.arange(side), np.minimum(place, 2 * side - 1 - place)), weight)
    return matrix


def gaussian_kernel(deviation: float) -> np.ndarray:
    """The weights of a Gaussian of a standard deviation in pixels, cut at four of them; they sum to 1."""
    if not 0.0 < deviation < math.inf:
        raise ValueError(f"A blur has a positive, finite width in pixels. Received: {deviation}.")
    offsets = np.arange(-math.ceil(4.0 * deviation), math.ceil(4.0 * deviation) + 1)
    weights = np.exp(-0.5 * (offsets / deviation) ** 2)
    return weights / weights.sum()


def fourier(shape: tuple[int, int, int], kept: np.ndarray, name: str = "fourier") -> Measurement:
    """The Fourier coefficients of some frequencies, as products of orthonormal cosines and sines of rows and columns.

    Args:
      shape: (H, W, C) of the images.
      kept: bool [H // 2 + 1, W // 2 + 1], the pairs of frequencies, in periods per image, that are kept.
      name: names it.
    """
    rows, columns = (_fourier_basis(side) for side in shape[:2])
    expected = tuple(side // 2 + 1 for side in shape[:2])
    if kept.dtype != bool or kept.shape != expected:
        raise ValueError(f"Frequencies are chosen by bool {expected}. Received: {kept.dtype} {kept.shape}.")
    chosen = kept[rows[1][:, None], columns[1]][..., None]
    return Measurement(name, shape, (orthonormal(rows[0]), orthonormal(columns[0]), None), chosen)


def frequencies(shape: tuple[int, int, int], share: float, run_seed: int = 0) -> np.ndarray:
    """A random choice of frequencies for `fourier`: the constant, and each other one with a probability.

    Args:
      shape: (H, W, C) of the images.
      share: the probability, in (0, 1].
      run_seed: determines the choice.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"The share of frequencies that are kept must be in (0, 1]. Received: {share}.")
    seeds = random.stream_seed(run_seed, random.Stream.MASK)[None]
    kept = random.uniform(seeds, (shape[0] // 2 + 1, shape[1] // 2 + 1)).numpy()[0] < share
    kept[0, 0] = True
    return kept


def _fourier_basis(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The orthonormal cosines and sines as the rows of a matrix [side, side], and their frequencies, int [side]."""
    places, order = np.arange(side), np.arange(side)
    periods = (order + 1) // 2  # 0, 1, 1, 2, 2, ..., and side / 2 once if it is even
    angle = 2.0 * np.pi * periods[:, None] * places / side
    rows = np.where((order % 2 == 1)[:, None], np.cos(angle), np.sin(angle))
    rows[0] = 1.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), periods
