"""Figures 1 and 2 of Song & Ermon, Generative modeling by estimating gradients of the data distribution, 2019.

Both show where score matching goes wrong: on data without noise, and where there are no data.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, pictures, random, score, time_draws
from ncsn_tf.data import images, pipeline
from ncsn_tf.densities.toy import Mixture
from ncsn_tf.networks.mlp import MLP
from ncsn_tf.networks.ncsn import NCSN
from ncsn_tf.progress import progress_bar
from ncsn_tf.reproduction.figure import Figure
from ncsn_tf.score import ScoreFunction, ScoreModel
from ncsn_tf.sde import VE
from ncsn_tf.training.optimizers import ReducedAdam
from ncsn_tf.training.trainer import Trainer

_ONE_TIME = np.zeros(1, np.float32)
"""The grid of a score that is not conditioned on noise: one time, whose index is the network's condition."""

_UNUSED = VE(sigma_max=1.0, sigma_min=0.01)
"""An SDE for score models whose objective does not use it."""


# Figure 1: sliced score matching on data with and without a little noise


def figure1(
    source: images.ImageSource | None = None,
    *,
    steps: int = 2_000,
    sigmas: tuple[float, ...] = (0.0, 0.01),
    filters: int = 16,
    batch_size: int = 64,
    seed: int = 0,
) -> Figure:
    """Figure 1: the loss of sliced score matching on clean images, and on images with noise N(0, 1e-4).

    The paper trains a ResNet on CIFAR-10; this is NCSN with one level, by default on scikit-learn's digits.

    Args:
      source: the images.
      steps: training steps of each curve, at least 40.
      sigmas: standard deviations of the noise, in units of the pixel range; 0 for none.
      filters: width of the network.
      batch_size: images per step.
      seed: the seed of weights, order, noise and slices.

    Raises:
      ValueError: for too few steps.
    """
    source = images.load("digits", "train") if source is None else source
    points = steps // _STEPS_A_POINT
    if points < 4:
        raise ValueError(f"The curves need {4 * _STEPS_A_POINT} or more steps. Received: {steps}.")
    curves = {sigma: _sliced_losses(source, sigma, points, filters, batch_size, seed) for sigma in sigmas}
    numbers = {
        "images": source.name,
        "shape": list(source.shape),
        "steps": points * _STEPS_A_POINT,
        "batch_size": batch_size,
        "filters": filters,
        "seed": seed,
        "steps_a_point": _STEPS_A_POINT,
        "curves": [
            {"sigma": sigma, "fluctuation": fluctuation(losses), "losses": losses.tolist()}
            for sigma, losses in curves.items()
        ],
    }
    measured = ", ".join(f"{curve['fluctuation']:.2g} with sigma = {curve['sigma']:g}" for curve in numbers["curves"])
    caption = (
        f"Sliced score matching on images with noise and without. The loss fluctuates, late in training, by {measured}."
    )
    return Figure(numbers, draw_losses(numbers), caption)


_STEPS_A_POINT = 10


