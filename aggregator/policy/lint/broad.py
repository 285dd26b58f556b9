"""How wide each rule is: the ways in which it is over-broad, a score, and how little of it was ever used.

Enters: the VerdictTable and the links that were seen. Leaves: over-broad and metadata-reachable findings, and a
BroadRule for each such rule, widest blast radius first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from aggregator.model.finding import Finding, Severity
from aggregator.model.link import Link
from aggregator.model.networkpolicy import IPBlock, PolicyPort, Rule, SelectorPeer
from aggregator.model.protocol import Direction
from aggregator.model.workload import LinkEnd
from aggregator.policy.lint.codes import Code
from aggregator.policy.lint.static import contains
from aggregator.policy.lint.table import RuleRef, VerdictTable
from aggregator.policy.lint.universe import all_rules, bits

_METADATA = ip_network("169.254.169.254/32")
_METADATA_V6 = ip_network("fd00:ec2::254/128")
_METADATA_ASPECT = "metadata-server-reachable"
_LAST_PORT = 65535
WIDE_RANGE = 100  # ports
WIDE_V4, WIDE_V6 = 24, 64  # prefix lengths: anything shorter is wide
WEIGHTS = {
    "any-peer": 5,
    "world": 4,
    "all-namespaces": 3,
    _METADATA_ASPECT: 3,
    "any-port": 2,
    "wide-cidr": 2,
    "wide-port-range": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadRule:
    """An over-broad rule. `permitted` and `observed` count pairs of workloads; the difference is the blast radius."""

    rule: str  # namespace/policy:direction:index
    aspects: tuple[str, ...]
    score: int
    permitted: int
    observed: int

    @property
    def blast_radius(self) -> int:
        return self.permitted - self.observed


def broad_rules(table: VerdictTable, observed: Iterable[Link] = ()) -> tuple[BroadRule, ...]:
    """Every over-broad rule with its score, widest blast radius first."""
    seen: dict[tuple[LinkEnd, LinkEnd], list[Link]] = {}
    for link in observed:
        seen.setdefault((link.src, link.dst), []).append(link)
    found = []
    for number, policy in enumerate(table.universe.policies):
        for direction, index, _, _ in all_rules(policy):
            names = tuple(name for name, _ in aspects(policy.rules(direction)[index], direction))
            if names:
                permitted, used = _pairs(table, RuleRef(policy=number, direction=direction, index=index), seen)
                found.append(
                    BroadRule(
                        rule=f"{policy}:{direction.value.lower()}:{index}",
                        aspects=names,
                        score=sum(WEIGHTS[name] for name in names),
                        permitted=permitted,
                        observed=used,
                    )
                )
    return tuple(sorted(found, key=lambda b: (-b.blast_radius, -b.score, b.rule)))


def _pairs(table: VerdictTable, ref: RuleRef, seen: dict[tuple[LinkEnd, LinkEnd], list[Link]]) -> tuple[int, int]:
    """How many pairs of workloads the rule opens, and for how many of them a link was seen that it allows."""
    universe = table.universe
    permitted: dict[tuple[LinkEnd, LinkEnd], int] = {}
    for subject in bits(table.subjects[ref.policy]):
        mine = {pod.workload for pod in universe.classes[subject].pods}
        for rectangle in table.rectangles(ref.direction, subject):
            if rectangle.rule == ref:
                for peer in bits(rectangle.peers & universe.pod_bits):
                    for other in {pod.workload for pod in universe.classes[peer].pods}:
                        for subject_workload in mine:
                            pair = (other, subject_workload)
                            pair = pair if ref.direction is Direction.INGRESS else (subject_workload, other)
                            permitted[pair] = permitted.get(pair, 0) | rectangle.ports
    used = sum(
        any(universe.number(link.protocol, link.port) & ports for link in seen.get(pair, ()))
        for pair, ports in permitted.items()
    )
    return len(permitted), used


def check_broad(table: VerdictTable, observed: Iterable[Link] = ()) -> Iterator[Finding]:
    """One finding for each way in which a rule is over-broad."""
    by_rule = {broad.rule: broad for broad in broad_rules(table, observed)}
    for policy in table.universe.policies:
        for direction, index, _, _ in all_rules(policy):
            subject = f"{policy}:{direction.value.lower()}:{index}"
            for aspect, message in aspects(policy.rules(direction)[index], direction):
                yield _finding(by_rule[subject], aspect, message)


def aspects(rule: Rule, direction: Direction) -> Iterator[tuple[str, str]]:
    """The ways in which a rule is over-broad: a name and words for each."""
    if not rule.peers:
        yield "any-peer", "allows every peer, outside the cluster, too"
    if not rule.ports:
        yield "any-port", "allows every port and protocol"
    metadata = not rule.peers
    seen = set()
    for peer in rule.peers:
        for aspect, message in _peer_aspects(peer):
            if aspect not in seen:
                seen.add(aspect)
                yield aspect, message
        metadata = metadata or (isinstance(peer, IPBlock) and _reaches_metadata(peer))
    for port in rule.ports:
        if "wide-port-range" not in seen and _width(port) > WIDE_RANGE:
            seen.add("wide-port-range")
            yield "wide-port-range", f"allows {_width(port)} ports"
    if metadata and direction is Direction.EGRESS:
        yield _METADATA_ASPECT, "opens the cloud's metadata server 169.254.169.254"


def _peer_aspects(peer: SelectorPeer | IPBlock) -> Iterator[tuple[str, str]]:
    if isinstance(peer, SelectorPeer):
        every_namespace = peer.namespace_selector is not None and peer.namespace_selector.is_empty
        if every_namespace and (peer.pod_selector is None or peer.pod_selector.is_empty):
            yield "all-namespaces", "allows every pod of every namespace"
    elif peer.cidr.prefixlen == 0:
        if not peer.excepts:
            yield "world", f"allows the whole world ({peer.cidr}) without an exception"
    elif peer.cidr.prefixlen < (WIDE_V4 if peer.cidr.version == 4 else WIDE_V6):
        yield "wide-cidr", f"allows {peer.cidr}, which is wide"


def _reaches_metadata(block: IPBlock) -> bool:
    server = _METADATA if block.cidr.version == 4 else _METADATA_V6
    return contains(block.cidr, server) and not any(contains(e, server) for e in block.excepts)


def _width(port: PolicyPort) -> int:
    if port.port is None:
        return _LAST_PORT
    return (port.end_port or port.port) - port.port + 1 if isinstance(port.port, int) else 1


def _finding(broad: BroadRule, aspect: str, message: str) -> Finding:
    if aspect == _METADATA_ASPECT:
        return Finding(
            code=Code.METADATA_REACHABLE,
            severity=Severity.WARNING,
            subject=f"{broad.rule}:{aspect}",
            message=message,
            way_out="add except: [169.254.0.0/16] to the ipBlock",
        )
    pairs = "1 pair" if broad.permitted == 1 else f"{broad.permitted} pairs"
    return Finding(
        code=Code.OVER_BROAD,
        severity=Severity.WARNING if aspect in {"any-peer", "world"} else Severity.INFO,
        subject=f"{broad.rule}:{aspect}",
        message=f"{message}: {pairs} of workloads may talk, {broad.observed} were seen to (breadth {broad.score})",
        way_out="name the peers and ports that are needed",
    )
