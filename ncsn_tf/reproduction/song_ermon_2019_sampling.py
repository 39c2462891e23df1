"""Figures 3 and 4 of Song & Ermon, Generative modeling by estimating gradients of the data distribution, 2019.

Both show Langevin dynamics: why it needs annealing, and the intermediate samples of the annealed one.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import pictures, random, times
from ncsn_tf.data import pipeline
from ncsn_tf.densities.toy import Mixture
from ncsn_tf.reproduction.figure import Figure
from ncsn_tf.runs import TrainedRun
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.sde import VE
from ncsn_tf.training.run_directory import RunDirectory

_SQUARE = 8.0
"""Walks start uniformly in [-8, 8]^2."""


def figure3(*, num_samples: int = 10_000, seed: int = 0) -> Figure:
    """Figure 3: samples of a mixture drawn exactly, by Langevin dynamics, and by annealed Langevin dynamics.

    All use the mixture's exact scores, so the errors are the sampler's own. As in appendix B.1, Langevin dynamics
    takes 1,000 steps of epsilon = 0.1, and the annealed one 100 steps of epsilon = 0.1 at each of 10 levels from 20 to
    1. With more samples than the paper's 1,280, the bias of such a short annealing becomes visible: the smaller mode
    gets 0.218 +- 0.001 of 100,000 samples, and with 100 levels 0.201 +- 0.001. So the figure shows both.

    Args:
      num_samples: samples per sampler, at least 2; the paper shows 1,280.
      seed: the seed of the samples.

    Raises:
      ValueError: for fewer than 2 samples.
    """
    if num_samples < 2:
        raise ValueError(f"A standard error needs 2 or more samples. Received: {num_samples}.")
    density, sde = Mixture.two_modes(), VE(sigma_max=20.0, sigma_min=1.0)
    rows = random.per_example(random.stream_seed(seed, random.Stream.SAMPLE), tf.range(num_samples))
    start = _SQUARE * (2.0 * random.uniform(random.fold_each(rows, random.Stream.PRIOR), (2,)) - 1.0)
    epsilon = 0.1
    # The time is arbitrary: this score ignores it.
    plain = driver.FixedSteps(
        sde, langevin.Langevin(langevin.constant(epsilon)), times.repeat_times(np.zeros(1), 1_000), jit_compile=True
    )

    def annealed(num_levels: int) -> tf.Tensor:
        step = langevin.Langevin(langevin.annealed(sde, epsilon))
        rows_of_levels = times.repeat_times(times.uniform(num_levels), 100)
        return driver.FixedSteps(sde, step, rows_of_levels, jit_compile=True)(density.score_fn(sde), start, rows).x

    samples = {
        "exact sampling": density.sample(rows),
        "Langevin dynamics": plain(lambda x, t: density.score(x), start, rows).x,
        "annealed, 10 levels": annealed(10),
        "annealed, 100 levels": annealed(100),
    }
    weights = {name: mode_weights(density, x) for name, x in samples.items()}
    numbers = {"num_samples": num_samples, "seed": seed, "true_weights": density.weights.tolist(), "weights": weights}
    caption = (
        "Exact samples of 1/5 N((-5, -5), I) + 4/5 N((5, 5), I), and those of Langevin dynamics and annealed Langevin "
        "dynamics with exact scores: plain dynamics splits them by where it started, annealing restores the weights. "
        "(The annealed samples are of the data blurred by the last level, sigma = 1.)"
    )
    return Figure(numbers, draw_samples({name: x.numpy() for name, x in samples.items()}, weights), caption)


def mode_weights(density: Mixture, x: tf.Tensor) -> dict[str, Any]:
    """Compares each component's weight with the share of samples of which it is the most probable component.

    Returns:
      `weights` and their `standard_errors`, sqrt(w (1 - w) / N) at the true w; `deviations`, in standard errors.
    """
    shares = np.bincount(tf.argmax(density.responsibilities(x), axis=1), minlength=len(density.weights)) / len(x)
    errors = np.sqrt(density.weights * (1.0 - density.weights) / len(x))
    return {
        "weights": shares.tolist(),
        "standard_errors": errors.tolist(),
        "deviations": ((shares - density.weights) / errors).tolist(),
    }


def draw_samples(
    samples: dict[str, np.ndarray], weights: dict[str, dict[str, Any]], shown: int = 1_280
) -> "pictures.Figure":
    """Draws the first samples of each sampler as a scatter plot, with the weights above it."""
    with pictures.drawn(3.5 * len(samples), 3.9) as picture:
        panels: list[Any] = list(np.atleast_1d(picture.subplots(1, len(samples), sharex=True, sharey=True)))
        for axes, (name, x) in zip(panels, samples.items(), strict=True):
            axes.scatter(*x[:shown].T, s=3, alpha=0.5)
            low, high = weights[name]["weights"]
            axes.set_title(f"{name}\n{low:.3f} and {high:.3f}, s.e. {weights[name]['standard_errors'][0]:.3f}")
            axes.set_xlim(-_SQUARE - 2.0, _SQUARE + 2.0)
            axes.set_ylim(-_SQUARE - 2.0, _SQUARE + 2.0)
            axes.set_aspect("equal")
    return picture


def figure4(directory: RunDirectory, *, checkpoint: int | None = None, num_samples: int = 10, seed: int = 0) -> Figure:
    """Figure 4: the intermediate samples of annealed Langevin dynamics, from a trained run.

    Args:
      directory: the run.
      checkpoint: the checkpoint's step; the newest by default.
      num_samples: the number of walks to show, one per row.
      seed: the seed of the samples; sample i is that of `launch.sample` with this seed.

    Raises:
      ValueError: if there is no such run or checkpoint, or its sampler is not annealed Langevin dynamics.
    """
    if num_samples < 1:
        raise ValueError(f"The figure needs 1 or more samples. Received: {num_samples}.")
    run = TrainedRun(directory)
    builder = run.builder
    name = builder.sampler_key["name"]
    if name != "annealed_langevin":
        raise ValueError(
            f"Figure 4 shows annealed Langevin dynamics, and {directory.path} has another sampler. Give a run whose "
            f"sampler.name is annealed_langevin. Received: {name}."
        )
    run.load(checkpoint)
    frames: list[np.ndarray] = []
    samples = run.block_sampler(run.start_samples(seed), num_samples).draw(
        0, on_frame=lambda first, level, x: frames.append(builder.value_range.decode(x))
    )
    levels = [
        {
            "sigma": float(sigma),
            "mean": float(frame.mean()),
            "outside_0_1": float(np.mean((frame < 0.0) | (frame > 1.0))),
            "rms_distance_to_the_end": float(np.sqrt(np.mean((frame - frames[-1]) ** 2))),
        }
        for sigma, frame in zip(builder.sigmas, frames, strict=True)
    ]
    numbers = {
        "step": run.step,
        "seed": seed,
        "sampler": name,
        "score_evaluations_per_sample": int(samples["evaluations"][0]),
        "levels": levels,
    }
    caption = (
        "Annealed Langevin dynamics: one walk per row, its state at the end of each noise level from left to right."
    )
    return Figure(numbers, draw_trajectory(np.stack(frames), builder.sigmas), caption)


def draw_trajectory(frames: np.ndarray, sigmas: np.ndarray) -> "pictures.Figure":
    """Draws float images [levels, N, H, W, C] in [0, 1]: rows are samples, columns are levels."""
    by_sample = np.swapaxes(pipeline.to_uint8(frames), 0, 1)
    grid = pictures.tile(by_sample.reshape(-1, *frames.shape[2:]), columns=len(frames))
    height, width = grid.shape[:2]
    with pictures.drawn(0.9 * len(sigmas), 0.9 * len(sigmas) * height / width) as picture:
        axes = picture.subplots()
        axes.imshow(grid, interpolation="nearest")
        axes.set_xticks((np.arange(len(sigmas)) + 0.5) * width / len(sigmas), [f"{sigma:.2g}" for sigma in sigmas])
        axes.set_yticks([])
        axes.set_xlabel("sigma")
    return picture
