"""A training step on every replica, a loop of steps in one graph, and the held-out loss."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.cluster.strategies import place
from ncsn_tf.determinism import repeatable_gradients
from ncsn_tf.objectives import NonFiniteLossError
from ncsn_tf.score import EnergyModel, ScoreModel
from ncsn_tf.time_draws import TimeDraw
from ncsn_tf.training.ema import MovingAverage
from ncsn_tf.training.optimizers import LossScale, ReducedAdam
from ncsn_tf.training.preemption import StopRequest
from ncsn_tf.training.results import LoopResult, by_bin, means

Objective = Callable[..., tf.Tensor]
"""objective(score_fn, x, t, z) -> float32 [B], or objective(score_fn, x, t, z, v) if the trainer draws slices v."""

DrawSlices = Callable[[tf.Tensor, Any], tf.Tensor]
"""draw(seeds: [B, 2], shape of an example) -> [B, M, *shape]."""

Model = ScoreModel | EnergyModel

_REMEDY = "A new run with a smaller optim.learning_rate, or with network.dtype=float32 if it was not, usually helps."


class Trainer:
    """Trains a network: holds the state of training (weights, their average, the optimizer) and takes steps.

    All randomness of a step comes from (run seed, presentation number of the example), so a step is the same on any
    number of replicas, and a run that resumes from a checkpoint is bit-for-bit identical to an uninterrupted one.

    Args:
      strategy: the distribution strategy under whose scope the networks were built.
      model: the model to train; its network is a built Keras model.
      average_model: the same kind of model with a second network of the same architecture, for the moving average.
      draw: draws the times.
      objective: `objective(score_fn, x, t, z) -> [B]`, or with slices `v` as a fifth argument.
      optimizer: a `ReducedAdam`; a `SkippingAdam` with a loss scale.
      ema_decay: final decay of the moving average.
      run_seed: an integer in [0, 2^31).
      batch_size: the global batch, over all replicas.
      accumulation: the number of parts into which a replica's batch is split; their gradients are computed one after
        the other, with the memory of one part, and summed. Must be a divisor of a replica's batch.
      draw_slices: draws the slices of an objective that needs them; None for one that does not.
      label_dropout: the rate at which a step replaces an example's label by `no_class`.
      no_class: the label of no class.
      loss_scale: for a float16 network; None for others.
      jit_compile: compile the step with XLA: all of it on one replica, the loss and its gradient on several.

    Attributes:
      stop: the request that `run` honours at the end of the running step.

    Raises:
      ValueError: if the batch is not a multiple of the replicas, or a replica's batch not one of `accumulation`.
    """

    def __init__(
        self,
        *,
        strategy: tf.distribute.Strategy,
        model: Model,
        average_model: Model,
        draw: TimeDraw,
        objective: Objective,
        optimizer: ReducedAdam,
        ema_decay: float,
        run_seed: int,
        batch_size: int,
        accumulation: int = 1,
        draw_slices: DrawSlices | None = None,
        label_dropout: float = 0.0,
        no_class: int = 0,
        loss_scale: LossScale | None = None,
        jit_compile: bool = False,
    ):
        check_division(strategy.num_replicas_in_sync, batch_size, accumulation)
        self.strategy = strategy
        self.model = model
        self.average_model = average_model
        self.network: Any = model.network
        self.average: Any = average_model.network
        self.draw = draw
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.stop = StopRequest()
        self.loss_scale = loss_scale
        self._objective = objective
        self._draw_slices = draw_slices
        self._label_dropout = label_dropout
        self._no_class = no_class
        self._accumulation = accumulation
        self._num_bins = len(draw.bins)
        self._training_seed = random.seed(run_seed)
        self._held_out_seed = random.stream_seed(run_seed, random.Stream.HELD_OUT)
        with strategy.scope():
            self.ema = MovingAverage(self.network, self.average, ema_decay)
            optimizer.build(self.network.trainable_variables)

        single = strategy.num_replicas_in_sync == 1
        self._gradients = tf.function(self._replica_gradients, jit_compile=jit_compile and not single, autograph=False)
        self._step = tf.function(self._global_step, jit_compile=jit_compile and single, autograph=False)

    @property
    def step(self) -> int:
        """Steps taken since the first start of the run."""
        return int(self.optimizer.iterations.numpy())

    @property
    def state(self) -> dict[str, list[tf.Variable]]:
        """The variables that training changes, by part: the contents of a checkpoint."""
        parts = {
            "network": [variable.value for variable in self.network.weights],
            "average": [variable.value for variable in self.average.weights],
            "optimizer": [variable.value for variable in self.optimizer.variables],
        }
        return parts | ({"loss_scale": self.loss_scale.variables} if self.loss_scale is not None else {})

    def _losses(self, model: Model, batch: dict[str, tf.Tensor], seed: tf.Tensor, dropout: bool = False):
        """Draws each example's time, noise, slices and dropout from its number; returns its loss and bin, [B] each."""

        def seeds(stream: random.Stream) -> tf.Tensor:
            return random.per_example(random.fold(seed, stream), batch["example"])

        x, labels = batch["image"], batch.get("label")
        shape: Any = x.shape[1:].as_list()
        dropout_seeds = seeds(random.Stream.DROPOUT) if dropout else None
        if dropout and labels is not None and self._label_dropout > 0.0:
            dropped = random.uniform(seeds(random.Stream.LABEL_DROPOUT)) < self._label_dropout
            labels = tf.where(dropped, self._no_class, labels)
        t, bins = self.draw(seeds(random.Stream.LEVEL), batch.get("position", batch["example"]))
        drawn = [random.normal(seeds(random.Stream.PERTURBATION), shape)]
        if self._draw_slices is not None:
            drawn.append(self._draw_slices(seeds(random.Stream.SLICES), shape))

        def score_fn(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            return model.score(x, t, labels, dropout_seeds)

        return self._objective(score_fn, x, t, *drawn), bins

    def _replica_gradients(self, batch):
        """Gradients of this replica's share of the mean loss, times the loss scale, and the losses by bin."""
        if self._accumulation == 1:
            return self._part_gradients(batch)

        def cut(x: tf.Tensor) -> tf.Tensor:
            shape: Any = x.shape.as_list()
            return tf.reshape(x, [self._accumulation, shape[0] // self._accumulation, *shape[1:]])

        parts = {name: cut(x) for name, x in batch.items()}

        def add_part(number, gradients, sums):
            new_gradients, new_sums = self._part_gradients({name: x[number] for name, x in parts.items()})
            return number + 1, [a + b for a, b in zip(gradients, new_gradients, strict=True)], sums + new_sums

        zeros = [tf.zeros_like(variable.value) for variable in self.network.trainable_variables]
        start = (tf.constant(0), zeros, tf.zeros([2, self._num_bins]))
        _, gradients, sums = tf.while_loop(
            lambda number, *_: number < self._accumulation, add_part, start, parallel_iterations=1
        )
        return gradients, sums

    def _part_gradients(self, batch):
        with tf.GradientTape() as tape:
            losses, bins = self._losses(self.model, batch, self._training_seed, dropout=True)
            loss = tf.reduce_sum(losses) / self.batch_size
            if self.loss_scale is not None:
                loss *= self.loss_scale.scale
        gradients = tape.gradient(loss, [variable.value for variable in self.network.trainable_variables])
        return self._without_gaps(gradients), by_bin(losses, bins, self._num_bins)

    def _without_gaps(self, gradients: list) -> list:
        """Replaces missing gradients by zeros if the model may have free weights; otherwise raises ValueError."""
        variables = self.network.trainable_variables
        missing = [v.path for v, gradient in zip(variables, gradients, strict=True) if gradient is None]
        if missing and (len(missing) == len(variables) or not self.model.has_free_weights):
            raise ValueError(
                f"The loss has no gradient in {', '.join(missing[:3])}{' and others' * (len(missing) > 3)}. Either the "
                "network does not use them, or one of its ops has no gradient, or no second-order one."
            )
        pairs = zip(variables, gradients, strict=True)
        return [tf.zeros_like(v.value) if gradient is None else gradient for v, gradient in pairs]

    def _replica_step(self, batch, stop):
        """A step; returns the losses by bin, the gradient's norm and the requests to stop, summed over all replicas."""
        gradients, sums = self._gradients(batch)
        context = tf.distribute.get_replica_context()
        # One reduction for everything: a worker that is asked to stop tells the others at no extra cost.
        stop = tf.identity(stop)  # a copy on the replica's own device, as a reduction requires
        gradients, sums, stop = context.all_reduce(tf.distribute.ReduceOp.SUM, [gradients, sums, stop])
        if self.loss_scale is not None:
            gradients = [gradient / self.loss_scale.scale for gradient in gradients]
        norm = tf.linalg.global_norm(gradients)
        if self.loss_scale is not None:
            # `SkippingAdam` checks each gradient separately, but an overflow in one must skip all of them.
            finite = tf.math.is_finite(norm)
            gradients = [tf.where(finite, gradient, np.nan) for gradient in gradients]
        self.optimizer.apply(gradients, self.network.trainable_variables)
        return sums, norm, stop

    def _global_step(self, batch, stop):
        results = self.strategy.run(self._replica_step, args=(batch, stop))
        # The results of all replicas are equal: they have been summed over the replicas.
        sums, norm, stop = (self.strategy.experimental_local_results(result)[0] for result in results)
        self.ema.update(self.strategy, self.optimizer.iterations.value)
        goes_on = tf.math.is_finite(norm)
        if self.loss_scale is not None:
            goes_on |= tf.logical_not(self.loss_scale.at_its_end())
            self.loss_scale.update(self.strategy, tf.math.is_finite(norm))
        return sums, norm, stop, goes_on

    @tf.function(autograph=False)
    def _loop(self, iterator, steps: tf.Tensor):
        """Takes steps until `steps` are done, a step is not finite, or a stop is requested.

        Returns the number of steps, the last loss and gradient norm, whether training may continue from it, the sums of
        the losses and examples by bin and of the norms, the number of norms that are not finite, and the stop.
        """
        alone, request = place(self.strategy)[1] == 1, self.stop.variable

        def body(done, last, good, sums, norms, skipped, _):
            asked = tf.constant(0.0) if alone else request.read_value()
            step_sums, norm, stop, finite = self._step(next(iterator), asked)
            loss = tf.reduce_sum(step_sums[0]) / self.batch_size
            usable = tf.math.is_finite(norm)
            norms += tf.where(usable, norm, 0.0)
            skipped += tf.cast(~usable, tf.int32)
            good = finite & tf.math.is_finite(loss)
            return done + 1, tf.stack([loss, norm]), good, sums + step_sums, norms, skipped, stop

        def goes_on(done, last, good, sums, norms, skipped, stop):
            # Workers must agree on the step, so they use the request that the step has summed; a single process reads
            # its own request after the step. The control dependency keeps the read from running before the step.
            if alone:
                with tf.control_dependencies([last]):
                    stop = request.read_value()
            return (done < steps) & good & ((stop < 0.5) | (done < 1))

        zero = tf.constant(0)
        start = (zero, tf.zeros([2]), tf.constant(True), tf.zeros([2, self._num_bins]), 0.0, zero, 0.0)
        *results, stop = tf.while_loop(goes_on, body, start, parallel_iterations=1)
        if alone:
            with tf.control_dependencies([results[0]]):
                stop = request.read_value()
        return *results, stop

    def run(self, iterator, steps: int) -> LoopResult:
        """Takes at most `steps` steps.

        Once `stop` is made, the running step is the last; in a cluster of workers, the step after it is, because all
        must agree on it.

        Args:
          iterator: an iterator of the distributed training batches, positioned at this trainer's step.
          steps: the number of steps; any number runs the same graph.

        Returns:
          The loop's results; in a cluster, those of all workers.

        Raises:
          NonFiniteLossError: at the first loss or gradient that is not finite, with the number of the step; with a loss
            scale, at the first such gradient that is not due to the scale. The weights in memory are then unusable, but
            those of the last checkpoint are intact.
        """
        begun = time.perf_counter()
        with repeatable_gradients():
            results = self._loop(iterator, tf.constant(steps))
        done, last, good, (sums, counts), norms, skipped, stop = results
        if not bool(good):
            loss, norm = last.numpy()
            raise NonFiniteLossError(
                f"Step {self.step} is not finite: its loss is {loss}, its gradient's norm {norm}. {_REMEDY}"
            )
        seconds = time.perf_counter() - begun
        return LoopResult(
            int(done), sums.numpy(), counts.numpy(), float(norms), seconds, int(skipped), bool(stop > 0.5)
        )

    def check_weights(self, batch) -> None:
        """Raises NonFiniteLossError if the raw weights give a loss that is not finite.

        A bad step is detected only when its weights are used, so they are used before they are saved.

        Args:
          batch: a few images, `image` [B, H, W, C] and `example` [B].
        """
        with repeatable_gradients():
            loss = float(self._probe(batch))
        if not np.isfinite(loss):
            raise NonFiniteLossError(f"After step {self.step}, the weights have the loss {loss}. {_REMEDY}")

    @tf.function(autograph=False)
    def _probe(self, batch):
        def on_replica(batch):
            return tf.reduce_mean(self._losses(self.model, batch, self._training_seed)[0])

        return self.strategy.experimental_local_results(self.strategy.run(on_replica, args=(batch,)))[0]

    @tf.function(autograph=False)
    def _held_out_batch(self, batch):
        def on_replica(batch):
            losses, bins = self._losses(self.average_model, batch, self._held_out_seed)
            return by_bin(losses, bins, self._num_bins, batch["weight"])

        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, self.strategy.run(on_replica, args=(batch,)), axis=None)

    def held_out_loss(self, batches: Iterator, number: int) -> tuple[float, np.ndarray]:
        """The objective of the averaged weights on held-out examples, at times and noise fixed by the run's seed.

        Args:
          batches: distributed batches of `image`, `example` and `weight`, as `data.pipeline.evaluation_batches` makes
            them.
          number: the number of batches to take.

        Returns:
          The mean loss per example and, float [bins], the mean of each bin (NaN where a bin had none).
        """
        with repeatable_gradients():
            taken = [self._held_out_batch(next(batches)).numpy() for _ in range(number)]
        sums, counts = np.stack(taken).sum(axis=0, dtype=np.float64)
        return float(sums.sum() / counts.sum()), means(sums, counts)


def check_division(replicas: int, batch_size: int, accumulation: int) -> None:
    """Raises ValueError unless a batch is divisible by the replicas, and a replica's share by `accumulation`."""
    if batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"A batch of {batch_size} cannot be divided among {replicas} replicas. Set training.batch_size to a "
            f"multiple of {replicas}."
        )
    share = batch_size // replicas
    if accumulation < 1 or share % accumulation:
        raise ValueError(
            f"Each of {replicas} replicas takes {share} examples of a batch of {batch_size}, which cannot be divided "
            f"into training.accumulation={accumulation} parts. Set it to one of "
            f"{[n for n in range(1, share + 1) if share % n == 0][:12]}."
        )
