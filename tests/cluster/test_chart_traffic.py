"""What the chart releases, at work: its agent sees a lab's traffic, its aggregator names it by a real API server, and
that server would take the policies.

The API server's own controllers make the pods; the lab runs them under the names, UIDs and Service addresses that the
API server gave, and this test, in the kubelet's place, tells it their addresses. The agent runs as the DaemonSet says:
command, variables, capabilities, token and certificate authority; only paths and ports are this machine's.
"""

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from lab import client as lab
from lab.errors import LabError
from tests.cluster.conftest import create_namespace
from tests.cluster.controlplane import Admin, ApiRefusal, ControlPlane, free_port, random_name, wait_until
from tests.cluster.release import NAME, RELEASE, ROOT, SQLITE, certificate, command_of, released_aggregator

NODE, NODE_ADDRESS, POD_RANGE = "lab-node", "172.18.0.2", "10.244.0.0/24"  # the lab's first node
LAB = "chart"
DNS_SERVICE = "/api/v1/namespaces/kube-system/services/kube-dns"
DNS_WORKLOAD = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"


@dataclass(frozen=True, kw_only=True)
class App:
    """A Deployment of one pod, the Service before it, and what the lab runs in it."""

    name: str
    program: dict[str, Any]
    port: int = 0  # 0 = nobody calls it
    namespace: str = ""  # "" = the test's own
    pod: dict[str, Any] | None = None

    def objects(self) -> list[dict[str, Any]]:
        labels = {"app": self.name}
        container: dict[str, Any] = {"name": "c", "image": "none"}
        if self.port:
            container["ports"] = [{"name": "main", "containerPort": self.port}]
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [container], "automountServiceAccountToken": False, **(self.pod or {})},
        }
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name},
            "spec": {"selector": labels, "ports": [{"name": "main", "port": self.port, "targetPort": "main"}]},
        }
        return [deployment, service] if self.port else [deployment]


APPS = (
    App(name="client", program={"process": "curl", "calls": ["http://api:8080/"]}),
    App(name="api", port=8080, program={"process": "api", "listen": ["http:8080"], "calls": ["tcp://db:5432"]}),
    App(name="db", port=5432, program={"process": "postgres", "listen": ["tcp:5432"]}),
)


# ---- the cluster's side ---------------------------------------------------------------------------------------------


@pytest.fixture
def node(admin: Admin) -> Iterator[str]:
    """The lab's node as the API server knows it."""
    spec = {"podCIDRs": [POD_RANGE], "podCIDR": POD_RANGE}
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NODE}
    admin.create("/api/v1/nodes", {"metadata": {"name": NODE, "labels": labels}, "spec": spec})
    address = {"type": "InternalIP", "address": NODE_ADDRESS}
    admin.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"addresses": [address]}})
    yield NODE
    admin.delete(f"/api/v1/nodes/{NODE}")


