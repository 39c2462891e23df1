"""The adapter: the one place where a network's output becomes the score of the perturbed data."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ncsn_tf import times
from ncsn_tf.sde import SDE

ScoreFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""score_fn(x: [B, ...], t: [B]) -> [B, ...], the gradient of log p_t at x."""

Coefficient = float | tf.Tensor
"""A coefficient of an output: [B], or a Python number that is the same at all times."""

Output = Callable[[tf.Tensor, tf.Tensor], tuple[Coefficient, Coefficient, Coefficient]]
"""output(alpha [B], sigma [B]) -> (c_in, c_skip, c_out): score = c_skip x + c_out network(c_in x, condition)."""

Condition = Callable[[SDE, tf.Tensor], tf.Tensor | None]
"""condition(sde, t [B]) -> [B] or None: the network's second input, which tells it the time."""


def expand(coefficients: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshapes [B] to [B, 1, ..., 1] so that it multiplies `like`, [B, ...]."""
    return tf.reshape(coefficients, [-1] + [1] * (len(like.shape) - 1))


# Outputs: the meaning of a network's output.


def score(alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[Coefficient, Coefficient, Coefficient]:
    """The network returns the score itself (NCSN; continuous VE models of Song et al. 2021)."""
    return 1.0, 0.0, 1.0


def score_over_sigma(alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[Coefficient, Coefficient, Coefficient]:
    """The network returns sigma times the score (Song & Ermon 2020, Technique 3)."""
    return 1.0, 0.0, 1.0 / sigma


def noise(alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[Coefficient, Coefficient, Coefficient]:
    """The network returns the noise z of x = alpha x_0 + sigma z (Ho et al. 2020): score = -z / sigma."""
    return 1.0, 0.0, -1.0 / sigma


def clean_image(alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[Coefficient, Coefficient, Coefficient]:
    """The network returns x_0: score = (alpha x_0 - x) / sigma^2, Tweedie's formula."""
    return 1.0, -1.0 / sigma**2, alpha / sigma**2


def velocity(alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[Coefficient, Coefficient, Coefficient]:
    """The network returns v = alpha z - sigma x_0, where alpha^2 + sigma^2 = 1 (Salimans & Ho 2022, section 4)."""
    return 1.0, -1.0, -alpha / sigma


def edm(sigma_data: float) -> Output:
    """The preconditioning of Karras et al. 2022, table 1, as an output.

    With s^2 = sigma^2 + alpha^2 sigma_data^2,

        c_in = 1 / s,   c_skip = -1 / s^2,   c_out = alpha sigma_data / (sigma s).

    These follow from the paper's denoiser by Tweedie's formula, for x / alpha at the noise ratio sigma / alpha. The
    difference (c_skip of the paper - 1) / sigma^2 would lose precision at a small sigma; -1 / s^2 does not.

    Args:
      sigma_data: the standard deviation of the data, positive, in data units.

    Raises:
      ValueError: if it is not positive and finite.
    """
    if not 0.0 < sigma_data < float("inf"):
        raise ValueError(f"sigma_data must be positive and finite. Received: {sigma_data}.")

    def output(alpha: tf.Tensor, sigma: tf.Tensor) -> tuple[Coefficient, Coefficient, Coefficient]:
        scale = tf.sqrt(sigma**2 + (alpha * sigma_data) ** 2)
        return 1.0 / scale, -1.0 / scale**2, alpha * sigma_data / (sigma * scale)

    return output


# Conditions: the inputs that tell a network the time.


def nearest_level(grid: np.ndarray) -> Condition:
    """The index of the grid's time nearest to t, int32 [B]; the grid is float [L], strictly decreasing.

    Raises:
      ValueError: if it is not a valid grid of times.
    """
    levels = times.check(grid)

    def condition(sde: SDE, t: tf.Tensor) -> tf.Tensor:
        return _nearest(levels, t)

    return condition


def _nearest(levels: np.ndarray, t: tf.Tensor) -> tf.Tensor:
    """The index of the level nearest to each time, int32 [B]."""
    return tf.argmin(tf.abs(t[:, None] - tf.cast(levels, t.dtype)[None, :]), axis=1, output_type=tf.int32)


def ddpm_step(grid: np.ndarray) -> Condition:
    """The step of DDPM nearest to t, int32 [B]: an index of `grid`, counted from the least noisy level, which is 0.

    Args:
      grid: float [L], strictly decreasing, such as `times.ddpm`.

    Raises:
      ValueError: if it is not a valid grid of times.
    """
    levels = times.check(grid)[::-1]

    def condition(sde: SDE, t: tf.Tensor) -> tf.Tensor:
        return _nearest(levels, t)

    return condition


def sigma(sde: SDE, t: tf.Tensor) -> tf.Tensor:
    """sigma(t), [B], as the continuous VE models of Song et al. 2021 take it."""
    return sde.marginal(t)[1]


def log_sigma(scale: float = 1.0) -> Condition:
    """scale log sigma(t), [B]; Karras et al. 2022 take a scale of 1/4."""
    return lambda sde, t: scale * tf.math.log(sde.marginal(t)[1])


def scaled_time(sde: SDE, t: tf.Tensor) -> tf.Tensor:
    """999 t, [B], as the continuous VP and sub-VP models of Song et al. 2021 take it."""
    return 999.0 * t


def unconditional(sde: SDE, t: tf.Tensor) -> None:
    """None: the network is not told the time."""
    return None


# Adapters


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreModel:
    """A network as a score function.

    Attributes:
      network: `network(x, condition, labels=None, dropout_seeds=None)`, a Keras model.
      sde: the SDE that perturbs the data.
      output: the meaning of the network's output.
      condition: the input that tells the network the time.
    """

    network: Callable
    sde: SDE
    output: Output = score
    condition: Condition = unconditional
    has_free_weights: ClassVar[bool] = False
    """True if some weights do not affect the score, so that they may lack a gradient."""

    def score(
        self,
        x: tf.Tensor,
        t: tf.Tensor,
        labels: tf.Tensor | None = None,
        dropout_seeds: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The score at x of the data perturbed to time t.

        Args:
          x: [B, ...].
          t: [B].
          labels: int32 [B], the classes, for a network that is conditioned on them; None for no class.
          dropout_seeds: int32 [B, 2], the seeds of dropout in training; None for no dropout.

        Returns:
          [B, ...].
        """
        given = {"labels": labels, "dropout_seeds": dropout_seeds}
        given = {name: value for name, value in given.items() if value is not None}
        c_in, c_skip, c_out = self.output(*self.sde.marginal(t))
        scored = _times(c_out, self.network(_times(c_in, x), self.condition(self.sde, t), **given))
        return scored if _is(c_skip, 0.0) else _times(c_skip, x) + scored


def _times(coefficient: Coefficient, x: tf.Tensor) -> tf.Tensor:
    if _is(coefficient, 1.0):
        return x
    return coefficient * x if isinstance(coefficient, float) else expand(tf.cast(coefficient, x.dtype), x) * x


def _is(coefficient: Coefficient, value: float) -> bool:
    return isinstance(coefficient, float) and coefficient == value


def from_energy(energy_fn: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> ScoreFunction:
    """The score of the unnormalised density exp(-energy): minus the gradient of the energy.

    The normaliser does not depend on x, so every objective trains an energy through this function and every sampler
    draws from it. The score is exactly the gradient of a function, which the output of a score network need not be.

    Args:
      energy_fn: (x [B, ...], t [B]) -> [B], the energy of each example.

    Returns:
      The score function.

    Raises:
      ValueError: when called, if x is not floating-point, or if there is not one energy per example.
    """

    def score_fn(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_floating:
            raise ValueError(f"The x of an energy must be floats; cast it. Received: {x.dtype.name}.")
        with tf.GradientTape() as tape:
            tape.watch(x)
            energy = energy_fn(x, t)
        if not energy.shape.is_compatible_with(x.shape[:1]):
            raise ValueError(f"An energy must be one number per example, {x.shape[:1]}. Received: {energy.shape}.")
        gradient: Any = tape.gradient(energy, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return -gradient

    return score_fn


@dataclasses.dataclass(frozen=True, eq=False)
class EnergyModel:
    """A scalar network as an energy and as its score function.

    Attributes:
      network: `network(x, condition)`, a Keras model that returns one number per example, [B] or [B, 1]: -log p_t(x) up
        to a constant that may depend on t.
      sde: the SDE that perturbs the data.
      condition: the input that tells the network the time.
      over_sigma: whether the energy is the network's output divided by sigma(t).
    """

    network: Callable
    sde: SDE
    condition: Condition = unconditional
    over_sigma: bool = False
    has_free_weights: ClassVar[bool] = True
    """True: the score does not depend on additive constants of the energy."""

    def energy(self, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """The energy of x, [B, ...], at time t, [B]."""
        energy = self.network(x, self.condition(self.sde, t))
        energy = tf.squeeze(energy, axis=1) if energy.shape.rank == 2 and energy.shape[1] == 1 else energy
        return energy / self.sde.marginal(t)[1] if self.over_sigma else energy

    def score(
        self,
        x: tf.Tensor,
        t: tf.Tensor,
        labels: tf.Tensor | None = None,
        dropout_seeds: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The score at x, [B, ...], of the data perturbed to time t, [B]: minus the gradient of the energy."""
        if labels is not None:
            raise ValueError("An energy cannot be conditioned on classes. Received: labels; leave them out.")
        del dropout_seeds  # an energy has no dropout
        return from_energy(self.energy)(x, t)


def denoise(score_fn: ScoreFunction, sde: SDE, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
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


def predicted_noise(score_fn: ScoreFunction, sde: SDE, x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """The mean of the noise z given x_t = alpha x_0 + sigma z: -sigma score(x_t, t).

    Args:
      score_fn: the score function.
      sde: the SDE that perturbed the data.
      x: [B, ...], perturbed examples.
      t: [B], their times.

    Returns:
      [B, ...].
    """
    _, sigma = sde.marginal(t)
    return -expand(sigma, x) * score_fn(x, t)


def flow_velocity(score_fn: ScoreFunction, sde: SDE) -> ScoreFunction:
    """The velocity of the probability flow, (x [B, ...], t [B]) -> dx/dt [B, ...].

        dx/dt = f(t) x - g(t)^2 score(x, t) / 2

    Its solutions have the same densities p_t as those of the SDE (Song et al. 2021, equation 13).
    """

    def velocity(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        f, g = sde.drift(t), sde.diffusion(t)
        return expand(f, x) * x - expand(0.5 * g**2, x) * score_fn(x, t)

    return velocity


def reverse_drift(score_fn: ScoreFunction, sde: SDE) -> ScoreFunction:
    """The drift of the reverse-time SDE, (x [B, ...], t [B]) -> [B, ...].

        dx = (f(t) x - g(t)^2 score(x, t)) dt + g(t) dw,   with time running backward

    Reference:
      Song et al. 2021, equation 6; Anderson 1982.
    """

    def drift(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        return expand(sde.drift(t), x) * x - expand(sde.diffusion(t) ** 2, x) * score_fn(x, t)

    return drift
