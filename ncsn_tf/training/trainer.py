"""A training step on every replica, a loop of steps in one graph, and the held-out loss."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncsn_tf import seeds as random
from ncsn_tf.score import EnergyModel, ScoreFunction, ScoreModel
from ncsn_tf.sde import VE
from ncsn_tf.training.ema import MovingAverage

Objective = Callable[..., tf.Tensor]
"""objective(score_fn, x, t, z) -> float32 [B], or objective(score_fn, x, t, z, v) if the trainer draws slices v."""

DrawSlices = Callable[[tf.Tensor, Sequence[int]], tf.Tensor]
"""draw(seeds: [B, 2], shape of an example) -> [B, M, *shape]."""

_REMEDY = "A new run with a smaller optim.learning_rate, or with network.dtype=float32 if it was not, usually helps."


class NonFiniteLossError(ArithmeticError):
    """Training met a loss or a gradient that is not a number or infinite."""


@keras.saving.register_keras_serializable("ncsn_tf")
class ReducedAdam(keras.optimizers.Adam):
    """Adam that is handed gradients already summed over the replicas.

    Keras sums them itself, inside `apply`; the trainer has done so before, since the norm of the global gradient is
    wanted, and a second reduction would multiply by the number of replicas.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


@dataclasses.dataclass(frozen=True)
class LoopResult:
    """What steps report; the sum of two results is that of their steps together.

    Attributes:
      steps: steps taken.
      loss_sums: float [L], the sum of the losses of each level's examples.
      counts: float [L], how many examples each level had.
      norm_sum: the sum over the steps of the global gradient's Euclidean norm.
      seconds: wall-clock time.
    """

    steps: int
    loss_sums: np.ndarray
    counts: np.ndarray
    norm_sum: float
    seconds: float

    @property
    def loss(self) -> float:
        """Mean loss an example."""
        return float(self.loss_sums.sum() / self.counts.sum())

    @property
    def level_losses(self) -> np.ndarray:
        """float [L], the mean loss of each level's examples, NaN where a level had none."""
        return _means(self.loss_sums, self.counts)

    @property
    def gradient_norm(self) -> float:
        """Mean over the steps of the global gradient's norm."""
        return self.norm_sum / self.steps

    def __add__(self, other: "LoopResult") -> "LoopResult":
        return LoopResult(
            self.steps + other.steps,
            self.loss_sums + other.loss_sums,
            self.counts + other.counts,
            self.norm_sum + other.norm_sum,
            self.seconds + other.seconds,
        )