@pytest.fixture
def cluster_dns(admin: Admin) -> Iterator[None]:
    """CoreDNS as kubeadm names it."""
    labels = {"k8s-app": "kube-dns"}
    ports = [{"name": f"dns-{p.lower()}", "port": 53, "protocol": p, "targetPort": 53} for p in ("UDP", "TCP")]
    service = {
        "metadata": {"name": "kube-dns", "labels": labels},
        "spec": {"clusterIP": "10.96.0.10", "selector": labels, "ports": ports},
    }
    admin.create(DNS_SERVICE.rpartition("/")[0], service)
    container = {
        "name": "c",
        "image": "none",
        "ports": [{"name": p.lower(), "containerPort": 53, "protocol": p} for p in ("UDP", "TCP")],
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "dnsPolicy": "Default", "automountServiceAccountToken": False},
    }
    deployment = {
        "metadata": {"name": "coredns"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    admin.create(DNS_WORKLOAD.rpartition("/")[0], deployment)
    yield
    admin.delete(DNS_SERVICE)
    admin.delete(DNS_WORKLOAD)
    wait_until(lambda: _no_pods(admin, "kube-system"), "the name server's pods to go", 60)


def _no_pods(admin: Admin, namespace: str) -> bool:
    """In the kubelet's place: a pod that is asked to go is gone."""
    left = pods_of(admin, namespace)
    for pod in left:
        with suppress(ApiRefusal):  # its controller may have been quicker
            admin.delete(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}", now=True)
    return not left


def pods_of(admin: Admin, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return found


def bind(admin: Admin, pod: Mapping[str, Any]) -> None:
    """In the scheduler's place."""
    meta = pod["metadata"]
    target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding"
    admin.create(path, {"metadata": {"name": meta["name"]}, "target": target})


def deploy(admin: Admin, namespace: str) -> list[dict[str, Any]]:
    """The pods that the API server's controllers make of the applications and of the name server, bound."""
    for app in APPS:
        for each in app.objects():
            group = "/apis/apps/v1" if each["kind"] == "Deployment" else "/api/v1"
            admin.create(f"{group}/namespaces/{namespace}/{each['kind'].lower()}s", each)
    wait_until(lambda: len(pods_of(admin, namespace)) == len(APPS), "the pods")
    wait_until(lambda: len(pods_of(admin, "kube-system")) == 1, "the name server's pod")
    made = [*pods_of(admin, namespace), *pods_of(admin, "kube-system")]
    for pod in made:
        bind(admin, pod)
    return made


# ---- the lab's side -------------------------------------------------------------------------------------------------


def scenario(admin: Admin, namespace: str, made: list[dict[str, Any]], path: Path) -> Path:
    """Those pods and Services as the lab runs them."""
    programs: dict[str, dict[str, Any]] = {app.name: app.program for app in APPS}
    run: dict[str, Any] = {}
    documents: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}},
    ]
    for pod in made:
        meta, spec = pod["metadata"], pod["spec"]
        program = programs.get(meta["labels"].get("app", ""), {"dns": 53})
        run[f"{meta['namespace']}/Pod/{meta['name']}"] = {"containers": {"c": program}}
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "labels")},
                "spec": {"containers": spec["containers"], "dnsPolicy": spec["dnsPolicy"]},
            }
        )
    for where in (namespace, "kube-system"):
        for service in admin.get(f"/api/v1/namespaces/{where}/services")["items"]:
            meta = {key: service["metadata"][key] for key in ("name", "namespace")}
            spec = {key: service["spec"][key] for key in ("clusterIP", "selector", "ports")}
            documents.append({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    head = {"lab": {"name": LAB, "select": next(iter(run)), "run": run}}
    path.write_text(yaml.safe_dump_all([head, *documents], sort_keys=False))
    return path


def tell_addresses(admin: Admin, running: lab.LabHandle) -> None:
    """In the kubelet's place: each pod's status as the lab has it."""
    for file in running.objects_dir.glob("pod.*.yaml"):
        pod = yaml.safe_load(file.read_text())
        meta = pod["metadata"]
        status = pod["status"]
        for each in status["containerStatuses"]:
            each["imageID"] = ""
        admin.patch(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status", {"status": status})


# ---- the agent ------------------------------------------------------------------------------------------------------


def agents_pod(admin: Admin, place: str) -> dict[str, Any]:
    """The pod that the DaemonSet's controller made for the lab's node."""

    def found() -> dict[str, Any] | None:
        return next((pod for pod in pods_of(admin, place) if NODE in json.dumps(pod["spec"].get("affinity", {}))), None)

    pod: dict[str, Any] = wait_until(found, "the DaemonSet's pod for the lab's node")
    bind(admin, pod)
    return admin.get(f"/api/v1/namespaces/{place}/pods/{pod['metadata']['name']}")


def volumes(
    plane: ControlPlane, admin: Admin, pod: Mapping[str, Any], folder: Path, host_paths: Mapping[str, Path]
) -> dict[str, Path]:
    """What the kubelet would mount: a folder for each volume of the pod, by its name."""
    meta, found = pod["metadata"], {}
    for volume in pod["spec"]["volumes"]:
        place = folder / volume["name"]
        match volume:
            case {"hostPath": {"path": path}}:
                place = host_paths.get(path, Path(path))
            case {"secret": {"secretName": _, "items": items}}:
                place.mkdir()
                data = certificate(admin, meta["namespace"])
                for item in items:
                    (place / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))
            case {"projected": {"sources": [{"serviceAccountToken": asked}]}}:
                place.mkdir()
                token = plane.token(
                    meta["namespace"],
                    pod["spec"]["serviceAccountName"],
                    audiences=[asked["audience"]],
                    expirationSeconds=asked["expirationSeconds"],
                    boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]},
                )
                (place / asked["path"]).write_text(token)
            case {"emptyDir": _}:
                place.mkdir()
            case _:
                pytest.fail(f"the kubelet's part is not played for {volume}")
        found[volume["name"]] = place
    return found


