"""Noise-conditional classifiers, whose gradients lead samples to a class, and the folders that hold them.

FOLDER/weights.npz   the network's weights, by number
FOLDER/about.json    its arguments, the SDE, the times and the images that it was trained for, and its record
FOLDER/accuracy.png  its accuracy over the noise
"""

import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files, pictures
from ncsn_tf.networks.noisy_classifier import NoisyClassifier
from ncsn_tf.samplers import journal
from ncsn_tf.score import expand
from ncsn_tf.sde import SDE

KIND = "noisy classifier"
ABOUT = "about.json"
_WEIGHTS = "weights.npz"
_REMEDY = "Train one with launch.train_classifier --noisy --workdir=RUN."


class ClassifierError(ValueError):
    """A noise-conditional classifier is unavailable, or is for other images, noise or times."""


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseConditional:
    """A network as the classifier of perturbed data, p(y | x_t).

    The network sees x / sqrt(alpha^2 + sigma^2), whose size hardly depends on the noise, and log(sigma / alpha).

    Attributes:
      network: a built `NoisyClassifier`.
      sde: the SDE that perturbs the data.
    """

    network: NoisyClassifier
    sde: SDE

    def logits(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """log p(y | x_t) of each class up to a number per row, [B, K], for x, [B, H, W, C], at times t, [B]."""
        alpha, sigma = self.sde.marginal(t)
        scaled = x * expand(tf.math.rsqrt(alpha**2 + sigma**2), x)
        return self.network(scaled, tf.math.log(sigma / alpha))

    def checksum(self) -> int:
        """A CRC-32 of the weights."""
        value = 0
        for weights in self.network.get_weights():
            value = zlib.crc32(np.ascontiguousarray(weights).data, value)
        return value


def make(num_classes: int, filters: int, shape: tuple[int, int, int], sde: SDE, *, seed: int) -> NoiseConditional:
    """An untrained classifier of images (H, W, C) under an SDE; its initial weights are drawn from the seed."""
    network = NoisyClassifier(num_classes, filters, seed=seed)
    network.build((None, *shape), (None,))
    return NoiseConditional(network, sde)


def save(
    classifier: NoiseConditional,
    path: str | os.PathLike,
    perturbation: Mapping[str, Any],
    record: Mapping[str, Any],
    figure: "pictures.Figure | None" = None,
) -> None:
    """Writes a classifier into a folder, completely or not at all.

    Args:
      classifier: the classifier.
      path: the folder to make; an empty folder may exist.
      perturbation: plain values that identify the SDE and the times, `config.build.Builder.perturbation`.
      record: further plain values for `about.json`.
      figure: written beside them as `accuracy.png`.

    Raises:
      ValueError: if `path` exists and is not an empty folder.
    """
    network = classifier.network
    content = {
        "kind": KIND,
        "classes": network.num_classes,
        "filters": network.filters,
        "shape": list(network.image_shape or ()),
        "perturbation": dict(perturbation),
        **record,
    }
    weights = {f"weight_{number:03d}": value for number, value in enumerate(network.get_weights())}
    with files.new_folder(path) as partial:
        files.write_npz_arrays(partial / _WEIGHTS, weights)
        files.write_json(partial / ABOUT, content)
        if figure is not None:
            pictures.save_figure(partial / "accuracy.png", figure)


def load(
    path: str | os.PathLike, perturbation: Mapping[str, Any], shape: tuple[int, int, int], sde: SDE
) -> NoiseConditional:
    """Reads a classifier, under whose scope the strategy of the sampler must be.

    Args:
      path: its folder.
      perturbation: that of the run whose samples it is to guide, as for `save`.
      shape: (H, W, C) of the run's images.
      sde: the run's SDE.

    Raises:
      ClassifierError: if there is none, it is damaged, or it is of another SDE, other times or other images.
    """
    path = files.local_path(path)
    about = _about(path)
    wanted = {"perturbation": json.loads(json.dumps(perturbation)), "shape": list(shape)}
    there = {key: about.get(key) for key in wanted}
    if there["shape"] != wanted["shape"]:
        raise ClassifierError(f"{path} classifies images {there['shape']}, the run's are {wanted['shape']}. {_REMEDY}")
    if there != wanted:
        differing = journal.difference(there["perturbation"], wanted["perturbation"])
        raise ClassifierError(f"{path} is for a run of other noise ({differing}). {_REMEDY}")
    try:
        found = make(about["classes"], about["filters"], shape, sde, seed=0)
        with np.load(path / _WEIGHTS) as archive:
            found.network.set_weights([archive[name] for name in sorted(archive.files)])
    except Exception as error:  # a damaged archive raises whatever zipfile, zlib or NumPy raise
        raise ClassifierError(f"{path} cannot be read as a classifier: {files.reason(error)}. {_REMEDY}") from error
    return found


def _about(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = None
    if not isinstance(about, dict) or about.get("kind") != KIND or not isinstance(about.get("perturbation"), dict):
        what = (
            "a classifier of clean images" if isinstance(about, dict) and about.get("kind") == "classifier" else "none"
        )
        raise ClassifierError(f"{path} should be a classifier of noisy images. Received: {what}. {_REMEDY}")
    return about
