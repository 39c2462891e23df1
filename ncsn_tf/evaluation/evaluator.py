"""Evaluates samples against real images: all metrics, and the check for copies with its pictures."""

import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf import files
from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import image_files, measure, memorisation, references
from ncsn_tf.evaluation.features import FeatureNetwork, Features, extract
from ncsn_tf.evaluation.held_out import HeldOutLoss
from ncsn_tf.evaluation.names import CLASSIFIER, METRICS
from ncsn_tf.evaluation.references import ReferenceStatistics
from ncsn_tf.evaluation.report import Report

Progress = Callable[[str, int], object]
"""Called with the current activity and the number of images just done, 0 where images are not counted."""

_SHOWN = 10
"""The number of samples in the pictures of the check for copies, those nearest to training images."""
_NEIGHBOURS = 5
"""The number of training images beside each of them."""


class Evaluator:
    """Evaluates samples by a feature network, statistics of real images, and images that are checked for copies.

    Args:
      network: the feature network.
      reference: the statistics of real images, computed with that network.
      shape: (H, W, C) of the samples.
      dataset: the model's training images, as `ImageSource.describe` gives them; None if they are unknown.
      preparation: how the training images were cropped, resized and converted; None if that is unknown.
      train: the training images, for the check for copies; None leaves the check out.
      held_out: images that were not trained on, with which the check compares; None leaves the check out.
      batch_size: images per batch of the feature network.

    Attributes:
      kind: the feature network's kind.

    Raises:
      ReferenceStatisticsError: if the reference does not belong to the model's data and to the network.
      FeatureNetworkError: if the network does not take such images.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        reference: ReferenceStatistics,
        *,
        shape: tuple[int, int, int],
        dataset: Mapping[str, Any] | None = None,
        preparation: Mapping[str, Any] | None = None,
        train: ImageSource | None = None,
        held_out: ImageSource | None = None,
        batch_size: int = 100,
    ):
        network.check_shape(shape)
        self._caveats = reference.check(network, shape, dataset, preparation)
        if dataset is not None and network.data_name not in (None, dataset["name"]):
            self._caveats.append(
                f"the classifier was trained on {network.data_name}, the samples are compared with {dataset['name']}"
            )
        if train is None:
            self._caveats.append("no copies are looked for: there are no training images, only their statistics")
        self.kind = network.kind
        self._network = network
        self._reference = reference
        self._shape = shape
        self._batch_size = batch_size
        self._images = (train, held_out) if train is not None and held_out is not None else None
        self._real_features: tuple[np.ndarray, np.ndarray] | None = None

    def evaluate(
        self,
        samples: np.ndarray,
        output: str | os.PathLike | None = None,
        *,
        metrics: Collection[str] = METRICS,
        held_out: HeldOutLoss | None = None,
        caveats: Sequence[str] = (),
        formats: Mapping[str, int] | None = None,
        labels: np.ndarray | None = None,
        progress: Progress = lambda activity, rows: None,
    ) -> Report:
        """Measures samples, and writes the pictures of the check for copies to `output`.

        Args:
          samples: uint8 [N, H, W, C], N at least 2.
          output: an existing folder; without one no copies are looked for.
          metrics: the metrics to measure, among `names.METRICS`.
          held_out: the model's held-out loss, for the report.
          caveats: what is already known to weaken the results, for the report.
          formats: the number of samples per format of their files, as `readers.Loaded` has it; None for samples that
            were drawn here.
          labels: the classes that the samples were to be of, int [N], for the share of those that a classifier finds in
            them; None for samples without classes.
          progress: called with each activity.

        Raises:
          ImagesError: if no meaningful metric can be computed from such images.
        """
        noticed = image_files.check(samples)
        if samples.shape[1:] != self._shape:
            raise image_files.ImagesError(
                f"The real images are {self._shape}. Received samples {samples.shape[1:]}: a distance would measure "
                "the resizing. Give samples of the same size, or statistics of images of the samples' size."
            )
        features = self._extract("samples", samples, progress)
        measurements, absent = measure.measure(
            features, self._reference, self._network.kind, metrics=metrics, on_metric=lambda name: progress(name, 0)
        )
        if labels is not None and self.kind == CLASSIFIER:
            measurements.append(measure.class_accuracy(features, labels))
        copies = {}
        if output is not None and self._images is not None:
            copies = self._copies(samples, features.pooled, files.local_path(output), *self._images, progress)
        noticed += [] if formats is None else self._reference.compare_formats(formats)
        return Report(measurements, absent, [*self._caveats, *caveats, *noticed], copies, held_out)

    def about(self) -> dict[str, Any]:
        """The feature network and the reference, as plain values."""
        return {
            "feature_network": self._network.describe(),
            "reference": {"images": self._reference.moments.count or None, **(self._reference.about or {})},
        }

    def _extract(self, of: str, images: np.ndarray, progress: Progress) -> Features:
        activity = f"features of {of}"
        return extract(
            self._network, images, batch_size=self._batch_size, on_batch=lambda rows: progress(activity, rows)
        )

    def _copies(
        self,
        samples: np.ndarray,
        features: np.ndarray,
        output: pathlib.Path,
        train: ImageSource,
        held_out: ImageSource,
        progress: Progress,
    ) -> dict[str, memorisation.Comparison]:
        if self._real_features is None:
            about, rows = self._reference.about, self._reference.features
            if rows is None or about is None or about["dataset"]["checksum"] != train.describe()["checksum"]:
                rows = self._extract("training images", train.images, progress).pooled
            self._real_features = rows, self._extract("held-out images", held_out.images, progress).pooled
        progress("nearest training images", 0)
        real, unseen = self._real_features
        copies = memorisation.compare(
            samples,
            train.images,
            held_out.images,
            memorisation.Features(features, real, unseen),
            k=min(_NEIGHBOURS, len(train)),
        )
        for space, comparison in copies.items():
            memorisation.save_neighbours(
                output / f"neighbours_{space}.png",
                samples,
                train.images,
                comparison.sample_neighbours,
                comparison.sample_distances,
                count=_SHOWN,
            )
        memorisation.save_distances(output / "distances.png", copies)
        return copies


def cached_reference(
    network: FeatureNetwork,
    source: ImageSource,
    *,
    split: str,
    preparation: Mapping[str, Any],
    batch_size: int = 100,
    progress: Progress = lambda activity, rows: None,
) -> ReferenceStatistics:
    """The statistics of images, computed once and read from the cache afterwards.

    Args:
      network: the feature network.
      source: the images, at least two.
      split: which part of the dataset they are, for the record.
      preparation: how they were cropped and resized, for the record.
      batch_size: images per batch of the network.
      progress: called with the activity and the number of images after each batch.

    Raises:
      FeatureNetworkError: if the network does not take such images.
    """
    path = references.cached_path(network, source)
    if path.exists():
        try:
            return references.load(path)
        except references.ReferenceStatisticsError:
            path.unlink(missing_ok=True)  # a damaged cache is computed again
    network.check_shape(source.shape)
    found = references.compute(
        network,
        source,
        split=split,
        preparation=preparation,
        batch_size=batch_size,
        on_batch=lambda rows: progress(f"features of {source.name}", rows),
    )
    found.save(path)
    return found
