"""Reference statistics: the features of real images, with a record of the images and of the feature network.

A file is an `.npz` of the common layout, `mu` and `sigma`. Files written here also hold

count      the number of images
features   float32 [N, D], which KID, precision and recall need; optional
about      JSON: the dataset with its checksum, the split, the preparation, the feature network's hash and resize

A file of another program has `mu` and `sigma` alone, or features alone. It can be used, with a warning: it does not
record whether its images and its network are those of the samples.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ncsn_tf import files
from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import EvaluationError
from ncsn_tf.evaluation.features import FeatureNetwork, cache_directory, extract
from ncsn_tf.evaluation.moments import UNKNOWN, Moments

_LOSSY = ("AVIF", "JPEG", "JPEG2000", "MPO", "WEBP")
_SAME_SHARE = 0.1
"""A smaller difference between the shares of lossy files is not reported."""
_FEATURES = ("features", "pool_3", "activations")
"""The names of an array of features; TF-GAN and its users call the Inception network's last layer pool_3."""


class ReferenceStatisticsError(EvaluationError):
    """Reference statistics are missing, damaged, or of other data or another feature network than the model's."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceStatistics:
    """The statistics of real images.

    Attributes:
      moments: count (0 if unknown), mean and covariance of the features.
      features: float32 [N, D]; None where the file has none.
      about: their origin: `dataset` (as `ImageSource.describe` gives it), `split`, `preparation`, `feature_network` (as
        `FeatureNetwork.describe` gives it); None in a file of another program.
    """

    moments: Moments
    features: np.ndarray | None
    about: dict[str, Any] | None

    def save(self, path: str | os.PathLike, features: bool = True) -> None:
        """Writes the file atomically, with or without the features."""
        path = files.local_path(path)
        arrays = {
            "mu": self.moments.mean,
            "sigma": self.moments.covariance,
            "count": np.asarray(self.moments.count),
            "about": np.asarray(json.dumps(self.about)),
        }
        if features and self.features is not None:
            arrays["features"] = self.features
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_npz_arrays(path, arrays)

    def check(
        self,
        network: FeatureNetwork,
        shape: tuple[int, int, int],
        dataset: Mapping[str, Any] | None,
        preparation: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Refuses statistics of other images, or of another network, than the samples'.

        Args:
          network: the feature network of the samples.
          shape: (H, W, C) of the samples.
          dataset: the model's training images, as `ImageSource.describe` gives them; None if they are unknown.
          preparation: how the training images were cropped, resized and converted; None if that is unknown.

        Returns:
          Warnings.

        Raises:
          ReferenceStatisticsError: if they differ; the message says in what, got and expected.
        """
        width = len(self.moments.mean)
        if width != network.width:
            raise ReferenceStatisticsError(
                f"The reference statistics have {width} features, the {network.kind} of the samples has "
                f"{network.width}: they were computed with another feature network."
            )
        if self.about is None:
            return [
                "the reference statistics record neither their images nor their network: the distances are "
                "meaningful only if both, and the resizing, are those of the samples"
            ]
        theirs = self.about["feature_network"]
        if theirs["sha256"] != network.fingerprint:
            raise ReferenceStatisticsError(
                f"The reference statistics were computed with another feature network ({theirs['kind']} "
                f"{theirs['sha256'][:12]}) than the samples' ({network.kind} {network.fingerprint[:12]}). "
                "Compute them again with launch.reference_statistics."
            )
        if theirs["resize"] != network.resize:
            raise ReferenceStatisticsError(
                f"The reference images were resized differently ({theirs['resize']}) from the samples "
                f"({network.resize}). Compute the statistics again with launch.reference_statistics."
            )
        real = self.about["dataset"]
        if tuple(real["shape"]) != tuple(shape):
            raise ReferenceStatisticsError(
                f"The reference statistics are of images {tuple(real['shape'])} of {real['name']}; the samples are "
                f"{tuple(shape)}. Sizes and channels must be equal: a distance would measure the resizing."
            )
        if dataset is None or real["checksum"] == dataset["checksum"]:
            return []
        if real["name"] != dataset["name"]:
            raise ReferenceStatisticsError(
                f"The reference statistics are of {real['name']}, the model was trained on {dataset['name']}. "
                "Compute statistics of its data with launch.reference_statistics."
            )
        prepared = self.about.get("preparation")
        if preparation is not None and prepared is not None and dict(prepared) != dict(preparation):
            raise ReferenceStatisticsError(
                f"The reference images were prepared differently ({prepared}) from the model's ({dict(preparation)}): "
                "a distance would measure that. Compute statistics of its data with launch.reference_statistics."
            )
        return [
            f"the reference statistics are of {real['images']} images of {real['name']} ({self.about['split']}, "
            f"checksum {real['checksum']}), the model was trained on {dataset['images']} of {dataset['checksum']}"
        ]

    def compare_formats(self, formats: Mapping[str, int]) -> list[str]:
        """Compares the file formats of samples and of the reference images: lossy compression changes the features.

        Args:
          formats: the number of samples per format, as `readers.Loaded` has it.

        Returns:
          One line if the share of images in lossy formats differs; none if the reference does not record its formats.
        """
        theirs = (self.about or {}).get("dataset", {}).get("formats")
        if theirs is None or abs(_lossy_share(formats) - _lossy_share(theirs)) < _SAME_SHARE:
            return []
        return [
            f"the samples are {_in_words(formats)}, the reference images {_in_words(theirs)}: the distances also "
            "measure lossy compression; compare images that were saved alike"
        ]


def _lossy_share(formats: Mapping[str, int]) -> float:
    return sum(count for name, count in formats.items() if name in _LOSSY) / max(1, sum(formats.values()))


