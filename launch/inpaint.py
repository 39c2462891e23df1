"""Completes occluded images with a trained run: python -m launch.inpaint --workdir=runs/digits --mask=left

Writes into --output, by default a folder under the run's inpainting/:
  inpainting.png   one row per image: occluded, its completions, original, as in Song & Ermon 2019, Figure 6
  inpainting.npz   samples (uint8 [N, K, H, W, C]), samples_float, original (uint8), known (bool [N, H, W, 1])
  about.json       everything that is needed to repeat it, and how smooth the seams are

Every device draws (--strategy and the flags beside it). After a kill the same command resumes from the last batch.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import dataclasses
import pathlib
import time
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from ncsn_tf.guidance import names

from .flags import cli, paths, run

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn

_SPLITS = ("held_out", "train")
_FLAGS = run.define()
_IMAGES = paths.define(
    "images",
    _SPLITS[0],
    "held_out or train, of the run's data; or a folder of images, one picture, an .npz or .npy.",
    words=_SPLITS,
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 8, "How many images, the first ones.", 1)
_COMPLETIONS = flags.DEFINE_integer("completions", 6, "How many completions of each.", 1)
_MASK = paths.define(
    "mask",
    "left",
    f"The known part: {', '.join(names.MASKS)}; or a picture, white where known.",
    words=names.MASKS,
)
_SHARE = flags.DEFINE_float("known_share", 0.25, "The share of pixels that --mask=random keeps.", 0.0, 1.0)
_REFERENCE = flags.DEFINE_enum(
    "reference", "level", ["level", "step"], "Known pixels get new noise once per level (the paper) or per step."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "How many completions a device draws at a time.", 1)


def main() -> None:
    """Completes images."""
    from ncsn_tf.data import pipeline
    from ncsn_tf.guidance import inpainting

    with _FLAGS.devices.using() as strategy:
        with cli.usage_errors():
            opened = _FLAGS.open_for_steps(strategy, "Inpainting")
            original = _images(opened)
            given, known = inpainting.check(pipeline.to_float(original), _mask(opened, len(original)))
            key = _key(opened, given, known)
            output = _FLAGS.folder(opened, "inpainting", key)
            print(
                f"{len(original)} images {opened.shape}, {_COMPLETIONS.value} completions each, of "
                f"{opened.directory.path}"
            )
            if not _FLAGS.prepare(opened, output):
                return
        begun = time.perf_counter()
        drawn = _draw(opened, output, key, given, known)
    if drawn is not None:
        _write(opened, output, original, given, known, drawn, time.perf_counter() - begun)


def _images(opened: "TrainedRun") -> np.ndarray:
    """The images of the flags, uint8 [N, H, W, C], of the run's size."""
    from ncsn_tf.evaluation import image_files

    if _IMAGES.value in _SPLITS:
        found = opened.builder.load_images(_IMAGES.value).images
    else:
        found = image_files.read(str(_IMAGES.value), fit=opened.shape).images
    if found.shape[1:] != opened.shape:
        raise ValueError(f"The run is on images {opened.shape}, those of {_IMAGES.value} are {found.shape[1:]}.")
    return np.asarray(found[: _NUM_IMAGES.value])


def _mask(opened: "TrainedRun", count: int) -> np.ndarray:
    from ncsn_tf.guidance import masks

    if _MASK.value in names.MASKS:
        options: dict[str, Any] = {"share": _SHARE.value, "run_seed": _FLAGS.seed.value}
        return masks.make(_MASK.value, opened.shape, count, **options)
    return masks.read(_MASK.value, opened.shape, count)


def _batch_size(count: int) -> int:
    return min(_BATCH_SIZE.value, count * _COMPLETIONS.value)


def _key(opened: "TrainedRun", given: np.ndarray, known: np.ndarray) -> dict[str, Any]:
    """The sampling key of the completions."""
    return {
        **opened.sampling_key(_FLAGS.seed.value, _batch_size(len(given))),
        "reference": _REFERENCE.value,
        "completions": _COMPLETIONS.value,
        "images": zlib.crc32(np.ascontiguousarray(given).data),
        "known": zlib.crc32(np.ascontiguousarray(known).data),
    }


def _draw(
    opened: "TrainedRun", output: pathlib.Path, key: dict[str, Any], given: np.ndarray, known: np.ndarray
) -> "Drawn | None":
    """The completions, row by row; None on workers other than the chief."""
    from ncsn_tf.guidance import inpainting

    builder, completions = opened.builder, _COMPLETIONS.value
    count = len(given) * completions
    batch_size = _batch_size(len(given))
    encoded = builder.value_range.encode(given)
    drawn_by = opened.block_sampler(
        lambda numbers: inpainting.start(
            numbers, encoded, known, builder.prior, run_seed=_FLAGS.seed.value, completions=completions
        ),
        batch_size,
        guidance=inpainting.Inpainting(builder.sde, _REFERENCE.value),
        end=inpainting.put_back,
    )
    rounds = -(-count // (batch_size * opened.strategy.num_replicas_in_sync))
    with (
        run.levels_shown(rounds * opened.sampler.segments) as bar,
        _FLAGS.stored(opened, output, key) as rows,
    ):
        opened.fill(rows, drawn_by, count, on_frame=lambda *_: bar.update())
        return None if rows is None else rows.finish(count)


def _write(
    opened: "TrainedRun",
    output: pathlib.Path,
    original: np.ndarray,
    given: np.ndarray,
    known: np.ndarray,
    drawn: "Drawn",
    seconds: float,
) -> None:
    """Writes the picture, the arrays and what is known about them."""
    from ncsn_tf import files, pictures
    from ncsn_tf.guidance import seams

    completions = _COMPLETIONS.value
    floats: Any = drawn.floats
    found = seams.measure(floats, *(np.repeat(part, completions, axis=0) for part in (given, known)))
    pixels = drawn.pixels.reshape(len(original), completions, *opened.shape)
    occluded = np.where(known, original, 128).astype(np.uint8)
    rows = np.concatenate([occluded[:, None], pixels, original[:, None]], axis=1)
    pictures.save_grid(output / "inpainting.png", rows.reshape(-1, *opened.shape), columns=rows.shape[1])
    arrays = {"samples": pixels, "samples_float": floats.reshape(pixels.shape), "original": original, "known": known}
    files.write_npz_arrays(output / "inpainting.npz", arrays)
    about = {
        "images": _IMAGES.value,
        "mask": _MASK.value,
        "reference": _REFERENCE.value,
        "known_share": float(known.mean()),
        "seams": dataclasses.asdict(found),
        "score_evaluations_per_sample": drawn.evaluations,
        "warnings": _FLAGS.caveats(drawn, 1.0 - float(known.mean())),
        "seconds": round(seconds, 1),
        **_FLAGS.record(opened),
    }
    files.write_json(output / run.ABOUT, about)
    print(
        f"Differences of neighbours across the border {found.across:.3f} (originals {found.across_original:.3f}), "
        f"inside {found.inside:.3f} (originals {found.inside_original:.3f})"
    )
    print(f"Picture and arrays: {output}")


def entry_point() -> None:
    """Entry point of `ncsn-inpaint`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
