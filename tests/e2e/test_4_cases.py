"""The five sample cases of the field, decided over REST as a person would, each under the real enforcer.

Each has a namespace of its own, in which `client` talks; what a case asserts is what client's connections meet.
"""

import time
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import Raw, wait_until
from tests.e2e.application import PARTNER_PORT, Part
from tests.e2e.kube.layout import FAMILIES
from tests.e2e.kube.objects import apply, pods, programs, workload_ready
from tests.e2e.manifests import manifests_of
from tests.e2e.world import World

ONLY_SPECIFIED, PROXY, INSIDE, OTHER, UNLABELLED = "case-1", "case-2", "case-3", "case-4", "case-5"
ALL = (ONLY_SPECIFIED, PROXY, INSIDE, OTHER, UNLABELLED)
ANYWHERE = {"If-Match": "*"}
# Ends with 0 where every address of a host was reached, with 1 where none was.
CONNECT = """
import socket, sys
fates = set()
for *_, address in socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_STREAM):
    try:
        socket.create_connection(address[:2], timeout=3).close()
        fates.add(0)
    except OSError:
        fates.add(1)
sys.exit(fates.pop() if len(fates) == 1 else 2)
"""
NAME_LABEL = "kubernetes.io/metadata.name"


def _server(namespace: str, name: str) -> Part:
    listen = ("tcp:7000",)
    return Part(
        namespace=namespace, kind="Deployment", name=name, listen=listen, ports={"main": 7000}, service={7000: "main"}
    )


def _client(namespace: str, *calls: str) -> Part:
    return Part(
        namespace=namespace,
        kind="Deployment",
        name="client",
        listen=("tcp:7001",),
        ports={"main": 7001},
        service={7001: "main"},
        calls=tuple({"to": to} for to in calls),
    )


PARTS = (
    _client(ONLY_SPECIFIED, "tcp://current:7000", "tcp://obsolete:7000"),
    _server(ONLY_SPECIFIED, "current"),
    _server(ONLY_SPECIFIED, "obsolete"),
    _client(PROXY, "tcp://server:7000"),
    _server(PROXY, "server"),
    _client(INSIDE, "tcp://server:7000", f"tcp://current.{ONLY_SPECIFIED}:7000"),
    _server(INSIDE, "server"),
    _client(OTHER, f"tcp://current.{ONLY_SPECIFIED}:7000"),
    _server(OTHER, "server"),
    _client(UNLABELLED, f"tcp://server.{PROXY}:7000"),
)


@pytest.fixture(scope="module")
def cases(enforced: World) -> World:
    """All five talk, and Wattle has seen what they say."""
    world = enforced
    namespaces: list[Raw] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ALL]
    apply(world.admin, [*namespaces, *map(programs, ALL)])
    apply(world.admin, [manifest for part in PARTS for manifest in manifests_of(part)])
    for part in PARTS:
        wait_until(lambda part=part: workload_ready(world.admin, part.namespace, part.kind, part.name), part.key, 120)
    for part in PARTS:
        wanted = {call["to"].rpartition("//")[2].partition(":")[0].partition(".")[0] for call in part.calls}
        if wanted:
            wait_until(lambda part=part, wanted=wanted: wanted <= _peers(world, part.namespace), part.key, 90)
    return world


def _peers(world: World, namespace: str) -> set[str]:
    return {row["peer"]["name"] for row in _egress(world, namespace) if row["established"]}


def _egress(world: World, namespace: str) -> list[dict[str, Any]]:
    return world.wattle.items(f"/workloads/{namespace}/Deployment/client/links?direction=egress")


def _row(world: World, namespace: str, peer: str) -> dict[str, Any]:
    [row] = [row for row in _egress(world, namespace) if row["peer"]["name"] == peer]
    return row


