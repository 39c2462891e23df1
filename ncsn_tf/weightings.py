"""Weights of the loss at each time of an SDE."""

from collections.abc import Callable

import tensorflow as tf

from ncsn_tf.score import Output
from ncsn_tf.sde import SDE

Weighting = Callable[[SDE, tf.Tensor], tf.Tensor]
"""weighting(sde, t: [B]) -> [B], the weight of the loss at each time."""


def sigma_squared(sde: SDE, t: tf.Tensor) -> tf.Tensor:
    """The weighting sigma(t)^2, with which all levels of denoising have about the same weight.

    Where the noise is wider than the data, or the data are near a manifold, a score is of size 1 / sigma, and sigma *
    score of size 1 (lambda(sigma) = sigma^2 below equation 6 of Song & Ermon 2019; sigma^-2 there is a misprint).
    """
    return sde.marginal(t)[1] ** 2


def sigma_power(power: float) -> Weighting:
    """The weighting sigma(t)^power; 2 is `sigma_squared`, 0 leaves the losses as they are."""
    return lambda sde, t: sde.marginal(t)[1] ** power


def likelihood(sde: SDE, t: tf.Tensor) -> tf.Tensor:
    """The weighting g(t)^2, with which the loss bounds the likelihood (Song, Durkan et al. 2021, theorem 1)."""
    return sde.diffusion(t) ** 2


def of_output(output: Output) -> Weighting:
    """The weighting 1 / c_out^2, with which the loss is the squared error of the network's own output.

    For a network that predicts the noise it is sigma^2; for the preconditioning of Karras et al. 2022 it is the weight
    that they give the denoiser's error. The loss of an untrained network is then about the same at every noise level.
    """

    def weighting(sde: SDE, t: tf.Tensor) -> tf.Tensor:
        _, _, c_out = output(*sde.marginal(t))
        return tf.ones_like(t) / tf.cast(c_out, t.dtype) ** 2

    return weighting
