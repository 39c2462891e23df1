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
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from ncsn_tf.guidance import names

from .flags import cli, paths, restoration, run

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn

_FLAGS = run.define()
_GIVEN = restoration.define(_FLAGS)
_MASK = paths.define(
    "mask",
    "left",
    f"The known part: {', '.join(names.MASKS)}; or a picture, white where known.",
    words=names.MASKS,
)
_SHARE = flags.DEFINE_float("known_share", 0.25, "The share of pixels that --mask=random keeps.", 0.0, 1.0)
_REFERENCE = flags.DEFINE_enum(
    "reference",
    "level",
    ["walk", "level", "step"],
    "Known pixels get new noise once per walk, per level (the paper), or per step.",
)


def main() -> None:
    """Completes images."""
    from ncsn_tf.data import pipeline
    from ncsn_tf.guidance import inpainting

    with _FLAGS.devices.using() as strategy:
        with cli.usage_errors():
            opened = _FLAGS.open_for_steps(strategy, "Inpainting")
            original = _GIVEN.original(opened)
            given, known = inpainting.check(pipeline.to_float(original), _mask(opened, len(original)))
            key = _GIVEN.key(opened, {"images": given, "known": known}, reference=_REFERENCE.value)
            output = _FLAGS.folder(opened, "inpainting", key)
            _GIVEN.announce(opened, len(original))
            if not _FLAGS.prepare(opened, output):
                return
        begun = time.perf_counter()
        encoded = opened.builder.value_range.encode(given)
        guidance = inpainting.Inpainting(opened.builder.sde, _REFERENCE.value)
        drawn = _GIVEN.draw(opened, output, key, (encoded, known), guidance, inpainting.put_back)
    if drawn is not None:
        _write(opened, output, original, given, known, drawn, time.perf_counter() - begun)


def _mask(opened: "TrainedRun", count: int) -> np.ndarray:
    from ncsn_tf.guidance import masks

    if _MASK.value in names.MASKS:
        options: dict[str, Any] = {"share": _SHARE.value, "run_seed": _FLAGS.seed.value}
        return masks.make(_MASK.value, opened.shape, count, **options)
    return masks.read(_MASK.value, opened.shape, count)


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
    from ncsn_tf.guidance import seams

    floats: Any = drawn.floats
    found = seams.measure(floats, *(np.repeat(part, _GIVEN.completions.value, axis=0) for part in (given, known)))
    occluded = np.where(known, original, 128).astype(np.uint8)
    _GIVEN.save(opened, output, "inpainting", occluded, drawn, original, {"known": known})
    own = {"mask": _MASK.value, "reference": _REFERENCE.value, "known_share": float(known.mean())}
    share = 1.0 - float(known.mean())
    _GIVEN.record(opened, output, drawn, share, seconds, **own, seams=dataclasses.asdict(found))
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
