"""What an address is that no pod, Service or node owned when it was seen.

Enters: a ClusterSnapshot and what a person decided. Leaves: a Classification (model/cidrs.py has the one rule), and
whether the address may become an ipBlock. Invariant: an address that lies in the cluster's ranges, or that the cluster
owns now, is INTERNAL and never becomes an ipBlock.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network

from aggregator.model.address import AddressClass, Classification, IPAddress, IPNetwork
from aggregator.model.cidrs import CidrRole, CidrSource, ClusterCidrs, classify
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Decisions
from aggregator.model.workload import Address

LINK_LOCAL_V4 = IPv4Network("169.254.0.0/16")
METADATA_ADDRESSES = (IPv4Network("169.254.169.254/32"), IPv6Network("fd00:ec2::254/128"))


class Addresses:
    """Classifies addresses against one snapshot."""

    def __init__(self, cluster: ClusterSnapshot, decisions: Decisions) -> None:
        self._cidrs = cidrs_of(cluster, decisions)
        self._aliases: dict[IPNetwork, str] = {}
        for alias in sorted(decisions.aliases, key=lambda alias: alias.name):
            for network in alias.networks:
                self._aliases.setdefault(network, alias.name)
        self._owned = _owned(cluster)
        self._answers: dict[IPAddress, Classification] = {}

    @property
    def complete(self) -> bool:
        return self._cidrs.complete

    @property
    def pod_and_service_cidrs(self) -> tuple[IPNetwork, ...]:
        return (*self._cidrs.of(CidrRole.POD), *self._cidrs.of(CidrRole.SERVICE))

    @cached_property
    def all_own(self) -> tuple[IPNetwork, ...]:
        """Every range and address that is the cluster's own."""
        ranges = (*self.pod_and_service_cidrs, *self._cidrs.of(CidrRole.NODE))
        return (*dict.fromkeys(ranges), *(ip_network(ip) for ip in self._owned))

    def classify(self, ip: IPAddress) -> Classification:
        found = self._answers.get(ip)
        if found is None:
            found = self._answers[ip] = self._classify(ip)
        return found

    def classify_typed(self, cidr: IPNetwork) -> Classification:
        """What a person typed, at once: one that touches the cluster's own ranges says which."""
        single = cidr.network_address if cidr.num_addresses == 1 else None
        owner = self._owned.get(single) if single is not None else None
        if owner is not None:
            return Classification(address_class=AddressClass.INTERNAL, reason=f"{owner} has it now")
        return classify(single or cidr, self._cidrs, self._aliases)

    def _classify(self, ip: IPAddress) -> Classification:
        owner = self._owned.get(ip)
        if owner is not None:
            reason = f"{owner} has it now, nobody is known to have had it then"
            return Classification(address_class=AddressClass.INTERNAL, reason=reason)
        found = classify(ip, self._cidrs, self._aliases)
        if found.address_class is not AddressClass.INTERNAL:
            return found
        return Classification(
            address_class=AddressClass.INTERNAL, reason=f"{found.reason}, and nobody is known to have had it then"
        )

    def inside(self, ip: IPAddress) -> str:
        """Why this address is the cluster's own, "" when it is not."""
        found = self._classify(ip)
        return found.reason if found.address_class is AddressClass.INTERNAL else ""

    def writable_end(self, end: Address) -> bool:
        """The same for all addresses of an end."""
        if end.prefix_length is None:
            return self.writable(end.ip)
        network = network_of_end(end)
        return not any(network.overlaps(own) for own in self.all_own)

    def writable(self, ip: IPAddress) -> bool:
        """May it ever be an ipBlock? A neighbour in the nodes' subnet may, a pod's or a Service's address never."""
        return ip not in self._owned and not any(
            ip.version == cidr.version and ip in cidr for cidr in self.pod_and_service_cidrs
        )


def cidrs_of(cluster: ClusterSnapshot, decisions: Decisions) -> ClusterCidrs:
    """The ranges of a snapshot, and those that a person set, which win role by role."""
    return ClusterCidrs(
        sources=tuple(dict.fromkeys((*_typed(decisions), *_known(cluster)))),
        node_addresses=frozenset(ip for node in cluster.nodes for ip in node.addresses),
        vouched_complete=cluster.cidrs_complete,
    )


def _typed(decisions: Decisions) -> Iterator[CidrSource]:
    typed = decisions.cluster_cidrs
    if typed is not None:
        for role, found in (
            (CidrRole.POD, typed.pod_cidrs),
            (CidrRole.SERVICE, typed.service_cidrs),
            (CidrRole.NODE, typed.node_cidrs),
        ):
            for cidr in found:
                yield CidrSource(role=role, cidr=cidr, found_in="set by hand", by_hand=True)


def _known(cluster: ClusterSnapshot) -> Iterator[CidrSource]:
    """With the place where each was found, where the snapshot tells it."""
    yield from cluster.cidr_sources
    told = {(source.role, source.cidr) for source in cluster.cidr_sources}
    for role, cidrs in ((CidrRole.POD, cluster.pod_cidrs), (CidrRole.SERVICE, cluster.service_cidrs)):
        for cidr in cidrs:
            if (role, cidr) not in told:
                yield CidrSource(role=role, cidr=cidr, found_in="the snapshot", whole=cluster.cidrs_complete)
    if not cluster.cidr_sources:
        for node in cluster.nodes:
            for cidr in node.pod_cidrs:
                yield CidrSource(role=CidrRole.POD, cidr=cidr, found_in=f"Node {node.name} spec.podCIDRs", whole=False)


def network_of_end(end: Address) -> IPNetwork:
    """The addresses of an end: one, or the network that many were rolled up to."""
    length = end.ip.max_prefixlen if end.prefix_length is None else end.prefix_length
    return ip_network((end.ip, length))


def edges_of(end: Address) -> tuple[IPAddress, ...]:
    """The first and the last address of an end: what covers both covers all."""
    network = network_of_end(end)
    return tuple(dict.fromkeys((network.network_address, network.broadcast_address)))


def is_metadata(ip: IPAddress) -> bool:
    """A cloud's metadata service (NP-41)."""
    return any(ip.version == network.version and ip in network for network in METADATA_ADDRESSES)


def _owned(cluster: ClusterSnapshot) -> Mapping[IPAddress, str]:
    owned: dict[IPAddress, str] = {}
    for service in cluster.services:
        owned.update((ip, f"the Service {service}") for ip in service.cluster_ips)
    for node in cluster.nodes:
        owned.update((ip, f"the node {node.name}") for ip in node.addresses)
    for pod in cluster.pods:
        if not pod.ended and not pod.host_network:
            owned.update((ip, f"the pod {pod}") for ip in pod.ips)
    return owned
