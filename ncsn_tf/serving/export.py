"""A trained model as a SavedModel that answers without this library.

    score(x, sigma) -> score                    the gradient of log p_sigma at x
    denoise(x, sigma) -> denoised               the mean of the clean image given the noisy one
    sample(seed) -> samples, samples_float      one sample a row, which depends on its own seed alone
    inpaint(image, mask, seed) -> the same      the mask is True where the image is known
    sample_tuned, inpaint_tuned                 the same with steps_per_level and epsilon, scalars with defaults

Every input of the first four has one row an example, so a server may batch requests; the rows of a batch do not know of
each other. What cannot be answered - images out of range, a mask that knows nothing, no rows, a seed out of range - is
an InvalidArgument error with the reason.
"""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import files, random
from ncsn_tf.guidance import inpainting
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.samplers.options import SamplerOptions
from ncsn_tf.score import ScoreModel, denoise
from ncsn_tf.sde import VE

DTYPES = ("float32", "bfloat16")
FORMAT = 1
_ABOUT = "about.json"
_MOST_STEPS = 100_000


class ExportError(ValueError):
    """An export is not there, not whole, or not of this kind."""


class ServedModel(tf.Module):
    """A network with its SDE and sampler, as functions of tensors alone.

    Args:
      network: the network, built; its weights are copied.
      sde: the SDE.
      times: float32 [L], the network's noise levels.
      sampler: the sampler's options.
      sampler_times: float32 [K], the levels that it visits.
      prior: draws its start.
      shape: (H, W, C) of the images.
      dtype: of the stored weights, "float32" or "bfloat16"; what is computed is computed in the network's own dtype.

    Raises:
      ValueError: for another dtype.
    """

    def __init__(
        self,
        network: keras.Model,
        sde: VE,
        times: np.ndarray,
        *,
        sampler: SamplerOptions,
        sampler_times: np.ndarray,
        prior: driver.Prior,
        shape: tuple[int, int, int],
        dtype: str = "float32",
    ):
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"Weights are stored as {' or '.join(DTYPES)}. Received: {dtype!r}.")
        weights = [*network.trainable_variables, *network.non_trainable_variables]
        self.stored = [
            tf.Variable(_stored(weight, dtype), trainable=False, name=f"weight_{i}") for i, weight in enumerate(weights)
        ]
        split = len(network.trainable_variables)

        def restored(x: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
            values = [tf.cast(value, weight.dtype) for value, weight in zip(self.stored, weights, strict=True)]
            return network.stateless_call(values[:split], values[split:], x, level)[0]

        self._sde = sde
        self._options = sampler
        self._times = sampler_times
        self._last_time = float(times[-1])
        self._prior = prior
        self._shape = shape
        model = ScoreModel(restored, sde, times)
        images, rows = tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None], tf.float32)
        # Traced once; every signature calls this one graph.
        self._score = tf.function(model.score, input_signature=[images, rows], autograph=False)
        self._sigmas = sde.marginal(tf.constant(times))[1].numpy()

    def signatures(self) -> dict[str, Callable]:
        """The named functions, as `tf.saved_model.save` takes them."""
        images = tf.TensorSpec([None, *self._shape], tf.float32, name="x")
        image, mask = tf.TensorSpec([None, *self._shape], tf.float32, name="image"), self._mask_spec
        sigma = tf.TensorSpec([None], tf.float32, name="sigma")
        seed = tf.TensorSpec([None], tf.int64, name="seed")
        steps = tf.TensorSpec([], tf.int32, name="steps_per_level")
        epsilon = tf.TensorSpec([], tf.float32, name="epsilon")
        own_steps = tf.constant(self._options.steps_per_level, tf.int32)
        own_epsilon = tf.constant(self._options.epsilon, tf.float32)

        def score(x, sigma):
            return {"score": self._score(x, self._time(x, sigma))}

        def denoised(x, sigma):
            return {"denoised": denoise(self._score, self._sde, x, self._time(x, sigma))}

        drawn = tf.function(self._sampled, input_signature=[seed, steps, epsilon], autograph=False)
        completed = tf.function(self._completed, input_signature=[image, mask, seed, steps, epsilon], autograph=False)

        def sample(seed):
            return drawn(seed, own_steps, own_epsilon)

        def sample_tuned(seed, steps_per_level=own_steps, epsilon=own_epsilon):
            return drawn(seed, steps_per_level, epsilon)

        def inpaint(image, mask, seed):
            return completed(image, mask, seed, own_steps, own_epsilon)

        def inpaint_tuned(image, mask, seed, steps_per_level=own_steps, epsilon=own_epsilon):
            return completed(image, mask, seed, steps_per_level, epsilon)

        specs = {
            "score": (score, [images, sigma]),
            "denoise": (denoised, [images, sigma]),
            "sample": (sample, [seed]),
            "sample_tuned": (sample_tuned, [seed, steps, epsilon]),
            "inpaint": (inpaint, [image, mask, seed]),
            "inpaint_tuned": (inpaint_tuned, [image, mask, seed, steps, epsilon]),
        }
        return {
            name: tf.function(function, input_signature=arguments, autograph=False)
            for name, (function, arguments) in specs.items()
        }

    @property
    def _mask_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([None, *self._shape[:2], 1], tf.bool, name="mask")

    def _time(self, x: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        """The times of noise levels; refuses what no level is near to."""
        low, high = float(self._sigmas[-1]), float(self._sigmas[0])
        with tf.control_dependencies(
            [
                *_rows(x=x, sigma=sigma),
                _require(tf.math.is_finite(x), "x must be finite; it holds NaN or infinite values"),
                _require(
                    (sigma >= 0.99 * low) & (sigma <= 1.01 * high),
                    f"sigma must lie within the levels of training, {low:.6g} to {high:.6g}",
                ),
            ]
        ):
            return self._sde.time(tf.clip_by_value(sigma, low, high))

    def _sampled(self, seed: tf.Tensor, steps: tf.Tensor, epsilon: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([*_rows(seed=seed), *_numbers(seed, steps, epsilon)]):
            seed, steps, epsilon = (tf.identity(value) for value in (seed, steps, epsilon))
        seeds = _row_seeds(seed, random.Stream.SAMPLE)
        seeds = random.fold_each(seeds, 0)  # sample 0 of a run of this seed
        return self._drawn(seeds, steps, epsilon, lambda step: step)

    def _completed(self, image, mask, seed, steps, epsilon) -> dict[str, tf.Tensor]:
        known = tf.broadcast_to(mask, tf.shape(image))
        share = tf.reduce_mean(tf.cast(mask, tf.float32), axis=[1, 2, 3])
        within = tf.math.is_finite(image) & (image >= 0.0) & (image <= 1.0)
        with tf.control_dependencies(
            [
                *_rows(image=image, mask=mask, seed=seed),
                *_numbers(seed, steps, epsilon),
                _require(~known | within, "known pixels must lie within 0 and 1"),
                _require(share > 0.0, "a mask must know a pixel: it is True where the image is known"),
                _require(share < 1.0, "a mask must leave a pixel to be completed"),
            ]
        ):
            seed, steps, epsilon = (tf.identity(value) for value in (seed, steps, epsilon))
        seeds = _row_seeds(seed, random.Stream.COMPLETION)
        seeds = random.fold_each(seeds, 0, 0)  # completion 0 of image 0
        condition = inpainting.condition(self._sde)
        found = self._drawn(seeds, steps, epsilon, lambda step: condition(step, seeds, image, known))
        return _outputs(tf.where(known, image, found["samples_float"]))

    def _drawn(self, seeds, steps, epsilon, conditioned: Callable[[driver.Step], driver.Step]) -> dict[str, tf.Tensor]:
        """Runs the sampler's loop from its prior; as `driver.Sampler`, but for numbers that are tensors."""
        if self._options.name == "annealed_langevin":
            unit = langevin.annealed(self._sde, 1.0, self._last_time)
            column = tf.repeat(tf.constant(self._times), steps)
        else:
            unit = langevin.constant(1.0)
            column = tf.repeat(tf.constant(self._times[-1:]), steps * len(self._times))
        step = conditioned(langevin.Langevin(lambda t: epsilon * unit(t)))
        x = self._prior(random.fold_each(seeds, random.Stream.PRIOR), self._shape)
        x = tf.ensure_shape(x, [None, *self._shape])
        x, _, _ = driver.integrate(step, self._score, x, tf.stack([column, column], axis=1), seeds)
        if self._options.denoise:
            x = denoise(self._score, self._sde, x, tf.fill([tf.shape(x)[0]], float(self._times[-1])))
        with tf.control_dependencies(
            [_require(tf.math.is_finite(x), "the samples diverged: epsilon is too large, or the weights are broken")]
        ):
            return _outputs(tf.identity(x))


def _stored(weight: keras.Variable, dtype: str) -> tf.Tensor:
    """A weight's value; floats in the given dtype, integers as they are."""
    value = tf.convert_to_tensor(weight.numpy())
    return tf.cast(value, dtype) if value.dtype.is_floating else value


def _row_seeds(seed: tf.Tensor, stream: random.Stream) -> tf.Tensor:
    """The seeds of `driver.base_seed` and its like, for a run seed in each row; int32 [B, 2]."""
    first = tf.cast(seed, tf.int32)
    return random.fold_each(tf.stack([first, tf.zeros_like(first)], axis=1), stream)


def _outputs(x: tf.Tensor) -> dict[str, tf.Tensor]:
    pixels = tf.minimum(tf.floor(tf.clip_by_value(x, 0.0, 1.0) * 256.0), 255.0)
    return {"samples": tf.cast(pixels, tf.uint8), "samples_float": x}


def _require(condition: tf.Tensor, what: str) -> tf.Operation:
    return tf.debugging.Assert(tf.reduce_all(condition), [f"{what}."])


def _rows(**inputs: tf.Tensor) -> list[tf.Operation]:
    """All inputs have as many rows, and one at least."""
    counts = tf.stack([tf.shape(value)[0] for value in inputs.values()])
    names = ", ".join(inputs)
    return [
        _require(counts > 0, f"there must be a row; {names} has none"),
        _require(tf.equal(counts, counts[0]), f"{names} must have equally many rows"),
    ]


def _numbers(seed: tf.Tensor, steps: tf.Tensor, epsilon: tf.Tensor) -> list[tf.Operation]:
    return [
        _require((seed >= 0) & (seed < 2**31), "a seed lies within 0 and 2^31 - 1"),
        _require((steps >= 1) & (steps <= _MOST_STEPS), f"steps_per_level lies within 1 and {_MOST_STEPS}"),
        _require(tf.math.is_finite(epsilon) & (epsilon > 0.0), "epsilon must be positive and finite"),
    ]


def save(
    model: ServedModel, folder: pathlib.Path, about: Mapping[str, Any], version: int | None = None
) -> pathlib.Path:
    """Writes a model into a folder of numbered versions, as TF Serving looks for them; a version appears whole or not.

    Args:
      model: the model.
      folder: where the versions lie; made if need be.
      about: plain values that say where it comes from; they lie in `assets.extra/about.json`, beside a checksum.
      version: its number, at least 1; by default one more than the largest that is there.

    Returns:
      The version's folder.

    Raises:
      ExportError: if the version is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    version = max(there, default=0) + 1 if version is None else version
    final = folder / str(version)
    if version < 1 or final.exists():
        raise ExportError(f"Versions are numbers from 1 on that are not there yet. Received: {version}, in {folder}.")
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{version}.", dir=folder))
    try:
        tf.saved_model.save(model, str(partial), signatures=model.signatures())
        extra = partial / "assets.extra"
        extra.mkdir()
        content = {"format": FORMAT, "sha256": _fingerprint(partial), **about}
        files.write_text(extra / _ABOUT, json.dumps(content, indent=2) + "\n")
        for path in partial.rglob("*"):
            files.to_disk(path)
        partial.chmod(0o755)  # a temporary folder is its maker's alone, and a server is somebody else
        os.rename(partial, final)
        files.to_disk(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def load(path: str | pathlib.Path) -> tuple[Any, dict[str, Any]]:
    """Loads an export: one version, or the newest of a folder of them.

    Returns:
      The loaded SavedModel, whose `signatures` answer, and what is known of it.

    Raises:
      ExportError: if there is none, or its files are not those that were written.
    """
    path = pathlib.Path(path).expanduser()
    versions = [child for child in path.iterdir() if child.name.isdecimal()] if path.is_dir() else []
    if versions:
        path = max(versions, key=lambda child: int(child.name))
    try:
        about = json.loads((path / "assets.extra" / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is no export of launch.export: it has no readable assets.extra/{_ABOUT}.") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ExportError(f"{path} is an export of another release. Export the run again.")
    if about.get("sha256") != _fingerprint(path):
        raise ExportError(f"{path} is damaged: its files are not those that were written. Export the run again.")
    return tf.saved_model.load(str(path)), about


def _fingerprint(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for part in sorted([path / "saved_model.pb", *(path / "variables").glob("*")]):
        digest.update(f"{part.name}:".encode())
        digest.update(part.read_bytes() if part.is_file() else b"")
    return digest.hexdigest()
