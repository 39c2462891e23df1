"""Completes occluded images with a trained run: python -m launch.inpaint --workdir=runs/digits --mask=left

Writes into --output, by default a folder under the run's inpainting/:
  inpainting.png   a row an image: occluded, its completions, original, as in Song & Ermon 2019, Figure 6
  inpainting.npz   samples (uint8 [N, K, H, W, C]), samples_float, original (uint8), known (bool [N, H, W, 1])
  about.json       what is needed to repeat it, and how smooth the seams are
"""

import dataclasses
import json
import time

import numpy as np
from absl import flags

from launch.flags import cli
from launch.flags import run as trained

_IMAGES = flags.DEFINE_string(
    "images", "held_out", "held_out or train, of the run's data; or a folder of images, one picture, an .npz or .npy."
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 8, "How many images, the first ones.", 1)
_COMPLETIONS = flags.DEFINE_integer("completions", 6, "How many completions of each.", 1)
_MASK = flags.DEFINE_string(
    "mask", "left", "What is known: left, right, top, bottom, centre, random, strokes; or a picture, white where known."
)
_SHARE = flags.DEFINE_float("known_share", 0.25, "The share of pixels that --mask=random keeps.", 0.0, 1.0)
_REFERENCE = flags.DEFINE_enum(
    "reference", "level", ["level", "step"], "Known pixels get a new noise each level (the paper) or each step."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "How many completions at a time.", 1)


def main() -> None:
    """Completes images."""
    from ncsn_tf import files, pictures
    from ncsn_tf.data import pipeline
    from ncsn_tf.guidance import inpainting, masks, seams
    from ncsn_tf.training.summaries import progress_bar

    with cli.user_mistakes():
        run = trained.open_run()
        original = _images(run)
        if _MASK.value in masks.NAMES:
            options = {"share": _SHARE.value, "run_seed": trained.SEED.value}
            known = masks.make(_MASK.value, run.shape, len(original), **options)
        else:
            known = masks.read(_MASK.value, run.shape, len(original))
        given, known = inpainting.check(pipeline.to_float(original), known)
        output = trained.output(run, "inpainting")
        print(f"{len(original)} images {run.shape}, {_COMPLETIONS.value} completions each, of {run.directory.path}")
        if not trained.prepare(output):
            return
    begun = time.perf_counter()
    condition = inpainting.condition(run.builder.sde, _REFERENCE.value)
    sampler = run.builder.sampler(run.score_fn, condition=condition)
    batches = -(-len(original) * _COMPLETIONS.value // _BATCH_SIZE.value)
    with progress_bar(batches * sampler.segments, "level") as bar:

        def look(first: int, level: int, x) -> None:
            bar.update()
            if not np.isfinite(x.numpy()).all():
                bar.close()
                cli.fail(f"The completions diverged at level {level}. Try a smaller --epsilon.", cli.FAILURE)

        made = inpainting.complete(
            sampler,
            run.builder.prior(),
            given,
            known,
            run_seed=trained.SEED.value,
            completions=_COMPLETIONS.value,
            batch_size=_BATCH_SIZE.value,
            on_frame=look,
        )
        drawn = list(made)
    floats = np.concatenate([samples.x.numpy() for samples in drawn])
    found = seams.measure(floats, *(np.repeat(part, _COMPLETIONS.value, axis=0) for part in (given, known)))
    pixels = pipeline.to_uint8(floats).reshape(len(original), _COMPLETIONS.value, *run.shape)
    occluded = np.where(known, original, 128).astype(np.uint8)
    rows = np.concatenate([occluded[:, None], pixels, original[:, None]], axis=1)
    pictures.save_grid(output / "inpainting.png", rows.reshape(-1, *run.shape), columns=rows.shape[1])
    arrays = {"samples": pixels, "samples_float": floats.reshape(pixels.shape), "original": original, "known": known}
    files.write_npz_arrays(output / "inpainting.npz", arrays)
    about = {
        "images": _IMAGES.value,
        "mask": _MASK.value,
        "reference": _REFERENCE.value,
        "known_share": float(known.mean()),
        "seams": dataclasses.asdict(found),
        "score_evaluations_per_sample": drawn[0].evaluations,
        "seconds": round(time.perf_counter() - begun, 1),
        **trained.record(run),
    }
    files.write_text(output / "about.json", json.dumps(about, indent=2) + "\n")
    print(
        f"Differences of neighbours across the border {found.across:.3f} (originals {found.across_original:.3f}), "
        f"inside {found.inside:.3f} (originals {found.inside_original:.3f})"
    )
    print(f"Picture and arrays: {output}")


def _images(run) -> np.ndarray:
    """The images of the flags, uint8 [N, H, W, C], of the run's size."""
    from ncsn_tf.evaluation import image_files

    if _IMAGES.value in ("held_out", "train"):
        found = run.builder.load_images(_IMAGES.value).images
    else:
        found = image_files.read(str(_IMAGES.value), fit=run.shape)
    if found.shape[1:] != run.shape:
        raise ValueError(f"The run is on images {run.shape}, those of {_IMAGES.value} are {found.shape[1:]}.")
    return np.asarray(found[: _NUM_IMAGES.value])


def run() -> None:
    """Entry point of `ncsn-inpaint`."""
    cli.run(main)


if __name__ == "__main__":
    run()