def fluctuation(losses: np.ndarray) -> float:
    """The relative fluctuation of the second half of a curve, without units.

    The root mean square of the changes from point to point, divided by sqrt(2), so that independent errors give their
    own standard deviation, and by the median magnitude of the loss in that half.
    """
    half = np.asarray(losses)[len(losses) // 2 :]
    return float(np.sqrt(0.5 * np.mean(np.diff(half) ** 2)) / np.median(np.abs(half)))


def _sliced_losses(
    source: images.ImageSource, sigma: float, points: int, filters: int, batch_size: int, seed: int
) -> np.ndarray:
    """Trains, and returns the mean losses of successive training loops, [points]."""
    trainer = _trainer(
        lambda: _image_network(source.shape, filters, seed),
        lambda score_fn, x, t, z, v: objectives.sliced(score_fn, x + sigma * z, t, v),
        batch_size=batch_size,
        seed=seed,
    )
    batches = iter(pipeline.training_batches(source, global_batch_size=batch_size, seed=seed, dequantize=False))
    losses = []
    with progress_bar(points * _STEPS_A_POINT, "step") as bar:
        bar.set_description(f"sigma {sigma:g}")
        for _ in range(points):
            losses.append(trainer.run(batches, _STEPS_A_POINT).loss)
            bar.update(_STEPS_A_POINT)
    return np.array(losses)


def _image_network(shape: tuple[int, int, int], filters: int, seed: int) -> keras.Model:
    network = NCSN(channels=shape[-1], num_levels=1, filters=filters, seed=seed)
    network.build((None, *shape), (None,))
    return network


def draw_losses(numbers: dict[str, Any]) -> "pictures.Figure":
    """Draws the curves of `figure1`, one panel per curve, since their scales differ."""
    with pictures.drawn(10.0, 3.5) as picture:
        for axes, curve in zip(
            np.atleast_1d(picture.subplots(1, len(numbers["curves"]))), numbers["curves"], strict=True
        ):
            steps = numbers["steps_a_point"] * (1 + np.arange(len(curve["losses"])))
            axes.plot(steps, curve["losses"], lw=0.8)
            axes.set_yscale("symlog", linthresh=100.0)
            noise_name = f"N(0, {curve['sigma'] ** 2:.0e})" if curve["sigma"] else "no noise"
            axes.set_title(f"{noise_name}: fluctuation {curve['fluctuation']:.2g}")
            axes.set_xlabel("step")
            axes.set_ylabel("sliced score matching loss")
    return picture


def _trainer(network: Callable[[], keras.Model], objective: Callable, *, batch_size: int, seed: int) -> Trainer:
    """A trainer of one unconditional score by sliced score matching, with Adam at the paper's 0.001."""
    condition = score.nearest_level(_ONE_TIME)
    models = [ScoreModel(network(), _UNUSED, condition=condition) for _ in range(2)]
    return Trainer(
        strategy=tf.distribute.get_strategy(),
        model=models[0],
        average_model=models[1],
        draw=time_draws.Levels(_ONE_TIME, ("all",)),
        objective=objective,
        optimizer=ReducedAdam(1e-3),
        ema_decay=0.999,
        run_seed=seed,
        batch_size=batch_size,
        draw_slices=lambda seeds, shape: random.normal(seeds, (1, *shape)),
    )


# Figure 2: where a learnt score is right


def figure2(*, steps: int = 10_000, batch_size: int = 128, seed: int = 0) -> Figure:
    """Figure 2: the score of a mixture of two Gaussians, and the one that sliced score matching learns from samples.

    The network and the training are the paper's (appendix B.1). The weights used are the moving average.

    Args:
      steps: training steps.
      batch_size: fresh samples per step.
      seed: the seed of weights, samples and slices.

    Raises:
      ValueError: for fewer than 1 step.
    """
    if steps < 1:
        raise ValueError(f"Training needs 1 or more steps. Received: {steps}.")
    density = Mixture.two_modes()
    base = random.stream_seed(seed, random.Stream.DATA_ORDER)

    def sample(example: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": density.sample(random.per_example(base, example)), "example": example}

    def network() -> keras.Model:
        network = MLP(2, num_levels=1, width=128, depth=2, seed=seed)
        network.build((None, 2), (None,))
        return network

    trainer = _trainer(
        network,
        lambda score_fn, x, t, z, v: objectives.sliced(score_fn, x, t, v),
        batch_size=batch_size,
        seed=seed,
    )
    batches = iter(tf.data.Dataset.counter().batch(batch_size, drop_remainder=True).map(sample))
    with progress_bar(steps, "step") as bar:
        for done in range(0, steps, 100):
            trainer.run(batches, taken := min(100, steps - done))
            bar.update(taken)
    numbers, fields = score_errors(density, trainer.average_model.score)
    numbers |= {"steps": steps, "batch_size": batch_size, "seed": seed}
    caption = (
        "The score of 1/5 N((-5, -5), I) + 4/5 N((5, 5), I), the score learnt from samples by sliced score matching, "
        "and the learnt one's error: small only where there are data."
    )
    return Figure(numbers, draw_scores(*fields), caption)


def score_errors(density: Mixture, score_fn: ScoreFunction, half: float = 8.0, points: int = 161):
    """Compares a learnt score with the true one, by region of density.

    Args:
      density: the true density, in the plane.
      score_fn: the learnt score.
      half: the grid covers [-half, half]^2.
      points: grid points along a side.

    Returns:
      (numbers, (axis, log_density, true, learnt)). The numbers: the mean squared error over the data, E |s - s*|^2; and
      for regions of the grid by density relative to its peak, the root mean square of the error and of the true score.
    """
    axis = np.linspace(-half, half, points, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    places = tf.constant(grid)
    log_density = density.log_prob(places).numpy()
    true, learnt = density.score(places).numpy(), score_fn(places, tf.zeros(len(grid))).numpy()
    squares, sizes = np.sum((learnt - true) ** 2, axis=1), np.sum(true**2, axis=1)
    below_peak = (log_density.max() - log_density) / np.log(10.0)
    bounds = [0.0, 2.0, 4.0, 8.0, np.inf]
    regions = []
    for low, high in zip(bounds, bounds[1:], strict=False):
        inside = (below_peak >= low) & (below_peak < high)
        regions.append(
            {
                "density": f"peak times 1e-{low:g}" + (f" to 1e-{high:g}" if np.isfinite(high) else " and below"),
                "probability": float(np.exp(log_density[inside]).sum() * (axis[1] - axis[0]) ** 2),
                "rms_error": float(np.sqrt(squares[inside].mean())),
                "rms_score": float(np.sqrt(sizes[inside].mean())),
                "relative_error": float(np.sqrt(squares[inside].mean() / sizes[inside].mean())),
            }
        )
    rows = random.per_example(random.seed(12345), tf.range(20_000))
    x = density.sample(rows)
    over_data = tf.reduce_sum((score_fn(x, tf.zeros(len(x))) - density.score(x)) ** 2, axis=1)
    numbers = {"mean_squared_error_over_the_data": float(tf.reduce_mean(over_data)), "regions": regions}
    shape = (points, points)
    return numbers, (axis, log_density.reshape(shape), true.reshape(*shape, 2), learnt.reshape(*shape, 2))


def draw_scores(axis: np.ndarray, log_density: np.ndarray, true: np.ndarray, learnt: np.ndarray) -> "pictures.Figure":
    """Draws the true and the learnt field over the density, and the norm of their difference."""
    with pictures.drawn(12.0, 4.2) as picture:
        panels = picture.subplots(1, 3)
        every = max(1, len(axis) // 20)
        thin = slice(every // 2, None, every)
        extent = (axis[0], axis[-1], axis[0], axis[-1])
        for axes, field, title in zip(panels, (true, learnt), ("score of the data", "learnt score"), strict=False):
            axes.imshow(np.exp(log_density), origin="lower", extent=extent, cmap="Oranges")
            arrows = field[thin, thin]
            axes.quiver(axis[thin], axis[thin], arrows[..., 0], arrows[..., 1], scale=120.0, width=0.004)
            axes.set_title(title)
        error = np.sqrt(np.sum((learnt - true) ** 2, axis=-1))
        shown = panels[2].imshow(np.log10(error), origin="lower", extent=extent, cmap="viridis")
        panels[2].contour(axis, axis, log_density - log_density.max(), [np.log(1e-2)], colors="white")
        panels[2].set_title("error (lines: 1e-2 of the peak density)")
        picture.colorbar(shown, ax=panels[2], shrink=0.8, label="log10 of the error's norm")
    return picture
