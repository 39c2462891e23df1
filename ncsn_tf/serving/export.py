"""Exports a trained model as a SavedModel that runs without this library.

    score(x, sigma) -> score                    the gradient of log p_sigma at x
    denoise(x, sigma) -> denoised               the mean of the clean image given the noisy one
    sample(seed) -> samples, samples_float      one sample per row, which depends on its own seed alone
    inpaint(image, mask, seed) -> the same      the mask is True where the image is known; not with a sampler that
                                                chooses its own steps
    serving_default(seed) -> the same           sample, for a client that names no signature
    sample_tuned, inpaint_tuned                 the same with steps_per_level and epsilon, scalars with defaults, if
                                                the sampler is Langevin dynamics

Every input has one row per example, apart from the two scalars, so a server may batch requests; the rows of a batch are
independent of each other. Images are in [0, 1], whatever the range of the SDE's data, and `sigma` has the same unit. An
invalid request (an input of another shape, images out of range, a mask without a known pixel, no rows, a seed out of
range, a step size with which sampling diverges) returns an InvalidArgument error with the reason.
"""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import files, random
from ncsn_tf.config.samplers import MOST_STEPS_PER_LEVEL
from ncsn_tf.data import pipeline
from ncsn_tf.data.value_range import ValueRange
from ncsn_tf.guidance import inpainting
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.score import ScoreModel, denoise, expand
from ncsn_tf.sde import SDE
from ncsn_tf.serving import checks

DTYPES = ("float32", "bfloat16")
FORMAT = 1
_TUNABLE = {"steps_per_level": tf.int32, "epsilon": tf.float32}
_ABOUT = "about.json"


class ExportError(ValueError):
    """An export is missing, incomplete, or of another format."""


