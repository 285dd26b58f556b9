"""Callers that the cluster declares but nobody has seen yet, as rows to decide.

Enters: a ClusterSnapshot with DeclaredCallers, and the links seen. Leaves: DeclaredLinks that are not among them.
Invariant: a row is only ever offered; it is in no policy until a person includes it. The port is the pod's own.
"""

from collections.abc import Container, Iterator
from typing import assert_never

from aggregator.model.cluster import ClusterSnapshot, Labels, Pod
from aggregator.model.declared import CallerKind, DeclaredCaller
from aggregator.model.link import Link
from aggregator.model.proposal import DeclaredLink
from aggregator.model.protocol import Protocol
from aggregator.model.workload import ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.generation.ports import PortKey

# What the usual charts call their pods; an object that names its caller's labels does not need them.
_USUAL_CALLERS: dict[CallerKind, tuple[Labels, ...]] = {
    CallerKind.MONITORING: (
        (("app.kubernetes.io/name", "prometheus"),),
        (("app", "prometheus"),),
    ),
    CallerKind.GATEWAY: (
        (("app.kubernetes.io/name", "ingress-nginx"),),
        (("app.kubernetes.io/name", "traefik"),),
        (("app.kubernetes.io/name", "envoy"),),
        (("app.kubernetes.io/name", "haproxy-ingress"),),
        (("app.kubernetes.io/name", "contour"),),
        (("app.kubernetes.io/name", "nginx-gateway-fabric"),),
    ),
}
_WORDS = {
    CallerKind.API_SERVER: "the API server will call it",
    CallerKind.MONITORING: "monitoring will scrape it",
    CallerKind.GATEWAY: "the gateway will forward to it",
}


def declared_links(cluster: ClusterSnapshot, seen: Container[Link]) -> tuple[DeclaredLink, ...]:
    """Every declared row that was not seen, each once, in order."""
    found: dict[tuple[Link, str], DeclaredLink] = {}
    for declared in cluster.declared_callers:
        if isinstance(declared, DeclaredCaller):
            for row in _rows(cluster, declared):
                link = Link(src=row.src, dst=row.dst, protocol=row.protocol, port=row.port)
                if link not in seen:
                    found[link, row.source] = row
    return tuple(row for _, row in sorted(found.items(), key=lambda item: (item[0][0].sort_key(), item[0][1])))


def _rows(cluster: ClusterSnapshot, declared: DeclaredCaller) -> Iterator[DeclaredLink]:
    callers = sorted(_callers(cluster, declared), key=str)
    for dst, (protocol, port) in sorted(_called(cluster, declared), key=str):
        for src in callers:
            if src != dst:
                yield DeclaredLink(
                    src=src,
                    dst=dst,
                    protocol=protocol,
                    port=port,
                    source=declared.source,
                    text=f"{declared.source} declares it: {_WORDS[declared.kind]}, and nobody has seen it yet",
                )


def _callers(cluster: ClusterSnapshot, declared: DeclaredCaller) -> set[LinkEnd]:
    if declared.kind is CallerKind.API_SERVER:
        return {ApiServer(cluster=cluster.name)}
    wanted = (declared.caller_labels,) if declared.caller_labels else _USUAL_CALLERS[declared.kind]
    found: set[LinkEnd] = set()
    for pod in cluster.pods:
        if pod.ended or declared.caller_namespace not in {"", pod.namespace}:
            continue
        if any(_wears(pod, labels) for labels in wanted):
            found.add(_end(cluster, pod))
    return found


def _called(cluster: ClusterSnapshot, declared: DeclaredCaller) -> set[tuple[Workload, PortKey]]:
    """The workloads behind the declaration, with their pods' ports; pods on the host's network are no subjects."""
    if declared.service:
        return _behind_service(cluster, declared)
    if not declared.selector:
        return set()
    return {
        (pod.workload, key)
        for pod in cluster.pods
        if pod.namespace == declared.namespace and not pod.ended and not pod.host_network
        if _wears(pod, declared.selector)
        for key in _ports(pod, declared.port)
    }


def _behind_service(cluster: ClusterSnapshot, declared: DeclaredCaller) -> set[tuple[Workload, PortKey]]:
    found: set[tuple[Workload, PortKey]] = set()
    for service in cluster.services:
        if (service.namespace, service.name) != (declared.namespace, declared.service):
            continue
        names = {p.name for p in service.ports if declared.port in {None, p.port, p.name}}
        for backend in service.backends:
            pods = cluster.pods_by_ip.get(backend.ip, ()) if backend.port_name in names else ()
            found |= {(pod.workload, (backend.protocol, backend.port)) for pod in pods if not pod.host_network}
    return found


def _ports(pod: Pod, port: int | str | None) -> set[PortKey]:
    match port:
        case int(number):
            return {(Protocol.TCP, number)}
        case str(name):
            return {(p.protocol, p.port) for p in pod.ports if p.name == name}
        case None:
            return {(p.protocol, p.port) for p in pod.ports}
        case _:
            assert_never(port)


def _end(cluster: ClusterSnapshot, pod: Pod) -> LinkEnd:
    return Nodes(cluster=cluster.name) if pod.host_network else pod.workload


def _wears(pod: Pod, labels: Labels) -> bool:
    return all(label in pod.labels for label in labels)
