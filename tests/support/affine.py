"""The law of guided walks on Gaussian data with the exact score, without Monte Carlo, in float64.

Score, step and guidance are then affine in x and in all noise. Each is tried on unit vectors, and mean and covariance
are propagated through the matrices that this gives.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from ncsn_tf import score
from ncsn_tf.samplers.driver import NO_GUIDANCE, StepSeeds


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianData:
    """Images of a shape whose values are N(mean, covariance) together.

    Attributes:
      shape: (H, W, C).
      mean: float64 [D], D = H W C.
      covariance: float64 [D, D].
    """

    shape: tuple[int, int, int]
    mean: np.ndarray
    covariance: np.ndarray

    def score_fn(self, sde):
        """The score of the perturbed data, in the dtype of x."""
        values, vectors = np.linalg.eigh(self.covariance)

        def score_fn(x, t):
            alpha, sigma = (part[:, None] for part in sde.marginal(t))
            basis = tf.constant(vectors, x.dtype)
            flat = tf.reshape(x, [-1, len(self.mean)]) - alpha * tf.constant(self.mean, x.dtype)
            along = flat @ basis / (alpha**2 * tf.constant(values, x.dtype) + sigma**2)
            return tf.reshape(-along @ tf.transpose(basis), tf.shape(x))

        return score_fn

    def posterior(self, matrix, y, noise):
        """Mean and covariance given y [M] = matrix [M, D] x + noise z."""
        seen = matrix @ self.covariance @ matrix.T + noise**2 * np.eye(len(matrix))
        gain = self.covariance @ matrix.T @ np.linalg.pinv(seen, rcond=1e-10, hermitian=True)
        return self.mean + gain @ (y - matrix @ self.mean), self.covariance - gain @ matrix @ self.covariance


def example(shape, *, length=1.5, deviation=0.3, mean=0.1, seed=0):
    """Data whose pixels are correlated over a length, and whose channels are with 0.5; no two means are alike."""
    height, width, channels = shape
    rows, columns = (axis.ravel() for axis in np.mgrid[:height, :width])
    distance = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    pixels = np.exp(-distance / length)
    covariance = deviation**2 * np.kron(pixels, 0.5 * np.eye(channels) + 0.5)
    return GaussianData(shape, mean + 0.2 * np.random.default_rng(seed).normal(size=len(covariance)), covariance)


class Impulses:
    """Noise that is a unit vector in rows of its own: call number k has the rows first + k D to first + (k + 1) D."""

    def __init__(self, first, total):
        self.first, self.total, self.calls = first, total, 0

    def __call__(self, seeds, shape):
        size = int(np.prod(shape))
        values = np.zeros((self.total, size))
        start = self.first + self.calls * size
        self.calls += 1
        assert start + size <= self.total, "more calls for noise than was said"
        values[start : start + size] = np.eye(size)
        return tf.constant(values.reshape(self.total, *shape))


class Law:
    """The mean and covariance of walks by a one-step method.

    Args:
      data: the data.
      sde: the SDE.
      make_step: make_step(noise) -> the step; its calls for noise are counted in `noises`.
      make_guidance: make_guidance(noise) -> the guidance; None for none.
      given: tensors [1, ...] for the guidance, float64.
      noises: the number of calls for noise in a step.
    """

    def __init__(self, data, sde, make_step, make_guidance=None, given=(), noises=1):
        self.data, self.sde, self.size = data, sde, len(data.mean)
        self._total = 1 + (2 + noises) * self.size
        self._made = make_step, make_guidance
        self._given = [tf.repeat(tf.convert_to_tensor(part), self._total, axis=0) for part in given]

        @tf.function
        def response(t, t_next):
            return self._applied(t, t_next)

        self._response = response
        self._known = {}

    def _applied(self, t, t_next, what="step"):
        make_step, make_guidance = self._made
        size, total = self.size, self._total
        x = np.zeros((total, size))
        x[1 : 1 + size] = np.eye(size)
        x = tf.constant(x.reshape(total, *self.data.shape))
        guidance = make_guidance(Impulses(1 + size, total)) if make_guidance else NO_GUIDANCE
        step = make_step(Impulses(1 + 2 * size, total))
        guided = guidance.score(self.data.score_fn(self.sde), self.sde, tuple(self._given))
        t, t_next = tf.fill([total], t), tf.fill([total], t_next)
        nowhere = tf.zeros([total, 2], tf.int32)
        seeds = StepSeeds(nowhere, nowhere, tf.constant(0))
        mean = x
        if what == "step":
            x, mean, _ = step(guided, x, t, t_next, nowhere, step.start(x))
        if what == "finish":
            return tf.reshape(score.denoise(guided, self.sde, x, t_next), [total, size])
        return tf.reshape(guidance.project(x, mean, t_next, seeds, tuple(self._given))[0], [total, size])

    def _parts(self, responses):
        """The offset, and the matrices of x, of the guidance's noise and of the step's noise."""
        responses, size = responses.numpy(), self.size
        offset, unit = responses[0], (responses[1:] - responses[0]).T
        return offset, unit[:, :size], unit[:, size : 2 * size], unit[:, 2 * size :]

    def walk(self, rows, *, reference="step", starts=(0,), finish=False, prior=None):
        """(mean [D], covariance [D, D]) at the end of a walk along rows [N, 2] from the prior.

        Args:
          rows: the schedule.
          reference: when the guidance draws new noise: "walk", "level" or "step".
          starts: the rows at which levels start.
          finish: whether Tweedie's formula ends the walk.
          prior: the variance of the start; by default that of pure noise at t=1.
        """
        rows = np.asarray(rows, np.float64)
        sigma = float(self.sde.marginal(tf.constant([rows[0, 0]], tf.float64))[1][0])
        start = (1.0 if self.sde.data_range[0] < 0.0 else sigma**2) if prior is None else prior
        state = np.zeros(self.size), start * np.eye(self.size), np.zeros((self.size, self.size))
        if rows[0, 0] > rows[0, 1]:
            time = tf.constant(rows[0, 0])
            state = self._moved(state, self._parts(self._applied(time, time, "start")))
        for k, (t, t_next) in enumerate(rows):
            if reference == "step" or (reference == "level" and k in starts):
                state = *state[:2], np.zeros_like(state[2])
            if (t, t_next) not in self._known:
                self._known[t, t_next] = self._parts(self._response(tf.constant(t), tf.constant(t_next)))
            state = self._moved(state, self._known[t, t_next])
        if finish:
            time = tf.constant(rows[-1, 1])
            state = self._moved(state, self._parts(self._applied(time, time, "finish")))
        return state[:2]

    @staticmethod
    def _moved(state, parts):
        """Mean, covariance, and covariance with the guidance's noise, after an affine map."""
        mean, covariance, shared = state
        offset, by_x, by_reference, by_noise = parts
        cross = by_x @ shared @ by_reference.T
        covariance = by_x @ covariance @ by_x.T + cross + cross.T
        covariance = covariance + by_reference @ by_reference.T + by_noise @ by_noise.T
        return by_x @ mean + offset, covariance, by_x @ shared + by_reference


def dense(measurement):
    """The matrix of a measurement, float64 [M, D], without the numbers that are not kept."""
    size = int(np.prod(measurement.shape))
    images = tf.constant(np.eye(size).reshape(size, *measurement.shape))
    return measurement.forward(images).numpy().reshape(size, -1).T[measurement.present.ravel() > 0.0]


def laid_out(measurement, numbers):
    """Measured numbers [M] as a measurement [1, *measured_shape], float64."""
    whole = np.zeros(measurement.present.size)
    whole[measurement.present.ravel() > 0.0] = numbers
    return tf.constant(whole.reshape(1, *measurement.measured_shape))


def perturbed(sde, t, mean, covariance):
    """The mean and covariance of alpha x + sigma z at time t."""
    alpha, sigma = (float(part[0]) for part in sde.marginal(tf.constant([t], tf.float64)))
    return alpha * mean, alpha**2 * covariance + sigma**2 * np.eye(len(mean))
