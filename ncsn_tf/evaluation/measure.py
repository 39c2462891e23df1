"""All metrics of one set of samples, each with its uncertainty, the numbers of images, and its caveats."""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ncsn_tf.evaluation import frechet, manifolds, scores, tfgan
from ncsn_tf.evaluation.features import Features
from ncsn_tf.evaluation.moments import Moments
from ncsn_tf.evaluation.names import CLASSIFIER, METRICS
from ncsn_tf.evaluation.references import ReferenceStatistics

CUSTOMARY_SAMPLES = 50_000
"""The number of samples that the literature uses."""
_PARTS = 10
_KERNEL_BLOCK = 1000
_NEIGHBOURS = 3
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A metric's value and its basis.

    Attributes:
      name: for instance "fid", or "classifier_fid".
      value: the value.
      num_samples: the number of samples.
      num_reference: the number of real images; None where none are needed or their number is unknown.
      deviation: the standard deviation of an Inception score over the parts; None for other metrics.
      standard_error: the standard error of the value; None where it is unknown.
      caveats: the reasons why the value is weak or not comparable.
    """

    name: str
    value: float
    num_samples: int
    num_reference: int | None = None
    deviation: float | None = None
    standard_error: float | None = None
    caveats: tuple[str, ...] = ()

    def describe(self) -> str:
        """Describes the measurement in one line of text."""
        text = f"{self.name} {self.value:.5g}"
        if self.deviation is not None:
            text += f" (deviation {self.deviation:.2g})"
        if self.standard_error is not None:
            text += f" (standard error {self.standard_error:.2g})"
        text += f", {self.num_samples} samples"
        return text + (f" against {self.num_reference} images" if self.num_reference else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file, without those that are None; the caveats are under "warnings"."""
        content = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        del content["name"], content["caveats"]
        return {**content, "warnings": list(self.caveats)}


def named(name: str, kind: str) -> str:
    """The name of a metric that is measured by a kind of feature network."""
    if kind != CLASSIFIER:
        return name
    return "classifier_score" if name == "inception_score" else f"classifier_{name}"


class _Absent(Exception):
    """A metric is unavailable; the message gives the reason."""


