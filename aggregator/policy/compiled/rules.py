"""Rules as bit sets: which far ends may a policy's rules let through, on one port, seen from one subject?

Enters: policies of every kind and a Profile. Leaves: for a list of policies and a port, a Say: the far ends that may be
allowed and those that may be denied; an end in both is UNKNOWN. Shares no code with `evaluate`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import assert_never

from aggregator.model.address import IPNetwork
from aggregator.model.adminpolicy import (
    Action,
    AdminPeer,
    AdminPolicy,
    AdminPort,
    DomainNamesPeer,
    ForeignPolicy,
    NetworksPeer,
    NodesPeer,
    PodsPeer,
    Policy,
    Tier,
)
from aggregator.model.networkpolicy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, SelectorPeer
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.compiled.ends import Bits, Ends
from aggregator.policy.profiles.profile import Answer, Profile

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Say:
    """The far ends to which the answer may be yes, and those to which it may be no."""

    yes: int
    no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a port rule is judged by: the port, and for INGRESS the names that the subject gives its ports."""

    direction: Direction
    protocol: Protocol
    port: int
    names: frozenset[tuple[str, Protocol, int]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A policy with what is asked of it again and again. `granted` remembers answers, one for each stretch of ports."""

    policy: Policy
    subjects: Mapping[Direction, int]
    cuts: Mapping[Direction, frozenset[tuple[Protocol, int]]]
    starts: Mapping[tuple[Direction, Protocol], Sequence[int]]
    names: Mapping[Direction, frozenset[str]]
    granted: dict[tuple[Direction, Protocol, int, frozenset[tuple[str, Protocol, int]]], Bits]


class Rules:
    """Policies' peers and ports over one universe of ends; peers are looked up once."""

    def __init__(self, ends: Ends, profile: Profile) -> None:
        self._ends = ends
        self._profile = profile
        self._peers: dict[tuple[str, PolicyPeer], Bits] = {}

    def prepared(self, policy: Policy) -> Prepared:
        cuts = {direction: self.cuts(policy, direction) for direction in Direction}
        return Prepared(
            policy=policy,
            subjects={direction: self.subjects(policy, direction) for direction in Direction},
            cuts=cuts,
            starts={
                (direction, protocol): (0, *sorted(port for of, port in cuts[direction] if of is protocol))
                for direction in Direction
                for protocol in Protocol
            },
            names={direction: names_used(policy, direction) for direction in Direction},
            granted={},
        )

    # ---- subjects ----

    def subjects(self, policy: Policy, direction: Direction) -> int:
        """The live pods that the policy selects in this direction."""
        ends = self._ends
        match policy:
            case NetworkPolicy():
                if direction not in policy.directions:
                    return 0
                return ends.in_namespace(policy.namespace) & ends.labelled(policy.pod_selector)
            case AdminPolicy():
                ignored = self._profile.admin_policies is Answer.NO or not policy.rules(direction)
                return 0 if ignored else self._pods(policy.subject)
            case ForeignPolicy():
                if direction not in policy.directions:
                    return 0
                here = ends.in_namespace(policy.namespace) if policy.namespace else ends.live
                return here if policy.pod_selector is None else here & ends.labelled(policy.pod_selector)
            case _:
                assert_never(policy)

    def _pods(self, peer: PodsPeer) -> int:
        found = self._ends.in_namespaces(peer.namespace_selector)
        return found if peer.pod_selector is None else found & self._ends.labelled(peer.pod_selector)

    # ---- what a list of policies says ----

    def say(self, chosen: Sequence[Prepared], sight: Sight) -> Say:
        """NP-61: the admin tier, then NetworkPolicies (final where there are any), then the baseline tier."""
        everyone = self._ends.everyone
        policies = [prepared.policy for prepared in chosen]
        if any(isinstance(policy, ForeignPolicy) for policy in policies):
            return Say(everyone, everyone)
        admin = [policy for policy in policies if isinstance(policy, AdminPolicy)]
        if len(admin) < len(policies):
            granted = Bits()
            for prepared in chosen:
                granted |= self._granted(prepared, sight)
            below = Say(granted.sure | granted.maybe, everyone & ~granted.sure)
        else:
            baseline = [policy for policy in admin if policy.tier is Tier.BASELINE]
            below = self._tier(baseline, sight, Say(everyone, 0))
        return self._tier([policy for policy in admin if policy.tier is Tier.ADMIN], sight, below)

    def _granted(self, prepared: Prepared, sight: Sight) -> Bits:
        """What a NetworkPolicy's rules let through: the same for every port up to its next cut."""
        if not isinstance(prepared.policy, NetworkPolicy):
            return Bits()
        starts = prepared.starts[sight.direction, sight.protocol]
        names = sight.names if prepared.names[sight.direction] else frozenset()
        stretch = (sight.direction, sight.protocol, starts[bisect_right(starts, sight.port) - 1], names)
        found = prepared.granted.get(stretch)
        if found is None:
            found = prepared.granted[stretch] = self._let_through(prepared.policy, sight)
        return found

    def _let_through(self, policy: NetworkPolicy, sight: Sight) -> Bits:
        found = Bits()
        for rule in policy.rules(sight.direction):
            peers = Bits(self._ends.everyone) if not rule.peers else Bits()
            for peer in rule.peers:
                peers |= self._peer(peer, policy.namespace)
            ports = Bits(self._ends.everyone) if not rule.ports else Bits()
            for port in rule.ports:
                ports |= self._port(port, sight)
            found |= peers & ports
        return found

    def _tier(self, policies: Sequence[AdminPolicy], sight: Sight, below: Say) -> Say:
        """Sets of what may happen to each far end, rule by rule; `left` are those that no rule has decided yet."""
        ordered = sorted(policies, key=lambda policy: policy.priority)
        left, yes, no, passed = self._ends.everyone, 0, 0, 0
        for _, equals in groupby(ordered, key=lambda policy: policy.priority):
            after = left
            for policy in equals:
                own = left
                for rule in policy.rules(sight.direction):
                    found = self._admin_peers(rule.peers) & self._admin_ports(rule.ports, sight)
                    hit = own & (found.sure | found.maybe)
                    yes |= hit if rule.action is Action.ALLOW else 0
                    no |= hit if rule.action is Action.DENY else 0
                    passed |= hit if rule.action is Action.PASS else 0
                    if self._profile.admin_policies is Answer.UNDEFINED:
                        passed |= hit
                    own &= ~found.sure
                after &= own
            left = after
        further = left | passed
        return Say(yes | (below.yes & further), no | (below.no & further))

    # ---- peers ----

    def _peer(self, peer: PolicyPeer, namespace: str) -> Bits:
        key = (namespace, peer)
        found = self._peers.get(key)
        if found is None:
            found = self._selected(peer, namespace) if isinstance(peer, SelectorPeer) else self._blocked(peer)
            self._peers[key] = found
        return found

    def _selected(self, peer: SelectorPeer, namespace: str) -> Bits:
        ends, nodes = self._ends, Bits()
        if peer.pod_selector is None and peer.namespace_selector is None:
            return Bits()
        if peer.namespace_selector is None:
            pods = ends.in_namespace(namespace)
        else:
            pods = ends.in_namespaces(peer.namespace_selector)
            if peer.namespace_selector.is_empty:
                nodes = _answered(ends.nodes, self._profile.all_namespaces_match_host_network)
        if peer.pod_selector is not None:
            pods &= ends.labelled(peer.pod_selector)
        return Bits(pods, ends.lost) | nodes

    def _blocked(self, block: IPBlock) -> Bits:
        return self._in_network(block.cidr, block.excepts)

    def _in_network(self, cidr: IPNetwork, excepts: Iterable[IPNetwork]) -> Bits:
        ends, profile = self._ends, self._profile
        inside = ends.within(cidr)
        sure, maybe = inside.sure, inside.maybe
        if str(cidr) == "0.0.0.0/0" and not tuple(excepts):
            sure, maybe = sure | maybe, 0
        for excepted in excepts:
            sure &= ~ends.within(excepted).sure
        seen = Bits(ends.addresses)
        seen |= _answered(ends.pods, profile.ipblock_matches_pods)
        seen |= _answered(ends.nodes, profile.ipblock_matches_nodes)
        seen |= _answered(ends.services, profile.ipblock_matches_services)
        seen |= Bits(ends.lost) if profile.ipblock_matches_pods is Answer.YES else Bits(0, ends.lost)
        return Bits(sure, maybe) & seen

    def _admin_peers(self, peers: Sequence[AdminPeer]) -> Bits:
        found = Bits()
        for peer in peers:
            match peer:
                case PodsPeer():
                    found |= Bits(self._pods(peer), self._ends.lost)
                case NodesPeer(selector=selector):
                    found |= Bits(self._ends.nodes_labelled(selector))
                case NetworksPeer(cidrs=cidrs):
                    for cidr in cidrs:
                        found |= self._in_network(cidr, ())
                case DomainNamesPeer():
                    found |= Bits(0, self._ends.addresses | self._ends.lost)
                case _:
                    assert_never(peer)
        return found

    # ---- ports ----

    def _port(self, port: PolicyPort, sight: Sight) -> Bits:
        if port.protocol is not sight.protocol:
            return Bits()
        found = Bits()
        match port.port:
            case None:
                found = Bits(self._ends.everyone if port.end_port is None else 0)
            case str() as name:
                found = self._named(name, sight) if port.end_port is None else found
            case number:
                ranged = port.end_port is not None and self._profile.end_port is not Answer.NO
                found = self._numbered(number, port.end_port if ranged and port.end_port is not None else number, sight)
        if sight.protocol not in self._profile.enforced_protocols:
            return Bits(0, found.sure | found.maybe)
        return found

    def _numbered(self, first: int, last: int, sight: Sight) -> Bits:
        """Going out to a Service, the port is not yet the one that policies see."""
        unseen = self._ends.services if sight.direction is Direction.EGRESS else 0
        return Bits(self._ends.everyone & ~unseen if first <= sight.port <= last else 0, unseen)

    def _named(self, name: str, sight: Sight) -> Bits:
        if sight.direction is Direction.EGRESS:
            return Bits(self._ends.with_port_named(name, sight.protocol, sight.port))
        return Bits(self._ends.everyone if (name, sight.protocol, sight.port) in sight.names else 0)

    def _admin_ports(self, ports: Sequence[AdminPort], sight: Sight) -> Bits:
        found = Bits() if ports else Bits(self._ends.everyone)
        for port in ports:
            if port.name:
                found |= self._named(port.name, sight)
            elif port.protocol is sight.protocol:
                if port.first is None or port.last is None:
                    found |= Bits(self._ends.everyone)
                else:
                    found |= self._numbered(port.first, port.last, sight)
        return found

    # ---- where answers change ----

    def cuts(self, policy: Policy, direction: Direction) -> frozenset[tuple[Protocol, int]]:
        """The ports at which this policy's answer may change."""
        found: set[tuple[Protocol, int]] = set()
        match policy:
            case NetworkPolicy():
                for entry in (port for rule in policy.rules(direction) for port in rule.ports):
                    found |= self._cuts_of_port(entry)
            case AdminPolicy():
                for port in (port for rule in policy.rules(direction) for port in rule.ports):
                    found |= self._cuts_of_admin_port(port)
            case ForeignPolicy():
                pass
            case _:
                assert_never(policy)
        return frozenset((protocol, port) for protocol, port in found if 0 < port <= LAST_PORT)

    def _cuts_of_port(self, port: PolicyPort) -> set[tuple[Protocol, int]]:
        match port.port:
            case None:
                return set()
            case str() as name:
                return self._cuts_of_name(name, port.protocol)
            case first:
                last = max(first, port.end_port or first)
                return {(port.protocol, cut) for cut in (first, first + 1, last + 1)}

    def _cuts_of_admin_port(self, port: AdminPort) -> set[tuple[Protocol, int]]:
        if port.name:
            return set().union(*(self._cuts_of_name(port.name, protocol) for protocol in Protocol))
        if port.protocol is None or port.first is None or port.last is None:
            return set()
        return {(port.protocol, port.first), (port.protocol, port.last + 1)}

    def _cuts_of_name(self, name: str, protocol: Protocol) -> set[tuple[Protocol, int]]:
        numbers = self._ends.numbers_of_port_name(name, protocol)
        return {(protocol, port) for number in numbers for port in (number, number + 1)}


def names_used(policy: Policy, direction: Direction) -> frozenset[str]:
    """The port names in the rules of this direction."""
    match policy:
        case NetworkPolicy():
            entries = (port.port for rule in policy.rules(direction) for port in rule.ports)
            return frozenset(name for name in entries if isinstance(name, str))
        case AdminPolicy():
            return frozenset(port.name for rule in policy.rules(direction) for port in rule.ports if port.name)
        case ForeignPolicy():
            return frozenset()
        case _:
            assert_never(policy)


def _answered(mask: int, answer: Answer) -> Bits:
    match answer:
        case Answer.YES:
            return Bits(mask)
        case Answer.NO:
            return Bits()
        case Answer.UNDEFINED:
            return Bits(0, mask)
        case _:
            assert_never(answer)
