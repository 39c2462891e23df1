"""Takes known noise away from held-out images: python -m launch.denoise --workdir=runs/digits

At each noise level that the sampler visits, images under its noise are denoised by one step (Tweedie's formula) and by
annealing from that level on. Writes into --output, by default a folder under the run's denoising/:
  denoising.png   a row an image and way: noisy, one step, annealed; a column a level, the originals last
  denoising.npz   original, noisy, one_step, annealed (uint8 [levels, N, H, W, C]; original [N, H, W, C])
  about.json      the peak signal-to-noise ratio by level, in dB, with standard errors; what is needed to repeat it
"""

import json
import time

import numpy as np
from absl import flags

from launch.flags import cli
from launch.flags import run as trained

_NUM_IMAGES = flags.DEFINE_integer("num_images", 16, "How many held-out images, the first ones.", 2)
_SHOWN = 4


def main() -> None:
    """Denoises images at every level."""
    from ncsn_tf import files, pictures
    from ncsn_tf.data import pipeline
    from ncsn_tf.guidance import denoising
    from ncsn_tf.training.summaries import progress_bar

    with cli.user_mistakes():
        run = trained.open_run()
        original = np.asarray(run.builder.load_images("held_out").images[: _NUM_IMAGES.value])
        if original.shape[1:] != run.shape:
            raise ValueError(f"The run is on images {run.shape}, the held-out ones are {original.shape[1:]}.")
        output = trained.output(run, "denoising")
        print(f"{len(original)} held-out images {run.shape} at {len(run.builder.sampler_times)} levels")
        if not trained.prepare(output):
            return
    begun = time.perf_counter()
    levels = []
    with progress_bar(len(run.builder.sampler_times), "level") as bar:
        for level, time_of_level in enumerate(run.builder.sampler_times):
            found = denoising.at_level(
                run.score_fn,
                run.builder.sde,
                float(time_of_level),
                lambda level=level: run.builder.sampler(run.score_fn, first_level=level),
                pipeline.to_float(original),
                run_seed=trained.SEED.value,
            )
            if not all(np.isfinite(part).all() for part in (found.one_step, found.annealed)):
                bar.close()
                cli.fail(f"The images diverged from level {level + 1}. Try a smaller --epsilon.", cli.FAILURE)
            levels.append(found)
            bar.update()
    arrays = {
        name: np.stack([pipeline.to_uint8(getattr(found, name)) for found in levels])
        for name in ("noisy", "one_step", "annealed")
    }
    files.write_npz_arrays(output / "denoising.npz", {"original": original, **arrays})
    # [image, way, level, ...], with the original in a last column of its own.
    shown = np.stack([arrays[name][:, :_SHOWN] for name in arrays], axis=1).transpose(2, 1, 0, 3, 4, 5)
    last = np.broadcast_to(original[:_SHOWN, None, None], (*shown.shape[:2], 1, *run.shape))
    shown = np.concatenate([shown, last], axis=2)
    pictures.save_grid(output / "denoising.png", shown.reshape(-1, *run.shape), columns=shown.shape[2])
    table = [{"sigma": found.sigma, **{name: list(pair) for name, pair in found.psnr.items()}} for found in levels]
    about = {"psnr": table, "seconds": round(time.perf_counter() - begun, 1), **trained.record(run)}
    files.write_text(output / "about.json", json.dumps(about, indent=2) + "\n")
    print("Peak signal-to-noise ratio, dB (standard error)\n   sigma      noisy           one step        annealed")
    for found in levels:
        cells = "".join(f"{value:8.2f} ({error:.2f})" for value, error in found.psnr.values())
        print(f"{found.sigma:8.4f} {cells}")
    print(f"Picture and arrays: {output}")


def run() -> None:
    """Entry point of `ncsn-denoise`."""
    cli.run(main)


if __name__ == "__main__":
    run()
