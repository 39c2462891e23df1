"""Reads the cluster that this process belongs to, through TensorFlow's cluster resolvers.

source                                          the workers                      this process
tf_config                                       TF_CONFIG                        its task
slurm                                           the tasks of the job step        SLURMD_NODENAME, SLURM_LOCALID
kubernetes:SELECTOR[:PORT]                      the nodes of the selected pods   the one address of this machine
gce:PROJECT/ZONE/INSTANCE_GROUP[:PORT]          the running instances            the one address of this machine

Nothing here starts TensorFlow's runtime: MultiWorkerMirroredStrategy must be created before anything else uses it.
"""

import dataclasses
import json
import os
import re
import time
import types
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ncsn_tf.cluster.description import Cluster, ClusterError, check_addresses, is_local, split

_DEFAULT_PORT = 8470  # the default of TensorFlow's resolvers for Kubernetes and Compute Engine
_SLURM_PORT = 8888  # the default of its Slurm resolver for the first task of a node
_RETRY_SECONDS = 2.0
_KUBERNETES = re.compile(r"kubernetes:([^:]+)(?::([0-9]{1,5}))?")
_GCE = re.compile(r"gce:([^/]+)/([^/:]+)/([^/:]+)(?::([0-9]{1,5}))?")  # a project may be "example.com:name"
_FORMS = "'auto', 'tf_config', 'slurm', 'kubernetes:SELECTOR[:PORT]' or 'gce:PROJECT/ZONE/INSTANCE_GROUP[:PORT]'"
_NO_SUCH_JOB = {
    "ps": "Training is synchronous, without parameter servers: list these machines under 'worker'.",
    "evaluator": "Held-out data are evaluated during training: leave the evaluator out, and do not start it.",
}


def read(source: str = "auto", *, workers: int | None = None, timeout: float = 300.0) -> Cluster | None:
    """The cluster that this process belongs to.

    Args:
      source: a source of the table above, or "auto": TF_CONFIG if it is set and not empty, else Slurm if
        SLURM_STEP_NUM_TASKS is 2 or more, else no cluster. PORT is 8470 by default.
      workers: the expected number of workers. Kubernetes and the instance group list what is running at the moment:
        without the number, a worker that asks early finds fewer workers than one that asks late.
      timeout: seconds to wait for machines that Kubernetes or the instance group do not list yet.

    Returns:
      The cluster; None if this process trains alone, because no cluster is described or it has one worker.

    Raises:
      ClusterError: if the source is unknown, or if its description is missing, wrong, or has another number of workers.
        Errors of the Kubernetes or Compute API itself, such as a missing permission, are raised unchanged.
    """
    if workers is not None and workers < 1:
        raise ClusterError(f"workers must be 1 or more, or None for any number. Received: {workers}.")
    if source == "auto":
        cluster = _described()
    elif source == "tf_config":
        cluster = _tf_config()
    elif source == "slurm":
        cluster = _slurm()
    elif match := _KUBERNETES.fullmatch(source):
        cluster = _kubernetes(match[1], _port(match[2], source), _kubernetes_client()).cluster(workers, timeout)
    elif match := _GCE.fullmatch(source):
        group = _gce(match[1], match[2], match[3], _port(match[4], source), _gce_service())
        cluster = group.cluster(workers, timeout)
    else:
        raise ClusterError(f"A cluster is read from {_FORMS}. Received: {source!r}.")
    found = 1 if cluster is None else len(cluster.workers)
    if workers not in (None, found):
        described = "no cluster" if cluster is None else f"{found} workers: {', '.join(cluster.workers)}"
        raise ClusterError(f"Expected {workers} workers, found {described}. Correct the number or the cluster.")
    return None if found == 1 else cluster


def _described() -> Cluster | None:
    """The cluster that the environment describes; None if it describes none."""
    if os.environ.get("TF_CONFIG"):
        return _tf_config()
    return _slurm() if os.environ.get("SLURM_STEP_NUM_TASKS") and _slurm_number("SLURM_STEP_NUM_TASKS") > 1 else None


