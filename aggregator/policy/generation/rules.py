"""One direction of one workload: from what it may talk to, to the rules that say so.

Enters: Units with their ports, typed CIDRs, a general rule. Leaves: Rules in canonical order. Invariant: the rules
allow exactly what went in, and the Widenings returned beside them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Network, IPv6Network
from operator import attrgetter, itemgetter
from typing import Any

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.decision import TypedCIDR
from aggregator.model.networkpolicy import IPBlock, PolicyPeer, PolicyPort, Rule
from aggregator.model.protocol import Protocol
from aggregator.policy.generation.addresses import LINK_LOCAL_V4, METADATA_ADDRESSES
from aggregator.policy.generation.cidrs import exact
from aggregator.policy.generation.merging import merged
from aggregator.policy.generation.minimise import minimise
from aggregator.policy.generation.peers import Unit, peer_key
from aggregator.policy.generation.ports import compact

_PROTOCOL_RANK = {Protocol.TCP: 0, Protocol.UDP: 1, Protocol.SCTP: 2}


Cover = Callable[[Sequence[IPNetwork]], Sequence[IPNetwork]]


def observed_rules(
    namespace: str,
    relation: Mapping[Unit, AbstractSet[int]],
    *,
    overlapping: bool = False,
    cover: Cover = exact,
) -> list[Rule]:
    """Rules for units and the ports that they use, in order; `cover` writes outside addresses as prefixes."""
    keyed: list[tuple[Any, Rule]] = []
    for units, numbers in minimise(relation, order=_order, overlapping=overlapping):
        ordered = sorted(units, key=_unit_key)
        ports = compact(numbers)
        if any(map(_collapsible, ordered)):
            peers = _covered(namespace, ordered, cover)
            key: Any = tuple(peer_key(namespace, peer) for peer in peers)
        else:
            peers = ordered[0].peers if len(ordered) == 1 else _once(ordered)
            key = tuple([unit.key for unit in ordered])
        if _may_merge(ordered) and len(fewer := merged(peers)) < len(peers):
            peers = tuple(sorted(fewer, key=lambda peer: peer_key(namespace, peer)))
            key = tuple(peer_key(namespace, peer) for peer in peers)
        keyed.append(((key, sorted(numbers)), Rule(peers=peers, ports=ports)))
    keyed.sort(key=_first)
    return [rule for _, rule in keyed]


_unit_key, _collapsible = attrgetter("key"), attrgetter("collapsible")
_first = itemgetter(0)


def _once(units: Sequence[Unit]) -> tuple[PolicyPeer, ...]:
    """The peers of units in order; one that two units share stands once."""
    if sum([len(unit.peers) for unit in units]) == len(units):  # each its own: Peers makes every unit once
        return tuple([unit.peers[0] for unit in units])
    return tuple(dict.fromkeys(peer for unit in units for peer in unit.peers))


def _may_merge(units: Sequence[Unit]) -> bool:
    """Do two of them stand in one place? Looked at first, since few do, and merging looks at every label."""
    return len(units) > 1 and len({unit.place for unit in units}) < len(units)


def _order(item: Any) -> Any:
    return item.key if isinstance(item, Unit) else item


def _covered(namespace: str, units: Iterable[Unit], cover: Cover) -> tuple[PolicyPeer, ...]:
    """The peers of units in order; outside addresses as the prefixes of their cover (section D, 7)."""
    peers: set[PolicyPeer] = set()
    outside: list[IPNetwork] = []
    for unit in units:
        if unit.collapsible:
            outside += [peer.cidr for peer in unit.peers if isinstance(peer, IPBlock)]
        else:
            peers.update(unit.peers)
    peers.update(IPBlock(cidr=network) for network in cover(outside))
    return tuple(sorted(peers, key=lambda peer: peer_key(namespace, peer)))


def typed_ports(typed: TypedCIDR) -> tuple[PolicyPort, ...]:
    """The ports that a person typed; none means every port and protocol."""
    if typed.protocol is None:
        return ()
    return (PolicyPort(protocol=typed.protocol, port=typed.port, end_port=typed.end_port),)


def typed_block(
    cidr: IPNetwork,
    *,
    excluded: Iterable[IPAddress],
    cluster_cidrs: Iterable[IPNetwork],
    reaches_metadata: bool,
) -> IPBlock:
    """The block without what a person excluded, without the cluster's own ranges (some CNIs match pods by ipBlock) and
    without cloud metadata (NP-41).
    """
    excepts: set[IPNetwork] = {network_of(ip) for ip in excluded if ip.version == cidr.version and ip in cidr}
    excepts |= {network for network in cluster_cidrs if within(network, cidr)}
    if not reaches_metadata:
        excepts |= _metadatawithin(cidr)
    strict = [network for network in excepts if network != cidr]
    return IPBlock(cidr=cidr, excepts=tuple(_outermost(strict)))


def within(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Is it strictly inside?"""
    return inner.version == outer.version and inner.network_address in outer and inner.prefixlen > outer.prefixlen


def network_of(ip: IPAddress) -> IPNetwork:
    return IPv4Network(ip) if ip.version == 4 else IPv6Network(ip)


def _metadatawithin(cidr: IPNetwork) -> set[IPNetwork]:
    if isinstance(cidr, IPv4Network) and cidr != LINK_LOCAL_V4 and LINK_LOCAL_V4.subnet_of(cidr):
        return {LINK_LOCAL_V4}
    return {
        network
        for network in METADATA_ADDRESSES
        if network.version == cidr.version and network.network_address in cidr and network != cidr
    }


def _outermost(networks: Iterable[IPNetwork]) -> list[IPNetwork]:
    """Without those that lie within another one of them."""
    kept: list[IPNetwork] = []
    for network in sorted(networks, key=lambda n: (n.version, int(n.network_address), n.prefixlen)):
        if not any(k.version == network.version and network.network_address in k for k in kept):
            kept.append(network)
    return kept


def sort_rules(namespace: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Each rule once, by first peer, then ports (section D, 9)."""

    def key(rule: Rule) -> tuple[Any, ...]:
        peers = tuple(peer_key(namespace, peer) for peer in rule.peers)
        return (peers, tuple(map(port_key, rule.ports)))

    return tuple(sorted(dict.fromkeys(rules), key=key))


def port_key(port: PolicyPort) -> tuple[Any, ...]:
    """TCP, UDP, SCTP; numbers before names; then the number and the end of the range."""
    named = isinstance(port.port, str)
    return (_PROTOCOL_RANK[port.protocol], named, str(port.port) if named else "", port.port or 0, port.end_port or 0)
