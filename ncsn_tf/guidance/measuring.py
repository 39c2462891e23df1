"""Images measured for a restoration, in the range [0, 1], and how well restored images agree with what was measured."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.guidance.denoising import signal_to_noise
from ncsn_tf.guidance.measurements import Measurement
from ncsn_tf.samplers.driver import Given


def measure(images: np.ndarray, measurement: Measurement, noise: float, *, run_seed: int) -> np.ndarray:
    """Measurements of images, float32 [N, *measured_shape]; the noise of image i depends only on (run_seed, i).

    Args:
      images: float32 [N, H, W, C].
      measurement: A.
      noise: the standard deviation of the noise, in the images' unit.
      run_seed: an integer in [0, 2^31).

    Raises:
      ValueError: for images of another shape, or that are not finite.
    """
    _check_finite(images, "Images to be measured")
    seeds = random.per_example(random.stream_seed(run_seed, random.Stream.MEASUREMENT), tf.range(len(images)))
    return measurement.noisy(tf.constant(images, tf.float32), noise, seeds).numpy()


def encode(y: np.ndarray, measurement: Measurement, low: float, high: float) -> np.ndarray:
    """The measurements of images in [low, high], given those of the same images in [0, 1]; their noise grows likewise.

    Args:
      y: floats [N, *measured_shape].
      measurement: A.
      low: the value to which 0 is mapped.
      high: the value to which 1 is mapped.

    Raises:
      ValueError: for measurements of another shape, or that are not finite.
    """
    _check_finite(y, "Measurements")
    if y.ndim != 4 or y.shape[1:] != measurement.measured_shape:
        raise ValueError(
            f"{measurement.name} of images {measurement.shape} gives measurements {measurement.measured_shape}: "
            f"measure images of that size. Received: {y.shape[1:]}."
        )
    ones = measurement.forward(tf.ones([1, *measurement.shape], tf.float64)).numpy()
    return ((high - low) * y + low * ones).astype(np.float32)


def residual(images: np.ndarray, y: np.ndarray, measurement: Measurement) -> np.ndarray:
    """The root mean square of A x - y over the numbers that are measured, float64 [N].

    Images that agree with a measurement of some noise have about that noise.

    Args:
      images: floats [N, H, W, C].
      y: floats [N, *measured_shape].
      measurement: A.
    """
    missed = measurement.forward(tf.constant(images, tf.float64)).numpy() - y
    return np.sqrt(np.sum(missed**2, axis=(1, 2, 3)) / measurement.count)


def quality(
    restored: np.ndarray, original: np.ndarray, y: np.ndarray, measurement: Measurement, completions: int
) -> dict[str, float]:
    """The peak signal-to-noise ratios of restored images, in dB, and the root mean squares of what they miss.

    Args:
      restored: floats [N completions, H, W, C].
      original: floats [N, H, W, C].
      y: floats [N, *measured_shape], the measurements.
      measurement: A.
      completions: the number of restored images per original.

    Returns:
      `psnr` of the restored images and `psnr_of_mean` of the mean of those of one original, means over all images;
      `residual` of the restored images, and `residual_of_original`, which is that of the noise.
    """
    means = restored.reshape(len(original), completions, *original.shape[1:]).mean(axis=1)
    missed = residual(restored, np.repeat(y, completions, axis=0), measurement)
    return {
        "psnr": float(np.mean(signal_to_noise(restored, np.repeat(original, completions, axis=0)))),
        "psnr_of_mean": float(np.mean(signal_to_noise(means, original))),
        "residual": float(np.sqrt(np.mean(missed**2))),
        "residual_of_original": float(np.sqrt(np.mean(residual(original, y, measurement) ** 2))),
    }


def put_back(measurement: Measurement) -> Callable[[tf.Tensor, Given], tf.Tensor]:
    """An end of walks, (x, (y,)) -> x: `Measurement.put_back`."""
    return lambda x, given: measurement.put_back(x, given[0])


def shown(y: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Measurements as pictures, float [N, H, W, C]: a blurred image itself, else the image of least norm."""
    if measurement.kept is None and measurement.measured_shape == measurement.shape:
        return y
    return measurement.pseudo_inverse(tf.constant(y)).numpy()


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        wrong = int(np.sum(~np.isfinite(values)))
        raise ValueError(f"{what} must be finite: leave out what is not known. Received: {wrong} NaN or infinite.")
