"""Trainings as processes of their own: where they listen, what they said, and their end."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in listening]


def outcomes(folder: pathlib.Path, cases, environment=()):
    """What launchers say to many command lines, in one process a launcher; see `tests.support.forked`.

    Args:
      folder: for what the launchers say.
      cases: (verb, arguments) by name.
      environment: what is added to the environment, a mapping.

    Returns:
      (exit code, standard error) by name.
    """
    found = {}
    for verb in sorted({verb for verb, _ in cases.values()}):
        names = [name for name, (other, _) in cases.items() if other == verb]
        asked = [
            {
                "arguments": [str(argument) for argument in cases[name][1]],
                "environment": dict(environment),
                "errors": str(folder / f"{verb}_{number}.txt"),
            }
            for number, name in enumerate(names)
        ]
        result = subprocess.run(
            [sys.executable, "-m", "tests.support.forked", verb],
            cwd=ROOT,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        codes = json.loads(result.stdout.splitlines()[-1])
        for name, code, case in zip(names, codes, asked, strict=True):
            found[name] = code, pathlib.Path(case["errors"]).read_text(encoding="utf-8")
    return found


class Processes:
    """The workers of a training, one or several; each one's output goes to a file."""

    def __init__(self, folder: pathlib.Path, workers: int, *arguments: str):
        folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(workers)
        self.outputs, self.processes = [], []
        for index in range(workers):
            environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
            if workers > 1:
                addresses = [f"127.0.0.1:{port}" for port in ports]
                task = {"type": "worker", "index": index}
                environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            # Each worker has a directory of its own: only the chief's is read and written.
            workdir = folder / f"worker_{index}"
            output = folder / f"output_{index}_{time.monotonic_ns()}.txt"
            command = [sys.executable, "-m", "tests.support.train_tiny", f"--workdir={workdir}", *arguments]
            self.outputs.append(output)
            with output.open("w") as file:
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
                )

    def wait(self, seconds=150.0):
        """Waits for all and returns their exit codes; what hangs is killed, and fails the test."""
        deadline = time.monotonic() + seconds
        try:
            return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]
        finally:
            self.kill()

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def said(self, index=0):
        return self.outputs[index].read_text()

    def everything(self):
        return "\n".join(output.read_text()[-1500:] for output in self.outputs)

    def wait_for(self, sign, seconds=100.0):
        deadline = time.monotonic() + seconds
        while not sign():
            alive = all(process.poll() is None for process in self.processes)
            if not alive or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"ended or timed out before its time:\n{self.everything()}")
            time.sleep(0.02)
