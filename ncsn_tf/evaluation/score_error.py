"""A network's score against the exact score of its training images, by noise level.

Let p_t be the density of the noised training images, the mixture (1/N) sum_i N(alpha x_i, sigma^2 I), and s* its score,
which is known in closed form (`densities.empirical`). Denoising score matching on these images has s* as its only
minimiser: a network that reaches it has memorised them, and samples along it are copies. For any score function s,

    E 1/2 sigma^2 |s(x_t) + z / sigma|^2 = E 1/2 sigma^2 |s*(x_t) + z / sigma|^2 + E 1/2 sigma^2 |s(x_t) - s*(x_t)|^2,

where x_t = alpha x_0 + sigma z, x_0 is a uniform draw of the training images, and z is normal: s*(x_t) is the mean of
-z / sigma given x_t, so the cross term vanishes (Vincent 2011, section 4). The loss of the network on its training
images is the loss of the exact score there, which no score can be below, plus its squared distance from that score.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import objectives, random
from ncsn_tf.densities.empirical import Empirical
from ncsn_tf.densities.normal import Normal
from ncsn_tf.evaluation import held_out
from ncsn_tf.samplers import blocks
from ncsn_tf.score import ScoreFunction
from ncsn_tf.sde import SDE

TRAIN, HELD_OUT = "train", "held_out"
_STREAMS = {TRAIN: random.Stream.PERTURBATION, HELD_OUT: random.Stream.HELD_OUT}
"""The streams of the noise: held-out images get the noise of `held_out.denoising_loss`, training images another."""
COLUMNS = (
    "train_loss",
    "held_out_loss",
    "gap",
    "exact_train_loss",
    "exact_held_out_loss",
    "normal_held_out_loss",
    "distance",
    "share",
)
"""The numbers of each time; each has its standard error beside it, under the same name with "_error"."""


@dataclasses.dataclass(frozen=True)
class Errors:
    """Denoising losses and distances, weighted by sigma^2 and with the factor 1/2, per image and time; float64 [N, L].

    Attributes:
      network: 1/2 sigma^2 |s + z / sigma|^2 of the network's score.
      exact: the same of the exact score of the training images.
      normal: the same of the score of the normal density with the training images' mean and covariance.
      distance: 1/2 sigma^2 |s - s*|^2, of the network's score from the exact one.
    """

    network: np.ndarray
    exact: np.ndarray
    normal: np.ndarray
    distance: np.ndarray


@dataclasses.dataclass(frozen=True)
class ScoreError:
    """The errors on training and on held-out images at each time.

    Attributes:
      times: float32 [L], decreasing.
      alphas: float32 [L].
      sigmas: float32 [L], in units of the SDE's data.
      train: on training images.
      held_out: on held-out images.
    """

    times: np.ndarray
    alphas: np.ndarray
    sigmas: np.ndarray
    train: Errors
    held_out: Errors

    def rows(self) -> list[dict[str, float | None]]:
        """`time`, `alpha`, `sigma`, and the columns of `statistics`, as plain numbers; one row per time."""
        return [
            {"time": float(time), "alpha": float(alpha), "sigma": float(sigma), **self._at(level)}
            for level, (time, alpha, sigma) in enumerate(zip(self.times, self.alphas, self.sigmas, strict=True))
        ]

    def mean(self) -> dict[str, float | None]:
        """The columns of `statistics`, of each image's mean over the times."""
        return self._at(slice(None))

    def _at(self, levels: int | slice) -> dict[str, float | None]:
        def of(errors: Errors) -> Errors:
            parts = (getattr(errors, field.name) for field in dataclasses.fields(Errors))
            return Errors(*(values[:, levels].reshape(len(values), -1).mean(axis=1) for values in parts))

        return statistics(of(self.train), of(self.held_out))