def measure(
    features: Features,
    reference: ReferenceStatistics,
    kind: str,
    *,
    metrics: Collection[str] = METRICS,
    on_metric: Callable[[str], object] = lambda name: None,
) -> tuple[list[Measurement], list[str]]:
    """Measures samples against real images.

    The Inception score, FID and KID are TF-GAN's.

    Args:
      features: the samples' features.
      reference: the real images' statistics, by the same feature network.
      kind: the kind of the feature network, "inception" or "classifier".
      metrics: the metrics to measure, among `names.METRICS`.
      on_metric: called with the metrics' names before they are measured.

    Returns:
      The measurements, and one line per metric that is unavailable because samples or the reference's features are
      missing, with the reason.

    Raises:
      ValueError: for an unknown metric, or features of another size than the reference's.
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"Metrics are {', '.join(METRICS)}. Received: {', '.join(unknown)}.")
    width = len(reference.moments.mean)
    if features.pooled.shape[1] != width:
        raise ValueError(
            f"The reference statistics have {width} features, the samples {features.pooled.shape[1]}: they were "
            "computed with different networks."
        )
    found, absent = [], []
    for group, function in _FUNCTIONS:
        wanted = [name for name in group if name in metrics]
        if not wanted:
            continue
        on_metric(", ".join(named(name, kind) for name in wanted))
        try:
            found += [one for one in function(features, reference) if one.name in wanted]
        except _Absent as reason:
            absent += [f"{named(name, kind)}: {reason}" for name in wanted]
    few = _few(len(features))
    return [dataclasses.replace(one, name=named(one.name, kind), caveats=few + one.caveats) for one in found], absent


def class_accuracy(features: Features, labels: np.ndarray) -> Measurement:
    """The share of samples that a classifier finds in the class that they were to be of, and its standard error.

    Args:
      features: the samples' features, by a classifier of the classes.
      labels: their classes, int [N].

    Raises:
      ValueError: for a class that the classifier does not know.
    """
    known = features.logits.shape[1]
    if labels.max() >= known:
        raise ValueError(f"The classifier knows {known} classes. Received: samples of the class {labels.max()}.")
    share, count = float(np.mean(np.argmax(features.logits, axis=1) == labels)), len(labels)
    return Measurement("class_accuracy", share, count, standard_error=math.sqrt(share * (1.0 - share) / count))


def _few(count: int) -> tuple[str, ...]:
    if count >= CUSTOMARY_SAMPLES:
        return ()
    return (
        f"{count} samples; the literature uses {CUSTOMARY_SAMPLES}, and values at other numbers are not comparable",
    )


def _inception_score(features: Features, reference: ReferenceStatistics) -> list[Measurement]:
    count = len(features)
    if count < 2 * _PARTS:
        raise _Absent(f"{count} samples are fewer than 2 in each of {_PARTS} parts")
    value, deviation = scores.inception_score(features.logits, _PARTS)
    return [Measurement("inception_score", value, count, deviation=deviation)]


def _fid(features: Features, reference: ReferenceStatistics) -> list[Measurement]:
    count, width = features.pooled.shape
    real = reference.moments.count or None
    value = tfgan.frechet_distance(Moments.of(features.pooled), reference.moments)
    sides = [(count, "samples")] + ([(real, "reference images")] if real else [])
    singular = [
        f"{number} {who} for {width} features: their covariance is singular, and the bias is large"
        for number, who in sides
        if number <= width
    ]
    return [Measurement("fid", value, count, real, caveats=tuple(singular))]


def _fid_infinity(features: Features, reference: ReferenceStatistics) -> list[Measurement]:
    count, width = features.pooled.shape
    found = frechet.extrapolated(features.pooled, reference.moments)
    if found is None:
        raise _Absent(f"{count} samples are fewer than 4 for each of {width} features")
    real = reference.moments.count or None
    return [Measurement("fid_infinity", found.value, count, real, standard_error=found.standard_error)]


def _kid(features: Features, reference: ReferenceStatistics) -> list[Measurement]:
    real = _reference_features(reference)
    counts = len(features), len(real)
    if min(counts) < 2 * _PARTS:
        raise _Absent(f"{counts[0]} samples and {counts[1]} images are fewer than 2 of each in each of {_PARTS} blocks")
    # Blocks of 1,000 as in the literature where there are enough rows, but always enough blocks for a standard error.
    # If a side has more rows than the blocks hold, a fixed random choice of them is used.
    blocks = max(_PARTS, math.ceil(min(counts) / _KERNEL_BLOCK))
    ours, theirs = (_some(rows, min(len(rows), blocks * _KERNEL_BLOCK)) for rows in (features.pooled, real))
    value, error = scores.kernel_distance(ours, theirs, blocks)
    return [Measurement("kid", value, len(ours), len(theirs), standard_error=error)]


def _precision_recall(features: Features, reference: ReferenceStatistics) -> list[Measurement]:
    real = _reference_features(reference)
    count = min(len(features), len(real), CUSTOMARY_SAMPLES)
    if count <= _NEIGHBOURS:
        raise _Absent(f"{count} images on one side have no {_NEIGHBOURS} neighbours")
    # Both metrics depend on the density of both sets, so equal numbers are compared, as in the paper.
    found = manifolds.precision_recall(_some(features.pooled, count), _some(real, count), k=_NEIGHBOURS)
    return [
        Measurement("precision", found.precision, count, count, standard_error=found.precision_error),
        Measurement("recall", found.recall, count, count, standard_error=found.recall_error),
    ]


def _reference_features(reference: ReferenceStatistics) -> np.ndarray:
    if reference.features is None:
        raise _Absent("the reference statistics hold no features")
    return reference.features


def _some(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) == count:
        return rows
    return rows[np.sort(np.random.default_rng(_SEED).choice(len(rows), count, replace=False))]


_FUNCTIONS: tuple[tuple[tuple[str, ...], Callable[[Features, ReferenceStatistics], list[Measurement]]], ...] = (
    (("inception_score",), _inception_score),
    (("fid",), _fid),
    (("fid_infinity",), _fid_infinity),
    (("kid",), _kid),
    (("precision", "recall"), _precision_recall),
)
