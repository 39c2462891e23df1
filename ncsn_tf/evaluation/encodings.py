"""Images as latent codes of the probability flow of a score function, and back."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import files, flow, ode, pictures
from ncsn_tf.data import pipeline
from ncsn_tf.data.value_range import ValueRange
from ncsn_tf.evaluation import likelihood
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE

_SHOWN = 16
"""The most columns of the round trip's picture, and rows of the others."""
_SHOWN_DEVIATIONS = 3.0
"""A picture of a code goes from black at minus this many deviations of the prior to white at plus as many."""


class Codec:
    """Carries images to their latent codes and codes to their images, in batches of one size.

    Each way is one compiled function; the last batch is filled up with its own rows. A row has steps of its own, so its
    result does not depend on the batch. Codes are states at t=1, in units of the SDE, whose prior they follow.

    Args:
      score_fn: the score function.
      sde: the SDE.
      value_range: the range of the SDE's data.
      batch_size: rows at a time; bounds the memory.
      options: of `flow.encode` and `flow.decode`: `rtol`, `atol`, `first_time`, `method`, `max_steps`.
      jit_compile: whether XLA compiles the solver.
      on_rows: called with "encoding" or "decoding" and the number of rows that were just carried.

    Raises:
      ValueError: if the batch is empty.
    """

    def __init__(
        self,
        score_fn: ScoreFunction,
        sde: SDE,
        value_range: ValueRange,
        *,
        batch_size: int,
        options: Mapping[str, Any] | None = None,
        jit_compile: bool = False,
        on_rows: Callable[[str, int], object] = lambda activity, rows: None,
    ):
        if batch_size < 1:
            raise ValueError(f"The batch is 1 or more. Received: batch_size={batch_size}.")
        self._range, self._size, self._on_rows = value_range, batch_size, on_rows
        given = dict(options or {})
        compiled = tf.function(jit_compile=jit_compile, autograph=False)
        self._encode = compiled(lambda x: _parts(flow.encode(score_fn, sde, x, **given)))
        self._decode = compiled(lambda x: _parts(flow.decode(score_fn, sde, x, **given)))

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The codes of images.

        Args:
          images: floats [N, H, W, C] in [0, 1]; see `pipeline.to_float` and `likelihood.dequantized` for bytes.

        Returns:
          (latents, evaluations): float32 [N, H, W, C], and int32 [N], of the score.

        Raises:
          ValueError: for anything but a batch of one or more float images.
          NotConvergedError: if the solver does not converge for an image; the message names it.
        """
        return self._carried("encoding", self._encode, self._range.encode(_checked("Images", images)))

    def decode(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images of codes, float32 [N, H, W, C] in units of [0, 1] but not clipped; as `encode` in all else."""
        images, evaluations = self._carried("decoding", self._decode, _checked("Codes", latents))
        return self._range.decode(images), evaluations

    def decode_rows(self, latents: np.ndarray) -> np.ndarray:
        """The images of codes in rows, such as paths: [rows, columns, H, W, C] gives the same shape; see `decode`."""
        return self.decode(latents.reshape(-1, *latents.shape[2:]))[0].reshape(latents.shape)

    def _carried(self, activity: str, function: Callable, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends, evaluations = [], []
        for first in range(0, len(x), self._size):
            numbers = np.minimum(np.arange(first, first + self._size), len(x) - 1)
            rows = min(self._size, len(x) - first)
            end, counted, converged = (part.numpy()[:rows] for part in function(tf.constant(x[numbers])))
            ode.check_converged(f"The {activity} of row", numbers[:rows], converged)
            ends.append(end)
            evaluations.append(counted)
            self._on_rows(activity, rows)
        return np.concatenate(ends), np.concatenate(evaluations)


def _parts(found: ode.Solution) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return found.y, found.evaluations, found.converged


def _checked(what: str, x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind != "f" or x.ndim != 4 or not len(x):
        raise ValueError(
            f"{what} are floats [N, H, W, C], one at least; bytes become floats by pipeline.to_float. "
            f"Received: {x.dtype}, {x.shape}."
        )
    return x.astype(np.float32)


def floats(pixels: np.ndarray, dequantize_seed: int | None = None) -> np.ndarray:
    """Bytes as the images in [0, 1] that are encoded.

    Args:
      pixels: uint8 [N, H, W, C], the images with the numbers 0 to N - 1.
      dequantize_seed: a seed in [0, 2^31), for (k + u) / 256 with the noise of the first dequantization of
        `likelihood.measure`; by default the middles (k + 0.5) / 256, which need no seed.

    Returns:
      float32 of the same shape.
    """
    if dequantize_seed is None:
        return pipeline.to_float(pixels)
    seeds = likelihood.image_seeds(dequantize_seed, tf.range(len(pixels)))
    return likelihood.dequantized(tf.constant(pixels), seeds).numpy()


def round_trip_error(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """The root mean square difference over the dimensions of each image.

    Args:
      images: floats [N, H, W, C] in [0, 1].
      reconstructions: what their codes were decoded to, of the same shape.

    Returns:
      float64 [N], in units of the images.
    """
    error = np.square(np.asarray(reconstructions, np.float64) - images)
    return np.sqrt(error.reshape(len(error), -1).mean(axis=1))


def summary(images: np.ndarray, reconstructions: np.ndarray, forth: np.ndarray, back: np.ndarray) -> dict[str, Any]:
    """The error of the round trip and the mean evaluations per image of each way, as plain numbers for a record."""
    error = round_trip_error(images, reconstructions)
    return {
        "images": len(images),
        "round_trip_error": {"median": float(np.median(error)), "worst": float(error.max())},
        "score_evaluations_per_image": {"encoding": float(forth.mean()), "decoding": float(back.mean())},
    }


def check_temperatures(temperatures: list[float]) -> None:
    """Raises ValueError unless all temperatures are positive and finite."""
    if not all(0.0 < value < float("inf") for value in temperatures):
        raise ValueError(
            f"A temperature multiplies codes: give positive numbers, such as 0.9. Received: {temperatures}."
        )


def shown(latents: np.ndarray, sde: SDE) -> np.ndarray:
    """Codes as pictures, uint8: grey is 0, black and white are three deviations of the noise at t=1 from it."""
    deviation = float(sde.marginal(tf.ones([1]))[1][0])
    return pipeline.to_uint8(0.5 + np.asarray(latents) / (2.0 * _SHOWN_DEVIATIONS * deviation))


def save_round_trip(
    directory: pathlib.Path,
    sde: SDE,
    pixels: np.ndarray,
    latents: np.ndarray,
    decoded: np.ndarray,
    *,
    evaluations: tuple[np.ndarray, np.ndarray],
) -> None:
    """Writes encodings.png, whose rows are images, codes and reconstructions of the first images, and encodings.npz.

    Args:
      directory: where to write.
      sde: the SDE, for the range of the codes' pictures.
      pixels: uint8 [N, H, W, C], the images.
      latents: float32 of the same shape, their codes.
      decoded: float32, the reconstructions in units of [0, 1].
      evaluations: int32 [N] each, of encoding and of decoding.
    """
    arrays = {"latents": latents, "images": pixels, **_bytes_and_floats("reconstructions", decoded)}
    arrays |= {"encoding_evaluations": evaluations[0], "decoding_evaluations": evaluations[1]}
    rows = [row[:_SHOWN] for row in (pixels, shown(latents, sde), arrays["reconstructions"])]
    pictures.save_grid(directory / "encodings.png", np.concatenate(rows), columns=len(rows[0]))
    files.write_npz_arrays(directory / "encodings.npz", arrays)


def save_rows(directory: pathlib.Path, name: str, images: np.ndarray, **others: np.ndarray) -> None:
    """Writes decoded images, floats [rows, columns, H, W, C], as NAME.npz, and the first rows as NAME.png."""
    arrays = _bytes_and_floats("images", images)
    first = arrays["images"][:_SHOWN].reshape(-1, *images.shape[2:])
    pictures.save_grid(directory / f"{name}.png", first, columns=images.shape[1])
    files.write_npz_arrays(directory / f"{name}.npz", {**arrays, **others})


def _bytes_and_floats(name: str, images: np.ndarray) -> dict[str, np.ndarray]:
    return {name: pipeline.to_uint8(images), f"{name}_float": images}
