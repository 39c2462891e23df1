"""The files that start training on Slurm and Kubernetes, run with stand-ins for the programs that they call."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from ncsn_tf.cluster import sources
from ncsn_tf.cluster.description import Cluster

ROOT = pathlib.Path(__file__).parents[1]
MANIFEST = ROOT / "deploy" / "kubernetes.yaml"


def stand_ins(folder, **programs):
    """A PATH on which these programs come first; each appends its arguments to NAME.txt and then runs its script."""
    for name, script in programs.items():
        file = folder / name
        file.write_text(f'#!/bin/bash\necho "$@" >> "{folder}/{name}.txt"\n{script}\n')
        file.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def flags_of(text):
    return set(re.findall(r"--([a-z_]+)=", text)) - {"config"}


def defined_flags():
    texts = [(ROOT / "launch" / name).read_text() for name in ("train.py", "flags/devices.py")]
    return set(re.findall(r'(?:DEFINE_\w+|paths\.define)\(\s*"(\w+)"', "".join(texts)))


def test_the_pods_of_the_job_are_one_cluster(tmp_path, monkeypatch):
    service, job = yaml.safe_load_all(MANIFEST.read_text())
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    count, name = job["spec"]["completions"], job["metadata"]["name"]
    assert job["spec"]["parallelism"] == count and job["spec"]["completionMode"] == "Indexed"
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    port = container["ports"][0]["containerPort"]
    workers = tuple(f"{name}-{index}.{pod['subdomain']}:{port}" for index in range(count))
    path = stand_ins(tmp_path, python='printf "%s" "$TF_CONFIG"')
    for index in range(count):
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        said = subprocess.run(
            [*container["command"], container["args"][0]],
            env={**os.environ, **given, "PATH": path, "JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert said.returncode == 0, said.stderr
        monkeypatch.setenv("TF_CONFIG", said.stdout)
        assert sources.read("tf_config") == Cluster(workers, index)
    command = (tmp_path / "python.txt").read_text()
    assert command.startswith("-m launch.train ") and flags_of(command) <= defined_flags()


def test_the_failure_policy_of_the_job_covers_the_exit_codes():
    _, job = yaml.safe_load_all(MANIFEST.read_text())
    codes = {
        rule["action"]: set(rule["onExitCodes"]["values"])
        for rule in job["spec"]["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert codes == {"FailJob": {2}, "Ignore": {75, 143}}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", (
        "Kubernetes refuses the policy with another value"
    )


@pytest.mark.parametrize(
    ("code", "state", "requeued"), [(0, "RUNNING", False), (75, "RUNNING", True), (143, "RUNNING", True),
                                    (75, "COMPLETING", False), (2, "RUNNING", False), (137, "RUNNING", False)]
)  # fmt: skip
def test_a_slurm_job_that_was_stopped_is_requeued(tmp_path, code, state, requeued):
    path = stand_ins(tmp_path, srun=f"exit {code}", squeue=f"echo {state}", scontrol="")
    ended = subprocess.run(
        ["bash", str(ROOT / "deploy" / "slurm.sh"), "--config=configs/digits.py", "--workdir=runs/x"],
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": "17"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == code, ended.stderr
    asked = tmp_path / "scontrol.txt"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 17\n" if requeued else "")
    started = (tmp_path / "srun.txt").read_text()
    assert "-m launch.train --cluster=slurm --config=configs/digits.py --workdir=runs/x" in started


def test_the_documented_tf_config_is_valid():
    text = (ROOT / "docs" / "distributed.md").read_text()
    snippet = re.search(r"```bash\n(INDEX=0.*?)\npython", text, re.DOTALL)
    assert snippet is not None
    said = subprocess.run(
        ["bash", "-euc", f'{snippet[1]}\nprintf "%s" "$TF_CONFIG"'], capture_output=True, text=True, timeout=30
    )
    config = json.loads(said.stdout)
    assert len(config["cluster"]["worker"]) == 2 and config["task"] == {"type": "worker", "index": 0}