def environment_of(pod: Mapping[str, Any], mounted: Mapping[str, Path]) -> dict[str, str]:
    """The container's variables, with this machine's folders where the container has its mounts."""
    [container] = pod["spec"]["containers"]
    where = sorted(container["volumeMounts"], key=lambda mount: -len(mount["mountPath"]))
    given: dict[str, str] = {}
    for variable in container["env"]:
        value = variable.get("value")
        if value is None:
            assert variable["valueFrom"] == {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}
            value = pod["spec"]["nodeName"]
        for mount in where:
            if value == mount["mountPath"] or value.startswith(f"{mount['mountPath']}/"):
                value = str(mounted[mount["name"]]) + value.removeprefix(mount["mountPath"])
                break
        given[variable["name"]] = value
    return given


@contextmanager
def released_agent(
    plane: ControlPlane, admin: Admin, place: str, folder: Path, running: lab.LabHandle, ingest: str
) -> Iterator[str]:
    """As its pod says; where its health is asked for. `ingest`: where the Service's address leads to."""
    pod = agents_pod(admin, place)
    [container] = pod["spec"]["containers"]
    bpf = folder / "bpffs"
    bpf.mkdir()
    host_paths = {"/var/log/pods": running.pod_logs_dir, "/sys/fs/bpf": bpf}
    given = environment_of(pod, volumes(plane, admin, pod, folder, host_paths))
    given["WATTLE_SERVER_NAME"] = given["WATTLE_SERVER"].rpartition(":")[0]
    given["WATTLE_SERVER"] = ingest
    given["WATTLE_HTTP_LISTEN"] = f"127.0.0.1:{free_port()}"
    rights = container["securityContext"]["capabilities"]
    assert rights["drop"] == ["ALL"]
    bounding = ",".join(["-all", *(f"+{right.lower()}" for right in rights["add"])])
    words = ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--no-new-privs", "--"]
    words += command_of(container, "agent")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTLE_")} | given
    log = folder / "agent.log"
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpf)], check=True)
    try:
        with log.open("wb") as sink:
            process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=sink, stderr=sink)
        try:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    with urlopen(f"http://{given['WATTLE_HTTP_LISTEN']}/readyz", timeout=5) as answer:
                        return bool(answer.status == 200)
                except HTTPError:
                    return False

            wait_until(ready, "the agent's first batch to be committed", 90)
            yield given["WATTLE_HTTP_LISTEN"]
            process.terminate()
            assert process.wait(timeout=15) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    finally:
        subprocess.run(["umount", "--lazy", str(bpf)], check=True)