def _in_words(formats: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {name} files" for name, count in formats.items()) or "arrays without compression"


def compute(
    network: FeatureNetwork,
    source: ImageSource,
    *,
    split: str,
    preparation: Mapping[str, Any],
    batch_size: int = 100,
    on_batch: Callable[[int], object] = lambda rows: None,
) -> ReferenceStatistics:
    """Computes the statistics of images.

    Args:
      network: the feature network.
      source: the images, at least two.
      split: which part of the dataset they are, for the record.
      preparation: how they were cropped and resized, for the record.
      batch_size: images per batch of the network.
      on_batch: called with the number of images after each batch.

    Raises:
      ValueError: if the images do not fit the network or are fewer than two.
    """
    features = extract(network, source.images, batch_size=batch_size, on_batch=on_batch).pooled
    about = {
        "dataset": source.describe(),
        "split": split,
        "preparation": dict(preparation),
        "feature_network": network.describe(),
    }
    return ReferenceStatistics(Moments.of(features), features, about)


def cached_path(network: FeatureNetwork, source: ImageSource) -> pathlib.Path:
    """The path at which the statistics of these images by this network are kept between evaluations."""
    key = json.dumps([network.fingerprint, network.resize, source.describe()], sort_keys=True)
    name = "".join(letter if letter.isalnum() else "_" for letter in pathlib.Path(source.name).name)
    return cache_directory() / "statistics" / f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def load(path: str | os.PathLike) -> ReferenceStatistics:
    """Reads statistics written by this library or by another program.

    The file holds `mu` [D] and `sigma` [D, D]; or features alone, [N, D] or [N, 1, 1, D] under `features`, `pool_3` or
    `activations`, of which the moments are computed.

    Raises:
      ReferenceStatisticsError: if there is no such file, if it lacks these arrays, or if their values are impossible.
    """
    path = files.local_path(path)
    if not path.is_file():
        raise ReferenceStatisticsError(
            f"There are no statistics at {path}. Compute them with launch.reference_statistics."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises whatever zipfile, zlib or NumPy raise
        raise ReferenceStatisticsError(f"{path} cannot be read as .npz ({type(error).__name__}: {error}).") from error
    if not {"mu", "sigma"} <= arrays.keys():
        return _from_features(arrays, path)
    try:
        about = json.loads(str(arrays["about"])) if "about" in arrays else None
        count = int(arrays.get("count", UNKNOWN))
        moments = Moments(count, _real(arrays["mu"], "mu"), _symmetric(_real(arrays["sigma"], "sigma")))
        spectrum = np.linalg.eigvalsh(moments.covariance)
        if spectrum[0] < -1e-6 * max(spectrum[-1], 0.0) or spectrum[-1] < 0.0:
            raise ValueError(
                f"sigma is not a covariance: its eigenvalues range from {spectrum[0]:.3g} to {spectrum[-1]:.3g}"
            )
        if about is not None:
            _check_about(about)
    except (ValueError, TypeError, KeyError) as error:
        raise ReferenceStatisticsError(f"{path} holds no usable statistics: {error}") from error
    features = arrays.get("features")
    if features is not None:
        if features.shape != (count, len(moments.mean)):
            raise ReferenceStatisticsError(
                f"{path}: features {features.shape} do not fit count {count} and mu {moments.mean.shape}."
            )
        if features.dtype.kind != "f" or not np.isfinite(features).all():
            raise ReferenceStatisticsError(
                f"{path}: features must be finite floats. Received: {features.dtype}, or NaN among them."
            )
    return ReferenceStatistics(moments, features, about)


def _from_features(arrays: Mapping[str, np.ndarray], path: pathlib.Path) -> ReferenceStatistics:
    """The statistics of a file that holds features and no moments."""
    name = next((name for name in _FEATURES if name in arrays), None)
    if name is None:
        raise ReferenceStatisticsError(
            f"Statistics must hold `mu` and `sigma`, or features, one of {', '.join(_FEATURES)}. {path} holds "
            f"{sorted(arrays)}."
        )
    features = arrays[name]
    if features.ndim == 4 and features.shape[1:3] == (1, 1):
        features = features[:, 0, 0]
    if features.ndim != 2 or len(features) < 2 or features.dtype.kind != "f" or not np.isfinite(features).all():
        raise ReferenceStatisticsError(
            f"{path}: {name} must be finite floats [N, D], N at least 2. Received: {features.dtype} "
            f"{features.shape}{', or NaN among them' if features.dtype.kind == 'f' else ''}."
        )
    features = features.astype(np.float32)
    return ReferenceStatistics(Moments.of(features), features, None)


def _real(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers, not {values.dtype}")
    return values.astype(np.float64)


def _symmetric(sigma: np.ndarray) -> np.ndarray:
    """Averages the two halves if they differ by no more than the rounding of float32; `Moments` refuses more."""
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1]:
        return sigma
    with np.errstate(invalid="ignore"):  # for infinite values, which `Moments` refuses
        asymmetry = np.abs(sigma - sigma.T).max(initial=0.0)
    return (sigma + sigma.T) / 2.0 if asymmetry < 1e-5 * np.abs(sigma).max(initial=0.0) else sigma


def _check_about(about: dict[str, Any]) -> None:
    """Raises KeyError or TypeError if anything is missing that `ReferenceStatistics.check` reads."""
    for name in ("name", "images", "checksum"):
        about["dataset"][name]
    tuple(about["dataset"]["shape"])
    for name in ("kind", "sha256", "resize"):
        about["feature_network"][name]
    about["split"]