def _tf_config() -> Cluster | None:
    """The cluster in TF_CONFIG; None if it has no "cluster"."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise ClusterError('TF_CONFIG is not set. Set it to {"cluster": {"worker": [...]}, "task": {...}}.')
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ClusterError(f"TF_CONFIG is not valid JSON: {error}. Received: {text!r}.") from error
    if not isinstance(config, dict):
        raise ClusterError(f'TF_CONFIG must be an object with "cluster" and "task". Received: {text!r}.')
    if config.get("cluster") in (None, {}):
        return None
    _check_tf_config(config)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    jobs = resolver.cluster_spec().as_dict()
    tasks = [(job, index) for job in sorted(jobs) for index in range(len(jobs[job]))]  # the chief, then the workers
    workers = tuple(jobs[job][index] for job, index in tasks)
    return Cluster(workers, tasks.index((resolver.task_type, resolver.task_id)))


def _check_tf_config(config: dict) -> None:
    """Raises ClusterError for faults that TFConfigClusterResolver accepts, or reports without their place."""
    jobs, task = config["cluster"], config.get("task")
    if not isinstance(jobs, dict) or not all(_is_strings(addresses) for addresses in jobs.values()):
        raise ClusterError(f'TF_CONFIG["cluster"] must map jobs to lists of "host:port". Received: {jobs!r}.')
    if not isinstance(task, dict) or not {"type", "index"} <= task.keys():
        raise ClusterError(f'TF_CONFIG["task"] must be like {{"type": "worker", "index": 0}}. Received: {task!r}.')
    kind, index = task["type"], task["index"]
    for job in [*jobs, str(kind)]:
        if job in _NO_SUCH_JOB:
            raise ClusterError(f"TF_CONFIG has the job {job!r}. {_NO_SUCH_JOB[job]}")
    if unknown := [job for job in jobs if job not in ("chief", "worker")]:
        raise ClusterError(f"TF_CONFIG has the job {unknown[0]!r}. The jobs are 'worker' and, optionally, 'chief'.")
    if not isinstance(kind, str) or kind not in jobs:
        raise ClusterError(f"TF_CONFIG gives the task type {kind!r}. Give a job of its cluster: {', '.join(jobs)}.")
    if type(index) is not int or not 0 <= index < len(jobs[kind]):  # bool is an int too
        raise ClusterError(
            f"TF_CONFIG gives the task index {index!r}. Job {kind!r} has {len(jobs[kind])} tasks: give an integer "
            "from 0 to one less."
        )


def _slurm() -> Cluster:
    """The tasks of the Slurm job step that this process belongs to."""
    tasks = _slurm_number("SLURM_STEP_NUM_TASKS")
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=_SLURM_PORT,
            # The resolver drops tasks for which it finds no GPU, and 0 GPUs per task make a range of step 0: any number
            # that is large enough works. TensorFlow counts the actual GPUs, and Slurm assigns them.
            gpus_per_node=tasks,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        workers = tuple(resolver.cluster_spec().as_dict()["worker"])
    except (RuntimeError, ValueError) as error:
        raise ClusterError(
            f"Slurm's environment describes no cluster. Start every worker with srun, or set TF_CONFIG. ({error})"
        ) from error
    # Not the resolver's task_id: the resolver sorts the nodes as strings, node10 before node2, but uses Slurm's rank,
    # which follows Slurm's own order, as an index into them.
    own = f"{_slurm_variable('SLURMD_NODENAME')}:{_SLURM_PORT + _slurm_number('SLURM_LOCALID')}"
    if own not in workers:
        raise ClusterError(
            f"SLURMD_NODENAME and SLURM_LOCALID make this task {own}, which is not among the job step's workers "
            f"{', '.join(workers)}. Start every worker with srun, or set TF_CONFIG."
        )
    return Cluster(workers, workers.index(own))


def _kubernetes(selector: str, port: int, client: Any) -> "_Listing":
    """The nodes of the running pods that a label selector finds.

    Args:
      selector: the labels of the pods, such as "job-name=train".
      port: the port of every worker.
      client: a kubernetes.client.CoreV1Api, or an object with its `list_pod_for_all_namespaces`.
    """
    resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [selector]}, tf_server_port=port, override_client=client
    )
    return _Listing(
        lambda: tuple(resolver.cluster_spec().as_dict()["worker"]),
        f"pods with the labels {selector!r}",
        "TensorFlow's resolver lists the nodes of pods: give the pods `hostNetwork: true`, and each node one pod.",
    )


def _gce(project: str, zone: str, group: str, port: int, service: Any) -> "_Listing":
    """The running instances of an instance group of Google Compute Engine.

    Args:
      project: the project of the group.
      zone: the zone of the group.
      group: the name of the group.
      port: the port of every worker.
      service: googleapiclient.discovery.build("compute", "v1"), or an object with its `instances` and `instanceGroups`.
    """
    resolver = tf.distribute.cluster_resolver.GCEClusterResolver(
        project, zone, group, port, task_type="worker", credentials=None, service=_renaming(service)
    )

    def addresses() -> tuple[str, ...]:
        try:
            return tuple(resolver.cluster_spec().as_dict()["worker"])
        except KeyError as error:
            if error.args != ("items",):
                raise
            return ()  # the API omits an empty list from its answer

    remedy = "Run every worker on an instance of the group, in the network of its first interface."
    return _Listing(addresses, f"running instances of {project}/{zone}/{group}", remedy)


def _renaming(service: Any) -> Any:
    """A Compute service for GCEClusterResolver, which passes the argument `instanceGroup` as `instanceGroups`.

    Google's client refuses the wrong name with a TypeError.
    """
    groups = service.instanceGroups()

    def list_instances(**arguments):
        names = {"instanceGroups": "instanceGroup"}
        return groups.listInstances(**{names.get(name, name): value for name, value in arguments.items()})

    renamed = types.SimpleNamespace(listInstances=list_instances, listInstances_next=groups.listInstances_next)
    return types.SimpleNamespace(instances=service.instances, instanceGroups=lambda: renamed)


def _kubernetes_client() -> Any:
    """A client with the rights of the pod. The resolver's own client would read these, and then those of a user."""
    try:
        from kubernetes import client, config  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ClusterError("Reading a cluster from Kubernetes needs its client: pip install kubernetes.") from error
    try:
        config.load_incluster_config()
    except config.ConfigException as error:
        raise ClusterError(
            f"This process does not run in a Kubernetes pod. Start it in one, or set TF_CONFIG. ({error})"
        ) from error
    return client.CoreV1Api()