def proposed(world: World, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = world.wattle.get(f"/workloads/{namespace}/Deployment/client/policy")
    assert found["certificate"]["holds"], found["certificate"]
    return found


def put_in_force(world: World, texts: Iterable[str]) -> None:
    for text in texts:
        apply(world.admin, [policy for policy in yaml.safe_load_all(text) if policy])
    time.sleep(8)  # the enforcer follows the API server; it has no word for "done"


def reaches(world: World, namespace: str, host: str, port: int = 7000, *, source: str = "client") -> bool:
    """Whether a new connection from inside the pod is let through, in each family alike. Names are looked up as the pod
    does.
    """
    [pod] = [pod for pod in pods(world.admin, namespace, f"app={source}") if "deletionTimestamp" not in pod["metadata"]]
    done = world.inside(pod, "/usr/bin/python3", "-c", CONNECT, host, str(port))
    assert "gaierror" not in done.stderr, f"{namespace} cannot look up {host}"
    assert done.returncode in {0, 1}, f"{namespace} reaches {host} in one family only: {done.stderr}"
    return done.returncode == 0


def test_case_1_only_specified_communications(cases: World) -> None:
    """One obsolete service is left out, and no raw address stands in the YAML."""
    row = _row(cases, ONLY_SPECIFIED, "obsolete")
    path = f"/workloads/{ONLY_SPECIFIED}/Deployment/client/decisions/links"
    cases.wattle.post(path, {"ids": [row["id"]], "choice": "exclude", "reason": "to be switched off"}, **ANYWHERE)
    proposal = proposed(cases, ONLY_SPECIFIED)
    assert "ipBlock" not in proposal["yaml"]
    assert "obsolete" not in proposal["yaml"]
    put_in_force(cases, [proposal["yaml"]])
    assert reaches(cases, ONLY_SPECIFIED, "current")
    assert not reaches(cases, ONLY_SPECIFIED, "obsolete")


def test_case_2_static_addresses_of_a_proxy(cases: World) -> None:
    """By a CIDR and port that nobody was seen using."""
    path = f"/workloads/{PROXY}/Deployment/client/decisions/cidrs"
    for family in FAMILIES:
        network = ip_network(f"{family.outside}/{family.single - 4}", strict=False)
        typed = {"direction": "egress", "cidr": str(network), "port": PARTNER_PORT}
        cases.wattle.post(path, typed, **ANYWHERE)
    put_in_force(cases, [proposed(cases, PROXY)["yaml"]])
    for family in FAMILIES:
        assert reaches(cases, PROXY, family.outside, PARTNER_PORT)
        assert not reaches(cases, PROXY, family.outside, PARTNER_PORT + 1)
    assert reaches(cases, PROXY, "server")


def test_case_3_only_inside_the_namespace(cases: World) -> None:
    for direction in ("ingress", "egress"):
        path = f"/workloads/{INSIDE}/Deployment/client/decisions/rules/{direction}"
        cases.wattle.put(path, {"rule": "allow-namespace"}, **ANYWHERE)
    put_in_force(cases, [proposed(cases, INSIDE)["yaml"]])
    assert reaches(cases, INSIDE, "server")
    assert not reaches(cases, INSIDE, f"current.{ONLY_SPECIFIED}")
    assert reaches(cases, INSIDE, "client", 7001, source="server")
    assert not reaches(cases, PROXY, f"client.{INSIDE}", 7001, source="server")


def test_case_4_one_other_namespace_and_egress_only(cases: World) -> None:
    """The ingress table is empty, the own namespace is out of reach, names are still looked up."""
    rows = cases.wattle.items(f"/workloads/{OTHER}/Deployment/client/links?direction=ingress")
    assert [row for row in rows if row["proposal"]["reason"] != "same-node-probe"] == []  # its kubelet's own
    put_in_force(cases, [proposed(cases, OTHER)["yaml"]])
    assert reaches(cases, OTHER, f"current.{ONLY_SPECIFIED}")
    assert not reaches(cases, OTHER, "server")


def test_case_5_a_namespace_without_a_label(cases: World) -> None:
    """The message on top, the row out, no entry in the YAML; then the label may be used, and the row recovers."""
    excluded = {"namespace_labels": {"exclude": [NAME_LABEL]}}
    cases.wattle.put("/settings/labels", excluded, **ANYWHERE)
    try:
        proposal = cases.wattle.get(f"/workloads/{UNLABELLED}/Deployment/client/policy")
        assert [f for f in proposal["findings"] if PROXY in f["message"] or PROXY in f["subject"]], proposal["findings"]
        assert "7000" not in proposal["yaml"]
        assert not _row(cases, UNLABELLED, "server")["proposal"]["included"]
    finally:
        cases.wattle.put("/settings/labels", {}, **ANYWHERE)
    wait_until(lambda: _row(cases, UNLABELLED, "server")["proposal"]["included"], "the row's recovery", 30)
    proposal = proposed(cases, UNLABELLED)
    assert NAME_LABEL in proposal["yaml"]
    assert PROXY in proposal["yaml"]
    put_in_force(cases, [proposal["yaml"]])
    assert reaches(cases, UNLABELLED, f"server.{PROXY}")
    assert not reaches(cases, UNLABELLED, f"current.{ONLY_SPECIFIED}")
