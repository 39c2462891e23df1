"""Compares two replicas and two workers with one process on the same two cores, and measures a checkpoint.

python -m benchmarks.scaling --config=configs/mnist.py --image_shape=28,28,1

Trains the same global batch, on random images, in these layouts, in turn and `--rounds` times:

  one core           one process on one core, an upper bound for the gain from a second core
  one process        one process on two cores, the reference
  two replicas       the same under MirroredStrategy on two logical devices
  two workers        two processes of one core each under MultiWorkerMirroredStrategy over loopback

and prints images/s, their ratio to the reference, the milliseconds per step of a network of two filters on two images,
which is the fixed cost, and, for the reference, seconds and bytes of a checkpoint. Needs Linux, for CPU affinities.
"""

import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from launch.flags import cli, config, devices

_CONFIG = config.define("The configuration to measure.", required=True)
_DEVICES = devices.define()
_SHAPE = flags.DEFINE_list("image_shape", ["28", "28", "1"], "Height, width and channels of the random images.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps in each of the five timed loops.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Number of times that each layout is started.", 1)
_MEASURE = flags.DEFINE_bool("measure", False, "Measure in this process and print JSON; each layout runs this.")

# Layout -> (cores of each process, further flags). The first two cores that this process may use.
_LAYOUTS = {
    "one core": ([[0]], ["--strategy=one_device"]),
    "one process": ([[0, 1]], ["--strategy=one_device"]),
    "two replicas": ([[0, 1]], ["--logical_devices=2"]),
    "two workers": ([[0], [1]], ["--strategy=multi_worker"]),
}


def main() -> None:
    """Measures, or starts the processes that do."""
    if _MEASURE.value:
        print(json.dumps(_measured()), flush=True)
        return
    if len(os.sched_getaffinity(0)) < 2:
        cli.fail("Two cores are needed.")
    small = ["--config.network.filters=2", "--config.training.batch_size=2", "--image_shape=8,8,1"]
    found: dict[str, list[dict]] = {layout: [] for layout in _LAYOUTS}
    for _ in range(_ROUNDS.value):
        for layout, results in found.items():
            result = _run(layout, [])
            result["fixed_cost"] = _run(layout, small)["seconds_per_step"]
            results.append(result)
    rate = {layout: statistics.median(r["images_per_second"] for r in results) for layout, results in found.items()}
    print(f"{'':16s}{'images/s':>10s}{'of one process':>16s}{'fixed ms/step':>17s}")
    for layout, results in found.items():
        fixed = 1e3 * statistics.median(r["fixed_cost"] for r in results)
        print(f"{layout:16s}{rate[layout]:10.1f}{rate[layout] / rate['one process']:16.3f}{fixed:17.2f}")
    checkpoint = found["one process"][0]
    share = checkpoint["checkpoint_seconds"] / checkpoint["seconds_per_step"]
    every = _CONFIG.value.training.checkpoint_every
    print(
        f"A checkpoint: {checkpoint['checkpoint_seconds']:.3f} s, {checkpoint['checkpoint_bytes'] / 1e6:.2f} MB; "
        f"{share:.2f} of a step, and {share / every:.5f} of the training between two of them, {every} steps."
    )


def _run(layout: str, further: list[str]) -> dict:
    """Starts a layout's processes and returns what the first one measured."""
    cores = sorted(os.sched_getaffinity(0))
    parts, options = _LAYOUTS[layout]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in parts]
        addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    processes = []
    for index, part in enumerate(parts):
        environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        if len(parts) > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], "--measure", *options, *further]
        affinity = {cores[number] for number in part}
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda affinity=affinity: os.sched_setaffinity(0, affinity),
            )
        )
    outputs = [process.communicate() for process in processes]
    if any(process.returncode for process in processes):
        cli.fail(f"{layout} failed: {' '.join(errors[-400:] for _, errors in outputs)}", cli.FAILURE)
    return json.loads(outputs[0][0].splitlines()[-1])


def _measured() -> dict:
    from benchmarks import measure
    from ncsn_tf.training.checkpoints import Checkpoints

    with cli.usage_errors():
        strategy = _DEVICES.create()
        builder, source = measure.builder_for(_CONFIG.value.to_dict(), _SHAPE.value)
        builder.check_devices(strategy)
    trainer = builder.trainer(strategy, source.shape)
    iterator = iter(builder.batches(source, strategy, 0))
    seconds = measure.seconds(lambda: trainer.run(iterator, _STEPS.value)) / _STEPS.value
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder), trainer, keep=1)
        begun = time.perf_counter()
        checkpoints.save()
        taken = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in pathlib.Path(folder).iterdir())
    return {
        "seconds_per_step": seconds,
        "images_per_second": builder.training.batch_size / seconds,
        "checkpoint_seconds": taken,
        "checkpoint_bytes": size,
    }


if __name__ == "__main__":
    cli.run(main)
