"""The ends of connections as bit sets: which ends does a selector, a CIDR or a port name match?

Enters: a ClusterSnapshot and further endpoints. Leaves: integers in which bit i stands for end i, found through
inverted indexes of labels and columns of addresses. Shares no code with `evaluate`: the two must agree by themselves.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.endpoint import AddressEndpoint, Endpoint, NodeEndpoint, PodEndpoint, ServiceEndpoint
from aggregator.model.networkpolicy import LabelSelector, Operator, Requirement
from aggregator.model.protocol import Protocol

_UNSTATED = IPv4Address("0.0.0.0")  # noqa: S104 - the mark of a pod whose address nobody stated


@dataclass(frozen=True, slots=True)
class Bits:
    """Two disjoint sets of ends: those that match for certain, and those that may."""

    sure: int = 0
    maybe: int = 0

    def __or__(self, other: "Bits") -> "Bits":
        sure = self.sure | other.sure
        return Bits(sure, (self.maybe | other.maybe) & ~sure)

    def __and__(self, other: "Bits") -> "Bits":
        sure = self.sure & other.sure
        return Bits(sure, (self.sure | self.maybe) & (other.sure | other.maybe) & ~sure)


def bits_of(mask: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


class LabelIndex:
    """Bit sets of whatever has labels, by label and by key."""

    def __init__(self, labelled: Iterable[tuple[int, Mapping[str, str]]]) -> None:
        pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
        everyone: list[int] = []
        for number, labels in labelled:
            everyone.append(number)
            for pair in labels.items():
                pairs[pair].append(number)
        self.everyone = _bits(everyone)
        self._pairs = {pair: _bits(numbers) for pair, numbers in pairs.items()}
        self._keys: dict[str, int] = defaultdict(int)
        for (key, _), found in self._pairs.items():
            self._keys[key] |= found

    def select(self, selector: LabelSelector) -> int:
        found = self.everyone
        for pair in selector.match_labels:
            found &= self._pairs.get(pair, 0)
        for requirement in selector.match_expressions:
            found &= self._require(requirement)
        return found

    def _require(self, requirement: Requirement) -> int:
        match requirement.operator:
            case Operator.IN:
                return self._valued(requirement)
            case Operator.NOT_IN:
                return self.everyone & ~self._valued(requirement)
            case Operator.EXISTS:
                return self._keys.get(requirement.key, 0)
            case Operator.DOES_NOT_EXIST:
                return self.everyone & ~self._keys.get(requirement.key, 0)
            case _:
                assert_never(requirement.operator)

    def _valued(self, requirement: Requirement) -> int:
        found = 0
        for value in requirement.values:
            found |= self._pairs.get((requirement.key, value), 0)
        return found


def _bits(numbers: Sequence[int]) -> int:
    found = 0
    if len(numbers) < 32:
        for number in numbers:
            found |= 1 << number
        return found
    mask = np.zeros(max(numbers) + 1, dtype=bool)
    mask[np.asarray(numbers)] = True
    return bits_of(mask)


class Ends:
    """All ends: every pod by its first address in the snapshot's order, its further addresses, then `others`."""

    def __init__(self, cluster: ClusterSnapshot, others: Iterable[Endpoint] = ()) -> None:
        first = [PodEndpoint(pod=pod, ip=pod.ips[0] if pod.ips else _UNSTATED) for pod in cluster.pods]
        further = [PodEndpoint(pod=pod, ip=ip) for pod in cluster.pods for ip in pod.ips[1:]]
        self._numbers: dict[object, int] = {}
        ends: list[Endpoint] = []
        for end in (*first, *further, *others):
            key = _identity(end)
            if key not in self._numbers:
                self._numbers[key] = len(ends)
                ends.append(end)
        self.all = tuple(ends)
        self.everyone = (1 << len(ends)) - 1
        self.has_several_addresses = len(further) > 0
        self._cluster = cluster
        self._classify()
        self._addresses = _AddressColumns([end.ip for end in ends])

    def number(self, end: Endpoint) -> int:
        """The bit of this end. Raises KeyError for one that was not compiled in."""
        return self._numbers[_identity(end)]

    def _classify(self) -> None:
        """Bits by kind of end. A pod on the host's network is a node; an ended pod is nobody's peer."""
        kinds: dict[str, list[int]] = defaultdict(list)
        by_namespace: dict[str, list[int]] = defaultdict(list)
        nodes: dict[str, int] = {}
        self.node_of = np.full(len(self.all), -1, dtype=np.int32)  # of pods and nodes alike
        self.same_pod = np.arange(len(self.all), dtype=np.int32)
        first_of_pod: dict[str, int] = {}
        unowned = (*self._cluster.pod_cidrs, *(cidr for node in self._cluster.nodes for cidr in node.pod_cidrs))
        for number, end in enumerate(self.all):
            node_name = ""
            match end:
                case PodEndpoint(pod=pod):
                    node_name = pod.node_name
                    self.same_pod[number] = first_of_pod.setdefault(str(pod), number)
                    kinds["node" if pod.host_network else "pod"].append(number)
                    if not pod.host_network and not pod.ended:
                        kinds["live"].append(number)
                        by_namespace[pod.namespace].append(number)
                case NodeEndpoint(node=node):
                    node_name = node.name
                    kinds["node"].append(number)
                case ServiceEndpoint():
                    kinds["service"].append(number)
                case AddressEndpoint(ip=ip):
                    lost = any(ip in cidr for cidr in unowned)
                    kinds["lost" if lost else "address"].append(number)
                case _:
                    assert_never(end)
            if node_name:
                self.node_of[number] = nodes.setdefault(node_name, len(nodes))
        self.pods, self.live, self.nodes = _bits(kinds["pod"]), _bits(kinds["live"]), _bits(kinds["node"])
        self.services, self.lost, self.addresses = (_bits(kinds[k]) for k in ("service", "lost", "address"))
        self.subjects = kinds["live"]
        self.is_node = np.zeros(len(self.all), dtype=bool)
        self.is_node[kinds["node"]] = True
        self._by_namespace = {name: _bits(numbers) for name, numbers in by_namespace.items()}
        self._labels = LabelIndex(
            (number, dict(end.pod.labels))
            for number, end in enumerate(self.all)
            if isinstance(end, PodEndpoint) and self.live >> number & 1
        )
        names = list(self._by_namespace)
        known = self._cluster.namespace_labels
        bare = {name: {"kubernetes.io/metadata.name": name} for name in names}
        self._namespaces = LabelIndex((i, known.get(name, bare[name])) for i, name in enumerate(names))
        self._namespace_names = names
        self._node_labels = LabelIndex((n, self._labels_of_node(n)) for n in np.flatnonzero(self.is_node).tolist())
        self._namespace_cache: dict[LabelSelector, int] = {}

    def _labels_of_node(self, number: int) -> Mapping[str, str]:
        match self.all[number]:
            case NodeEndpoint(node=node):
                return dict(node.labels)
            case PodEndpoint(pod=pod) if pod.node_name in self._cluster.nodes_by_name:
                return dict(self._cluster.nodes_by_name[pod.node_name].labels)
            case _:
                return {}

    def in_namespace(self, name: str) -> int:
        return self._by_namespace.get(name, 0)

    def in_namespaces(self, selector: LabelSelector) -> int:
        cached = self._namespace_cache.get(selector)
        if cached is None:
            cached, chosen = 0, self._namespaces.select(selector)
            for i, name in enumerate(self._namespace_names):
                if chosen >> i & 1:
                    cached |= self._by_namespace[name]
            self._namespace_cache[selector] = cached
        return cached

    def labelled(self, selector: LabelSelector) -> int:
        """Live pods with these labels, in any namespace."""
        return self._labels.select(selector)

    def nodes_labelled(self, selector: LabelSelector) -> int:
        """Nodes, and pods on the network of such a node; never one whose node the snapshot does not have."""
        known = 0
        for number in np.flatnonzero(self.is_node).tolist():
            end = self.all[number]
            if isinstance(end, NodeEndpoint) or (
                isinstance(end, PodEndpoint) and end.pod.node_name in self._cluster.nodes_by_name
            ):
                known |= 1 << number
        return self._node_labels.select(selector) & known

    def within(self, network: IPNetwork) -> Bits:
        """The ends with an address in the network; one that is not stated may be anywhere."""
        return self._addresses.within(network)

    def with_port_named(self, name: str, protocol: Protocol, port: int) -> int:
        """The pods that declare this container port."""
        return self._port_names.get((name, protocol, port), 0)

    def numbers_of_port_name(self, name: str, protocol: Protocol) -> tuple[int, ...]:
        """The port numbers that any pod gives this name."""
        return self._port_numbers.get((name, protocol), ())

    @cached_property
    def _port_names(self) -> Mapping[tuple[str, Protocol, int], int]:
        named: dict[tuple[str, Protocol, int], list[int]] = defaultdict(list)
        for number, end in enumerate(self.all):
            if isinstance(end, PodEndpoint) and not end.pod.host_network:
                for port in end.pod.ports:
                    named[port.name, port.protocol, port.port].append(number)
        return {key: _bits(numbers) for key, numbers in named.items()}

    @cached_property
    def _port_numbers(self) -> Mapping[tuple[str, Protocol], tuple[int, ...]]:
        found: dict[tuple[str, Protocol], tuple[int, ...]] = {}
        for name, protocol, port in sorted(self._port_names):
            found[name, protocol] = (*found.get((name, protocol), ()), port)
        return found


