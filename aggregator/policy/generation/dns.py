"""The cluster's DNS, as its own Services and endpoints show it, so that a policy never forgets it.

Enters: a ClusterSnapshot and the node-local cache addresses that were seen. Leaves: ClusterDNS: which workloads serve
it, on which of the pods' own ports (NP-38: OpenShift listens on 5353), and which addresses beside them. Invariant: both
UDP and TCP, always; never a Service's address or port, except beside a node-local cache (NP-39).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import assert_never

from aggregator.model.address import IPAddress
from aggregator.model.cluster import ClusterSnapshot, Pod, Service
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload
from aggregator.policy.generation.ports import PortKey

DNS_PORT = 53
NODE_LOCAL_ADDRESSES = (ip_address("169.254.20.10"), ip_address("169.254.25.10"))
_DNS_NAMESPACES = frozenset({"kube-system", "openshift-dns"})
_DNS_SERVICES = frozenset({"kube-dns", "coredns", "dns-default", "rke2-coredns-rke2-coredns"})
_DNS_POD_LABELS = (("k8s-app", "kube-dns"), ("dns.operator.openshift.io/daemonset-dns", "default"))
_NODE_LOCAL_LABELS = (("k8s-app", "node-local-dns"), ("k8s-app", "nodelocaldns"))
BOTH = (Protocol.UDP, Protocol.TCP)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDNS:
    """Empty `servers` and `addresses`, and no `on_nodes`: no DNS was found."""

    servers: tuple[tuple[Workload, frozenset[PortKey]], ...] = ()
    addresses: tuple[tuple[IPAddress, frozenset[PortKey]], ...] = ()  # backends that are no pod's
    on_nodes: frozenset[PortKey] = frozenset()  # ports of DNS pods on their node's network
    caches: tuple[IPAddress, ...] = ()  # node-local caches, and the Service addresses that they take over
    sources: tuple[str, ...] = ()  # where this was learned, in words

    @property
    def found(self) -> bool:
        return bool(self.servers or self.addresses or self.on_nodes or self.caches)

    @property
    def cache_ports(self) -> frozenset[PortKey]:
        return _both({DNS_PORT})

    def ports_of(self, workload: Workload) -> frozenset[PortKey]:
        return next((ports for server, ports in self.servers if server == workload), frozenset())


def is_node_local(ip: IPAddress) -> bool:
    return ip in NODE_LOCAL_ADDRESSES


def find_dns(cluster: ClusterSnapshot, seen: Iterable[IPAddress] = ()) -> ClusterDNS:
    """The DNS of this cluster; `seen` are the outside addresses that links end in."""
    caches = sorted({ip for ip in seen if is_node_local(ip)}, key=int)
    has_cache_pods = any(_wears(pod, _NODE_LOCAL_LABELS) for pod in cluster.pods if not pod.ended)
    services = [service for service in cluster.services if _is_dns(service)]
    if has_cache_pods and not caches:
        caches = list(NODE_LOCAL_ADDRESSES)
    if caches:
        caches += [ip for service in services for ip in service.cluster_ips if ip not in caches]
    found = _Found()
    for service in services:
        found.take_service(service, cluster)
    if not found.any():
        for pod in cluster.pods:
            if pod.namespace in _DNS_NAMESPACES and not pod.ended and _wears(pod, _DNS_POD_LABELS):
                found.take_pod(pod, _declared(pod), f"pods of {pod.workload}")
    return found.result(tuple(caches))


class _Found:
    def __init__(self) -> None:
        self._servers: dict[Workload, set[int]] = {}
        self._addresses: dict[IPAddress, set[int]] = {}
        self._on_nodes: set[int] = set()
        self._sources: set[str] = set()

    def any(self) -> bool:
        return bool(self._servers or self._addresses or self._on_nodes)

    def take_service(self, service: Service, cluster: ClusterSnapshot) -> None:
        """By its endpoints; by its selector when it has none yet."""
        names = {port.name for port in service.ports if port.port == DNS_PORT}
        source = f"the Service {service}"
        for backend in service.backends:
            if backend.port_name not in names:
                continue
            self._sources.add(source)
            pods = [p for p in cluster.pods_by_ip.get(backend.ip, ()) if backend.pod in {"", p.name}]
            if pods:
                self.take_pod(pods[0], {backend.port}, source)
            elif backend.ip in cluster.nodes_by_ip:
                self._on_nodes.add(backend.port)
            else:
                self._addresses.setdefault(backend.ip, set()).add(backend.port)
        if service.backends or not service.selector:
            return
        for pod in cluster.pods:
            if pod.namespace == service.namespace and not pod.ended and _wears_all(pod, service):
                self.take_pod(pod, _targets(service, pod), source)

    def take_pod(self, pod: Pod, ports: set[int], source: str) -> None:
        self._sources.add(source)
        if pod.host_network:
            self._on_nodes |= ports
        else:
            self._servers.setdefault(pod.workload, set()).update(ports)

    def result(self, caches: tuple[IPAddress, ...]) -> ClusterDNS:
        sources = sorted(self._sources) + (["a node-local DNS cache"] if caches else [])
        return ClusterDNS(
            servers=tuple((workload, _both(ports)) for workload, ports in sorted(self._servers.items())),
            addresses=tuple(
                (ip, _both(ports))
                for ip, ports in sorted(self._addresses.items(), key=lambda item: (item[0].version, int(item[0])))
            ),
            on_nodes=_both(self._on_nodes),
            caches=caches,
            sources=tuple(sources),
        )


def _both(ports: Iterable[int]) -> frozenset[PortKey]:
    """UDP, and TCP for truncated answers (C08)."""
    return frozenset((protocol, port) for port in ports for protocol in BOTH)


def _is_dns(service: Service) -> bool:
    asks = any(port.port == DNS_PORT and port.protocol is Protocol.UDP for port in service.ports)
    return asks and (service.namespace in _DNS_NAMESPACES or service.name in _DNS_SERVICES)


def _wears(pod: Pod, labels: Iterable[tuple[str, str]]) -> bool:
    return any(label in pod.labels for label in labels)


def _wears_all(pod: Pod, service: Service) -> bool:
    return all(label in pod.labels for label in service.selector)


def _declared(pod: Pod) -> set[int]:
    """The ports of a DNS pod by its container ports: those named for DNS, else 53."""
    named = {port.port for port in pod.ports if port.name.startswith("dns") or port.port == DNS_PORT}
    return named or {DNS_PORT}


def _targets(service: Service, pod: Pod) -> set[int]:
    found: set[int] = set()
    for port in service.ports:
        if port.port != DNS_PORT:
            continue
        match port.target_port:
            case None:
                found.add(port.port)
            case int(number):
                found.add(number)
            case str(name):
                found |= {p.port for p in pod.ports if p.name == name and p.protocol is port.protocol}
            case _:
                assert_never(port.target_port)
    return found