class Trainer:
    """Holds what training changes (weights, their average, the optimizer) and changes it.

    All randomness of a step comes from (run seed, presentation number of the example), so a step is the same on any
    number of replicas, and a run that goes on from a checkpoint is the run that never stopped.

    Args:
      strategy: the distribution strategy under whose scope the networks were built.
      network: the network to train, built.
      average: a second, built network of the same architecture, for the moving average.
      sde: the SDE that perturbs the data.
      times: float32 [L], the grid of noise levels, drawn uniformly.
      objective: `objective(score_fn, x, t, z) -> [B]`, or with slices `v` as a fifth argument.
      optimizer: a `ReducedAdam`.
      ema_decay: final decay of the moving average.
      run_seed: an integer in [0, 2^31).
      batch_size: the global batch, over all replicas.
      draw_slices: draws the slices of an objective that needs them; None for one that does not.
      adapter: makes the network a score function, `adapter(network, sde, times).score`.
      jit_compile: compile the step with XLA: all of it on one replica, the loss and its gradient on several.
    """

    def __init__(
        self,
        *,
        strategy: tf.distribute.Strategy,
        network: keras.Model,
        average: keras.Model,
        sde: VE,
        times: np.ndarray,
        objective: Objective,
        optimizer: ReducedAdam,
        ema_decay: float,
        run_seed: int,
        batch_size: int,
        draw_slices: DrawSlices | None = None,
        adapter: Callable[[keras.Model, VE, np.ndarray], ScoreModel] = ScoreModel,
        jit_compile: bool = False,
    ):
        self.strategy = strategy
        self.network = network
        self.average = average
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.score_model = adapter(network, sde, times)
        self.average_score_model = adapter(average, sde, times)
        self._objective = objective
        self._draw_slices = draw_slices
        self._times = tf.constant(times)
        self._num_levels = len(times)
        root = random.seed(run_seed)
        self._training_seed = root
        self._held_out_seed = random.fold(root, random.Stream.HELD_OUT)
        with strategy.scope():
            self.ema = MovingAverage(network, average, ema_decay)
            optimizer.build(network.trainable_variables)

        single = strategy.num_replicas_in_sync == 1
        self._gradients = tf.function(self._replica_gradients, jit_compile=jit_compile and not single, autograph=False)
        self._step = tf.function(self._global_step, jit_compile=jit_compile and single, autograph=False)

    @property
    def step(self) -> int:
        """Steps taken since the first start of the run."""
        return int(self.optimizer.iterations.numpy())

    def _losses(self, score_fn: ScoreFunction, batch: dict[str, tf.Tensor], seed: tf.Tensor):
        """Draws each example's level, noise and slices from its number; returns its loss and its level, [B] each."""

        def seeds(stream: random.Stream) -> tf.Tensor:
            return random.per_example(random.fold(seed, stream), batch["example"])

        x = batch["image"]
        shape: Any = x.shape[1:].as_list()
        level = random.integers(seeds(random.Stream.LEVEL), self._num_levels)
        drawn = [random.normal(seeds(random.Stream.PERTURBATION), shape)]
        if self._draw_slices is not None:
            drawn.append(self._draw_slices(seeds(random.Stream.SLICES), shape))
        return self._objective(score_fn, x, tf.gather(self._times, level), *drawn), level

    def _replica_gradients(self, batch):
        """Gradients of this replica's share of the mean loss, and the losses by level."""
        with tf.GradientTape() as tape:
            losses, level = self._losses(self.score_model.score, batch, self._training_seed)
            loss = tf.reduce_sum(losses) / self.batch_size
        gradients = tape.gradient(loss, [variable.value for variable in self.network.trainable_variables])
        gradients = self._without_gaps(gradients)
        return gradients, _by_level(losses, level, self._num_levels)

    def _without_gaps(self, gradients: list) -> list:
        """Refuses weights that get no gradient; but for an energy's constant, which no score depends on, a zero."""
        variables = self.network.trainable_variables
        missing = [v.path for v, gradient in zip(variables, gradients, strict=True) if gradient is None]
        if missing and (len(missing) == len(variables) or not isinstance(self.score_model, EnergyModel)):
            raise ValueError(
                f"The loss has no gradient in {', '.join(missing[:3])}{' and others' * (len(missing) > 3)}. Either the "
                "network does not use them, or one of its ops has no gradient, or no second-order one."
            )
        pairs = zip(variables, gradients, strict=True)
        return [tf.zeros_like(v.value) if gradient is None else gradient for v, gradient in pairs]

    def _replica_step(self, batch):
        gradients, by_level = self._gradients(batch)
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        self.optimizer.apply(gradients, self.network.trainable_variables)
        return by_level, tf.linalg.global_norm(gradients)

    def _global_step(self, batch):
        by_level, norm = self.strategy.run(self._replica_step, args=(batch,))
        self.ema.update(self.strategy, self.optimizer.iterations.value)
        by_level = self.strategy.reduce(tf.distribute.ReduceOp.SUM, by_level, axis=None)
        return by_level, self.strategy.reduce(tf.distribute.ReduceOp.MEAN, norm, axis=None)

    @tf.function(autograph=False)
    def _loop(self, iterator, steps: tf.Tensor):
        """Runs steps until `steps` are done or one is not finite.

        Returns the steps done, the last one's loss and gradient norm, and the sums over all of the losses and examples
        by level and of the norms.
        """

        def body(done, last, by_level, norms):
            step_by_level, norm = self._step(next(iterator))
            loss = tf.reduce_sum(step_by_level[0]) / self.batch_size
            return done + 1, tf.stack([loss, norm]), by_level + step_by_level, norms + norm

        def goes_on(done, last, *_):
            return (done < steps) & tf.reduce_all(tf.math.is_finite(last))

        start = (tf.constant(0), tf.zeros([2]), tf.zeros([2, self._num_levels]), tf.constant(0.0))
        return tf.while_loop(goes_on, body, start, parallel_iterations=1)

    def run(self, iterator, steps: int) -> LoopResult:
        """Takes steps, at most `steps` of them.

        Args:
          iterator: of the distributed training batches, standing at this trainer's step.
          steps: how many to take; any number runs the same graph.

        Returns:
          The loop's figures.

        Raises:
          NonFiniteLossError: at the first loss or gradient that is not finite, naming the step. The weights in memory
            are worthless then; those of the last checkpoint are not.
        """
        begun = time.perf_counter()
        done, last, (sums, counts), norms = self._loop(iterator, tf.constant(steps))
        loss, norm = last.numpy()
        if not np.isfinite([loss, norm]).all():
            raise NonFiniteLossError(
                f"Step {self.step} is not finite: its loss is {loss}, its gradient's norm {norm}. {_REMEDY}"
            )
        return LoopResult(int(done), sums.numpy(), counts.numpy(), float(norms), time.perf_counter() - begun)

    def check_weights(self, batch) -> None:
        """Raises NonFiniteLossError if the raw weights give a loss that is not finite.

        A step is only known to have been good once its weights have been used; a checkpoint should not come before.

        Args:
          batch: a few images, `image` [B, H, W, C] and `example` [B].
        """
        loss = float(self._probe(batch))
        if not np.isfinite(loss):
            raise NonFiniteLossError(f"Step {self.step} left weights whose loss is {loss}. {_REMEDY}")

    @tf.function(autograph=False)
    def _probe(self, batch):
        losses, _ = self._losses(self.score_model.score, batch, self._training_seed)
        return tf.reduce_mean(losses)

    @tf.function(autograph=False)
    def _held_out_batch(self, batch):
        losses, level = self._losses(self.average_score_model.score, batch, self._held_out_seed)
        return _by_level(losses, level, self._num_levels, batch["weight"])

    def held_out_loss(self, batches: tf.data.Dataset) -> tuple[float, np.ndarray]:
        """The objective of the averaged weights on held-out examples, at levels and noise fixed by the run's seed.

        Args:
          batches: of `image`, `example` and `weight`, as `data.pipeline.evaluation_batches` makes them.

        Returns:
          The mean loss an example and, float [L], the mean of each level (NaN where a level had none).
        """
        by_batch = np.stack([self._held_out_batch(batch).numpy() for batch in batches])
        sums, counts = by_batch.sum(axis=0, dtype=np.float64)
        return float(sums.sum() / counts.sum()), _means(sums, counts)


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return sums / counts


def _by_level(losses: tf.Tensor, level: tf.Tensor, levels: int, weight: tf.Tensor | None = None) -> tf.Tensor:
    """Sums of losses and of weights over the examples of each level, float32 [2, levels]."""
    weight = tf.ones_like(losses) if weight is None else weight
    encoding = tf.one_hot(level, levels)
    return tf.linalg.matmul(tf.stack([losses * weight, weight]), encoding)
