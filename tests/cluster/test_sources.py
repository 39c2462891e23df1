"""The description of a cluster: equal on all machines except for the index; every mistake is reported in time."""

import json
import os
import socket
import sys
from types import SimpleNamespace

import pytest
from tensorflow.python.eager import context

from ncsn_tf.cluster import description, sources
from ncsn_tf.cluster.description import Cluster, ClusterError

HERE, ELSEWHERE = "127.0.0.1", "203.0.113.1"  # the second is reserved for documentation
WORKERS = ["a:1", "b:2"]
LISTED = {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": 1}}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in list(os.environ):
        if name == "TF_CONFIG" or name.startswith("SLURM"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sources, "_RETRY_SECONDS", 0.01)


def tf_config(monkeypatch, **changes):
    monkeypatch.setenv("TF_CONFIG", json.dumps({**LISTED, **changes}))


def task(kind, index):
    return {"type": kind, "index": index}


def slurm(monkeypatch, node, local=0, **changes):
    """The environment of a task on one of the nodes node1 to node11; its rank follows Slurm's order of the nodes."""
    values = {
        "SLURM_PROCID": str(int(node.removeprefix("node")) - 1),
        "SLURM_STEP_NUM_TASKS": "11",
        "SLURM_STEP_NODELIST": "node[1-11]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x11)",
        "SLURMD_NODENAME": node,
        "SLURM_LOCALID": str(local),
    }
    for name, value in {**values, **changes}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)


class Pods:
    """The part of CoreV1Api that TensorFlow calls.

    A pod is (name, address of its node, phase). Each call returns the next list; the last list is repeated.
    """

    def __init__(self, *answers):
        self.answers, self.selectors = list(answers), []

    def list_pod_for_all_namespaces(self, *, label_selector):
        self.selectors.append(label_selector)
        pods = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return SimpleNamespace(
            items=[
                SimpleNamespace(
                    metadata=SimpleNamespace(name=name), status=SimpleNamespace(host_ip=address, phase=phase)
                )
                for name, address, phase in pods
            ]
        )


class Compute:
    """The part of the Compute service that TensorFlow calls. An instance is (name, address); each page is a list."""

    def __init__(self, *pages):
        self.pages, self.arguments = pages, {}
        self.addresses = dict(instance for page in pages for instance in page)

    def instanceGroups(self):
        return SimpleNamespace(listInstances=self._list, listInstances_next=self._next)

    def instances(self):
        return SimpleNamespace(get=self._get)

    def _list(self, **arguments):
        if unknown := arguments.keys() - {"project", "zone", "instanceGroup", "body", "orderBy"}:
            raise TypeError(f"Got an unexpected keyword argument {unknown.pop()}")
        self.arguments = arguments
        return self._page(0)

    def _page(self, number):
        items = [{"instance": f"https://www.example.com/instances/{name}"} for name, _ in self.pages[number]]
        return SimpleNamespace(execute=lambda: {"items": items} if items else {}, number=number)

    def _next(self, *, previous_request, previous_response):
        assert "items" in previous_response
        number = previous_request.number + 1
        return self._page(number) if number < len(self.pages) else None

    def _get(self, *, project, zone, instance):
        return SimpleNamespace(execute=lambda: {"networkInterfaces": [{"networkIP": self.addresses[instance]}]})


def pods(*addresses, phase="Running"):
    return [(f"pod-{number}", address, phase) for number, address in enumerate(addresses)]


def listener(*options):
    """A socket that listens at a free port of all addresses."""
    server = socket.socket()
    for option in options:
        server.setsockopt(socket.SOL_SOCKET, option, 1)
    server.bind(("", 0))
    server.listen()
    return server, server.getsockname()[1]


# The cluster


def test_the_resolver_describes_the_cluster_without_starting_tensorflow(monkeypatch):
    def start(self):
        raise AssertionError("TensorFlow's runtime was started")

    monkeypatch.setattr(type(context.context()), "ensure_initialized", start)
    tf_config(monkeypatch)
    found = sources.read()
    resolver = found.resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": WORKERS}
    assert (resolver.task_type, resolver.task_id, resolver.rpc_layer) == ("worker", 1, "grpc")
    monkeypatch.setattr(
        sources.tf.config, "list_physical_devices", lambda kind: ["one", "two"] if kind == "GPU" else []
    )
    assert found.resolver().num_accelerators() == {"GPU": 2}