def statistics(train: Errors, held_out: Errors) -> dict[str, float | None]:
    """The numbers of `COLUMNS`, each with its standard error over images; None where a ratio or an error is undefined.

        gap   = held_out_loss - train_loss
        share = distance / (distance + gap)

    The share says how far the network is from having memorised the training images: 0 if its score is the exact one, 1
    if its loss on images that it has never seen is that on its training images. Its two parts have the expectations of

        (train_loss - exact_train_loss) / (held_out_loss - exact_train_loss),

    but the distance is without the noise of the losses. At a large sigma / alpha, where every score is nearly the exact
    one, both parts are small, and the share's error is large. The error of the share is that of its linearisation; the
    numbers of one image are taken together, and the two sets are independent.

    Args:
      train: float64 [N] each, N training images at one time.
      held_out: the same of held-out images.
    """
    gap, distance = held_out.network.mean() - train.network.mean(), train.distance.mean()
    share, share_error = _ratio(distance, distance + gap), None
    if share is not None:
        parts = (1.0 - share) * train.distance + share * train.network, share * held_out.network
        share_error = _ratio(_error(*parts), distance + gap)
    found = {
        "train_loss": (train.network.mean(), _error(train.network)),
        "held_out_loss": (held_out.network.mean(), _error(held_out.network)),
        "gap": (gap, _error(held_out.network, train.network)),
        "exact_train_loss": (train.exact.mean(), _error(train.exact)),
        "exact_held_out_loss": (held_out.exact.mean(), _error(held_out.exact)),
        "normal_held_out_loss": (held_out.normal.mean(), _error(held_out.normal)),
        "distance": (distance, _error(train.distance)),
        "share": (share, share_error),
    }
    pairs = [((name, value), (f"{name}_error", error)) for name, (value, error) in found.items()]
    return {name: None if number is None else float(number) for pair in pairs for name, number in pair}


def _error(*independent: np.ndarray) -> float | None:
    """The standard error of the sum or difference of the means of independent values, [N] each; None of single ones."""
    if min(map(len, independent)) < 2:
        return None
    return math.sqrt(sum(values.var(ddof=1) / len(values) for values in independent))


def _ratio(numerator: float | None, denominator: float) -> float | None:
    return None if numerator is None or not denominator > 0.0 else float(numerator / denominator)


