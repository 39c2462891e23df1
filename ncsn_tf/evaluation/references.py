"""Reference statistics: what the real images look like to a feature network, and whose they are.

A file is an `.npz` of the common layout, `mu` and `sigma`, to which ours add

count      how many images
features   float32 [N, D], which KID, precision and recall need; may be left out
about      JSON: the dataset with its checksum, the split, the preparation, the feature network's hash and resize

A file of another program has `mu` and `sigma` alone. It can be used, with a warning: nobody can say whether its images
and its network are those of the samples.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import EvaluationError
from ncsn_tf.evaluation.features import FeatureNetwork, cache_directory, extract
from ncsn_tf.evaluation.moments import UNKNOWN, Moments
from ncsn_tf.files import write_npz_arrays


class ReferenceError(EvaluationError):
    """Reference statistics are missing, damaged, or not those of the model's data and feature network."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The statistics of real images.

    Attributes:
      moments: count (0 if unknown), mean and covariance of their features.
      features: float32 [N, D]; None where the file has none.
      about: where they come from: `dataset` (as `ImageSource.describe`), `split`, `preparation`, `feature_network` (as
        `FeatureNetwork.describe`); None in a file of another program.
    """

    moments: Moments
    features: np.ndarray | None
    about: dict[str, Any] | None

    def save(self, path: pathlib.Path, features: bool = True) -> None:
        """Writes the file atomically, with or without the features."""
        arrays = {
            "mu": self.moments.mean,
            "sigma": self.moments.covariance,
            "count": np.asarray(self.moments.count),
            "about": np.asarray(json.dumps(self.about)),
        }
        if features and self.features is not None:
            arrays["features"] = self.features
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz_arrays(path, arrays)

    def check(
        self,
        network: FeatureNetwork,
        shape: tuple[int, int, int],
        dataset: Mapping[str, Any] | None,
        preparation: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Refuses statistics of other images or of another network than the samples'.

        Args:
          network: the feature network of the samples.
          shape: (H, W, C) of the samples.
          dataset: the model's training images, as `ImageSource.describe` says; None if there is no model to ask.
          preparation: how these were cropped, resized and converted; None likewise.

        Returns:
          Warnings.

        Raises:
          ReferenceError: naming what differs, got and expected.
        """
        width = len(self.moments.mean)
        if width != network.width:
            raise ReferenceError(
                f"The reference statistics have {width} features, the {network.kind} of the samples has "
                f"{network.width}: they were made with another feature network."
            )
        if self.about is None:
            return [
                "the reference statistics say neither of which images nor by which network they were made: the "
                "distances mean something only if both, and the resizing, are those of the samples"
            ]
        theirs = self.about["feature_network"]
        if theirs["sha256"] != network.fingerprint:
            raise ReferenceError(
                f"The reference statistics were made with another feature network ({theirs['kind']} "
                f"{theirs['sha256'][:12]}) than the samples' ({network.kind} {network.fingerprint[:12]}). "
                "Make them again with launch.reference_statistics."
            )
        if theirs["resize"] != network.resize:
            raise ReferenceError(
                f"The reference images were resized otherwise ({theirs['resize']}) than the samples are "
                f"({network.resize}). Make the statistics again with launch.reference_statistics."
            )
        real = self.about["dataset"]
        if tuple(real["shape"]) != tuple(shape):
            raise ReferenceError(
                f"The reference statistics are of images {tuple(real['shape'])} of {real['name']}; the samples are "
                f"{tuple(shape)}. Sizes and channels must be equal: a distance would measure the resizing."
            )
        if dataset is None or real["checksum"] == dataset["checksum"]:
            return []
        if real["name"] != dataset["name"]:
            raise ReferenceError(
                f"The reference statistics are of {real['name']}, the model was trained on {dataset['name']}. "
                "Make statistics of its data with launch.reference_statistics."
            )
        prepared = self.about.get("preparation")
        if preparation is not None and prepared is not None and dict(prepared) != dict(preparation):
            raise ReferenceError(
                f"The reference images were prepared otherwise ({prepared}) than the model's ({dict(preparation)}): a "
                "distance would measure that. Make statistics of its data with launch.reference_statistics."
            )
        return [
            f"the reference statistics are of {real['images']} images of {real['name']} ({self.about['split']}, "
            f"checksum {real['checksum']}), the model was trained on {dataset['images']} of {dataset['checksum']}"
        ]


