"""What the whole set of policies leaves open, half open or cut off.

Enters: the VerdictTable and the cluster. Leaves: uncovered workloads per direction, pods that cannot ask DNS, links
that one end allows by name and the other denies, and workloads under both native and plug-in policies.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.finding import Finding, Severity
from aggregator.model.networkpolicy import Rule, SelectorPeer
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.generation.dns import DNS_PORT, find_dns
from aggregator.policy.lint.codes import Code
from aggregator.policy.lint.effect import rule_subject
from aggregator.policy.lint.table import Rectangle, VerdictTable
from aggregator.policy.lint.universe import PeerClass, bits

_UNCOVERED = {Direction.INGRESS: Code.UNCOVERED_INGRESS, Direction.EGRESS: Code.UNCOVERED_EGRESS}


def check_reach(table: VerdictTable) -> Iterator[Finding]:
    """Everything about the set of policies as a whole."""
    yield from _uncovered(table)
    yield from _dns(table)
    yield from _half_open(table)
    yield from _mixed(table)


# ---- uncovered


def uncovered_pods(table: VerdictTable) -> Mapping[Direction, tuple[str, ...]]:
    """The pods (namespace/name) that no policy of a direction selects."""
    return {
        direction: tuple(
            sorted(str(pod) for c in table.universe.classes if not table.isolating(direction, c.bit) for pod in c.pods)
        )
        for direction in Direction
    }


def _uncovered(table: VerdictTable) -> Iterator[Finding]:
    for direction in Direction:
        workloads = {
            pod.workload for c in table.universe.classes if not table.isolating(direction, c.bit) for pod in c.pods
        }
        for workload in sorted(workloads):
            yield Finding(
                code=_UNCOVERED[direction],
                severity=Severity.INFO,
                subject=str(workload),
                message=f"no policy isolates its {direction.value.lower()}: everything is allowed",
                way_out="propose a policy for it, or a default-deny for its namespace",
            )


# ---- DNS


def dns_blocked(table: VerdictTable) -> Mapping[Protocol, tuple[PeerClass, ...]]:
    """The pods that cannot ask DNS at all (UDP), and those that can, but not over TCP (TCP)."""
    universe = table.universe
    dns = find_dns(universe.cluster)
    servers = dict(dns.servers)
    targets: list[tuple[int, frozenset[tuple[Protocol, int]]]] = [
        (c.bit, servers[c.pods[0].workload]) for c in universe.classes if c.pods and c.pods[0].workload in servers
    ]
    targets += [(universe.class_of(ip), ports) for ip, ports in dns.addresses]
    targets += [(universe.class_of(ip), dns.cache_ports) for ip in dns.caches]
    targets += [(universe.class_of(ip), dns.on_nodes) for n in universe.cluster.nodes for ip in n.addresses]
    blocked: dict[Protocol, list[PeerClass]] = {Protocol.UDP: [], Protocol.TCP: []}
    for c in universe.classes:
        if c.pods and table.isolating(Direction.EGRESS, c.bit) and c.pods[0].workload not in servers:
            for protocol, classes in blocked.items():
                asks = _asks_anybody(table, c.bit, protocol)
                if dns.found:
                    asks = any(
                        table.verdict(c.bit, target) & universe.number(*port)
                        for target, ports in targets
                        for port in ports
                        if port[0] is protocol
                    )
                if not asks:
                    classes.append(c)
                    break
    return {protocol: tuple(classes) for protocol, classes in blocked.items()}


def _asks_anybody(table: VerdictTable, subject: int, protocol: Protocol) -> bool:
    """Whether anybody at all can be asked on port 53: all that can be said where no DNS is known."""
    universe = table.universe
    port = universe.number(protocol, DNS_PORT)
    peers = 0
    for rectangle in table.rectangles(Direction.EGRESS, subject):
        peers |= rectangle.peers if rectangle.ports & port else 0
    return bool(peers & ~universe.pod_bits) or any(table.verdict(subject, peer) & port for peer in bits(peers))


def _dns(table: VerdictTable) -> Iterator[Finding]:
    known = find_dns(table.universe.cluster).found
    where = "the cluster's DNS" if known else "any DNS server (none is known in this cluster)"
    blocked = dns_blocked(table)
    for protocol, code, what in (
        (Protocol.UDP, Code.DNS_BLOCKED, f"its egress is isolated, and it cannot ask {where}"),
        (Protocol.TCP, Code.DNS_TCP_BLOCKED, f"may ask {where} over UDP only: long answers come over TCP"),
    ):
        workloads = {pod.workload: c for c in blocked[protocol] for pod in c.pods}
        for workload, c in sorted(workloads.items()):
            silent = not table.rectangles(Direction.EGRESS, c.bit)
            yield Finding(
                code=code,
                severity=Severity.INFO if silent else Severity.WARNING,
                subject=str(workload),
                message=what + ("; no egress at all is allowed" if silent else ""),
                way_out="allow egress to the DNS pods on their own port, UDP and TCP",
            )


# ---- half-open


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfOpen:
    """A link that a rule of one end names and no rule of the other end lets through."""

    src: PeerClass
    dst: PeerClass
    protocol: Protocol
    port: int
    allowed_by: Direction
    rule: str


def half_open(table: VerdictTable) -> Iterator[HalfOpen]:
    """By port entry of a rule that names its peers: an entry of which nothing passes the other end."""
    universe = table.universe
    told = set()
    for (direction, subject), rectangle in table.all_rectangles():
        policy = universe.policies[rectangle.rule.policy]
        rule = policy.rules(direction)[rectangle.rule.index]
        if not _names_peers(rule):
            continue
        for peer in bits(rectangle.peers & universe.pod_bits):
            if not table.isolating(direction.opposite, peer):
                continue
            src, dst = (subject, peer) if direction is Direction.EGRESS else (peer, subject)
            through = table.allowed(direction.opposite, peer, subject)
            for mask in _entries(table, rule, rectangle, dst):
                protocol, port = universe.port_at(mask) if mask else (Protocol.TCP, 0)
                if mask and not mask & through and (src, dst, protocol, port, direction) not in told:
                    told.add((src, dst, protocol, port, direction))
                    yield HalfOpen(
                        src=universe.classes[src],
                        dst=universe.classes[dst],
                        protocol=protocol,
                        port=port,
                        allowed_by=direction,
                        rule=rule_subject(policy, rectangle.rule),
                    )


def _names_peers(rule: Rule) -> bool:
    """Whether the rule means somebody: not everyone, and not every pod of every namespace."""
    return bool(rule.peers) and all(
        not isinstance(p, SelectorPeer)
        or p.namespace_selector is None
        or not p.namespace_selector.is_empty
        or (p.pod_selector is not None and not p.pod_selector.is_empty)
        for p in rule.peers
    )


def _entries(table: VerdictTable, rule: Rule, rectangle: Rectangle, dst: int) -> Iterator[int]:
    """The mask of each port entry of a rule, as far as this rectangle has it."""
    universe = table.universe
    if not rule.ports:
        yield rectangle.ports
    for port in rule.ports:
        named = isinstance(port.port, str)
        yield (universe.named(port, universe.classes[dst]) if named else universe.numeric(port)) & rectangle.ports


def _half_open(table: VerdictTable) -> Iterator[Finding]:
    told = set()
    for h in half_open(table):
        blocked_by = h.allowed_by.opposite.value.lower()
        link = f"{h.src.pods[0].workload} -> {h.dst.pods[0].workload} {h.protocol}/{h.port}"
        if (link, h.allowed_by) not in told:
            told.add((link, h.allowed_by))
            yield Finding(
                code=Code.HALF_OPEN,
                severity=Severity.WARNING,
                subject=link,
                message=f"{h.rule} allows it, but the {blocked_by} of the other end denies it",
                way_out=f"add the {blocked_by} rule, or remove this one",
            )


# ---- native and plug-in policies together


def _mixed(table: VerdictTable) -> Iterator[Finding]:
    universe = table.universe
    foreign = [p for p in universe.cluster.extra_policies if isinstance(p, ForeignPolicy)]
    for policy in foreign:
        touched: dict[object, set[str]] = {}
        for c in universe.classes:
            if not c.pods or (policy.namespace and c.pods[0].namespace != policy.namespace):
                continue
            if policy.pod_selector is not None and not policy.pod_selector.matches(dict(c.pods[0].labels)):
                continue
            native = {n for d in policy.directions for n in table.isolating(d, c.bit)}
            for pod in c.pods if native else ():
                touched.setdefault(pod.workload, set()).update(str(universe.policies[n]) for n in native)
        for workload, names in sorted(touched.items(), key=lambda item: str(item[0])):
            yield Finding(
                code=Code.MIXED_KINDS,
                severity=Severity.WARNING,
                subject=str(workload),
                message=f"{policy} acts on it, and so do the NetworkPolicies {', '.join(sorted(names))}: "
                "what they allow together depends on the plug-in",
                way_out="keep one kind for one workload",
            )