@pytest.mark.parametrize(
    ("workers", "index", "message"),
    [
        (("a:1", "b"), 0, "host:port.*Received: 'b'"),
        (("a:1", "b:0"), 0, "from 1 to 65535.*'b:0'"),
        (("a:1", "b:65536"), 0, "'b:65536'"),
        (("a:1", "grpc://b:2"), 0, "'grpc://b:2'"),
        (("a:1", ":2"), 0, "':2'"),
        (("a:1", "b:2", "a:1"), 0, "a:1 is the address of two workers. Give every worker its own"),
        (("a:1", "b:2"), 2, "Tasks of 2 workers are counted from 0. Received: task 2"),
        (("a:1", "b:2"), -1, "Received: task -1"),
    ],
)
def test_impossible_clusters_are_refused(workers, index, message):
    with pytest.raises(ClusterError, match=message):
        Cluster(workers, index)


@pytest.mark.parametrize(
    "source",
    ["", "TF_CONFIG", "none", "kubernetes", "kubernetes:", "kubernetes:a=b:port", "kubernetes:a=b:1:2", "gce:p/z"]
    + ["gce:p/z/", "gce:p/z/g/h", "gce:p/z/g:port"],
)
def test_unknown_sources_are_refused_with_the_known_forms(source):
    with pytest.raises(ClusterError, match="'kubernetes:SELECTOR.*'gce:PROJECT/ZONE/INSTANCE_GROUP") as error:
        sources.read(source)
    assert repr(source) in str(error.value)


@pytest.mark.parametrize("source", ["kubernetes:a=b:0", "gce:p/z/g:65536"])
def test_impossible_ports_are_refused(source):
    with pytest.raises(ClusterError, match="from 1 to 65535. Received: (0|65536)"):
        sources.read(source)


def test_an_unexpected_number_of_workers_is_refused(monkeypatch):
    with pytest.raises(ClusterError, match="Expected 2 workers, found no cluster. Correct"):
        sources.read(workers=2)
    assert sources.read(workers=1) is None
    tf_config(monkeypatch)
    assert sources.read(workers=2) == Cluster(("a:1", "b:2"), 1)
    with pytest.raises(ClusterError, match="Expected 3 workers, found 2 workers: a:1, b:2"):
        sources.read(workers=3)
    with pytest.raises(ClusterError, match="1 or more.*Received: 0"):
        sources.read(workers=0)


# TF_CONFIG


def test_the_environment_determines_the_cluster(monkeypatch):
    assert sources.read() is None
    slurm(monkeypatch, "node1", SLURM_STEP_NUM_TASKS="1")
    assert sources.read() is None
    slurm(monkeypatch, "node1")
    assert sources.read().workers[0] == "node1:8888"
    monkeypatch.setenv("TF_CONFIG", "")
    assert sources.read().workers[0] == "node1:8888"
    tf_config(monkeypatch)
    assert sources.read().workers[0] == "a:1"


@pytest.mark.parametrize(("own", "index"), [(task("chief", 0), 0), (task("worker", 0), 1), (task("worker", 1), 2)])
def test_the_chief_is_the_first_worker(monkeypatch, own, index):
    tf_config(monkeypatch, cluster={"worker": WORKERS, "chief": ["c:3"]}, task=own)
    assert sources.read("tf_config") == Cluster(("c:3", "a:1", "b:2"), index)


@pytest.mark.parametrize(
    "config",
    [
        {"cluster": None},
        {"cluster": {}, "task": None},
        {"cluster": {"worker": ["a:1"]}, "task": task("worker", 0)},
        {"cluster": {"chief": ["a:1"], "worker": []}, "task": task("chief", 0)},
    ],
)
def test_a_tf_config_of_one_task_describes_no_cluster(monkeypatch, config):
    tf_config(monkeypatch, **config)
    assert sources.read("tf_config") is None


@pytest.mark.parametrize("text", [None, ""])
def test_tf_config_must_be_set_if_it_is_the_source(monkeypatch, text):
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ClusterError, match="TF_CONFIG is not set. Set it to"):
        sources.read("tf_config")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{'cluster': 1}", "not valid JSON.*'cluster': 1"), ('["a:1"]', "must be an object.*Received")],
)
def test_tf_configs_that_are_not_objects_are_refused(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ClusterError, match=message):
        sources.read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": WORKERS}, "must map jobs to lists.*'a:1'"),
        ({"cluster": {"worker": "a:1"}}, "must map jobs to lists"),
        ({"cluster": {"worker": ["a:1", 2]}}, "must map jobs to lists"),
        ({"cluster": {"worker": ["a:1", "b"]}}, "host:port.*'b'"),
        ({"cluster": {"chief": ["a:1"], "worker": WORKERS}}, "a:1 is the address of two"),
        ({"cluster": {"worker": WORKERS, "ps": ["c:3"]}}, "job 'ps'. .*list these machines under 'worker'"),
        ({"cluster": {"worker": WORKERS, "evaluator": ["c:3"]}}, "job 'evaluator'. .*leave the evaluator out"),
        ({"task": task("evaluator", 0)}, "job 'evaluator'. .*leave the evaluator out"),
        ({"cluster": {"master": ["a:1"]}}, "job 'master'. The jobs are 'worker'"),
        ({"task": None}, "Received: None"),
        ({"task": {"type": "worker"}}, r"must be like .*'type': 'worker'\}"),
        ({"task": {"index": 0}}, r"must be like .*\{'index': 0\}"),
        ({"task": task("chief", 0)}, "task type 'chief'. Give a job of its cluster: worker"),
        ({"task": task(["worker"], 0)}, r"task type \['worker'\]"),
        ({"task": task("worker", 2)}, "task index 2. Job 'worker' has 2 tasks: give an integer from 0"),
        ({"task": task("worker", -1)}, "task index -1"),
        ({"task": task("worker", "1")}, "task index '1'"),
        ({"task": task("worker", 1.0)}, "task index 1.0"),
        ({"task": task("worker", True)}, "task index True"),
    ],
)
def test_mistakes_in_tf_config_are_named(monkeypatch, changes, message):
    tf_config(monkeypatch, **changes)
    with pytest.raises(ClusterError, match=message):
        sources.read()


