"""ClusterSnapshot: what a cluster was at one time, as far as policies and names care.

Enters from cluster/ (a watch, or files); the pure core reads it. Everything is immutable and hashable; labels are
sorted tuples so that equal objects are equal values. `labels_of()` gives the mapping back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.cidrs import CidrSource
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload

Labels = tuple[tuple[str, str], ...]

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


def labels_from(mapping: Mapping[str, str] | None) -> Labels:
    """Labels as a sorted tuple of pairs."""
    return tuple(sorted((mapping or {}).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    name: str
    labels: Labels = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    labels: Labels = ()
    addresses: tuple[IPAddress, ...] = ()
    pod_cidrs: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPort:
    name: str
    port: int
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod. `ended` = Succeeded or Failed: keeps its labels, owns no address any more (NP-32)."""

    namespace: str
    name: str
    workload: Workload
    uid: str = ""
    labels: Labels = ()
    ips: tuple[IPAddress, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    host_network: bool = False
    node_name: str = ""
    ended: bool = False
    future: bool = False  # did not exist while the links were observed; policies must hold for it all the same

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    name: str
    port: int
    protocol: Protocol = Protocol.TCP
    target_port: int | str | None = None  # None = same as port
    node_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceBackend:
    """One ready or unready address behind one port of a Service (EndpointSlice, or Endpoints)."""

    ip: IPAddress
    port: int
    protocol: Protocol
    port_name: str = ""
    pod: str = ""  # pod name in the Service's namespace, "" when the address is no pod's


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    namespace: str
    name: str
    type: str = "ClusterIP"  # ClusterIP | NodePort | LoadBalancer | ExternalName
    cluster_ips: tuple[IPAddress, ...] = ()  # empty = headless or ExternalName
    external_ips: tuple[IPAddress, ...] = ()  # spec.externalIPs and load-balancer ingress addresses
    external_name: str = ""
    selector: Labels = ()  # empty = no selector: its backends come from manual EndpointSlices
    ports: tuple[ServicePort, ...] = ()
    backends: tuple[ServiceBackend, ...] = ()
    annotations: Labels = ()
    external_traffic_policy: str = "Cluster"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRecord:
    """What the cluster says of a workload itself, also when it runs no pod now."""

    workload: Workload
    selector: Labels = ()  # spec.selector.matchLabels, () where there is none
    template_labels: Labels = ()
    replicas: int | None = None  # desired; None where the kind has none
    schedule: str = ""  # CronJob
    host_network: bool = False
    changing_labels: tuple[str, ...] = ()  # keys that its pods have worn with several values, or not all of them


@dataclass(frozen=True, kw_only=True)
class ClusterSnapshot:
    """One cluster at one time. CIDRs are those known; `cidrs_complete` tells whether an address outside is external."""

    name: str = "default"
    namespaces: tuple[Namespace, ...] = ()
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    services: tuple[Service, ...] = ()
    workloads: tuple[WorkloadRecord, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    pod_cidrs: tuple[IPNetwork, ...] = ()
    service_cidrs: tuple[IPNetwork, ...] = ()
    cidrs_complete: bool = False
    cidr_sources: tuple[CidrSource, ...] = ()  # the same ranges with where each was found, as far as that is known
    declared_callers: tuple[object, ...] = ()  # as model/declared.py types
    extra_policies: tuple[object, ...] = field(default=())  # admin and plug-in policies, as model/adminpolicy.py types

    @cached_property
    def namespace_labels(self) -> Mapping[str, Mapping[str, str]]:
        """Labels by namespace, `kubernetes.io/metadata.name` added where the source lacks it (NP-17)."""
        return {n.name: {NAMESPACE_NAME_LABEL: n.name, **dict(n.labels)} for n in self.namespaces}

    @cached_property
    def pods_by_ip(self) -> Mapping[IPAddress, tuple[Pod, ...]]:
        """Live pods by address; pods on the host's network share their node's."""
        found: dict[IPAddress, tuple[Pod, ...]] = {}
        for pod in self.pods:
            if not pod.ended:
                for ip in pod.ips:
                    found[ip] = (*found.get(ip, ()), pod)
        return found

    @cached_property
    def nodes_by_ip(self) -> Mapping[IPAddress, Node]:
        return {ip: node for node in self.nodes for ip in node.addresses}

    @cached_property
    def nodes_by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def pods_by_workload(self) -> Mapping[Workload, tuple[Pod, ...]]:
        found: dict[Workload, tuple[Pod, ...]] = {}
        for pod in self.pods:
            found[pod.workload] = (*found.get(pod.workload, ()), pod)
        return found


def parse_ips(values: object) -> tuple[IPAddress, ...]:
    """Addresses from an iterable of strings, in order, without duplicates. Raises ValueError."""
    if not isinstance(values, list | tuple):
        return ()
    return tuple(dict.fromkeys(ip_address(str(v)) for v in values if v))
