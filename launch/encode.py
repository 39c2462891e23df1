"""Encodes images as latent codes, and decodes them: python -m launch.encode --workdir=runs/edm --num_images=16

Follows the probability flow of a run in continuous time from images to noise and back (Song et al. 2021, section 4.3).
An image has one code, so bytes are encoded as they are, at the middles (k + 0.5) / 256 of their intervals. --dequantize
encodes (k + u) / 256 instead, with the noise of launch.likelihood's first dequantization under the same --seed: these
are the codes that runs with data.dequantize=True map to the prior. Prints the error of the round trip, and writes into
--output, by default a folder under the run's encodings/:
  encodings.png    rows: originals, codes (grey is 0, black and white three prior deviations), reconstructions
  encodings.npz    latents [N, H, W, C], images and reconstructions (uint8), reconstructions_float, the evaluations
  encodings.json   the error, the evaluations per image each way, and everything that is needed to repeat it

  --interpolate=8            decodes 8 codes on the great circle between those of images 2 i and 2 i + 1, both included:
                             interpolation.png and interpolation.npz, one row per pair
  --temperatures=0.8,1,1.2   decodes codes that are multiplied by these: temperature.png (one row per image) and .npz
  --compare=OTHER_WORKDIR    encodes the same images by another run with the same SDE, and compares the codes:
                             identifiability.png and identifiability.npz
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from .flags import cli, evaluator, flow, paths

if TYPE_CHECKING:
    from ncsn_tf.evaluation.encodings import Codec
    from ncsn_tf.runs import TrainedRun

_FLAGS = flow.define("encodings", "--dequantize", 16)
_DEQUANTIZE = flags.DEFINE_bool("dequantize", False, "Encode dequantized bytes.")
_INTERPOLATE = flags.DEFINE_integer("interpolate", None, "Codes per pair of images, both ends included.", 2)
_TEMPERATURES = flags.DEFINE_list("temperatures", None, "Numbers by which codes are multiplied.")
_COMPARE = paths.define("compare", None, "The directory of another run, with the same SDE and shape of images.")


def main() -> None:
    """Encodes and decodes."""
    from ncsn_tf import files, ode

    with cli.usage_errors():
        temperatures = _temperatures()
        opened = _FLAGS.open("Encoding")
        pixels = _FLAGS.images(opened)
        if len(pixels) < 2 and (_INTERPOLATE.value or _COMPARE.value):
            raise ValueError("--interpolate and --compare need two images or more. Received: one; raise --num_images.")
        other = _other(opened) if _COMPARE.value else None
        output = _FLAGS.folder(opened, "encodings", "encodings.json", "encodings")
        print(f"{len(pixels)} images {opened.shape} of {opened.builder.data_name}, {_FLAGS.split.value}")
        if _FLAGS.dry_run.value:
            print(f"Dry run: would write into {output}")
            return
    begun = time.perf_counter()
    try:
        about = _write(opened, other, pixels, temperatures, output)
    except ode.NotConvergedError as error:
        cli.fail(error, cli.FAILURE)
    seconds = round(time.perf_counter() - begun, 1)
    files.write_json(output / "encodings.json", {**about, "seconds": seconds, **_FLAGS.record(opened)})
    print(f"Pictures and arrays: {output}")


def _temperatures() -> list[float]:
    from ncsn_tf.config import values
    from ncsn_tf.evaluation import encodings

    if _TEMPERATURES.value is not None and not any(text.strip() for text in _TEMPERATURES.value):
        raise ValueError("--temperatures is given no value. Leave it out, or give numbers, such as 0.8,1,1.2.")
    given = [values.from_text("a temperature", float, text) for text in _TEMPERATURES.value or []]
    encodings.check_temperatures(given)
    return given


def _other(opened: "TrainedRun") -> "TrainedRun":
    """The run to compare with, its newest weights loaded; raises ValueError if its codes have another meaning."""
    from ncsn_tf.evaluation import identifiability

    other = flow.open_continuous(str(_COMPARE.value), "Encoding")
    identifiability.check_comparable(*((run.shape, run.builder.sde) for run in (opened, other)))
    other.load()
    return other


def _write(
    opened: "TrainedRun",
    other: "TrainedRun | None",
    pixels: np.ndarray,
    temperatures: list[float],
    output: pathlib.Path,
) -> dict[str, Any]:
    """Computes everything, writes pictures and arrays, and returns the numbers for the record."""
    from ncsn_tf.evaluation import encodings
    from ncsn_tf.guidance import interpolation

    sde = opened.builder.sde
    with evaluator.progress() as show:
        codec = _codec(opened, len(pixels), show)
        images = encodings.floats(pixels, _FLAGS.seed.value if _DEQUANTIZE.value else None)
        latents, forth = codec.encode(images)
        decoded, back = codec.decode(latents)
        output.mkdir(parents=True, exist_ok=True)
        encodings.save_round_trip(output, sde, pixels, latents, decoded, evaluations=(forth, back))
        if _INTERPOLATE.value:
            pairs = len(pixels) // 2
            path = interpolation.spherical(latents[0 : 2 * pairs : 2], latents[1 : 2 * pairs : 2], _INTERPOLATE.value)
            encodings.save_rows(output, "interpolation", codec.decode_rows(path))
        if temperatures:
            scaled = latents[:, None] * np.asarray(temperatures, np.float32)[:, None, None, None]
            encodings.save_rows(output, "temperature", codec.decode_rows(scaled), temperatures=np.asarray(temperatures))
        theirs = None if other is None else _codec(other, len(pixels), show).encode(images)[0]
    summary = encodings.summary(images, decoded, forth, back)
    _print(summary)
    if other is not None and theirs is not None:
        summary |= _compare(other, pixels, latents, theirs, output)
    return {**summary, "dequantized": _DEQUANTIZE.value, **_FLAGS.options()}


def _codec(run: "TrainedRun", count: int, show: Callable[[str, int], None]) -> "Codec":
    from ncsn_tf import flow_jobs

    return flow_jobs.codec(
        run,
        batch_size=min(_FLAGS.batch_size.value, count),
        options=_FLAGS.options(),
        jit_compile=_FLAGS.jit_compile.value,
        on_rows=show,
    )


def _compare(
    other: "TrainedRun", pixels: np.ndarray, latents: np.ndarray, theirs: np.ndarray, output: pathlib.Path
) -> dict[str, Any]:
    """Writes and prints the comparison with another run, and returns its numbers."""
    from ncsn_tf import files
    from ncsn_tf.evaluation import encodings, identifiability

    found = identifiability.compare(latents, theirs)
    rows = [pixels, *(encodings.shown(codes, other.builder.sde) for codes in (latents, theirs))]
    identifiability.save(output / "identifiability.png", rows, latents, theirs)
    files.write_npz_arrays(output / "identifiability.npz", {"latents": theirs, **dataclasses.asdict(found)})
    summary = found.summary()
    for name, value in summary.items():
        print(f"{name.replace('_', ' ')}: {value['mean']:.4f} ({value['minimum']:.4f} to {value['maximum']:.4f})")
    about = {"directory": str(other.directory.path), "checkpoint": other.checkpoint, "weights": other.checksum()}
    return {"identifiability": {**summary, "other": about}}


def _print(summary: dict[str, Any]) -> None:
    """Prints the error of the round trip and its cost."""
    error = summary["round_trip_error"]
    print(f"Round trip: error {error['median']:.2g} in the median, {error['worst']:.2g} at worst, of images in [0, 1]")
    cost = summary["score_evaluations_per_image"]
    print(f"Evaluations per image: {cost['encoding']:.0f} to encode, {cost['decoding']:.0f} to decode")


def entry_point() -> None:
    """Entry point of `ncsn-encode`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