def _gce_service() -> Any:
    try:
        from google.auth.exceptions import DefaultCredentialsError  # pyright: ignore[reportMissingImports]
        from googleapiclient import discovery  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ClusterError(
            "Reading a cluster from a Compute Engine group needs its client: pip install google-api-python-client."
        ) from error
    try:
        return discovery.build("compute", "v1")
    except DefaultCredentialsError as error:
        raise ClusterError(f"This process has no access to the Compute API. {error}") from error


@dataclasses.dataclass(frozen=True)
class _Listing:
    """Machines that are listed while they run, so that the list may still grow.

    Attributes:
      addresses: lists the machines' addresses; raises RuntimeError while one of the machines does not run.
      described: the kind of machines, in words.
      remedy: how to make this machine one of them.
    """

    addresses: Callable[[], tuple[str, ...]]
    described: str
    remedy: str

    def cluster(self, workers: int | None = None, timeout: float = 300.0) -> Cluster:
        """The cluster, in which this process is the worker at this machine's address; arguments as for `read`."""
        addresses = self._wait(workers, timeout)
        check_addresses(addresses, self.remedy)
        own = [task for task, address in enumerate(addresses) if is_local(split(address)[0])]
        if len(own) != 1:
            which = f"{', '.join(addresses[task] for task in own)} are all" if own else "None is"
            raise ClusterError(
                f"Exactly one of the {self.described} must be this machine. Received: "
                f"{', '.join(addresses) or 'none'}. {which} this machine. {self.remedy}"
            )
        if len(addresses) == 1 and workers is None:  # this worker, and each of the others, would silently train alone
            raise ClusterError(
                f"Received one of the {self.described}, {addresses[0]}; others may not be there yet. Give the number "
                "of workers, 1 if it is the only one."
            )
        return Cluster(addresses, own[0])

    def _wait(self, workers: int | None, timeout: float) -> tuple[str, ...]:
        deadline = time.monotonic() + timeout
        while True:
            try:
                addresses = self.addresses()
            except RuntimeError as error:  # names the pod that is not running
                missing = str(error)
            else:
                if workers in (None, len(addresses)):
                    return addresses
                missing = f"{len(addresses)} instead of {workers}: {', '.join(addresses) or 'none'}"
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClusterError(
                    f"After {timeout:g} seconds the {self.described} are not as expected: {missing}. Start "
                    "missing ones, delete those that have ended, or correct the number of workers."
                )
            time.sleep(min(_RETRY_SECONDS, left))


def _port(text: str | None, source: str) -> int:
    port = _DEFAULT_PORT if text is None else int(text)
    if not 1 <= port <= 65535:
        raise ClusterError(f"The port in {source!r} must be from 1 to 65535. Received: {port}.")
    return port


def _slurm_variable(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ClusterError(f"{name} is not set, as it is in a Slurm task. Start every worker with srun.") from None


def _slurm_number(name: str) -> int:
    text = _slurm_variable(name)
    try:
        return int(text)
    except ValueError:
        raise ClusterError(
            f"{name} must be a whole number. Received: {text!r}. Start every worker with srun."
        ) from None


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
