"""The universe that lint judges policies over: pods and outside addresses as classes, ports as intervals.

Enters: policies and a cluster. Leaves: a Universe whose members are all that the policies can tell apart, as bits of
integers. Invariant: two pods (addresses, ports) of one class get the same answer from every policy, so a statement
about the classes is a statement about the cluster. Shares no code with the evaluators beyond the model.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.adminpolicy import PodsPeer
from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot, Pod
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, SelectorPeer
from aggregator.model.protocol import Direction, Protocol

_LAST_PORT = 65535
_Outside = tuple[frozenset[IPBlock], bool, bool]
# One address of each family that hardly any policy names (RFC 2544, RFC 3849): "somewhere outside".
_ANYWHERE = (ip_address("198.19.255.254"), ip_address("2001:db8:ffff:ffff::fffe"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerClass:
    """Pods that no policy tells apart (by default of one workload), or one of the addresses that none tells apart."""

    bit: int
    pods: tuple[Pod, ...] = ()
    address: IPAddress | None = None


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def all_rules(policy: NetworkPolicy) -> Iterator[tuple[Direction, int, tuple[PolicyPeer, ...], tuple[PolicyPort, ...]]]:
    """Every rule that is in force, with its direction and 0-based index."""
    for direction in (Direction.INGRESS, Direction.EGRESS):
        if direction in policy.directions:
            for index, rule in enumerate(policy.rules(direction)):
                yield direction, index, rule.peers, rule.ports


def namespace_labels(cluster: ClusterSnapshot, namespace: str) -> Mapping[str, str]:
    """A namespace's labels; one that the snapshot lacks still has its name (NP-17)."""
    return cluster.namespace_labels.get(namespace, {NAMESPACE_NAME_LABEL: namespace})


def is_subject(pod: Pod) -> bool:
    """Whether policies act on this pod: not on the host's network, not finished (NP-28, NP-32)."""
    return not pod.host_network and not pod.ended


def subjects(peer: PodsPeer, cluster: ClusterSnapshot) -> Iterator[Pod]:
    """The pods that a cluster-wide policy with this subject acts on, or that a peer of it matches."""
    for pod in cluster.pods:
        if (
            is_subject(pod)
            and peer.namespace_selector.matches(namespace_labels(cluster, pod.namespace))
            and (peer.pod_selector is None or peer.pod_selector.matches(dict(pod.labels)))
        ):
            yield pod


