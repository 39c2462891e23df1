"""The adapter: the one place where a network's output becomes the score of the perturbed data."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import times
from ncsn_tf.sde import VE

ScoreFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""score_fn(x: [B, ...], t: [B]) -> [B, ...], the gradient of log p_t at x."""


def expand(coefficients: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshapes [B] to [B, 1, ..., 1] so that it multiplies `like`, [B, ...]."""
    return tf.reshape(coefficients, [-1] + [1] * (len(like.shape) - 1))


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreModel:
    """A network conditioned on the index of a noise level, seen as a score function.

    Attributes:
      network: `network(x, level)`, a Keras model.
      sde: the SDE that perturbs the data.
      times: float32 [L], the strictly decreasing grid of t whose indices condition the network.
      divide_by_sigma: whether the score is the network's output divided by sigma(t) (Song & Ermon 2020, Technique 3)
        or, as in NCSN, the output itself.
      centred: whether the network wants images of [0, 1] mapped to [-1, 1]. The output stays the gradient with
        respect to the image in [0, 1]: networks of this family learn the factor 2.

    Raises:
      ValueError: if `times` is not a grid of levels.
    """

    network: Callable
    sde: VE
    times: np.ndarray
    centred: bool = True
    divide_by_sigma: bool = False

    def __post_init__(self):
        times.check(self.times)

    def level(self, t: tf.Tensor) -> tf.Tensor:
        """The index of the grid's time nearest to t, int32 [B]."""
        return tf.argmin(tf.abs(t[:, None] - self.times[None, :]), axis=1, output_type=tf.int32)

    def score(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """The score at x, [B, ...], of the data perturbed to time t, [B]; t is taken to the nearest level."""
        return self._output(x, t)

    def _output(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        output = self.network(2.0 * x - 1.0 if self.centred else x, self.level(t))
        return output / expand(self.sde.marginal(t)[1], output) if self.divide_by_sigma else output


def from_energy(energy_fn: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> ScoreFunction:
    """The score of the unnormalised density exp(-energy): minus the gradient of the energy.

    The normaliser does not depend on x, so every objective trains an energy through this function and every sampler
    draws from it. It is exactly the gradient of a function, which the output of a score network need not be.

    Args:
      energy_fn: (x [B, ...], t [B]) -> [B], the energy of each example.

    Returns:
      The score function.

    Raises:
      ValueError: when called, if x is not of floats or the energies are not one number an example.
    """

    def score_fn(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_floating:
            raise ValueError(f"An energy is differentiated at floats; cast x. Received: {x.dtype.name}.")
        with tf.GradientTape() as tape:
            tape.watch(x)
            energy = energy_fn(x, t)
        if not energy.shape.is_compatible_with(x.shape[:1]):
            raise ValueError(f"An energy is one number an example, {x.shape[:1]}. Received: {energy.shape}.")
        gradient: Any = tape.gradient(energy, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return -gradient

    return score_fn


@dataclasses.dataclass(frozen=True, eq=False)
class EnergyModel(ScoreModel):
    """A scalar network conditioned on the index of a noise level, seen as an energy and as its score function.

    Attributes:
      network: `network(x, level)`, a Keras model that returns one number an example, [B] or [B, 1]: -log p_t(x) up to a
        constant of its own at each level.
      sde, times, centred, divide_by_sigma: as for `ScoreModel`; the energy is divided by sigma(t) where the score is.
    """

    def energy(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """The energy of x, [B, ...], at time t, [B]; t is taken to the nearest level."""
        output = self._output(x, t)
        return tf.squeeze(output, axis=1) if output.shape.rank == 2 and output.shape[1] == 1 else output

    def score(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """The score at x, [B, ...], of the data perturbed to time t, [B]: minus the gradient of the energy."""
        return from_energy(self.energy)(x, t)


def denoise(score_fn: ScoreFunction, sde: VE, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """The mean of the clean example given the noisy one, by Tweedie's formula.

        E[x_0 | x_t] = (x_t + sigma^2 score(x_t, t)) / alpha

    Args:
      score_fn: the score function.
      sde: the SDE that perturbed the data.
      x: [B, ...], perturbed examples.
      t: [B], their times.

    Returns:
      [B, ...].

    Reference:
      Jolicoeur-Martineau et al., Adversarial score matching and improved sampling, 2021, section 3; Efron 2011.
    """
    alpha, sigma = sde.marginal(t)
    return (x + expand(sigma**2, x) * score_fn(x, t)) / expand(alpha, x)