# Slurm


def test_slurm_tasks_find_their_own_address_in_any_order_of_names(monkeypatch):
    seen = []
    for number in range(1, 12):
        slurm(monkeypatch, f"node{number}")
        found = sources.read("slurm")
        assert found.workers[found.task] == f"node{number}:8888"
        seen.append(found)
    assert len({found.workers for found in seen}) == 1
    assert sorted(found.task for found in seen) == list(range(11))


def test_slurm_tasks_of_one_node_differ_by_their_port(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    changes = {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "3,1",
    }
    workers = ("node1:8888", "node1:8889", "node1:8890", "node2:8888")
    for index, (node, local) in enumerate([("node1", 0), ("node1", 1), ("node1", 2), ("node2", 0)]):
        slurm(monkeypatch, node, local, **changes)
        assert sources.read() == Cluster(workers, index)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": None}, "SLURM_STEP_NUM_TASKS is not set.*srun"),
        ({"SLURM_STEP_NUM_TASKS": "many"}, "SLURM_STEP_NUM_TASKS must be a whole number. Received: 'many'"),
        ({"SLURM_STEP_NUM_TASKS": "12"}, "srun.*Requested 12 tasks but only 11"),
        ({"SLURM_PROCID": None}, "srun.*SLURM_PROCID not found"),
        ({"SLURM_STEP_NODELIST": None}, "SLURM_STEP_NODELIST not found"),
        ({"SLURM_STEP_NODELIST": "node[1-11]-ib"}, r"set TF_CONFIG. .*node\[1-11\]-ib"),
        ({"SLURM_STEP_TASKS_PER_NODE": None}, "SLURM_STEP_TASKS_PER_NODE not found"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1x11"}, "tasks-per-node.*1x11"),
        ({"SLURMD_NODENAME": None}, "SLURMD_NODENAME is not set.*srun"),
        ({"SLURMD_NODENAME": "login"}, "login:8888, which is not among .*node1:8888.*srun"),
        ({"SLURM_LOCALID": None}, "SLURM_LOCALID is not set"),
        ({"SLURM_LOCALID": "first"}, "SLURM_LOCALID must be a whole number. Received: 'first'"),
        ({"SLURM_LOCALID": "1"}, "node1:8889, which is not among"),
    ],
)
def test_mistakes_in_slurms_environment_are_named(monkeypatch, changes, message):
    slurm(monkeypatch, "node1", **changes)
    with pytest.raises(ClusterError, match=message):
        sources.read("slurm")


# Kubernetes and Compute Engine


def test_kubernetes_lists_the_nodes_of_pods_by_their_names(monkeypatch):
    client = Pods([("pod-b", HERE, "Running"), ("pod-a", ELSEWHERE, "Running")])
    monkeypatch.setattr(sources, "_kubernetes_client", lambda: client)
    assert sources.read("kubernetes:app=train,size in (l):99") == Cluster((f"{ELSEWHERE}:99", f"{HERE}:99"), 1)
    assert client.selectors == ["app=train,size in (l)"]
    assert sources.read("kubernetes:app=train").workers == (f"{ELSEWHERE}:8470", f"{HERE}:8470")
    monkeypatch.setattr(sources, "_kubernetes_client", lambda: Pods(pods(HERE)))
    assert sources.read("kubernetes:app=train", workers=1) is None


def test_pods_are_waited_for_until_all_of_the_expected_number_run():
    running = pods(ELSEWHERE, HERE)
    client = Pods(pods(ELSEWHERE, HERE, phase="Pending"), pods(ELSEWHERE), running)
    assert sources._kubernetes("a=b", 99, client).cluster(workers=2).task == 1
    assert len(client.selectors) == 3
    client = Pods(pods(HERE, phase="Pending"), running)
    assert len(sources._kubernetes("a=b", 99, client).cluster().workers) == 2


