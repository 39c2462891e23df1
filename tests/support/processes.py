"""Launchers, programs and trainings as processes of their own: their output and their end."""

import contextlib
import importlib
import json
import multiprocessing
import os
import pathlib
import socket
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in listening]


# A child is forked from a process that has imported TensorFlow and nothing more: it starts at once.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tensorflow", "ncsn_tf.sweep", "ncsn_tf.evaluation.classifier", "tests.support.tiny"])


def start(function, *arguments, output, errors=None, environment=()):
    """Starts a function in a process of its own, and returns the process.

    Args:
      function: a function of a module.
      *arguments: its arguments.
      output: the file of its standard output.
      errors: the file of its standard error, by default that of its output.
      environment: additions to the environment, a mapping.
    """
    written = str(output), str(errors or output)
    process = _CONTEXT.Process(target=_run, args=(function, arguments, *written, dict(environment)))
    process.start()
    return process


def _run(function, arguments, output, errors, environment):
    for descriptor, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(ROOT)
    for name in [name for name in os.environ if name == "TF_CONFIG" or name.startswith("SLURM")]:
        del os.environ[name]
    os.environ.update(environment)
    function(*arguments)


class Ended(NamedTuple):
    """The end of a launcher: its exit code and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def command(verb, *arguments, stand_in=False) -> list[str]:
    """The command line of a launcher as a program; see `launch`."""
    program = f"import sys; from tests.support import processes; processes.run_launcher({verb!r}, sys.argv[1:], True)"
    return [sys.executable, *(["-c", program] if stand_in else ["-m", f"launch.{verb}"]), *map(str, arguments)]


def launch(verb, *arguments, stand_in=False, environment=(), seconds=300.0) -> Ended:
    """Runs a launcher to its end.

    Args:
      verb: the launcher's name.
      *arguments: its command line.
      stand_in: whether `tiny.stand_in` takes the place of NCSN, which takes a quarter of a minute to trace.
      environment: additions to the environment, a mapping.
      seconds: after which the test fails.
    """
    line = [str(argument) for argument in arguments]
    (ended,) = finish([(run_launcher, verb, line, stand_in)], [environment], seconds)
    return ended


def run_program(program, *arguments, environment=(), seconds=100.0) -> Ended:
    """Runs the text of a program, with arguments, to its end; `environment` and `seconds` as for `launch`."""
    (ended,) = finish([(execute, program, *arguments)], [environment], seconds)
    return ended


def finish(calls, environments, seconds=100.0) -> list[Ended]:
    """Runs functions with their arguments at the same time, each in a process of its own, to their ends."""
    with tempfile.TemporaryDirectory() as folder:
        deadline, processes, files = time.monotonic() + seconds, [], []
        for number, (call, environment) in enumerate(zip(calls, environments, strict=True)):
            files.append([pathlib.Path(folder) / f"{kind}_{number}" for kind in ("output", "errors")])
            output, errors = files[-1]
            processes.append(start(*call, output=output, errors=errors, environment=environment))
        for process in processes:
            process.join(max(0.1, deadline - time.monotonic()))
        for process in processes:
            process.kill()  # one that has ended stays as it is
            process.join()
        read = [[file.read_text(encoding="utf-8") for file in pair] for pair in files]
        return [Ended(process.exitcode, *texts) for process, texts in zip(processes, read, strict=True)]


def execute(program, *arguments):
    """Runs the text of a program in this process."""
    sys.argv = ["-c", *map(str, arguments)]
    exec(program, {"__name__": "__main__"})


def run_launcher(verb, arguments, stand_in):
    """Runs a launcher in this process."""
    import tensorflow as tf

    sys.argv = [f"launch/{verb}.py", *arguments]
    if stand_in:
        from ncsn_tf.config import choices
        from tests.support import tiny

        choices.NETWORKS["ncsn"] = tiny.stand_in
    else:
        # Optimizing the graph of the real network takes longer than a few steps of it.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    importlib.import_module(f"launch.{verb}").entry_point()


def _train(arguments):
    from tests.support import train_tiny

    sys.argv = ["train_tiny.py", *arguments]
    train_tiny.main()


class Processes:
    """The workers of a training, one or several; each one's output goes to a file."""

    def __init__(self, folder: pathlib.Path, workers: int, *arguments: str):
        folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(workers)
        self.outputs, self.processes = [], []
        for index in range(workers):
            environment = {}
            if workers > 1:
                addresses = [f"127.0.0.1:{port}" for port in ports]
                task = {"type": "worker", "index": index}
                environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            # Each worker has a directory of its own: only the chief's is read and written.
            workdir = folder / f"worker_{index}"
            output = folder / f"output_{index}_{time.monotonic_ns()}.txt"
            self.outputs.append(output)
            line = [f"--workdir={workdir}", *arguments]
            self.processes.append(start(_train, line, output=output, environment=environment))

    def wait(self, seconds=150.0):
        """Waits for all and returns their exit codes; what hangs is killed, and fails the test."""
        deadline = time.monotonic() + seconds
        try:
            for process in self.processes:
                process.join(max(0.1, deadline - time.monotonic()))
                assert process.exitcode is not None, self.everything()
            return [process.exitcode for process in self.processes]
        finally:
            self.kill()

    def kill(self):
        for process in self.processes:
            process.kill()
            process.join()

    def said(self, index=0):
        return self.outputs[index].read_text()

    def everything(self):
        return "\n".join(output.read_text()[-1500:] for output in self.outputs)

    def wait_for(self, sign, seconds=100.0):
        deadline = time.monotonic() + seconds
        while not sign():
            alive = all(process.exitcode is None for process in self.processes)
            if not alive or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"ended or timed out before its time:\n{self.everything()}")
            time.sleep(0.02)