# ---- what comes of it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who reviews, by a token that opens Wattle alone."""

    address: str
    token: str

    def get(self, path: str) -> Any:
        asked = Request(f"http://{self.address}/api/v1{path}", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urlopen(asked, timeout=30) as answer:
                return json.loads(answer.read())
        except HTTPError as refusal:
            raise AssertionError(f"{path}: {refusal.code} {refusal.read().decode()}") from refusal


@contextmanager
def person(plane: ControlPlane, admin: Admin, namespace: str, address: str) -> Iterator[Person]:
    """Somebody with the release's role for viewers, in the whole cluster: its name server is in another namespace."""
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "reviewer"}})
    binding = {
        "metadata": {"name": f"reviewer-{namespace}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{NAME}-viewer"},
        "subjects": [{"kind": "ServiceAccount", "name": "reviewer", "namespace": namespace}],
    }
    admin.create(bindings, binding)
    yield Person(address=address, token=plane.token(namespace, "reviewer", audiences=["wattle"]))
    admin.delete(f"{bindings}/reviewer-{namespace}")


def _numbers(address: str) -> str:
    """What the recorder made of what came, for a failure that can be read."""
    with urlopen(f"http://{address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    told = ("wattle_recording_", "wattle_ingest_flow_records", "wattle_pending_")
    return "\n".join(line for line in lines if line.startswith(told) and "_bucket" not in line)


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("the lab and the agent need root: `make test-cluster` runs this module so")


def test_the_traffic_of_a_lab_becomes_policies_that_the_api_server_takes(
    helm: Any, chart: str, plane: ControlPlane, admin: Admin, place: str, node: str, cluster_dns: None, tmp_path: Path
) -> None:
    needs_root()
    del cluster_dns
    namespace = random_name("shop")
    create_namespace(admin, namespace)
    values = {
        "database": SQLITE,
        "rbac": {"dryRun": True},
        "agent": {"settings": {"kubelet_cgroup": f"/wl-{LAB}", "drain_interval_seconds": 1}},
    }
    helm.install(chart, RELEASE, values, namespace=place)
    made = deploy(admin, namespace)
    try:
        started = lab.up(scenario(admin, namespace, made, tmp_path / "lab.yaml"))
    except LabError as reason:
        pytest.fail(f"the lab does not start: {reason}")
    aside, agents = tmp_path / "aggregator", tmp_path / "agent"
    aside.mkdir()
    agents.mkdir()
    try:
        tell_addresses(admin, started)
        with (
            released_aggregator(plane, admin, place, aside) as (told, log),
            released_agent(plane, admin, place, agents, started, told["WATTLE_INGEST_LISTEN"]),
            person(plane, admin, namespace, told["WATTLE_HTTP_LISTEN"]) as who,
        ):
            api = f"/workloads/{namespace}/Deployment/api"

            def links() -> set[tuple[str, str, int]]:
                rows = who.get(f"{api}/links")["items"]
                return {(row["direction"], row["peer"]["name"], row["port"]) for row in rows}

            expected = {("Ingress", "client", 8080), ("Egress", "db", 5432), ("Egress", "coredns", 53)}
            try:
                wait_until(lambda: links() >= expected, "every link", 90)
            except AssertionError as exc:
                pytest.fail(f"{exc}; there are {links()}; what was counted:\n{_numbers(told['WATTLE_HTTP_LISTEN'])}")
            policy = who.get(f"{api}/policy")
            assert policy["certificate"]["holds"], policy["certificate"]
            [written] = list(yaml.safe_load_all(policy["yaml"]))
            assert written["spec"]["podSelector"] == {"matchLabels": {"app": "api"}}
            assert "10.244." not in policy["yaml"], "pods are named by labels"
            tried = who.get(f"{api}/policy/dry-run")
            assert tried["available"], tried["text"]
            assert [(each["policy"], each["outcome"]) for each in tried["policies"]] == [
                (f"{namespace}/{written['metadata']['name']}", "created")
            ]
            policies = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
            assert admin.get(policies)["items"] == [], "nothing is kept"
            admin.create(f"{policies}?dryRun=All&fieldValidation=Strict", written)
            assert "Traceback" not in log.read_text()
    finally:
        started.down()
        admin.delete(f"/api/v1/namespaces/{namespace}")
        wait_until(lambda: _no_pods(admin, namespace), "the pods to go", 60)
