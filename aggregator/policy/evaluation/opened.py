"""What a proposal's rules open besides its links: the exact list, among those alive.

Enters: a proposal's policies, the live ends, an evaluator. Leaves: OpenedPairs with port ranges. Invariant: every pair
that a rule of the proposal admits, and that both sides allow, is an included link or in the list.
"""

from collections.abc import Iterator, Sequence

from aggregator.model.certificate import OpenedPair
from aggregator.model.endpoint import Endpoint, NodeEndpoint, PodEndpoint
from aggregator.model.link import end_key
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.proposal import Origin, Proposal
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import DirectionOutcome, Explanation, Verdict
from aggregator.model.workload import ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.evaluation.endpoints import pod_endpoint
from aggregator.policy.evaluation.intervals import Interval, intervals, merged, without
from aggregator.policy.evaluation.judging import Judge
from aggregator.policy.evaluation.live import Live, LiveEnd, connect
from aggregator.policy.generation.dns import DNS_PORT, ClusterDNS
from aggregator.policy.generation.ports import port_order

EXEMPT = frozenset({DirectionOutcome.SELF, DirectionOutcome.NODE_OWN_POD})
Key = tuple[LinkEnd, LinkEnd, Protocol]


def is_exempt(said: Explanation) -> bool:
    """NP-30, NP-31: no policy has a say."""
    return said.egress.outcome in EXEMPT or said.ingress.outcome in EXEMPT


def opened_by(
    proposal: Proposal, policies: Sequence[NetworkPolicy], live: Live, judge: Judge, dns: ClusterDNS
) -> list[OpenedPair]:
    """Pairs that are allowed by these policies without being included links, in order."""
    allowed: dict[Key, set[Interval]] = {}
    for direction in Direction:
        for other in _others(policies, direction, live):
            for pod in live.pods(proposal.workload):
                own = pod_endpoint(pod)
                src, dst = (own, other.endpoint) if direction is Direction.EGRESS else (other.endpoint, own)
                ends = (proposal.workload, other.end)
                for protocol, span in _allowed(src, dst, judge):
                    link_src, link_dst = ends if direction is Direction.EGRESS else ends[::-1]
                    allowed.setdefault((link_src, link_dst, protocol), set()).add(span)
    included = _included_ports(proposal, live)
    found = [
        OpenedPair(
            src=src,
            dst=dst,
            protocol=protocol,
            first_port=first,
            last_port=last,
            because=_because(proposal, dns, (src, dst, protocol), (first, last)),
        )
        for (src, dst, protocol), spans in allowed.items()
        for first, last in without(merged(spans), included.get((src, dst, protocol), ()))
    ]
    return sorted(found, key=lambda p: (*end_key(p.src), *end_key(p.dst), *port_order((p.protocol, p.first_port))))


def _others(policies: Sequence[NetworkPolicy], direction: Direction, live: Live) -> Iterator[LiveEnd]:
    """Each end that a rule of this direction could mean, once."""
    seen: set[int] = set()
    for policy in policies:
        if direction in policy.directions:
            for rule in policy.rules(direction):
                for other in live.candidates(policy, rule.peers):
                    if id(other) not in seen:
                        seen.add(id(other))
                        yield other


def _allowed(src: Endpoint, dst: Endpoint, judge: Judge) -> Iterator[tuple[Protocol, Interval]]:
    """The ports at which this pair may connect; nothing where no policy has a say."""
    asked = [*judge.selecting(src), *judge.selecting(dst), *judge.others]
    pod = dst.pod if isinstance(dst, PodEndpoint) else None
    explain = judge.between(src, dst)
    for protocol, spans in intervals(asked, pod).items():
        for span in spans:
            said = explain(connect(src, dst, protocol, span[0]))
            if is_exempt(said):
                return
            if said.verdict is Verdict.ALLOWED:
                yield protocol, span


def _included_ports(proposal: Proposal, live: Live) -> dict[Key, set[int]]:
    """Ports by pair that links allow; the API server's endpoints may be nodes, and then it is their port as well."""
    found: dict[Key, set[int]] = {}
    for row in proposal.included:
        link = row.observed.link
        for protocol, port in live.ports_of(link.dst, link.protocol, link.port):
            found.setdefault((link.src, link.dst, protocol), set()).add(port)
            for src, dst in (
                (_as_nodes(link.src, live), link.dst),
                (link.src, _as_nodes(link.dst, live)),
            ):
                found.setdefault((src, dst, protocol), set()).add(port)
    return found


def _as_nodes(end: LinkEnd, live: Live) -> LinkEnd:
    if isinstance(end, ApiServer) and any(isinstance(e, NodeEndpoint) for e in live.endpoints(end)):
        return Nodes(cluster=end.cluster)
    return end


def _because(proposal: Proposal, dns: ClusterDNS, key: Key, span: Interval) -> str:
    """Who asked for it, "" for nobody."""
    src, dst, protocol = key
    direction = Direction.EGRESS if src == proposal.workload else Direction.INGRESS
    served = dns.ports_of(dst) if isinstance(dst, Workload) else dns.on_nodes
    if span[0] == span[1] and ((protocol, span[0]) in served or span[0] == DNS_PORT):
        return Origin.DNS.value
    for widening in proposal.widenings:
        same = (widening.src, widening.dst, widening.protocol) == key
        if same and (widening.first_port or 0) <= span[0] and span[1] <= (widening.last_port or 0):
            return Origin.PORT_RANGE.value
    said = {item.origin for item in proposal.synthesised if item.direction is direction}
    for origin in (Origin.GENERAL_RULE, Origin.TYPED_CIDR, Origin.ALIAS, Origin.CIDR_BUDGET):
        if origin in said:
            return origin.value
    return ""
