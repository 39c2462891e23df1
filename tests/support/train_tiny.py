"""Trains the tiny network as a process of its own, alone or as one worker of a cluster, for the tests that kill it.

Writes DIR/result.npz at the end: `losses` [steps], `samples`, and every variable of the trainer under its part and
number. The launcher does the same with real networks, which take ten times as long to trace.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--steps_per_loop", type=int, default=1)
    parser.add_argument("--checkpoint_every", type=int, default=1000)
    parser.add_argument("--logical_devices", type=int)
    parser.add_argument("--cluster_timeout", type=float, default=60.0)
    parser.add_argument("--seconds_per_step", type=float, default=0.0)
    options = parser.parse_args()

    from ncsn_tf.cluster import rendezvous, strategies

    try:
        strategy = strategies.create(logical_devices=options.logical_devices, timeout=options.cluster_timeout)
        train(strategy, options)
    except rendezvous.AbsentWorkersError as error:
        sys.exit(str(error))
    except strategies.LOST_PEER_ERRORS as error:
        print(f"lost a peer: {error.message[:200]}", file=sys.stderr, flush=True)
        sys.exit(76)


def train(strategy, options) -> None:
    from ncsn_tf.cluster import strategies
    from ncsn_tf.training import loop, preemption
    from ncsn_tf.training.checkpoints import Checkpoints
    from ncsn_tf.training.run_directory import RunDirectory
    from ncsn_tf.training.summaries import Record
    from tests.support import tiny

    chief = strategies.is_chief(strategy)
    trainer = tiny.make(strategy, batch_size=64)
    directory = RunDirectory(options.workdir)
    checkpoints = Checkpoints(directory.checkpoints, trainer, keep=2)
    if checkpoints.restore():
        print(f"from step {trainer.step}", flush=True)
    losses = []

    def taken(iterator, steps, run=trainer.run):
        result = run(iterator, steps)
        losses.append(result.loss)
        time.sleep(options.seconds_per_step * result.steps)  # so that there is time to be killed in
        return result

    trainer.run = taken
    cadence = loop.Cadence(options.steps, options.steps_per_loop, 0, 0, options.checkpoint_every)
    record = Record(directory, tiny.BINS, writes=False)
    with preemption.watch_signals(trainer.stop):
        try:
            loop.fit(
                trainer,
                lambda step: tiny.batches(trainer, step),
                cadence,
                checkpoints=checkpoints,
                record=record,
            )
        except preemption.Preempted as stopped:
            strategies.wait_for_everyone(strategy)
            print(stopped, flush=True)
            sys.exit(75)
    strategies.wait_for_everyone(strategy)
    if chief:
        write_result(options.workdir / "result.npz", trainer, losses)


def write_result(path: pathlib.Path, trainer, losses) -> None:
    import numpy as np
    import tensorflow as tf

    from ncsn_tf.samplers import blocks, driver
    from tests.support import tiny

    seeds, x, _ = blocks.start_samples(tf.range(4), driver.uniform_prior, tiny.SHAPE, run_seed=0)
    drawn = tiny.sampler()(trainer.average_model.score, x, seeds)
    state = {
        f"{part}/{number}": variable.numpy()
        for part, variables in trainer.state.items()
        for number, variable in enumerate(variables)
    }
    np.savez(path, losses=np.array(losses), samples=drawn.x.numpy(), **state)


if __name__ == "__main__":
    main()
