"""Feature networks: what images are compared by.

TF-GAN's Inception network makes the numbers that papers report; a classifier of the dataset's own classes
(`launch.train_classifier`) makes numbers of the same kind where Inception is not to be had, or where 8x8 digits blown
up to 299x299 would tell it nothing. Metrics of the two must never be compared, so those of a classifier have names of
their own, and every network is known by a hash of its files.
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

from ncsn_tf.evaluation import EvaluationError, tfgan

INCEPTION = "inception"
CLASSIFIER = "classifier"
KINDS = (INCEPTION, CLASSIFIER)
INCEPTION_ADDRESS = "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"
_INCEPTION_SIDE = 299
_INCEPTION_OUTPUTS = {"pool_3": 2048, "logits": 1008}
_DOWNLOAD_TIMEOUT = 60.0
_REMEDIES = (
    "Give --inception_path, a folder that holds the network as a SavedModel, downloaded elsewhere from "
    f"{INCEPTION_ADDRESS}; or compare by a classifier of the dataset: train one with launch.train_classifier and give "
    "its folder as --classifier_path."
)


class FeatureNetworkError(EvaluationError):
    """A feature network is not to be had, or is not what it was said to be."""


@dataclasses.dataclass(frozen=True)
class Features:
    """What a feature network says of images.

    Attributes:
      pooled: float32 [N, D], the activations that FID, KID, precision and recall compare.
      logits: float32 [N, K], of which the Inception score is made.
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
      resize: how images become its input, in words.
      width: the number of its features, D.

    Raises:
      FeatureNetworkError: if there is no SavedModel, it lacks an output, or it is of the other kind.
    """

    def __init__(self, path: str | pathlib.Path, kind: str):
        if kind not in KINDS:
            raise ValueError(f"A feature network is one of {', '.join(KINDS)}. Received: {kind!r}.")
        self.kind = kind
        self.path = pathlib.Path(path).expanduser()
        if not (self.path / "saved_model.pb").is_file():
            raise FeatureNetworkError(f"{self.path} holds no SavedModel (no saved_model.pb). {_REMEDIES}")
        about = _about(self.path)
        if kind == INCEPTION and about.get("kind") == CLASSIFIER:
            raise FeatureNetworkError(f"{self.path} is a dataset's classifier, not Inception: give --classifier_path.")
        self._data: dict = about.get("dataset", {})
        self._accuracy: float | None = about.get("held_out_accuracy")
        self.fingerprint = _fingerprint(self.path)
        try:
            with tfgan.without_warnings():
                self._model = tf.saved_model.load(str(self.path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:200]
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
        """The dataset that a classifier was trained on."""
        return self._data.get("name")

    def describe(self) -> dict[str, Any]:
        """What tells this network from another, as plain values."""
        about = {"kind": self.kind, "sha256": self.fingerprint, "resize": self.resize}
        about |= {"trained_on": self._data["name"]} if "name" in self._data else {}
        return about | ({"held_out_accuracy": self._accuracy} if self._accuracy is not None else {})

    def check_shape(self, shape: tuple[int, int, int]) -> None:
        """Raises FeatureNetworkError if images (H, W, C) cannot be its input."""
        if self.kind == CLASSIFIER and tuple(shape) != self._shape:
            raise FeatureNetworkError(
                f"The classifier {self.path} is for images {self._shape}. Received images {tuple(shape)}."
            )
        if shape[-1] not in (1, 3):
            raise FeatureNetworkError(f"Feature networks see grey or RGB images. Received {shape[-1]} channels.")

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
        outputs = self._call((x - 128.0) / 128.0)  # TF-GAN's scale
        missing = sorted({"pool_3", "logits"} - set(outputs))
        if missing:
            raise FeatureNetworkError(f"{self.path} has no output {' and '.join(missing)}, but {sorted(outputs)}.")
        rows = tf.shape(x)[0]
        pooled, logits = (tf.reshape(outputs[name], [rows, -1]) for name in ("pool_3", "logits"))
        return tf.cast(pooled, tf.float32), tf.cast(logits, tf.float32)

    def _check_outputs(self) -> None:
        """Holds the network against its kind by one image, so that what does not fit is refused before the work."""
        try:
            features = self(np.zeros((1, *self._shape), np.uint8))
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            if isinstance(error, FeatureNetworkError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise FeatureNetworkError(f"{self.path} does not take images {self._shape}: {reason}") from error
        sizes = {"pool_3": features.pooled.shape[1], "logits": features.logits.shape[1]}
        self.width = sizes["pool_3"]
        if self.kind == INCEPTION and sizes != _INCEPTION_OUTPUTS:
            raise FeatureNetworkError(
                f"{self.path} is not TF-GAN's Inception, whose outputs have the sizes {_INCEPTION_OUTPUTS}: its own "
                f"are {sizes}. Numbers made with it would be no FID."
            )


def load_inception(path: str | pathlib.Path | None = None) -> FeatureNetwork:
    """TF-GAN's Inception network.

    Args:
      path: the folder of a local copy; None takes it from its TF-Hub address, or from the cache of an earlier time:
        TFHUB_CACHE_DIR, or `tfhub` in `cache_directory()`.

    Raises:
      FeatureNetworkError: if it is not to be had; both remedies are named.
    """
    if path is not None:
        return FeatureNetwork(path, INCEPTION)
    os.environ.setdefault("TFHUB_CACHE_DIR", str(cache_directory() / "tfhub"))
    with warnings.catch_warnings(), _socket_timeout(_DOWNLOAD_TIMEOUT):
        warnings.simplefilter("ignore")  # it imports pkg_resources, which warns of its own end
        import tensorflow_hub

        try:
            resolved = tensorflow_hub.resolve(INCEPTION_ADDRESS)
        except Exception as error:  # noqa: BLE001 - networks, proxies, archives and disks fail in their own ways
            reason = " ".join(str(error).split())[:160]
            raise FeatureNetworkError(f"Inception could not be downloaded ({reason}). {_REMEDIES}") from error
    return FeatureNetwork(resolved, INCEPTION)


def load_classifier(path: str | pathlib.Path) -> FeatureNetwork:
    """A dataset's classifier, as `launch.train_classifier` writes it; raises FeatureNetworkError."""
    return FeatureNetwork(path, CLASSIFIER)


