"""What an address is that no pod, Service or node owned when it was seen.

Enters: a ClusterSnapshot and what a person decided. Leaves: a Classification. Invariant: an address that lies in the
cluster's ranges, or that the cluster owns now, is INTERNAL and never becomes an ipBlock; an alias wins over the rest.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from aggregator.model.address import AddressClass, Classification, IPAddress, IPNetwork
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Decisions
from aggregator.model.workload import Address

LINK_LOCAL_V4 = IPv4Network("169.254.0.0/16")
METADATA_ADDRESSES = (IPv4Network("169.254.169.254/32"), IPv6Network("fd00:ec2::254/128"))

NODE_CIDR = "node CIDR"


class Addresses:
    """Classifies addresses against one snapshot."""

    def __init__(self, cluster: ClusterSnapshot, decisions: Decisions) -> None:
        self._decisions = decisions
        typed = decisions.cluster_cidrs
        pods = typed.pod_cidrs if typed and typed.pod_cidrs else cluster.pod_cidrs
        if not (typed and typed.pod_cidrs):
            pods = (*pods, *(cidr for node in cluster.nodes for cidr in node.pod_cidrs))
        services = typed.service_cidrs if typed and typed.service_cidrs else cluster.service_cidrs
        ranges: list[tuple[IPNetwork, str]] = [(cidr, "pod CIDR") for cidr in pods]
        ranges += [(cidr, "Service CIDR") for cidr in services]
        ranges += [(cidr, NODE_CIDR) for cidr in (typed.node_cidrs if typed else ())]
        self.ranges = tuple(dict.fromkeys(ranges))
        self.complete = cluster.cidrs_complete or bool(typed and typed.pod_cidrs and typed.service_cidrs)
        self._owned = _owned(cluster)
        self._answers: dict[IPAddress, Classification] = {}

    @property
    def pod_and_service_cidrs(self) -> tuple[IPNetwork, ...]:
        return tuple(cidr for cidr, kind in self.ranges if kind != NODE_CIDR)

    def all_own(self) -> tuple[IPNetwork, ...]:
        """Every range and address that is the cluster's own."""
        return (*(cidr for cidr, _ in self.ranges), *(ip_network(ip) for ip in self._owned))

    def classify(self, ip: IPAddress) -> Classification:
        found = self._answers.get(ip)
        if found is None:
            found = self._answers[ip] = self._classify(ip)
        return found

    def _classify(self, ip: IPAddress) -> Classification:
        alias = self._decisions.alias_of(ip)
        inside = self.inside(ip)
        if alias is not None and self.writable(ip):
            return Classification(
                address_class=AddressClass.ALIASED, reason=f'a person named it "{alias.name}"', alias=alias.name
            )
        if inside:
            return Classification(address_class=AddressClass.INTERNAL, reason=inside)
        if self.complete:
            return Classification(address_class=AddressClass.EXTERNAL, reason="outside every CIDR of the cluster")
        return Classification(address_class=AddressClass.UNKNOWN, reason="the cluster's CIDRs are not completely known")

    def inside(self, ip: IPAddress) -> str:
        """Why this address is the cluster's own, "" when it is not."""
        owner = self._owned.get(ip)
        if owner is not None:
            return f"{owner} has it now, nobody is known to have had it then"
        for cidr, kind in self.ranges:
            if ip.version == cidr.version and ip in cidr:
                return f"in the {kind} {cidr}, and nobody is known to have had it then"
        return ""

    def writable_end(self, end: Address) -> bool:
        """The same for all addresses of an end."""
        if end.prefix_length is None:
            return self.writable(end.ip)
        network = network_of_end(end)
        return not any(network.overlaps(own) for own in self.all_own())

    def writable(self, ip: IPAddress) -> bool:
        """May it ever be an ipBlock? A neighbour in the nodes' subnet may, a pod's or a Service's address never."""
        return ip not in self._owned and not any(
            ip.version == cidr.version and ip in cidr for cidr, kind in self.ranges if kind != NODE_CIDR
        )


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
