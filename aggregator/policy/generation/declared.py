"""Callers that the cluster declares but nobody has seen yet, as rows to decide.

Enters: a ClusterSnapshot with DeclaredCallers, and the links seen. Leaves: DeclaredLinks that are not among them.
Invariant: a row is only ever offered; it is in no policy until a person includes it. The port is the pod's own.
"""

from collections.abc import Container, Iterator
from typing import assert_never

from aggregator.model.cluster import ClusterSnapshot, Labels, Pod, ServicePort
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
    reading = _Reading(cluster)
    for declared in cluster.declared_callers:
        if isinstance(declared, DeclaredCaller):
            for row in reading.rows(declared):
                if row.link not in seen:
                    found[row.link, row.source] = row
    return tuple(row for _, row in sorted(found.items(), key=lambda item: (item[0][0].sort_key(), item[0][1])))


class _Reading:
    """The snapshot by namespace and by name: there may be hundreds of declarations and thousands of pods."""

    def __init__(self, cluster: ClusterSnapshot) -> None:
        self._cluster = cluster
        self._services = {(service.namespace, service.name): service for service in cluster.services}
        self._pods: dict[str, list[Pod]] = {}
        for pod in cluster.pods:
            if not pod.ended:
                self._pods.setdefault(pod.namespace, []).append(pod)
        self._known: dict[tuple[CallerKind, str, Labels], list[LinkEnd]] = {}

    def rows(self, declared: DeclaredCaller) -> Iterator[DeclaredLink]:
        for dst, (protocol, port) in sorted(self._called(declared), key=str):
            for src in self._callers(declared):
                if src != dst:
                    yield DeclaredLink(
                        link=Link(src=src, dst=dst, protocol=protocol, port=port),
                        source=declared.source,
                        text=f"{declared.source} declares it: {_WORDS[declared.kind]}, and nobody has seen it yet",
                    )

    def _callers(self, declared: DeclaredCaller) -> list[LinkEnd]:
        if declared.kind is CallerKind.API_SERVER:
            return [ApiServer(cluster=self._cluster.name)]
        key = (declared.kind, declared.caller_namespace, declared.caller_labels)
        if key not in self._known:
            wanted = (declared.caller_labels,) if declared.caller_labels else _USUAL_CALLERS[declared.kind]
            where = [declared.caller_namespace] if declared.caller_namespace else list(self._pods)
            pods = (pod for namespace in where for pod in self._pods.get(namespace, ()))
            found = {_end(self._cluster, pod) for pod in pods if any(_wears(pod, labels) for labels in wanted)}
            self._known[key] = sorted(found, key=str)
        return self._known[key]

    def _called(self, declared: DeclaredCaller) -> set[tuple[Workload, PortKey]]:
        """The workloads behind the declaration, with their pods' ports; pods on the host's network are no subjects."""
        if declared.service:
            return self._behind_service(declared)
        if not declared.selector:
            return set()
        return {
            (pod.workload, key)
            for pod in self._pods.get(declared.namespace, ())
            if not pod.host_network and _wears(pod, declared.selector)
            for key in _ports(pod, declared.port)
        }

    def _behind_service(self, declared: DeclaredCaller) -> set[tuple[Workload, PortKey]]:
        service = self._services.get((declared.namespace, declared.service))
        if service is None:
            return set()
        found: set[tuple[Workload, PortKey]] = set()
        if not service.backends and service.selector:  # nothing runs yet: manifests, or scaled to zero
            chosen = [p for p in service.ports if declared.port in {None, p.port, p.name}]
            return {
                (pod.workload, key)
                for pod in self._pods.get(service.namespace, ())
                if not pod.host_network and _wears(pod, service.selector)
                for port in chosen
                for key in _targets(pod, port)
            }
        names = {p.name for p in service.ports if declared.port in {None, p.port, p.name}}
        for backend in service.backends:
            pods = self._cluster.pods_by_ip.get(backend.ip, ()) if backend.port_name in names else ()
            found |= {(pod.workload, (backend.protocol, backend.port)) for pod in pods if not pod.host_network}
        return found


def _targets(pod: Pod, port: ServicePort) -> set[PortKey]:
    """The number behind a Service's port on this pod (NP-26); none where it declares no port of that name."""
    match port.target_port:
        case None:
            return {(port.protocol, port.port)}
        case int(number):
            return {(port.protocol, number)}
        case str(name):
            return {(p.protocol, p.port) for p in pod.ports if (p.name, p.protocol) == (name, port.protocol)}
        case _:
            assert_never(port.target_port)


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
