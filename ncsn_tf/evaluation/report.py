"""Judging samples: all metrics, the check for copies, and the files that say what was measured.

OUTPUT/results.json             every number, and everything needed to repeat it
OUTPUT/neighbours_pixels.png    the samples nearest to training images, each beside these
OUTPUT/neighbours_features.png  the same by features
OUTPUT/distances.png            how near samples and held-out images are to the training images
"""

import dataclasses
import json
import math
import pathlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files
from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import image_files, measure, memorisation, references
from ncsn_tf.evaluation.features import FeatureNetwork, Features, extract
from ncsn_tf.evaluation.held_out import HeldOutLoss
from ncsn_tf.evaluation.references import Reference

RESULTS = "results.json"
Progress = Callable[[str, int], object]
"""Told what is being done and the number of images just done, 0 where images are not what counts."""
_SHOWN = 10
"""How many of the most suspicious samples the picture shows."""
_NEIGHBOURS = 5
"""And how many training images beside each."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a set of samples is worth.

    Attributes:
      measurements: the metrics.
      absent: a line for each metric that cannot be had, saying why.
      warnings: what was noticed about samples and reference.
      copies: for each space, "pixels" and "features", how near samples and held-out images are to the training images;
        empty where there is no training set to look into.
      held_out: the held-out loss of the model; None where there is none.
    """

    measurements: list[measure.Measurement]
    absent: list[str]
    warnings: list[str]
    copies: Mapping[str, memorisation.Comparison] = dataclasses.field(default_factory=dict)
    held_out: HeldOutLoss | None = None

    def lines(self) -> list[str]:
        """The report for people: values first, doubts last."""
        found = [one.describe() for one in self.measurements]
        for space, comparison in self.copies.items():
            error = comparison.standard_error
            found.append(
                f"copies, by {space}: {comparison.copies} exact; a sample lies nearer to the training images than a "
                f"held-out image does with probability {comparison.probability_nearer:.3f}"
                + (f" (standard error {error:.2g})" if error is not None else "")
            )
        if self.held_out is not None:
            found.append(f"held-out denoising loss {self.held_out.mean:.5g}, {self.held_out.images} images")
        doubts = list(dict.fromkeys([*self.warnings, *(w for one in self.measurements for w in one.warnings)]))
        return [*found, *(f"not measured: {line}" for line in self.absent), *(f"warning: {line}" for line in doubts)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        content: dict[str, Any] = {
            "metrics": {one.name: one.as_dict() for one in self.measurements},
            "not_measured": self.absent,
            "warnings": self.warnings,
            "copies": {space: comparison.summary() for space, comparison in self.copies.items()},
        }
        if self.held_out is not None:
            content["held_out_denoising_loss"] = {
                "mean": self.held_out.mean,
                "images": self.held_out.images,
                "sigmas": self.held_out.sigmas.tolist(),
                "by_level": self.held_out.means.tolist(),
                "standard_errors": self.held_out.standard_errors.tolist() if self.held_out.images > 1 else None,
            }
        return content

    def scalars(self) -> dict[str, float]:
        """Names and finite values of the curves that follow a training run."""
        found = {one.name: one.value for one in self.measurements}
        found |= {f"probability_nearer/{space}": one.probability_nearer for space, one in self.copies.items()}
        if self.held_out is not None:
            found["held_out_denoising_loss"] = self.held_out.mean
        return {name: value for name, value in found.items() if math.isfinite(value)}


class Judge:
    """What samples are held against: a feature network, real images' statistics, and images to look for copies in.

    Args:
      network: the feature network.
      reference: the statistics of real images, by that network.
      dataset: what the model was trained on, as `ImageSource.describe` says; None if nobody knows.
      preparation: how these images were cropped, resized and converted; None likewise.
      shape: (H, W, C) of the samples.
      train: the training images, for the check for copies; None to leave that out.
      held_out: images that were not trained on, its yardstick.
      batch_size: images at a time that the feature network sees.

    Attributes:
      kind: the feature network's.

    Raises:
      ReferenceError: if the reference is not of the model's data and network.
      FeatureNetworkError: if the network does not take such images.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        reference: Reference,
        *,
        shape: tuple[int, int, int],
        dataset: Mapping[str, Any] | None = None,
        preparation: Mapping[str, Any] | None = None,
        train: ImageSource | None = None,
        held_out: ImageSource | None = None,
        batch_size: int = 100,
    ):
        network.check_shape(shape)
        self._warnings = reference.check(network, shape, dataset, preparation)
        if dataset is not None and network.data_name not in (None, dataset["name"]):
            self._warnings.append(
                f"the classifier was trained on {network.data_name}, the samples are compared with {dataset['name']}"
            )
        if train is None:
            self._warnings.append("no copies are looked for: there are no training images, only their statistics")
        self.kind = network.kind
        self._network = network
        self._reference = reference
        self._shape = shape
        self._batch_size = batch_size
        self._images = (train, held_out) if train is not None and held_out is not None else None
        self._real_features: tuple[np.ndarray, np.ndarray] | None = None

    def judge(
        self,
        samples: np.ndarray,
        output: pathlib.Path | None = None,
        *,
        metrics: Collection[str] = measure.NAMES,
        held_out: HeldOutLoss | None = None,
        doubts: Sequence[str] = (),
        progress: Progress = lambda what, rows: None,
    ) -> Report:
        """Measures samples; writes the pictures of the check for copies into `output`, if one is given.

        Args:
          samples: uint8 [N, H, W, C], at least two.
          output: an existing folder; without it no copies are looked for.
          metrics: which to measure, of `measure.NAMES`.
          held_out: the held-out loss of the model, to go into the report.
          doubts: what is known already to speak against the samples, to go into the report.
          progress: told what is done.

        Raises:
          ImagesError: if nothing can be learnt from such images.
        """
        found = image_files.check(samples)
        if samples.shape[1:] != self._shape:
            raise image_files.ImagesError(
                f"The real images are {self._shape}. Received samples {samples.shape[1:]}: a distance would measure "
                "the resizing. Make the samples of that size, or statistics of images of theirs."
            )
        features = self._extract("samples", samples, progress)
        measurements, absent = measure.measure(
            features, self._reference, self._network.kind, metrics=metrics, on_metric=lambda name: progress(name, 0)
        )
        copies = {}
        if output is not None and self._images is not None:
            copies = self._copies(samples, features.pooled, output, *self._images, progress)
        return Report(measurements, absent, [*self._warnings, *doubts, *found], copies, held_out)

    def about(self) -> dict[str, Any]:
        """The feature network and the reference, as plain values."""
        return {
            "feature_network": self._network.describe(),
            "reference": {"images": self._reference.moments.count or None, **(self._reference.about or {})},
        }

    def _extract(self, what: str, images: np.ndarray, progress: Progress) -> Features:
        what = f"features of {what}"
        return extract(self._network, images, batch_size=self._batch_size, on_batch=lambda rows: progress(what, rows))

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
        for space, nearest in copies.items():
            memorisation.save_neighbours(
                output / f"neighbours_{space}.png",
                samples,
                train.images,
                nearest.sample_neighbours,
                nearest.sample_distances,
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
    progress: Progress = lambda what, rows: None,
) -> Reference:
    """The statistics of images, computed once and then read from the cache."""
    path = references.cached_path(network, source)
    if path.exists():
        try:
            return references.load(path)
        except references.ReferenceError:
            path.unlink(missing_ok=True)  # a damaged cache is made anew
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


def write(output: pathlib.Path, report: Report, about: Mapping[str, Any]) -> pathlib.Path:
    """Writes results.json: the report, and `about`, everything that is needed to repeat it. Returns its path."""
    path = output / RESULTS
    files.write_text(path, json.dumps({**report.as_dict(), **about}, indent=2) + "\n")
    return path


def write_scalars(directory: pathlib.Path, step: int, report: Report) -> None:
    """Adds the report's numbers to TensorBoard's curves at a training step, under `evaluation/`."""
    try:
        writer = tf.summary.create_file_writer(str(directory))
        with writer.as_default(step):
            for name, value in report.scalars().items():
                tf.summary.scalar(f"evaluation/{name}", value)
        writer.close()
    except tf.errors.OpError as error:  # the numbers are in results.json; a lost curve is no lost measurement
        warnings.warn(f"TensorBoard's curves could not be written to {directory}: {error.message}", stacklevel=2)
