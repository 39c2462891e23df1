"""Closed forms that the library is checked against, independent of its code."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf import random


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Data N(mean, deviation^2) in every dimension, perturbed by an SDE with alpha = 1.

    Attributes:
      mean: m.
      deviation: s.
    """

    mean: float
    deviation: float

    def variance(self, sigma):
        """v = s^2 + sigma^2, the variance of the perturbed data."""
        return self.deviation**2 + np.asarray(sigma, np.float64) ** 2

    def score_fn(self, sigma_of_t):
        """The exact score function, (x, t) -> -(x - m) / (s^2 + sigma(t)^2)."""

        def score(x, t):
            sigma = tf.reshape(sigma_of_t(t), [-1] + [1] * (len(x.shape) - 1))
            return -(x - self.mean) / (self.deviation**2 + sigma**2)

        return score

    def denoised(self, x, sigma):
        """The posterior mean of the clean value, (x s^2 + m sigma^2) / (s^2 + sigma^2)."""
        return (x * self.deviation**2 + self.mean * sigma**2) / self.variance(sigma)

    def denoising_loss(self, sigma):
        """The least denoising loss per dimension with weight sigma^2: 1/2 s^2 / (s^2 + sigma^2)."""
        return 0.5 * self.deviation**2 / self.variance(sigma)

    def langevin_variance(self, sigma, step_size):
        """Stationary variance of x + a/2 score + sqrt(a) z: v / (1 - a / (4 v)), not v."""
        v = self.variance(sigma)
        return v / (1.0 - step_size / (4.0 * v))


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The paper's mixture of two unit Gaussians in the plane, 1/5 N((-5,-5), I) + 4/5 N((5,5), I) (section 3.2.2)."""

    weights: tuple[float, ...] = (0.2, 0.8)
    centres: tuple[float, ...] = (-5.0, 5.0)

    def score_fn(self, sigma_of_t):
        """The exact score of the perturbed mixture."""
        means = tf.constant([[c, c] for c in self.centres])
        log_weights = tf.math.log(tf.constant(self.weights))

        def score(x, t):
            variance = 1.0 + sigma_of_t(t)[:, None, None] ** 2
            difference = means[None] - x[:, None]
            logits = log_weights - 0.5 * tf.reduce_sum(difference**2, -1) / variance[:, 0]
            return tf.reduce_sum(tf.nn.softmax(logits)[..., None] * difference / variance, axis=1)

        return score


@dataclasses.dataclass(frozen=True)
class Cosine:
    """An SDE of a user's own, by the protocol: alpha = cos(a t), sigma = sin(a t), data within [-1, 1].

    By default a = pi / 2, so that no signal is left at t=1, where the drift is infinite.
    """

    angle: float = 0.5 * np.pi
    data_range = (-1.0, 1.0)
    first_time = 1e-3

    def marginal(self, t):
        angle = self.angle * tf.convert_to_tensor(t)
        return tf.cos(angle), tf.sin(angle)

    def drift(self, t):
        return -self.angle * tf.tan(self.angle * t)

    def diffusion(self, t):
        return tf.sqrt(2.0 * self.angle * tf.tan(self.angle * t))

    def time(self, noise_ratio):
        return tf.atan(noise_ratio) / self.angle

    def prior_sample(self, seeds, shape):
        return random.normal(seeds, shape)

    def prior_log_prob(self, x):
        flat = tf.reshape(x, [tf.shape(x)[0], -1])
        return -0.5 * tf.reduce_sum(flat**2 + np.log(2.0 * np.pi), axis=1)


def standard_error_of_variance(variance, count):
    """Standard error of the sample variance of `count` independent normal draws."""
    return variance * np.sqrt(2.0 / (count - 1))