class Meter:
    """Measures the errors of a score function, in blocks of images, one block per replica.

    Args:
      score_fn: the network's score function.
      sde: the SDE that perturbs the data.
      times: float32 [L], the times.
      training: the training images, in the SDE's data range, as a density.
      run_seed: an integer in [0, 2^31). The noise depends on (run seed, split, image, level) alone.
      batch_size: the number of images that a replica takes at a time; bounds the memory.
      strategy: the strategy to run on.
      workers: the number of processes of the strategy, all of which must call.
      on_images: called with the name of the split and the number of images that were just measured.

    Raises:
      ValueError: if the batch is empty, or the seed out of range.
    """

    def __init__(
        self,
        score_fn: ScoreFunction,
        sde: SDE,
        times: np.ndarray,
        training: Empirical,
        *,
        run_seed: int,
        batch_size: int,
        strategy: tf.distribute.Strategy | None = None,
        workers: int = 1,
        on_images: Callable[[str, int], object] = lambda split, images: None,
    ):
        if batch_size < 1:
            raise ValueError(f"The batch is 1 or more. Received: batch_size={batch_size}.")
        self._bases = {split: random.stream_seed(run_seed, stream) for split, stream in _STREAMS.items()}
        scores = score_fn, training.score_fn(sde), Normal.fit(training.points).score_fn(sde)
        self._sde, self._times, self._training = sde, np.asarray(times, np.float32), training
        self._size, self._on_images = batch_size, on_images
        self._strategy = on_devices = strategy or tf.distribute.get_strategy()

        def on_replica(first: tf.Tensor, base: tf.Tensor, x: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            count: Any = x.shape[0]
            size = self._block(count)
            rows = (first + tf.cast(replica, tf.int32)) * size + tf.range(size)
            rows = tf.minimum(rows, count - 1)  # the last block is filled up: all have one shape
            return errors_by_level(scores, sde, self._times, base, tf.gather(x, rows), tf.gather(examples, rows))

        def of_round(*arguments: tf.Tensor) -> tf.Tensor:
            return blocks.gathered(on_devices.run(on_replica, args=arguments), on_devices, workers)

        self._of_round = tf.function(of_round, autograph=False)

    def _block(self, count: int) -> int:
        """The number of images that a replica takes at a time."""
        return min(self._size, -(-count // self._strategy.num_replicas_in_sync))

    def measure(self, held_out_images: np.ndarray, number: int) -> ScoreError:
        """Measures the errors on `number` images of each set, or on all if there are fewer, evenly spaced among them.

        Args:
          held_out_images: float32 [M, ...], in the SDE's data range.
          number: at least 1.
        """
        points = np.asarray(self._training.points, np.float32)
        train, unseen = (
            self.errors(split, images, evenly_spaced(len(images), number))
            for split, images in ((TRAIN, points), (HELD_OUT, held_out_images))
        )
        alphas, sigmas = (part.numpy() for part in self._sde.marginal(tf.constant(self._times)))
        return ScoreError(self._times, alphas, sigmas, train, unseen)

    def errors(self, split: str, images: np.ndarray, numbers: np.ndarray) -> Errors:
        """The errors on some images of a set.

        Args:
          split: `TRAIN` or `HELD_OUT`, for the noise.
          images: float32 [N, ...], in the SDE's data range.
          numbers: int [n], which of them.
        """
        given = self._bases[split], tf.constant(images[numbers]), tf.constant(numbers, tf.int32)
        count, parts, done = len(numbers), [], 0
        for first in range(0, -(-count // self._block(count)), self._strategy.num_replicas_in_sync):
            parts.append(self._of_round(tf.constant(first), *given).numpy().astype(np.float64)[: count - done])
            done += len(parts[-1])
            self._on_images(split, len(parts[-1]))
        return Errors(*np.moveaxis(np.concatenate(parts), 2, 0))


def evenly_spaced(count: int, number: int) -> np.ndarray:
    """The numbers of at most `number` images among `count`, evenly spaced: data may be sorted by their classes."""
    number = min(count, number)
    return np.arange(number, dtype=np.int64) * count // number


def errors_by_level(
    scores: tuple[ScoreFunction, ScoreFunction, ScoreFunction],
    sde: SDE,
    times: np.ndarray,
    base: tf.Tensor,
    x: tf.Tensor,
    examples: tf.Tensor,
) -> tf.Tensor:
    """The attributes of `Errors` in their order, float32 [B, L, 4].

    Args:
      scores: of the network, of the training images, and of the normal density.
      sde: the SDE that perturbs the data.
      times: float32 [L], the times.
      base: int32 [2], the seed of all noise.
      x: float32 [B, ...], images in the SDE's data range.
      examples: int32 [B], their numbers.
    """

    def at_level(level: tf.Tensor) -> tf.Tensor:
        t = tf.fill([x.shape[0]], tf.gather(tf.constant(times), level))
        z = held_out.noise(base, examples, level, x.shape[1:])
        noised = objectives.perturb(sde, x, t, z)
        network, exact, normal = (score_fn(noised, t) for score_fn in scores)

        def loss(score: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
            return objectives.annealed_denoising(lambda *_: score, sde, x, t, z)

        # Without noise, the loss of a difference of scores is their distance.
        distance = loss(network - exact, tf.zeros_like(z))
        return tf.stack([loss(network, z), loss(exact, z), loss(normal, z), distance], axis=1)

    spec = tf.TensorSpec([x.shape[0], 4], tf.float32)
    return tf.transpose(tf.map_fn(at_level, tf.range(len(times)), fn_output_signature=spec), [1, 0, 2])
