"""All metrics of one set of samples, each with its uncertainty, the numbers of images, and what speaks against it."""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ncsn_tf.evaluation import frechet, manifolds, scores, tfgan
from ncsn_tf.evaluation.features import CLASSIFIER, Features
from ncsn_tf.evaluation.moments import Moments
from ncsn_tf.evaluation.references import Reference

CUSTOMARY_SAMPLES = 50_000
"""How many samples the literature measures with."""
_PARTS = 10
_KERNEL_BLOCK = 1000
_NEIGHBOURS = 3
_SEED = 0

NAMES = ("inception_score", "fid", "fid_infinity", "kid", "precision", "recall")
"""By Inception; a classifier's begin with `classifier_`, so that nobody mistakes one for the other."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A metric's value and what it rests on.

    Attributes:
      name: for instance "fid", or "classifier_fid".
      value: the value.
      num_samples: of how many samples.
      num_reference: of how many real images; None where none are needed or their number is unknown.
      deviation: over the parts, of an Inception score.
      standard_error: of the value, where one is known.
      warnings: what makes the value incomparable or weak.
    """

    name: str
    value: float
    num_samples: int
    num_reference: int | None = None
    deviation: float | None = None
    standard_error: float | None = None
    warnings: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for people."""
        text = f"{self.name} {self.value:.5g}"
        if self.deviation is not None:
            text += f" (deviation {self.deviation:.2g})"
        if self.standard_error is not None:
            text += f" (standard error {self.standard_error:.2g})"
        text += f", {self.num_samples} samples"
        return text + (f" against {self.num_reference} images" if self.num_reference else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file, without those that are not there."""
        content = {key: value for key, value in dataclasses.asdict(self).items() if value is not None and key != "name"}
        return {**content, "warnings": list(self.warnings)}


def named(name: str, kind: str) -> str:
    """What a metric is called when it is measured by a kind of feature network."""
    if kind != CLASSIFIER:
        return name
    return "classifier_score" if name == "inception_score" else f"classifier_{name}"


class _Absent(Exception):
    """A metric cannot be had; the message says why."""


def measure(
    features: Features,
    reference: Reference,
    kind: str,
    *,
    metrics: Collection[str] = NAMES,
    on_metric: Callable[[str], object] = lambda name: None,
) -> tuple[list[Measurement], list[str]]:
    """Measures samples against real images.

    The Inception score, FID and KID are TF-GAN's.

    Args:
      features: of the samples.
      reference: the real images' statistics, by the same feature network.
      kind: the feature network's, "inception" or "classifier".
      metrics: which to measure, of `NAMES`.
      on_metric: called with the metrics' names before they are measured.

    Returns:
      The measurements, and a line for each metric that cannot be had, for want of samples or of the reference's
      features, saying why.

    Raises:
      ValueError: for an unknown metric, or features of another size than the reference's.
    """
    unknown = sorted(set(metrics) - set(NAMES))
    if unknown:
        raise ValueError(f"Metrics are {', '.join(NAMES)}. Received: {', '.join(unknown)}.")
    width = len(reference.moments.mean)
    if features.pooled.shape[1] != width:
        raise ValueError(
            f"The reference statistics have {width} features, the samples {features.pooled.shape[1]}: they were made "
            "with different networks."
        )
    found, absent = [], []
    for names, function in _METRICS:
        wanted = [name for name in names if name in metrics]
        if not wanted:
            continue
        on_metric(", ".join(named(name, kind) for name in wanted))
        try:
            found += [one for one in function(features, reference) if one.name in wanted]
        except _Absent as reason:
            absent += [f"{named(name, kind)}: {reason}" for name in wanted]
    few = _few(len(features))
    return [dataclasses.replace(one, name=named(one.name, kind), warnings=few + one.warnings) for one in found], absent


def _few(count: int) -> tuple[str, ...]:
    if count >= CUSTOMARY_SAMPLES:
        return ()
    return (f"{count} samples; the literature uses {CUSTOMARY_SAMPLES}, and values at other numbers do not compare",)


def _inception_score(features: Features, reference: Reference) -> list[Measurement]:
    count = len(features)
    if count < 2 * _PARTS:
        raise _Absent(f"{count} samples are fewer than 2 in each of {_PARTS} parts")
    value, deviation = scores.inception_score(features.logits, _PARTS)
    return [Measurement("inception_score", value, count, deviation=deviation)]


def _fid(features: Features, reference: Reference) -> list[Measurement]:
    count, width = features.pooled.shape
    real = reference.moments.count or None
    value = tfgan.frechet_distance(Moments.of(features.pooled), reference.moments)
    sides = [(count, "samples")] + ([(real, "reference images")] if real else [])
    singular = [
        f"{number} {who} for {width} features: their covariance is singular, and the bias large"
        for number, who in sides
        if number <= width
    ]
    return [Measurement("fid", value, count, real, warnings=tuple(singular))]


def _fid_infinity(features: Features, reference: Reference) -> list[Measurement]:
    count, width = features.pooled.shape
    found = frechet.extrapolated(features.pooled, reference.moments)
    if found is None:
        raise _Absent(f"{count} samples are fewer than 4 for each of {width} features")
    real = reference.moments.count or None
    return [Measurement("fid_infinity", found.value, count, real, standard_error=found.standard_error)]


def _kid(features: Features, reference: Reference) -> list[Measurement]:
    real = _reference_features(reference)
    counts = len(features), len(real)
    if min(counts) < 2 * _PARTS:
        raise _Absent(f"{counts[0]} samples and {counts[1]} images do not give 2 of each to {_PARTS} blocks")
    # The literature's blocks of 1,000 where there are that many, but always enough blocks for a standard error. Of a
    # reference that is larger than the blocks can hold, as many images are taken as they can, chosen once and for all.
    blocks = max(_PARTS, math.ceil(min(counts) / _KERNEL_BLOCK))
    ours, theirs = (_some(rows, min(len(rows), blocks * _KERNEL_BLOCK)) for rows in (features.pooled, real))
    value, error = scores.kernel_distance(ours, theirs, blocks)
    return [Measurement("kid", value, len(ours), len(theirs), standard_error=error)]


def _precision_recall(features: Features, reference: Reference) -> list[Measurement]:
    real = _reference_features(reference)
    count = min(len(features), len(real), CUSTOMARY_SAMPLES)
    if count <= _NEIGHBOURS:
        raise _Absent(f"{count} images on one side have no {_NEIGHBOURS} neighbours")
    # Both depend on the density of either set, so equal numbers are compared, as in the paper.
    found = manifolds.precision_recall(_some(features.pooled, count), _some(real, count), k=_NEIGHBOURS)
    return [
        Measurement("precision", found.precision, count, count, standard_error=found.precision_error),
        Measurement("recall", found.recall, count, count, standard_error=found.recall_error),
    ]


def _reference_features(reference: Reference) -> np.ndarray:
    if reference.features is None:
        raise _Absent("the reference statistics hold no features")
    return reference.features


def _some(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) == count:
        return rows
    return rows[np.sort(np.random.default_rng(_SEED).choice(len(rows), count, replace=False))]


_METRICS: tuple[tuple[tuple[str, ...], Callable[[Features, Reference], list[Measurement]]], ...] = (
    (("inception_score",), _inception_score),
    (("fid",), _fid),
    (("fid_infinity",), _fid_infinity),
    (("kid",), _kid),
    (("precision", "recall"), _precision_recall),
)