class Universe:
    """Classes of peers and intervals of ports, and the bit masks of selectors over them."""

    def __init__(
        self,
        policies: Iterable[NetworkPolicy],
        cluster: ClusterSnapshot,
        *,
        beside: Iterable[NetworkPolicy] = (),
        addresses: Iterable[IPAddress] = (),
        ipblock_matches_pods: bool = True,
        by_workload: bool = True,
    ) -> None:
        """`beside`: further policies that must be told apart, too, so that two sets share one universe.

        `by_workload` False: pods of different workloads share a class where no policy tells them apart.
        `addresses`: outside ones that will be asked for, beside those that the policies and nodes name.
        """
        self.policies = tuple(policies)
        self.cluster = cluster
        self._all = tuple(dict.fromkeys((*beside, *self.policies)))  # in one order for all that share `beside`
        self._also = tuple(addresses)
        self._by_workload = by_workload
        self._blocks_match_pods = ipblock_matches_pods
        self._blocks = tuple(
            dict.fromkeys(
                peer
                for policy in self._all
                for _, _, peers, _ in all_rules(policy)
                for peer in peers
                if isinstance(peer, IPBlock)
            )
        )
        self._port_cache: dict[PolicyPort, int] = {}
        self._peer_cache: dict[tuple[str | None, PolicyPeer], int] = {}
        self._selector_cache: dict[tuple[LabelSelector, int], int] = {}
        self.classes = self._make_classes()
        self._cuts = self._make_cuts()

    # ---- peers

    def _make_classes(self) -> tuple[PeerClass, ...]:
        groups: dict[object, list[Pod]] = {}
        for pod in self.cluster.pods:
            if is_subject(pod):
                inside = frozenset(b for b in self._blocks if any(block_contains(b, ip) for ip in pod.ips))
                kept = inside if self._blocks_match_pods else frozenset()
                groups.setdefault((*self._pod_key(pod), kept), []).append(pod)
        classes = [PeerClass(bit=bit, pods=tuple(pods)) for bit, pods in enumerate(groups.values())]
        outside: dict[_Outside, IPAddress] = {}
        for address in self._outside_addresses():
            outside.setdefault(self._outside_key(address), address)
        self._outside = {key: len(classes) + i for i, key in enumerate(outside)}
        classes += [PeerClass(bit=self._outside[key], address=address) for key, address in outside.items()]
        return tuple(classes)

    def _pod_key(self, pod: Pod) -> tuple[object, ...]:
        """What policies see of a pod."""
        ports = frozenset((p.name, p.protocol, p.port) for p in pod.ports)
        if self._by_workload:
            return pod.workload, pod.labels, ports
        labels = frozenset(label for label in pod.labels if label[0] in self._asked_keys)
        named = frozenset(port for port in ports if port[0] in self._asked_names)
        return pod.namespace, labels, named

    @cached_property
    def _asked_keys(self) -> frozenset[str]:
        """The label keys of pods that any selector asks for."""
        selectors = [policy.pod_selector for policy in self._all]
        for policy in self._all:
            for _, _, peers, _ in all_rules(policy):
                selectors += [p.pod_selector for p in peers if isinstance(p, SelectorPeer) and p.pod_selector]
        return frozenset(k for s in selectors for k in (*dict(s.match_labels), *(r.key for r in s.match_expressions)))

    @cached_property
    def _asked_names(self) -> frozenset[str]:
        """The names of ports that any rule asks for."""
        ports = (port.port for policy in self._all for _, _, _, ports in all_rules(policy) for port in ports)
        return frozenset(port for port in ports if isinstance(port, str))

    def _outside_addresses(self) -> Iterator[IPAddress]:
        """Every edge of every block, just inside and just outside of it; nodes; and somewhere else."""
        nodes: list[IPAddress] = [ip for node in self.cluster.nodes for ip in node.addresses]
        nodes += [ip for pod in self.cluster.pods if pod.host_network for ip in pod.ips]
        edges = [e for block in self._blocks for network in (block.cidr, *block.excepts) for e in _edges(network)]
        taken = {ip for pod in self.cluster.pods if is_subject(pod) for ip in pod.ips}
        return iter(dict.fromkeys([*_ANYWHERE, *self._also, *(ip for ip in edges if ip not in taken), *nodes]))

    def _outside_key(self, ip: IPAddress) -> "_Outside":
        """Addresses that every policy and plug-in treats alike: those of nodes are never like the rest of the world."""
        inside = frozenset(b for b in self._blocks if block_contains(b, ip))
        return inside, ip in self.cluster.nodes_by_ip, ip in self._also

    def class_of(self, ip: IPAddress) -> int:
        """The class of an address that is no subject's: the one that the same blocks contain."""
        return self._outside[self._outside_key(ip)]

    @cached_property
    def everyone(self) -> int:
        return (1 << len(self.classes)) - 1

    @cached_property
    def pod_bits(self) -> int:
        return sum(1 << c.bit for c in self.classes if c.pods)

    @cached_property
    def by_namespace(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for c in self.classes:
            if c.pods:
                found[c.pods[0].namespace] = found.get(c.pods[0].namespace, 0) | 1 << c.bit
        return found

    def select(self, selector: LabelSelector, among: int) -> int:
        """The pod classes of `among` whose labels match."""
        key = (selector, among)
        if key not in self._selector_cache:
            self._selector_cache[key] = sum(
                1 << bit for bit in bits(among) if selector.matches(dict(self.classes[bit].pods[0].labels))
            )
        return self._selector_cache[key]

    def subjects(self, policy: NetworkPolicy) -> int:
        """The pod classes that a policy acts on (NP-01, NP-02)."""
        return self.select(policy.pod_selector, self.by_namespace.get(policy.namespace, 0))

    def peer(self, peer: PolicyPeer, namespace: str) -> int:
        """The classes that one peer of a policy in `namespace` matches (NP-12 to NP-15, NP-18)."""
        key = (namespace if isinstance(peer, SelectorPeer) and peer.namespace_selector is None else None, peer)
        if key not in self._peer_cache:
            self._peer_cache[key] = self._match(peer, namespace)
        return self._peer_cache[key]

    def _match(self, peer: PolicyPeer, namespace: str) -> int:
        if isinstance(peer, IPBlock):
            return sum(1 << c.bit for c in self.classes if self._block_matches(peer, c))
        if peer.namespace_selector is None:
            among = self.by_namespace.get(namespace, 0)
            return self.select(peer.pod_selector, among) if peer.pod_selector is not None else 0
        among = 0
        for name, members in self.by_namespace.items():
            if peer.namespace_selector.matches(namespace_labels(self.cluster, name)):
                among |= members
        return self.select(peer.pod_selector, among) if peer.pod_selector is not None else among

    def _block_matches(self, block: IPBlock, c: PeerClass) -> bool:
        if c.address is not None:
            return block_contains(block, c.address)
        return self._blocks_match_pods and any(block_contains(block, ip) for ip in c.pods[0].ips)

    # ---- ports

    def _make_cuts(self) -> tuple[tuple[Protocol, int], ...]:
        starts = {protocol: {1} for protocol in Protocol}
        names: set[str] = set()
        for policy in self._all:
            for _, _, _, ports in all_rules(policy):
                for port in ports:
                    if isinstance(port.port, int):
                        starts[port.protocol] |= {port.port, (port.end_port or port.port) + 1}
                    elif port.port is not None:
                        names.add(port.port)
        for c in self.classes:
            for pod in c.pods[:1]:
                for declared in pod.ports:
                    if declared.name in names:
                        starts[declared.protocol] |= {declared.port, declared.port + 1}
        return tuple((protocol, n) for protocol in Protocol for n in sorted(starts[protocol]) if n <= _LAST_PORT)

    @cached_property
    def every_port(self) -> int:
        return (1 << len(self._cuts)) - 1

    def port_at(self, mask: int) -> tuple[Protocol, int]:
        """The lowest protocol and port of a mask."""
        return self._cuts[next(bits(mask))]

    def ranges(self, mask: int) -> tuple[tuple[Protocol, int, int], ...]:
        """A mask as (protocol, first, last), adjacent intervals joined."""
        found: list[tuple[Protocol, int, int]] = []
        for i in bits(mask):
            protocol, first = self._cuts[i]
            following = self._cuts[i + 1] if i + 1 < len(self._cuts) else None
            last = following[1] - 1 if following and following[0] is protocol else _LAST_PORT
            if found and found[-1][0] is protocol and found[-1][2] == first - 1:
                first = found.pop()[1]
            found.append((protocol, first, last))
        return tuple(found)

    def where(self, c: PeerClass) -> str:
        """A class in words: its workload, or the narrowest block that its addresses are in."""
        if c.pods:
            return str(c.pods[0].workload)
        if c.address in self.cluster.nodes_by_ip:
            return "nodes"
        inside = [b for b in self._blocks if c.address is not None and block_contains(b, c.address)]
        if not inside:
            return f"any other IPv{c.address.version} address" if c.address is not None else ""
        narrow = max(inside, key=lambda b: b.cidr.prefixlen)
        return str(narrow.cidr) + (f" except {', '.join(map(str, narrow.excepts))}" if narrow.excepts else "")

    def number(self, protocol: Protocol, port: int) -> int:
        """The mask of the one interval that holds this port."""
        return 1 << max(i for i, (p, start) in enumerate(self._cuts) if p is protocol and start <= port)

    def numeric(self, port: PolicyPort) -> int:
        """The mask of a port entry without a name (NP-22, NP-23, NP-25)."""
        if port not in self._port_cache:
            first = port.port if isinstance(port.port, int) else 1
            last = _LAST_PORT if port.port is None else (port.end_port or first)
            self._port_cache[port] = sum(
                1 << i for i, (p, start) in enumerate(self._cuts) if p is port.protocol and first <= start <= last
            )
        return self._port_cache[port]

    def named(self, port: PolicyPort, pod_class: PeerClass) -> int:
        """The mask that a named port has on this destination: name and protocol must be declared (NP-26)."""
        numbers = {
            p.port
            for pod in pod_class.pods[:1]
            for p in pod.ports
            if p.name == port.port and p.protocol is port.protocol
        }
        return sum(self.numeric(PolicyPort(protocol=port.protocol, port=n)) for n in numbers)


def block_contains(block: IPBlock, ip: IPAddress) -> bool:
    """NP-19, NP-21: `excepts` subtracts; the families never match each other."""
    return ip in block.cidr and not any(ip in excepted for excepted in block.excepts)


def _edges(network: IPNetwork) -> list[IPAddress]:
    first, last = network.network_address, network.broadcast_address
    edges: list[IPAddress] = [first, last]
    if int(first) > 0:
        edges.append(first - 1)
    if int(last) < 2**network.max_prefixlen - 1:
        edges.append(last + 1)
    return edges
