"""TF-GAN's metrics, reached without the rest of TF-GAN: the only module that imports `tensorflow_gan`.

`import tensorflow_gan` fails on today's TensorFlow, since the package's front door asks for `tf.estimator`, which is no
longer there, and for `distutils`, which Python 3.12 has no more. The metrics need neither. So their module alone is
imported, below parents that are bare: packages that have a path, and run no code. They leave `sys.modules` again at
once, with all that was imported below them, and a later `import tensorflow_gan` finds what it would have found.
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
"""exp(-700) is near float64's smallest number, 1e-308: a class that many nats behind the first has no weight."""


def classifier_score(logits: np.ndarray) -> float:
    """The Inception score of all rows together, exp(mean_x KL(p(y|x) || p(y))) (Salimans et al. 2016, section 4).

    The score is TF-GAN's, in float64. Its logarithm of p(y) is infinite, and its score not a number, where a class has
    no probability at all in any row; such probabilities are therefore raised to e^-700 of the largest beforehand.

    Args:
      logits: floats [N, K], not normalised, one row an image.

    Returns:
      The score, from 1 to K.

    Raises:
      ImportError: if TF-GAN is not installed.
    """
    rows = tf.cast(tf.convert_to_tensor(logits), tf.float64)
    rows = tf.maximum(rows, tf.reduce_max(rows, axis=1, keepdims=True) - _NEGLIGIBLE)
    return float(_classifier_metrics().classifier_score_from_logits(rows))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Frechet distance of two sets of features, from their moments, by TF-GAN's square root in float64.

    |m_a - m_b|^2 + tr(S_a + S_b) - 2 tr (S_a S_b)^(1/2) (Heusel et al. 2017, equation 6). It takes two singular value
    decompositions; `frechet.Reference` gives the same number sooner. TF-GAN takes no root of singular values of the
    product below 1e-10, so the covariances are brought to the scale of 1 for it, and the root is brought back.

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
            "A distance needs as many features on both sides: take both from one network. "
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

    The rows of both sides are cut into as many blocks as the larger side needs; the distance is the mean over blocks of
    the unbiased squared maximum mean discrepancy under the kernel k(x, y) = (x'y / D + 1)^3. Everything is copied to
    float64 at once: `scores.kernel_distance` goes block by block, and shuffles first.

    Args:
      features: floats [N, D], in random order.
      reference: floats [M, D], in random order.
      block_size: the largest number of rows a block.

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
    """The part of the module's name that follows a parent's."""
    return [_MODULE.removeprefix(f"{name}.").split(".")[0]]


def _modules_of_tfgan() -> dict[str, types.ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == _PACKAGE}


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps TensorFlow from warning of what its user cannot change.

    TF-GAN calls `tf.map_fn` by arguments that have since got other names; an old SavedModel, such as its Inception,
    logs a line for each of its functions as it is loaded.
    """
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
