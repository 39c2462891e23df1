"""Draws rows, such as samples, in blocks of equal size, one block per replica at a time.

Block k holds the rows [k b, (k + 1) b). A block is always computed as a whole and by one replica. Its bits therefore do
not depend on the number of replicas, nor on where an earlier program was stopped; R replicas draw R blocks at a time.
Only this module pads and cuts a last batch: all commands and the evaluation draw with it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.samplers.driver import NO_GUIDANCE, Given, Guidance, Prior, Sampler
from ncsn_tf.score import ScoreFunction

Start = Callable[..., tuple[tf.Tensor, tf.Tensor, Given]]
"""start(numbers: int32 [block], *arguments) -> (seeds int32 [block, 2], x float32 [block, ...], given)."""

OnFrame = Callable[[int, int, np.ndarray], object]
"""on_frame(number of the first row, number of the frame from 1, x [rows, ...])."""


def start_samples(
    numbers: tf.Tensor, prior: Prior, shape: random.Shape, *, run_seed: int
) -> tuple[tf.Tensor, tf.Tensor, Given]:
    """The start of samples; sample i depends on (run_seed, i) alone.

    Args:
      numbers: int32 [B], the numbers of the samples.
      prior: draws where they start.
      shape: the shape of one sample.
      run_seed: an integer in [0, 2^31).

    Returns:
      (seeds, x, ()): int32 [B, 2] and float32 [B, *shape].
    """
    seeds = random.per_example(random.stream_seed(run_seed, random.Stream.SAMPLE), numbers)
    return seeds, prior(random.fold_each(seeds, random.Stream.PRIOR), shape), ()


def gathered(value: Any, strategy: tf.distribute.Strategy, workers: int) -> tf.Tensor:
    """The rows of a distributed value on all replicas of all workers, in their order; in cross-replica context."""
    if workers > 1:
        return strategy.gather(value, axis=0)
    return tf.concat(strategy.experimental_local_results(value), axis=0)


class BlockSampler:
    """Draws rows with a sampler, one block per replica.

    Args:
      sampler: made for the same strategy.
      score_fn: the score function; its variables were created under the scope of the strategy.
      start: the start of the rows. Row i must depend only on i, never on the replica or on the other rows.
      block: the number of rows that a replica draws at a time.
      strategy: the strategy.
      workers: the number of processes of the strategy.
      guidance: the guidance of the sampler.
      end: applied to (x, given) at the end of a block, in its graph; None for nothing.

    Attributes:
      replicas: the number of replicas, and so of blocks per call of `draw`.
      block: as given.

    Raises:
      ValueError: if `block` or `workers` is below 1.
    """

    def __init__(
        self,
        sampler: Sampler,
        score_fn: ScoreFunction,
        start: Start,
        *,
        block: int,
        strategy: tf.distribute.Strategy,
        workers: int = 1,
        guidance: Guidance = NO_GUIDANCE,
        end: Callable[[tf.Tensor, Given], tf.Tensor] | None = None,
    ):
        if block < 1 or workers < 1:
            raise ValueError(
                "Rows are drawn in blocks of at least 1 row by at least 1 worker. "
                f"Received: block={block}, workers={workers}."
            )
        self.replicas = strategy.num_replicas_in_sync
        self.block = block
        self._sampler = sampler
        self._score_fn = score_fn
        self._guidance = guidance

        def on_replica(first: tf.Tensor, *arguments):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            numbers = (first + tf.cast(replica, tf.int32)) * block + tf.range(block)
            return start(numbers, *arguments)

        def gather(value: Any) -> tf.Tensor:
            return gathered(value, strategy, workers)

        def collected(x: Any, evaluations: Any, given: Any) -> tuple[tf.Tensor, tf.Tensor]:
            if end is not None:
                x = strategy.run(end, args=(x, given))
            return gather(x), gather(evaluations)

        self._start = tf.function(lambda *arguments: strategy.run(on_replica, args=arguments), autograph=False)
        self._collect = tf.function(collected, autograph=False)
        self._gather = tf.function(gather, autograph=False)

    def draw(
        self, first_block: int, *arguments: tf.Tensor, on_frame: OnFrame | None = None, **options: Any
    ) -> dict[str, np.ndarray]:
        """Draws the next `replicas` blocks; in a cluster, every worker must call it.

        Args:
          first_block: the number of the first block.
          *arguments: passed to `start`.
          on_frame: called with each frame of all rows; None to collect no frames.
          **options: passed to the sampler.

        Returns:
          `x`, float32 [replicas * block, ...], and `evaluations`, int32 [replicas * block], in the order of the rows.
        """

        def forward(number: int, x: Any) -> None:
            if on_frame is not None:
                on_frame(first_block * self.block, number, self._gather(x).numpy())

        seeds, x, given = self._start(tf.constant(first_block), *arguments)
        samples = self._sampler(
            self._score_fn,
            x,
            seeds,
            self._guidance,
            given,
            forward if on_frame is not None else None,
            **options,
        )
        x, evaluations = self._collect(samples.x, samples.evaluations, given)
        return {"x": x.numpy(), "evaluations": evaluations.numpy()}

    def starts(self, count: int, *arguments: tf.Tensor) -> np.ndarray:
        """The start of the first `count` rows, float32 [count, ...]. Arguments as for `draw`."""
        rounds = range(0, -(-count // self.block), self.replicas)
        begun = [self._start(tf.constant(first), *arguments)[1] for first in rounds]
        return np.concatenate([self._gather(x).numpy() for x in begun])[:count]

    def draw_rows(self, count: int, *arguments: tf.Tensor, **options: Any) -> dict[str, np.ndarray]:
        """Draws the first `count` rows; rows of the last blocks beyond them are dropped. Arguments as for `draw`."""
        rounds = range(0, -(-count // self.block), self.replicas)
        drawn = [self.draw(first, *arguments, **options) for first in rounds]
        return {name: np.concatenate([part[name] for part in drawn])[:count] for name in drawn[0]}