@pytest.mark.parametrize(
    ("listed", "workers", "message"),
    [
        (
            pods(HERE, ELSEWHERE, phase="Failed"),
            None,
            'After 0.05 seconds.*Pod "pod-0" is not running.*"Failed".*delete',
        ),
        (pods(HERE, ELSEWHERE), 3, f"2 instead of 3: {HERE}:99, {ELSEWHERE}:99. Start missing ones"),
        (pods(HERE, ELSEWHERE), 1, "2 instead of 1"),
        ([], 2, "0 instead of 2: none"),
        ([], None, "labels 'a=b' must be this machine. Received: none. None is"),
        (pods(ELSEWHERE, "203.0.113.2"), None, "203.0.113.2:99. None is this machine.*hostNetwork: true"),
        (pods(HERE, "localhost"), None, f"{HERE}:99, localhost:99 are all this machine"),
        (pods(HERE, HERE), None, f"{HERE}:99 is the address of two.*each node one"),
        (pods(HERE), None, f"{HERE}:99; others may not be there yet. Give the number"),
    ],
)
def test_pods_that_are_not_a_cluster_are_named(listed, workers, message):
    with pytest.raises(ClusterError, match=message):
        sources._kubernetes("a=b", 99, Pods(listed)).cluster(workers, timeout=0.05)


def test_the_instances_of_a_group_are_found_page_by_page(monkeypatch):
    service = Compute([("b", ELSEWHERE)], [("a", HERE)])
    monkeypatch.setattr(sources, "_gce_service", lambda: service)
    assert sources.read("gce:example.com:p/z/g:99") == Cluster((f"{HERE}:99", f"{ELSEWHERE}:99"), 0)
    where = {"project": "example.com:p", "zone": "z", "instanceGroup": "g"}
    assert where.items() <= service.arguments.items()
    assert service.arguments["body"] == {"instanceState": "RUNNING"}
    assert sources.read("gce:p/z/g").workers == (f"{HERE}:8470", f"{ELSEWHERE}:8470")


@pytest.mark.parametrize(
    ("service", "workers", "message"),
    [
        (Compute([]), None, "instances of p/z/g must be this machine. Received: none"),
        (Compute([]), 2, "After 0.05 seconds.*0 instead of 2"),
        (Compute([("a", ELSEWHERE)]), None, "None is this machine.*on an instance of the group"),
    ],
)
def test_instances_that_are_not_a_cluster_are_named(service, workers, message):
    with pytest.raises(ClusterError, match=message):
        sources._gce("p", "z", "g", 99, service).cluster(workers, timeout=0.05)


def test_an_answer_of_another_form_is_not_an_empty_group():
    service = Compute([("a", HERE)])
    service._get = lambda **_: SimpleNamespace(execute=dict)
    with pytest.raises(KeyError, match="networkInterfaces"):
        sources._gce("p", "z", "g", 99, service).cluster()


@pytest.mark.parametrize(
    ("source", "package", "message"),
    [
        ("kubernetes:a=b", "kubernetes", "pip install kubernetes"),
        ("gce:p/z/g", "googleapiclient", "pip install google-api-python-client"),
    ],
)
def test_a_missing_client_is_named(monkeypatch, source, package, message):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ClusterError, match=message):
        sources.read(source)


def test_clients_use_the_rights_of_the_machine_or_report_that_it_has_none(monkeypatch):
    class NoRights(Exception):
        pass

    loaded = []

    def refuse(*_):
        raise NoRights("nothing here")

    config = SimpleNamespace(load_incluster_config=lambda: loaded.append("pod"), ConfigException=NoRights)
    client = SimpleNamespace(CoreV1Api=lambda: tuple(loaded))
    monkeypatch.setitem(sys.modules, "kubernetes", SimpleNamespace(client=client, config=config))
    assert sources._kubernetes_client() == ("pod",)
    config.load_incluster_config = refuse
    with pytest.raises(ClusterError, match="not run in a Kubernetes pod.*nothing here"):
        sources._kubernetes_client()

    discovery = SimpleNamespace(build=lambda *what: what)
    monkeypatch.setitem(sys.modules, "googleapiclient", SimpleNamespace(discovery=discovery))
    for name in ("google", "google.auth"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "google.auth.exceptions", SimpleNamespace(DefaultCredentialsError=NoRights))
    assert sources._gce_service() == ("compute", "v1")
    discovery.build = refuse
    with pytest.raises(ClusterError, match="no access to the Compute API.*nothing here"):
        sources._gce_service()


# Sockets


@pytest.mark.parametrize(
    ("host", "local"),
    [(HERE, True), ("localhost", True), (ELSEWHERE, False), ("no-such-host.invalid", False), ("a..b", False)],
)
def test_a_machine_recognises_its_own_addresses(host, local):
    assert description.is_local(host) is local
