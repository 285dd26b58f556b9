"""One small cluster for the tests of generation: a shop with web, api and db, DNS, two nodes, an API server."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from aggregator.model.cluster import (
    ClusterSnapshot,
    ContainerPort,
    Namespace,
    Node,
    Pod,
    Service,
    ServiceBackend,
    ServicePort,
)
from aggregator.model.decision import Decisions
from aggregator.model.link import Evidence, Link, ObservedLink
from aggregator.model.proposal import Generation
from aggregator.model.protocol import Protocol
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.generation.generate import generate

TCP, UDP = Protocol.TCP, Protocol.UDP
NODES = Nodes(cluster="c")
API_SERVER = ApiServer(cluster="c")


def workload(name: str, namespace: str = "app", kind: str = "Deployment") -> Workload:
    return Workload(cluster="c", namespace=namespace, kind=kind, name=name)


WEB, API, DB = workload("web"), workload("api"), workload("db", "data", "StatefulSet")
DNS = workload("coredns", "kube-system")
AGENT = workload("node-exporter", "mon", "DaemonSet")


def address(text: str) -> Address:
    ip, _, length = text.partition("/")
    return Address(cluster="c", ip=ip_address(ip), prefix_length=int(length) if length else None)


def pod(owner: Workload, ip: str, node: str = "n1", **more: Any) -> Pod:
    labels = more.pop("labels", (("app", owner.name),))
    return Pod(
        namespace=owner.namespace,
        name=f"{owner.name}-{ip.rpartition('.')[2]}",
        workload=owner,
        uid=f"{owner}{ip}",
        labels=labels,
        ips=(ip_address(ip),),
        node_name=node,
        **more,
    )


DNS_POD = pod(
    DNS,
    "10.244.0.53",
    labels=(("k8s-app", "kube-dns"),),
    ports=(ContainerPort(name="dns", port=5353, protocol=UDP), ContainerPort(name="metrics", port=9153)),
)
KUBE_DNS = Service(
    namespace="kube-system",
    name="kube-dns",
    cluster_ips=(ip_address("10.96.0.10"),),
    selector=(("k8s-app", "kube-dns"),),
    ports=(
        ServicePort(name="dns", port=53, protocol=UDP, target_port="dns"),
        ServicePort(name="metrics", port=9153, target_port=9153),
    ),
    backends=(
        ServiceBackend(ip=DNS_POD.ips[0], port=5353, protocol=UDP, port_name="dns", pod=DNS_POD.name),
        ServiceBackend(ip=DNS_POD.ips[0], port=9153, protocol=TCP, port_name="metrics", pod=DNS_POD.name),
    ),
)
KUBERNETES = Service(
    namespace="default",
    name="kubernetes",
    cluster_ips=(ip_address("10.96.0.1"),),
    ports=(ServicePort(name="https", port=443, target_port=6443),),
    backends=tuple(
        ServiceBackend(ip=ip_address(ip), port=6443, protocol=TCP, port_name="https")
        for ip in ("192.0.2.11", "198.51.100.1")
    ),
)
TOWN = ClusterSnapshot(
    name="c",
    namespaces=tuple(Namespace(name=name) for name in ("app", "data", "kube-system", "mon")),
    nodes=(
        Node(name="n1", addresses=(ip_address("192.0.2.11"),)),
        Node(name="n2", addresses=(ip_address("192.0.2.12"),)),
    ),
    pods=(
        pod(WEB, "10.244.1.1"),
        pod(WEB, "10.244.1.2", "n2"),
        pod(API, "10.244.1.3"),
        pod(DB, "10.244.1.4", "n2"),
        pod(AGENT, "192.0.2.11", host_network=True),
        DNS_POD,
    ),
    services=(KUBE_DNS, KUBERNETES),
    pod_cidrs=(ip_network("10.244.0.0/16"),),
    service_cidrs=(ip_network("10.96.0.0/12"),),
    cidrs_complete=True,
)
BARE = replace(TOWN, services=(KUBERNETES,), pods=TOWN.pods[:-1])  # without DNS


def link(src: LinkEnd, dst: LinkEnd, port: int, protocol: Protocol = TCP) -> Link:
    return Link(src=src, dst=dst, protocol=protocol, port=port)


def seen(src: LinkEnd, dst: LinkEnd, port: int, protocol: Protocol = TCP, **more: Any) -> ObservedLink:
    established = more.pop("established", True)
    evidence = Evidence(connections=more.pop("connections", 3), **more)
    return ObservedLink(link=link(src, dst, port, protocol), evidence=evidence, established=established)


def made(*rows: ObservedLink, cluster: ClusterSnapshot = BARE, decisions: Any = (), **settings: Any) -> Generation:
    found = decisions if isinstance(decisions, Decisions) else Decisions.of(decisions)
    return generate(rows, found, cluster, Settings(**settings))