def cache_directory() -> pathlib.Path:
    """Where networks and statistics are kept from one evaluation to the next.

    NCSN_TF_CACHE, or else `ncsn_tf` in XDG_CACHE_HOME or ~/.cache.
    """
    own = os.environ.get("NCSN_TF_CACHE")
    if own:
        return pathlib.Path(own).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ncsn_tf"


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
      batch_size: images at a time; bounds the memory.
      on_batch: called with the number of images after each batch.

    Raises:
      FeatureNetworkError: if the images do not fit the network, or it gives a value that is not finite.
    """
    network.check_shape(images.shape[1:])
    count, batch_size = len(images), min(batch_size, len(images))
    pooled, logits = np.empty(0), np.empty(0)
    for start in range(0, count, batch_size):
        batch = np.asarray(images[start : start + batch_size])
        rows = len(batch)
        if rows < batch_size:  # filled up, so that nothing is traced twice
            batch = np.concatenate([batch, np.broadcast_to(batch[:1], (batch_size - rows, *batch.shape[1:]))])
        found = network(batch)
        if start == 0:
            pooled = np.empty((count, found.pooled.shape[1]), np.float32)
            logits = np.empty((count, found.logits.shape[1]), np.float32)
        pooled[start : start + rows], logits[start : start + rows] = found.pooled[:rows], found.logits[:rows]
        on_batch(rows)
    bad = np.flatnonzero(~(np.isfinite(pooled).all(axis=1) & np.isfinite(logits).all(axis=1)))
    if bad.size:
        raise FeatureNetworkError(f"The features of {bad.size} images are not finite, first of image {bad[0]}.")
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
            f"{path} is no classifier of launch.train_classifier: its about.json gives no dataset.shape."
        ) from error
    return height, width, channels


def _fingerprint(path: pathlib.Path) -> str:
    """SHA-256 over the graph, the variables and the assets; not over descriptions, which say nothing new."""
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
    if callable(model):  # as TF-GAN calls its own
        return model
    raise FeatureNetworkError(
        f"{path} can neither be called nor has it a signature 'serving_default' of one batch, with pool_3 and logits."
    )


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Within it, no connection is waited for for longer, unless the user has set a limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