class _AddressColumns:
    """Addresses as 128-bit columns of two words; an IPv4 address lives apart, so families never mix (NP-21)."""

    def __init__(self, addresses: Sequence[IPAddress]) -> None:
        self._v4 = np.array([isinstance(ip, IPv4Address) and ip != _UNSTATED for ip in addresses], dtype=bool)
        self._v6 = np.array([isinstance(ip, IPv6Address) for ip in addresses], dtype=bool)
        self._unstated = bits_of(~(self._v4 | self._v6)) if addresses else 0
        self._high = np.array([int(ip) >> 64 for ip in addresses], dtype=np.uint64)
        self._low = np.array([int(ip) & (2**64 - 1) for ip in addresses], dtype=np.uint64)

    def within(self, network: IPNetwork) -> Bits:
        mask, base = int(network.netmask), int(network.network_address)
        low = (self._low & np.uint64(mask & (2**64 - 1))) == np.uint64(base & (2**64 - 1))
        if network.version == 4:
            sure = bits_of(self._v4 & low)
        else:
            high = (self._high & np.uint64(mask >> 64)) == np.uint64(base >> 64)
            sure = bits_of(self._v6 & low & high)
        return Bits(sure, self._unstated)


def _identity(end: Endpoint) -> object:
    match end:
        case PodEndpoint(pod=pod, ip=ip):
            return (pod.namespace, pod.name, ip)
        case NodeEndpoint(node=node, ip=ip):
            return ("node", node.name, ip)
        case ServiceEndpoint(ip=ip):
            return ("service", ip)
        case AddressEndpoint(ip=ip):
            return ip
        case _:
            assert_never(end)