class ServedModel(tf.Module):
    """A network with its SDE and sampler, as functions of tensors.

    Args:
      network: the network, built; its weights are copied.
      adapter: makes a score model from a function that replaces the network.
      sampler: makes the sampler; takes the values of `tunable` by name, which are scalars of a graph.
      tunable: the values that a request may set, with their defaults: `steps_per_level`, the number of steps per level,
        and `epsilon`, the step size at the smallest level in squared units of the SDE's data; or none.
      prior: draws the start of samples.
      sde: the SDE.
      grid: float32 [L], the times of the noise levels of training, decreasing.
      value_range: the range of the SDE's data.
      shape: (H, W, C) of the images.
      dtype: of the stored weights, "float32" or "bfloat16"; computation is in the network's own dtype.

    Raises:
      ValueError: for another dtype.
    """

    def __init__(
        self,
        network: keras.Model,
        adapter: Callable[[Callable], ScoreModel],
        *,
        sampler: Callable[..., driver.Sampler],
        tunable: Mapping[str, float | int],
        prior: driver.Prior,
        sde: SDE,
        grid: np.ndarray,
        value_range: ValueRange,
        shape: tuple[int, int, int],
        dtype: str = "float32",
    ):
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"Weights are stored as {' or '.join(DTYPES)}. Received: {dtype!r}.")
        weights = [*network.trainable_variables, *network.non_trainable_variables]
        split = len(network.trainable_variables)
        # Constants, such as frequencies of Fourier features, keep their digits.
        types = [dtype if number < split else weight.dtype for number, weight in enumerate(weights)]
        self.stored = [
            tf.Variable(_stored(weight, kind), trainable=False, name=f"weight_{number}")
            for number, (weight, kind) in enumerate(zip(weights, types, strict=True))
        ]

        def restored(x: tf.Tensor, condition: tf.Tensor | None) -> tf.Tensor:
            values = [tf.cast(value, weight.dtype) for value, weight in zip(self.stored, weights, strict=True)]
            return network.stateless_call(values[:split], values[split:], x, condition)[0]

        self._sde = sde
        self._sampler = sampler
        self._tunable = dict(tunable)
        alpha, sigma = (part.numpy() for part in sde.marginal(tf.constant(grid)))
        self._largest_epsilon = langevin.largest_epsilon(float(sigma[-1]))
        self._prior = prior
        self._range = value_range
        self._shape = shape
        self._noise_ratios = sigma / alpha
        images, rows = tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None], tf.float32)
        # Traced once; every signature calls this one graph.
        self._score = tf.function(adapter(restored).score, input_signature=[images, rows], autograph=False)

    def signatures(self) -> dict[str, Callable]:
        """The named functions, as `tf.saved_model.save` takes them."""
        images = tf.TensorSpec([None, *self._shape], tf.float32, name="x")
        image, mask = tf.TensorSpec([None, *self._shape], tf.float32, name="image"), self._mask_spec
        sigma = tf.TensorSpec([None], tf.float32, name="sigma")
        seed = tf.TensorSpec([None], tf.int64, name="seed")
        tunable = [tf.TensorSpec([], _TUNABLE[name], name=name) for name in self._tunable]
        own = [tf.constant(value, _TUNABLE[name]) for name, value in self._tunable.items()]

        def score(x, sigma):
            # In units of images within [0, 1], as x and sigma are.
            noisy, t, alpha = self._perturbed(x, sigma)
            return {"score": self._score(noisy, t) * expand(alpha, x) * self._scale}

        def denoised(x, sigma):
            noisy, t, _ = self._perturbed(x, sigma)
            return {"denoised": self._range.decode(denoise(self._score, self._sde, noisy, t))}

        drawn = tf.function(self._sampled, input_signature=[seed, *tunable], autograph=False)
        completed = tf.function(self._completed, input_signature=[image, mask, seed, *tunable], autograph=False)

        def sample(seed):
            return drawn(seed, *own)

        def inpaint(image, mask, seed):
            return completed(image, mask, seed, *own)

        specs = {
            "serving_default": (sample, [seed]),
            "score": (score, [images, sigma]),
            "denoise": (denoised, [images, sigma]),
            "sample": (sample, [seed]),
            "inpaint": (inpaint, [image, mask, seed]),
        }
        if tunable:
            own_steps, own_epsilon = own

            def sample_tuned(seed, steps_per_level=own_steps, epsilon=own_epsilon):
                return drawn(seed, steps_per_level, epsilon)

            def inpaint_tuned(image, mask, seed, steps_per_level=own_steps, epsilon=own_epsilon):
                return completed(image, mask, seed, steps_per_level, epsilon)

            specs["sample_tuned"] = sample_tuned, [seed, *tunable]
            specs["inpaint_tuned"] = inpaint_tuned, [image, mask, seed, *tunable]
        if not self._sampler().takes_projections:
            specs = {name: spec for name, spec in specs.items() if "inpaint" not in name}
        return {
            name: tf.function(checks.checked(function, arguments), input_signature=arguments, autograph=False)
            for name, (function, arguments) in specs.items()
        }

    @property
    def _scale(self) -> float:
        """The width of the SDE's data range, by which noise levels and scores of images within [0, 1] are scaled."""
        return self._range.high - self._range.low

    @property
    def _mask_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([None, *self._shape[:2], 1], tf.bool, name="mask")

    def _perturbed(self, x: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Images within [0, 1] with noise sigma as the SDE has them, their times, and alpha at these times, [B].

        An image plus noise of deviation sigma has the SDE's noise ratio sigma / alpha, times the factor alpha.
        """
        low, high = (float(self._noise_ratios[end]) / self._scale for end in (-1, 0))
        with tf.control_dependencies(
            [
                checks.require(tf.math.is_finite(x), "x must be finite; it holds NaN or infinite values"),
                checks.require(
                    (sigma >= 0.99 * low) & (sigma <= 1.01 * high),
                    f"sigma must be within the levels of training, {low:.6g} to {high:.6g}",
                    sigma,
                ),
            ]
        ):
            t = self._sde.time(tf.clip_by_value(sigma, low, high) * self._scale)
        alpha = self._sde.marginal(t)[0]
        return expand(alpha, x) * self._range.encode(x), t, alpha

    def _sampled(self, seed: tf.Tensor, *tuned: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies(self._numbers(seed, *tuned)):
            seed, tuned = tf.identity(seed), tuple(tf.identity(value) for value in tuned)
        seeds = _row_seeds(seed, random.Stream.SAMPLE)
        seeds = random.fold_each(seeds, 0)  # sample 0 of a run of this seed
        return _outputs(self._range.decode(self._drawn(seeds, tuned, driver.NO_GUIDANCE, ())))

    def _completed(self, image, mask, seed, *tuned) -> dict[str, tf.Tensor]:
        known = tf.broadcast_to(mask, tf.shape(image))
        share = tf.reduce_mean(tf.cast(mask, tf.float32), axis=[1, 2, 3])
        within = tf.math.is_finite(image) & (image >= 0.0) & (image <= 1.0)
        with tf.control_dependencies(
            [
                *self._numbers(seed, *tuned),
                checks.require(~known | within, "known pixels must be within 0 and 1", image),
                checks.require(share > 0.0, "a mask must have a known pixel: it is True where the image is known"),
                checks.require(share < 1.0, "a mask must leave a pixel to be completed"),
            ]
        ):
            seed, tuned = tf.identity(seed), tuple(tf.identity(value) for value in tuned)
        seeds = _row_seeds(seed, random.Stream.COMPLETION)
        seeds = random.fold_each(seeds, 0, 0)  # completion 0 of image 0
        given = self._range.encode(image), known
        x = self._drawn(seeds, tuned, inpainting.Inpainting(self._sde), given)
        return _outputs(inpainting.put_back(self._range.decode(x), (image, known)))

    def _numbers(self, seed: tf.Tensor, *tuned: tf.Tensor) -> list[tf.Operation]:
        largest = f"{self._largest_epsilon:.6g}, four times the square of the smallest noise level"
        checked = [checks.require((seed >= 0) & (seed < 2**31), "a seed must be within 0 and 2^31 - 1", seed)]
        if tuned:
            steps, epsilon = tuned
            checked += [
                checks.require(
                    (steps >= 1) & (steps <= MOST_STEPS_PER_LEVEL),
                    f"steps_per_level must be within 1 and {MOST_STEPS_PER_LEVEL}",
                    steps,
                ),
                checks.require(
                    (epsilon > 0.0) & (epsilon < self._largest_epsilon),
                    f"epsilon must be positive and below {largest}: from there on Langevin dynamics diverges",
                    epsilon,
                ),
            ]
        return checked

    def _drawn(
        self, seeds: tf.Tensor, tuned: Sequence[tf.Tensor], guidance: driver.Guidance, given: driver.Given
    ) -> tf.Tensor:
        """Samples from the prior, in the SDE's data range."""
        x = self._prior(random.fold_each(seeds, random.Stream.PRIOR), self._shape)
        x = tf.ensure_shape(x, [None, *self._shape])
        x = self._sampler(**dict(zip(self._tunable, tuned, strict=True)))(self._score, x, seeds, guidance, given).x
        diverged = "the samples diverged: the step size is too large, or the weights are broken"
        with tf.control_dependencies([checks.require(tf.math.is_finite(x), diverged)]):
            return tf.identity(x)


def _stored(weight: keras.Variable, dtype: str) -> tf.Tensor:
    """A weight's value; floats in the given dtype, integers as they are."""
    value = tf.convert_to_tensor(weight.numpy())
    return tf.cast(value, dtype) if value.dtype.is_floating else value


def _row_seeds(seed: tf.Tensor, stream: random.Stream) -> tf.Tensor:
    """`random.stream_seed` for a run seed in each row; int32 [B, 2]."""
    first = tf.cast(seed, tf.int32)
    return random.fold_each(tf.stack([first, tf.zeros_like(first)], axis=1), stream)


def _outputs(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"samples": pipeline.quantise(x), "samples_float": x}


def save(
    model: ServedModel, folder: str | os.PathLike, about: Mapping[str, Any], version: int | None = None
) -> pathlib.Path:
    """Writes a model into a folder of numbered versions, as TF Serving expects them; a version appears complete.

    Args:
      model: the model.
      folder: the folder of the versions; created if it does not exist.
      about: plain values that record the origin; written to `assets.extra/about.json` with a checksum.
      version: the version's number, at least 1; by default one more than the largest in the folder.

    Returns:
      The version's folder.

    Raises:
      ExportError: if the version exists already.
    """
    folder = files.local_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    version = max(there, default=0) + 1 if version is None else version
    final = folder / str(version)
    if version < 1 or final.exists():
        raise ExportError(f"A version must be a new number, at least 1. Received: {version}, in {folder}.")
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{version}.", dir=folder))
    try:
        with files.plain_path(partial) as plain:
            tf.saved_model.save(model, plain, signatures=model.signatures())
        extra = partial / "assets.extra"
        extra.mkdir()
        content = {"format": FORMAT, "sha256": _fingerprint(partial), **about}
        files.write_json(extra / _ABOUT, content)
        for path in partial.rglob("*"):
            files.to_disk(path)
        partial.chmod(0o755)  # only its owner can read a temporary folder, and a server runs as another user
        os.rename(partial, final)
        files.to_disk(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def load(path: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
    """Loads an export: one version, or the newest of a folder of them.

    Returns:
      The loaded SavedModel, with its `signatures`, and the content of its `about.json`.

    Raises:
      ExportError: if there is no export, or if its files differ from those that were written.
    """
    path = files.local_path(path)
    versions = [child for child in path.iterdir() if child.name.isdecimal()] if path.is_dir() else []
    if versions:
        path = max(versions, key=lambda child: int(child.name))
    try:
        about = json.loads((path / "assets.extra" / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is not written by launch.export: no readable assets.extra/{_ABOUT}.") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ExportError(f"{path} is an export of another release. Export the run again.")
    if about.get("sha256") != _fingerprint(path):
        raise ExportError(f"{path} is damaged: its files differ from those that were written. Export the run again.")
    with files.plain_path(path) as plain:
        return tf.saved_model.load(plain), about


def _fingerprint(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for part in sorted([path / "saved_model.pb", *(path / "variables").glob("*")]):
        digest.update(f"{part.name}:".encode())
        digest.update(part.read_bytes() if part.is_file() else b"")
    return digest.hexdigest()
