"""Removes known noise from held-out images: python -m launch.denoise --workdir=runs/digits

At each noise level that the sampler visits, or at 20 of them if there are more, images under its noise are denoised by
one step (Tweedie's formula) and by annealing from that level on. Writes into --output, by default a folder under the
run's denoising/:
  denoising.png   per image the rows noisy, one step, annealed; one column per level, the originals last
  denoising.npz   original, noisy, one_step, annealed (uint8 [levels, N, H, W, C]; original [N, H, W, C])
  about.json      the peak signal-to-noise ratio by level, in dB, with standard errors; what is needed to repeat it

Every device draws (--strategy and the flags beside it). After a kill the same command resumes from the last batch.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import pathlib
import time
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from .flags import cli, run

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn

_FLAGS = run.define()
_NUM_IMAGES = flags.DEFINE_integer("num_images", 16, "How many held-out images, the first ones.", 2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "How many images a device denoises at a time.", 1)
_SHOWN = 4
_MOST_LEVELS = 20


def main() -> None:
    """Denoises images at every level."""
    from ncsn_tf.data import pipeline

    with _FLAGS.devices.using() as strategy:
        with cli.usage_errors():
            opened = _FLAGS.open_for_steps(strategy, "Denoising")
            original = np.asarray(opened.builder.load_images("held_out").images[: _NUM_IMAGES.value])
            if original.shape[1:] != opened.shape:
                raise ValueError(f"The run is on images {opened.shape}, the held-out ones are {original.shape[1:]}.")
            key = {
                **opened.sampling_key(_FLAGS.seed.value, min(_BATCH_SIZE.value, len(original))),
                "images": zlib.crc32(np.ascontiguousarray(original).data),
                "num_images": len(original),
            }
            output = _FLAGS.folder(opened, "denoising", key)
            print(f"{len(original)} held-out images {opened.shape}, {len(_levels(opened))} levels")
            if not _FLAGS.prepare(opened, output):
                return
        begun = time.perf_counter()
        noisy, one_step, drawn = _draw(opened, output, key, pipeline.to_float(original))
    if drawn is not None:
        floats: Any = drawn.floats
        found = {"noisy": noisy, "one_step": one_step, "annealed": floats.reshape(noisy.shape)}
        _write(opened, output, original, found, time.perf_counter() - begun, _FLAGS.caveats(drawn))


def _levels(opened: "TrainedRun") -> list[int]:
    """The levels at which images are denoised, as numbers of the sampler's segments."""
    count = len(opened.builder.sampler_grid)
    return np.linspace(0, count - 1, min(count, _MOST_LEVELS)).round().astype(int).tolist()


def _draw(
    opened: "TrainedRun", output: pathlib.Path, key: dict[str, Any], images: np.ndarray
) -> "tuple[np.ndarray, np.ndarray, Drawn | None]":
    """The noisy images and those denoised by one step, float32 [levels, N, H, W, C], and the annealed ones by row."""
    import tensorflow as tf

    from ncsn_tf import times
    from ncsn_tf.guidance import denoising
    from ncsn_tf.samplers.driver import FixedSteps

    builder, grid, count = opened.builder, opened.builder.sampler_grid, len(images)
    block = min(_BATCH_SIZE.value, count)
    encoded = builder.value_range.encode(images)

    def start(numbers: tf.Tensor, time_of_level: tf.Tensor):
        return denoising.start(numbers, time_of_level, encoded, builder.sde, run_seed=_FLAGS.seed.value)

    levels, chosen = len(grid), _levels(opened)
    single = FixedSteps(
        builder.sde,
        denoising.OneStep(builder.sde),
        times.repeat_times(grid, 1),
        segments=levels,
        strategy=opened.strategy,
    )
    annealed = opened.block_sampler(start, block)
    once = opened.block_sampler(start, block, sampler=single)
    decode = builder.value_range.decode
    noisy, one_step = [], []
    with run.levels_shown(len(chosen)) as bar, _FLAGS.stored(opened, output, key) as rows:
        for number, level in enumerate(chosen):
            time_of_level = tf.constant(grid[level])
            alpha = float(builder.sde.marginal(time_of_level[None])[0][0])
            noisy.append(decode(once.starts(count, time_of_level) / alpha))
            one_step.append(decode(once.draw_rows(count, time_of_level, span=(level, level + 1))["x"]))
            opened.fill(rows, annealed, count, first=number * count, arguments=(time_of_level,), span=(level, levels))
            bar.update()
        drawn = None if rows is None else rows.finish(len(chosen) * count)
    return np.stack(noisy), np.stack(one_step), drawn


def _write(
    opened: "TrainedRun",
    output: pathlib.Path,
    original: np.ndarray,
    found: dict[str, np.ndarray],
    seconds: float,
    caveats: list[str],
) -> None:
    """Writes the picture, the arrays and the table, and prints the table."""
    import tensorflow as tf

    from ncsn_tf import files, pictures
    from ncsn_tf.data import pipeline
    from ncsn_tf.guidance import denoising

    images = pipeline.to_float(original)
    grid = opened.builder.sampler_grid[_levels(opened)]
    sigmas = opened.builder.sde.marginal(tf.constant(grid))[1].numpy()
    table = []
    for level, sigma in enumerate(sigmas):
        ratios = {name: denoising.signal_to_noise(values[level], images) for name, values in found.items()}
        means = {name: list(denoising.mean_and_error(values)) for name, values in ratios.items()}
        table.append({"sigma": float(sigma), **means})
    arrays = {name: pipeline.to_uint8(values) for name, values in found.items()}
    files.write_npz_arrays(output / "denoising.npz", {"original": original, **arrays})
    # [image, way, level, ...], with the original in a last column of its own.
    shown = np.stack([arrays[name][:, :_SHOWN] for name in arrays], axis=1).transpose(2, 1, 0, 3, 4, 5)
    last = np.broadcast_to(original[:_SHOWN, None, None], (*shown.shape[:2], 1, *opened.shape))
    shown = np.concatenate([shown, last], axis=2)
    pictures.save_grid(output / "denoising.png", shown.reshape(-1, *opened.shape), columns=shown.shape[2])
    files.write_json(
        output / run.ABOUT, {"psnr": table, "warnings": caveats, "seconds": round(seconds, 1), **_FLAGS.record(opened)}
    )
    print("Peak signal-to-noise ratio, dB (standard error)\n   sigma      noisy           one step        annealed")
    for row in table:
        cells = "".join(f"{row[name][0]:8.2f} ({row[name][1]:.2f})" for name in found)
        print(f"{row['sigma']:8.4f} {cells}")
    print(f"Picture and arrays: {output}")


def entry_point() -> None:
    """Entry point of `ncsn-denoise`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
