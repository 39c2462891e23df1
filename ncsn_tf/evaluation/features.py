"""Feature networks, whose activations are used to compare images.

TF-GAN's Inception network gives the numbers that papers report. A classifier of the dataset's own classes
(`launch.train_classifier`) gives numbers of the same kind where Inception is unavailable, or where it is not
informative, as for 8x8 digits enlarged to 299x299. Metrics of the two must never be compared. So those of a classifier
have names of their own, and every network is identified by a hash of its files.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import socket
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files
from ncsn_tf.evaluation import EvaluationError, tfgan
from ncsn_tf.evaluation.names import CLASSIFIER, FEATURE_KINDS, INCEPTION

INCEPTION_ADDRESS = "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"
_INCEPTION_SIDE = 299
_INCEPTION_OUTPUTS = {"pool_3": 2048, "logits": 1008}
_DOWNLOAD_TIMEOUT = 60.0
_REMEDIES = (
    "Give --inception_path, a folder with the network as a SavedModel, downloaded elsewhere from "
    f"{INCEPTION_ADDRESS}; or compare by a classifier of the dataset: train one with launch.train_classifier and give "
    "its folder as --classifier_path."
)


class FeatureNetworkError(EvaluationError):
    """A feature network is unavailable, or is not the expected one."""


@dataclasses.dataclass(frozen=True)
class Features:
    """A feature network's outputs for images.

    Attributes:
      pooled: float32 [N, D], the activations that FID, KID, precision and recall compare.
      logits: float32 [N, K], from which the Inception score is computed.
    """

    pooled: np.ndarray
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.pooled)


class FeatureNetwork:
    """A SavedModel that maps images to `logits` and `pool_3`, as TF-GAN's Inception does.

    Args:
      path: the SavedModel's folder.
      kind: "inception" or "classifier".

    Attributes:
      kind: as given.
      fingerprint: the SHA-256 of its graph and weights, in hexadecimal digits.
      resize: how images are resized to its input, in words.
      width: the number of its features, D.

    Raises:
      ValueError: if the kind is unknown.
      FeatureNetworkError: if there is no SavedModel, if it lacks an output, or if it is of the other kind.
    """

    def __init__(self, path: str | os.PathLike, kind: str):
        if kind not in FEATURE_KINDS:
            raise ValueError(f"A feature network is one of {', '.join(FEATURE_KINDS)}. Received: {kind!r}.")
        self.kind = kind
        self.path = files.local_path(path)
        if not (self.path / "saved_model.pb").is_file():
            raise FeatureNetworkError(f"There is no SavedModel at {self.path} (no saved_model.pb). {_REMEDIES}")
        about = _about(self.path)
        if kind == INCEPTION and about.get("kind") == CLASSIFIER:
            raise FeatureNetworkError(f"{self.path} is a dataset's classifier, not Inception: give --classifier_path.")
        self._data: dict = about.get("dataset", {})
        self._accuracy: float | None = about.get("held_out_accuracy")
        self.fingerprint = _fingerprint(self.path)
        try:
            with tfgan.without_warnings(), files.plain_path(self.path) as plain:
                self._model = tf.saved_model.load(plain)
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = files.reason(error)
            raise FeatureNetworkError(f"{self.path} cannot be loaded as a SavedModel: {reason}") from error
        self._call = _callable(self._model, self.path)
        self._shape = (_INCEPTION_SIDE, _INCEPTION_SIDE, 3) if kind == INCEPTION else _image_shape(about, self.path)
        if kind == INCEPTION:
            self.resize = (
                f"bilinear to {_INCEPTION_SIDE}x{_INCEPTION_SIDE} (tf.image.resize, half-pixel centres; antialiased if "
                "that makes them smaller), grey repeated to RGB"
            )
        else:
            self.resize = "none"
        self._run = tf.function(self._features, autograph=False)
        self._check_outputs()

    @property
    def data_name(self) -> str | None:
        """The name of the dataset that a classifier was trained on; None if it is unknown."""
        return self._data.get("name")

    def describe(self) -> dict[str, Any]:
        """The properties that distinguish this network from others, as plain values."""
        about = {"kind": self.kind, "sha256": self.fingerprint, "resize": self.resize}
        about |= {"trained_on": self._data["name"]} if "name" in self._data else {}
        return about | ({"held_out_accuracy": self._accuracy} if self._accuracy is not None else {})

    def check_shape(self, shape: tuple[int, int, int]) -> None:
        """Raises FeatureNetworkError if images (H, W, C) cannot be its input."""
        if self.kind == CLASSIFIER and tuple(shape) != self._shape:
            raise FeatureNetworkError(
                f"The classifier {self.path} is for images {self._shape}. Received: images {tuple(shape)}."
            )
        if shape[-1] not in (1, 3):
            raise FeatureNetworkError(f"Feature networks take grey or RGB images. Received: {shape[-1]} channels.")

    def __call__(self, images: np.ndarray) -> Features:
        """The features of a batch.

        Args:
          images: uint8 [B, H, W, C], C 1 or 3.
        """
        pooled, logits = self._run(tf.constant(images))
        return Features(pooled.numpy(), logits.numpy())

    def _features(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.cast(images, tf.float32)
        if self.kind == INCEPTION:
            if x.shape[-1] == 1:
                x = tf.repeat(x, 3, axis=-1)
            sides = tuple(side or 0 for side in x.shape[1:3])
            if sides != self._shape[:2]:
                x = tf.image.resize(x, self._shape[:2], method="bilinear", antialias=max(sides) > _INCEPTION_SIDE)
        outputs = self._call((x - 128.0) / 128.0)  # as TF-GAN scales bytes
        missing = sorted({"pool_3", "logits"} - set(outputs))
        if missing:
            raise FeatureNetworkError(f"{self.path} has no output {' and '.join(missing)}, but {sorted(outputs)}.")
        rows = tf.shape(x)[0]
        pooled, logits = (tf.reshape(outputs[name], [rows, -1]) for name in ("pool_3", "logits"))
        return tf.cast(pooled, tf.float32), tf.cast(logits, tf.float32)

    def _check_outputs(self) -> None:
        """Runs the network on one image, so that a network of the wrong kind is refused before the work begins."""
        try:
            features = self(np.zeros((1, *self._shape), np.uint8))
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            if isinstance(error, FeatureNetworkError):
                raise
            reason = files.reason(error)
            raise FeatureNetworkError(f"{self.path} does not take images {self._shape}: {reason}") from error
        sizes = {"pool_3": features.pooled.shape[1], "logits": features.logits.shape[1]}
        self.width = sizes["pool_3"]
        if self.kind == INCEPTION and sizes != _INCEPTION_OUTPUTS:
            raise FeatureNetworkError(
                f"{self.path} is not TF-GAN's Inception, whose outputs have the sizes {_INCEPTION_OUTPUTS}: its own "
                f"are {sizes}. A distance computed with it would not be a FID."
            )


def load_inception(path: str | os.PathLike | None = None) -> FeatureNetwork:
    """TF-GAN's Inception network.

    Args:
      path: the folder of a local copy. With None it is downloaded from its TF-Hub address once, and then read from the
        cache, TFHUB_CACHE_DIR or `tfhub` in `cache_directory()`.

    Raises:
      FeatureNetworkError: if it is unavailable; the message gives both remedies.
    """
    if path is not None:
        return FeatureNetwork(path, INCEPTION)
    with warnings.catch_warnings(), _socket_timeout(_DOWNLOAD_TIMEOUT):
        warnings.simplefilter("ignore")  # it imports pkg_resources, which warns that it is deprecated
        import tensorflow_hub

        try:
            with _hub_cache() as (folder, plain):
                resolved = folder + tensorflow_hub.resolve(INCEPTION_ADDRESS).removeprefix(plain)
        except Exception as error:  # networks, proxies, archives and disks raise errors of many types
            reason = files.reason(error)
            raise FeatureNetworkError(f"Inception could not be downloaded ({reason}). {_REMEDIES}") from error
    return FeatureNetwork(resolved, INCEPTION)


def load_classifier(path: str | os.PathLike) -> FeatureNetwork:
    """The classifier of a dataset that `launch.train_classifier` wrote; raises as `FeatureNetwork` does."""
    return FeatureNetwork(path, CLASSIFIER)


def cache_directory() -> pathlib.Path:
    """The folder in which networks and statistics are kept from one evaluation to the next.

    It is NCSN_TF_CACHE, or else `ncsn_tf` in XDG_CACHE_HOME or ~/.cache.
    """
    own = os.environ.get("NCSN_TF_CACHE")
    if own:
        return files.local_path(own)
    return files.local_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ncsn_tf"


def extract(
    network: FeatureNetwork,
    images: np.ndarray,
    *,
    batch_size: int = 100,
    on_batch: Callable[[int], object] = lambda rows: None,
) -> Features:
    """The features of many images, batch by batch.

    Args:
      network: the feature network.
      images: uint8 [N, H, W, C].
      batch_size: images per batch of the network; bounds the memory.
      on_batch: called with the number of images after each batch.

    Raises:
      FeatureNetworkError: if the images do not fit the network, or if it returns a value that is not finite.
    """
    network.check_shape(images.shape[1:])
    count, batch_size = len(images), min(batch_size, len(images))
    pooled, logits = np.empty(0), np.empty(0)
    for start in range(0, count, batch_size):
        batch = np.asarray(images[start : start + batch_size])
        rows = len(batch)
        if rows < batch_size:  # padded, so that nothing is traced twice
            batch = np.concatenate([batch, np.broadcast_to(batch[:1], (batch_size - rows, *batch.shape[1:]))])
        found = network(batch)
        if start == 0:
            pooled = np.empty((count, found.pooled.shape[1]), np.float32)
            logits = np.empty((count, found.logits.shape[1]), np.float32)
        pooled[start : start + rows], logits[start : start + rows] = found.pooled[:rows], found.logits[:rows]
        on_batch(rows)
    bad = np.flatnonzero(~(np.isfinite(pooled).all(axis=1) & np.isfinite(logits).all(axis=1)))
    if bad.size:
        raise FeatureNetworkError(f"The features of {bad.size} images are not finite, the first of image {bad[0]}.")
    return Features(pooled, logits)


def _about(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = json.loads((path / "about.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _image_shape(about: dict[str, Any], path: pathlib.Path) -> tuple[int, int, int]:
    try:
        height, width, channels = (int(side) for side in about["dataset"]["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise FeatureNetworkError(
            f"{path} is not a classifier of launch.train_classifier: its about.json has no dataset.shape."
        ) from error
    return height, width, channels


def _fingerprint(path: pathlib.Path) -> str:
    """SHA-256 over the graph, the variables and the assets, but not over descriptions, which add nothing."""
    digest = hashlib.sha256()
    parts = [path / "saved_model.pb"]
    for folder in ("variables", "assets"):
        parts += sorted(file for file in (path / folder).rglob("*") if file.is_file())
    for part in parts:
        digest.update(f"{part.relative_to(path).as_posix()}:{part.stat().st_size}:".encode())
        with open(part, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _callable(model: Any, path: pathlib.Path) -> Callable[[tf.Tensor], Any]:
    for name in ("serving_default", "default"):
        signature = getattr(model, "signatures", {}).get(name)
        if signature is None or not {"pool_3", "logits"} <= set(signature.structured_outputs):
            continue
        arguments = list(signature.structured_input_signature[1])
        if len(arguments) == 1:
            return lambda images: signature(**{arguments[0]: images})
    if callable(model):  # as TF-GAN calls its Inception
        return model
    raise FeatureNetworkError(
        f"{path} cannot be called, and has no signature 'serving_default' from one batch to pool_3 and logits."
    )


@contextlib.contextmanager
def _hub_cache() -> Iterator[tuple[str, str]]:
    """Makes the cache of TensorFlow Hub, and yields its path and the one by which TensorFlow Hub knows it."""
    variable = "TFHUB_CACHE_DIR"
    before = os.environ.get(variable)
    folder = files.local_path(before) if before else cache_directory() / "tfhub"
    folder.mkdir(parents=True, exist_ok=True)
    with files.plain_path(folder) as plain:
        os.environ[variable] = plain
        try:
            yield str(folder), plain
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limits the wait for a connection, unless the user has set a limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
