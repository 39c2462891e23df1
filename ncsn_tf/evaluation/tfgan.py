"""TF-GAN's metrics without the rest of TF-GAN: the only module that imports `tensorflow_gan`.

`import tensorflow_gan` fails on TensorFlow 2.16 and later: the package's `__init__` needs `tf.estimator`, which was
removed, and `distutils`, which Python 3.12 does not have. The metrics need neither. So their module alone is imported,
below empty parent packages that have a path and run no code. The parents are removed from `sys.modules` at once, with
everything that was imported below them, and a later `import tensorflow_gan` behaves as it would have before.
"""

import contextlib
import functools
import importlib
import importlib.util
import math
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf.evaluation.moments import Moments

_PACKAGE = "tensorflow_gan"
_MODULE = "tensorflow_gan.python.eval.classifier_metrics"
_NEGLIGIBLE = 700.0
"""exp(-700) is near float64's smallest number, 1e-308: a class with logits this far below the largest has no weight."""


def classifier_score(logits: np.ndarray) -> float:
    """The Inception score of all rows together, exp(mean_x KL(p(y|x) || p(y))) (Salimans et al. 2016, section 4).

    TF-GAN computes the score, in float64. If a class has probability zero in every row, its logarithm of p(y) is
    infinite and the score is NaN. Such probabilities are therefore first raised to e^-700 of the largest.

    Args:
      logits: floats [N, K], not normalised, one row per image.

    Returns:
      The score, from 1 to K.

    Raises:
      ImportError: if TF-GAN is not installed.
    """
    rows = tf.cast(tf.convert_to_tensor(logits), tf.float64)
    rows = tf.maximum(rows, tf.reduce_max(rows, axis=1, keepdims=True) - _NEGLIGIBLE)
    return float(_classifier_metrics().classifier_score_from_logits(rows))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Frechet distance of two sets of features, from their moments, with TF-GAN's square root in float64.

    |m_a - m_b|^2 + tr(S_a + S_b) - 2 tr (S_a S_b)^(1/2) (Heusel et al. 2017, equation 6). It takes two singular value
    decompositions; `frechet.FactoredMoments` gives the same number faster. TF-GAN drops singular values of the product
    below 1e-10, so the covariances are scaled to the order of 1 before the root, and the root is scaled back.

    Args:
      a: moments of D features.
      b: moments of D features; the distance is symmetric.

    Returns:
      The distance, in squared units of the features.

    Raises:
      ImportError: if TF-GAN is not installed.
      ValueError: if the numbers of features differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            "A distance needs equally many features on both sides: take both from one network. "
            f"Received: {len(a.mean)} and {len(b.mean)} features."
        )
    scales = [max(float(np.abs(side.covariance).max()), np.finfo(np.float64).tiny) for side in (a, b)]
    root = _classifier_metrics().trace_sqrt_product(
        *(tf.constant(side.covariance / scale) for side, scale in zip((a, b), scales, strict=True))
    )
    shift = a.mean - b.mean
    together = float(root) * math.sqrt(scales[0]) * math.sqrt(scales[1])
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * together)


def kernel_distance(features: np.ndarray, reference: np.ndarray, block_size: int) -> tuple[float, float]:
    """The kernel distance of two sets of features by TF-GAN's block estimator in float64 (Binkowski et al. 2018).

    The rows of both sides are divided into as many blocks as the larger side needs. The distance is the mean over
    blocks of the unbiased squared maximum mean discrepancy under the kernel k(x, y) = (x'y / D + 1)^3. Everything is
    copied to float64 at once; `scores.kernel_distance` works block by block, and shuffles first.

    Args:
      features: floats [N, D], in random order.
      reference: floats [M, D], in random order.
      block_size: the largest number of rows per block.

    Returns:
      The distance and its standard error, which is NaN for a single block.

    Raises:
      ImportError: if TF-GAN is not installed.
    """
    both = tf.constant(features, tf.float64), tf.constant(reference, tf.float64)
    metrics = _classifier_metrics()
    with without_warnings():
        value, error = metrics.kernel_classifier_distance_and_std_from_activations(*both, max_block_size=block_size)
    return float(value), float(error)


@functools.cache
def _classifier_metrics() -> Any:
    """TF-GAN's module of metrics.

    Raises:
      ImportError: if TF-GAN is not installed.
    """
    present = _modules_of_tfgan()
    top = sys.modules.get(_PACKAGE)
    specification = None if top else importlib.util.find_spec(_PACKAGE)
    if top:
        locations = list(top.__path__)
    elif specification and specification.submodule_search_locations:
        locations = list(specification.submodule_search_locations)
    else:
        raise ImportError("The metrics need TF-GAN, which is not installed. Install it: pip install tensorflow-gan.")
    try:
        for name in (_PACKAGE, f"{_PACKAGE}.python", f"{_PACKAGE}.python.eval"):
            parent = types.ModuleType(name)
            parent.__path__ = locations
            locations = [os.path.join(location, child) for location in locations for child in _child(name)]
            sys.modules[name] = parent
        return importlib.import_module(_MODULE)
    finally:
        for name in _modules_of_tfgan():
            del sys.modules[name]
        sys.modules.update(present)


def _child(name: str) -> list[str]:
    """The part of the module's name that follows a parent's name."""
    return [_MODULE.removeprefix(f"{name}.").split(".")[0]]


def _modules_of_tfgan() -> dict[str, types.ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == _PACKAGE}


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Suppresses TensorFlow's warnings about code that the user cannot change.

    TF-GAN calls `tf.map_fn` with arguments that have been renamed since. An old SavedModel, such as its Inception, logs
    a line for each of its functions when it is loaded.
    """
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