def compute(
    network: FeatureNetwork,
    source: ImageSource,
    *,
    split: str,
    preparation: Mapping[str, Any],
    batch_size: int = 100,
    on_batch: Callable[[int], object] = lambda rows: None,
) -> Reference:
    """Computes the statistics of images.

    Args:
      network: the feature network.
      source: the images, at least two.
      split: which part of the dataset they are, for the record.
      preparation: how they were cropped and resized, for the record.
      batch_size: images at a time.
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
    return Reference(Moments.of(features), features, about)


def cached_path(network: FeatureNetwork, source: ImageSource) -> pathlib.Path:
    """Where the statistics of these images by this network are kept between evaluations."""
    key = json.dumps([network.fingerprint, network.resize, source.describe()], sort_keys=True)
    name = "".join(letter if letter.isalnum() else "_" for letter in pathlib.Path(source.name).name)
    return cache_directory() / "statistics" / f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def load(path: str | pathlib.Path) -> Reference:
    """Reads statistics, ours or another program's.

    Raises:
      ReferenceError: if there is no such file, it holds no `mu` [D] and `sigma` [D, D], or their values are impossible.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise ReferenceError(f"There are no statistics {path}. Make them with launch.reference_statistics.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises what zipfile, zlib or NumPy please
        raise ReferenceError(f"{path} cannot be read as .npz ({type(error).__name__}: {error}).") from error
    if not {"mu", "sigma"} <= arrays.keys():
        raise ReferenceError(f"Statistics hold `mu` and `sigma`. {path} holds {sorted(arrays)}.")
    try:
        about = json.loads(str(arrays["about"])) if "about" in arrays else None
        count = int(arrays.get("count", UNKNOWN))
        moments = Moments(count, _real(arrays["mu"], "mu"), _symmetric(_real(arrays["sigma"], "sigma")))
        spectrum = np.linalg.eigvalsh(moments.covariance)
        if spectrum[0] < -1e-6 * max(spectrum[-1], 0.0) or spectrum[-1] < 0.0:
            raise ValueError(f"sigma is no covariance: its eigenvalues go from {spectrum[0]:.3g} to {spectrum[-1]:.3g}")
        if about is not None:
            _check_about(about)
    except (ValueError, TypeError, KeyError) as error:
        raise ReferenceError(f"{path} holds no usable statistics: {error}") from error
    features = arrays.get("features")
    if features is not None:
        if features.shape != (count, len(moments.mean)):
            raise ReferenceError(
                f"{path}: features {features.shape} do not fit count {count} and mu {moments.mean.shape}."
            )
        if features.dtype.kind != "f" or not np.isfinite(features).all():
            raise ReferenceError(f"{path}: features are finite floats. Received: {features.dtype}, or NaN among them.")
    return Reference(moments, features, about)


def _real(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds real numbers; these are {values.dtype}")
    return values.astype(np.float64)


def _symmetric(sigma: np.ndarray) -> np.ndarray:
    """Evens out what the roundings of a program in float32 leave between the two halves; more is refused later."""
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1]:
        return sigma
    with np.errstate(invalid="ignore"):  # of infinite values, which are refused later
        asymmetry = np.abs(sigma - sigma.T).max(initial=0.0)
    return (sigma + sigma.T) / 2.0 if asymmetry < 1e-5 * np.abs(sigma).max(initial=0.0) else sigma


def _check_about(about: dict[str, Any]) -> None:
    """Raises KeyError or TypeError unless everything that `Reference.check` reads is there."""
    for name in ("name", "images", "checksum"):
        about["dataset"][name]
    tuple(about["dataset"]["shape"])
    for name in ("kind", "sha256", "resize"):
        about["feature_network"][name]
    about["split"]
