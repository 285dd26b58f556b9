"""One direction of one workload: its rows, its general rule, typed CIDRs and DNS become rules.

Enters: the rows judged for it. Leaves: Written: rules, and everything in them that no row asked for. Invariant: what
is not a row is returned as synthesised or as a Widening, never silently.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import assert_never

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Alias, Choice, Decisions, GeneralRule, TypedCIDR
from aggregator.model.finding import Finding
from aggregator.model.link import Link
from aggregator.model.networkpolicy import IPBlock, Rule
from aggregator.model.proposal import Origin, Reason, Synthesised, Widening
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.generation import notes
from aggregator.policy.generation.addresses import METADATA_ADDRESSES, Addresses, is_metadata, network_of_end
from aggregator.policy.generation.cidrs import budgeted, exact
from aggregator.policy.generation.dns import BOTH, DNS_PORT, ClusterDNS
from aggregator.policy.generation.facts import EndFacts, Judged
from aggregator.policy.generation.peers import Peers, Unit, every_pod, peer_key, whole_namespace
from aggregator.policy.generation.ports import DYNAMIC_PORTS, PortKey, PortRange, code, codes, dynamic_ranges, one
from aggregator.policy.generation.rows import is_dns_over
from aggregator.policy.generation.rules import observed_rules, typed_block, typed_ports, within


@dataclass(slots=True, kw_only=True)
class Written:
    """What one direction came to."""

    rules: list[Rule] = field(default_factory=list)  # by a person, in no order
    observed: list[Rule] = field(default_factory=list)  # by rows and DNS, in order
    synthesised: list[Synthesised] = field(default_factory=list)
    widenings: list[Widening] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


_EXCLUDE = Choice.EXCLUDE
_TYPED = Reason.TYPED_CIDR
_NEVER = frozenset({Reason.EXCLUDED, Reason.INTERNAL_UNRESOLVED})
Relation = dict[Unit, frozenset[int]]


class DirectionWriter:
    def __init__(
        self,
        *,
        decisions: Decisions,
        settings: Settings,
        peers: Peers,
        dns: ClusterDNS,
        cluster: ClusterSnapshot,
        addresses: Addresses,
    ) -> None:
        self._decisions = decisions
        self._settings = settings
        self._peers = peers
        self._dns = dns
        self._cluster = cluster
        self._cluster_cidrs = addresses.pod_and_service_cidrs
        self._addresses = addresses
        self._host_addresses = (
            *(ip for node in cluster.nodes for ip in node.addresses),
            *(backend.ip for backend in peers.api_backends),
        )
        self._choices = decisions.choice_by_link
        self._aliases: dict[tuple[str, tuple[IPAddress, ...]], Unit] = {}

    def write(self, own: EndFacts, direction: Direction) -> Written:
        """The rules of one direction of a workload that a policy can act on."""
        assert isinstance(own.end, Workload)
        workload, rows = own.end, own.rows(direction)
        written = Written()
        relation: Relation = {}
        rule = own.rules[direction]
        match rule:
            case GeneralRule.ALLOW_ALL:
                written.rules.append(Rule())
                self._say(written, direction, Origin.GENERAL_RULE, "a person allowed everything")
                return written
            case GeneralRule.ALLOW_NAMESPACE:
                written.rules.append(Rule(peers=(whole_namespace(),)))
                text = f"a person allowed every pod of the namespace {workload.namespace}"
                self._say(written, direction, Origin.GENERAL_RULE, text)
            case GeneralRule.BLOCK_ALL:
                self._say(written, direction, Origin.GENERAL_RULE, "a person blocked everything")
            case GeneralRule.OBSERVED | None:
                relation = self._observed(workload, direction, rows, written)
            case _:
                assert_never(rule)
        for typed in self._decisions.typed_cidrs_of(workload, direction):
            self._typed(typed, rows, written)
        if rule is not GeneralRule.BLOCK_ALL:
            by_rows = rule is not GeneralRule.ALLOW_NAMESPACE
            if direction is Direction.INGRESS and own.dns_ports:
                relation = _without(relation, codes(own.dns_ports))
            for unit, keys in self._dns_units(workload, direction, rows, written, by_rows=by_rows).items():
                relation[unit] = relation.get(unit, frozenset()) | keys
        barred = self._barred(rows, direction)

        def cover(networks: Sequence[IPNetwork]) -> Sequence[IPNetwork]:
            return self._cover(networks, barred, direction, written)

        written.observed = observed_rules(workload.namespace, relation, overlapping=self._settings.compact, cover=cover)
        return written

    def _barred(self, rows: Sequence[Judged], direction: Direction) -> list[IPNetwork]:
        """What a widened prefix must never touch: the cluster itself, cloud metadata, and every row left out."""
        if self._settings.cidr_budget is None:
            return []
        left_out = [
            network_of_end(end)
            for row in rows
            if not row.included and (end := row.other(direction).address) is not None
        ]
        others = [network for alias in self._decisions.aliases if not alias.allowed for network in alias.networks]
        return [*self._addresses.all_own, *METADATA_ADDRESSES, *left_out, *others]

    def _cover(
        self, networks: Sequence[IPNetwork], barred: Sequence[IPNetwork], direction: Direction, written: Written
    ) -> Sequence[IPNetwork]:
        """Exact; or within the budget that a person set, with every address that it adds listed."""
        budget = self._settings.cidr_budget
        if budget is None or not networks:
            return exact(networks)
        found = budgeted(networks, budget, forbidden=barred)
        if found is None:
            written.findings.append(notes.budget_too_small(budget))
            return exact(networks)
        narrow = set(exact(networks))
        for network in found.networks:
            if network not in narrow:
                inside = sum(n.num_addresses for n in narrow if within(n, network))
                written.widenings.append(
                    Widening(
                        direction=direction,
                        origin=Origin.CIDR_BUDGET,
                        network=network,
                        extra=network.num_addresses - inside,
                    )
                )
        return found.networks

    def _say(self, written: Written, direction: Direction, origin: Origin, text: str) -> None:
        written.synthesised.append(Synthesised(direction=direction, origin=origin, text=text))

    def _observed(self, workload: Workload, direction: Direction, rows: Sequence[Judged], written: Written) -> Relation:
        relation: Relation = {}
        by_end: dict[EndFacts, frozenset[int]] = {}
        excluded = self._excluded(rows, direction)
        out = direction is Direction.EGRESS
        for row in rows:
            if not row.included or (row.reason is _TYPED and self._is_typed(row, direction, excluded)):
                continue
            other = row.dst if out else row.src
            keys = row.ports if row.ports is not None else self._ports(row.observed.link, other.end, direction)
            by_end[other] = by_end[other] | keys if other in by_end else keys
        namespace = workload.namespace
        for other, keys in by_end.items():
            near = namespace if namespace == other.namespace else ""
            unit = other.units.get(near) or self._unit(namespace, near, other, excluded)
            wide = self._decisions.port_ranges or len(keys) >= DYNAMIC_PORTS
            found = self._ranged(workload, direction, other.end, keys, written) if wide else keys
            relation[unit] = relation[unit] | found if unit in relation else found
        self._say_aliases(by_end, direction, written)
        if direction is Direction.INGRESS and any(isinstance(other.end, Nodes) for other in by_end):
            written.findings.append(notes.nodes_as_source(workload))
        return relation

    def _is_typed(self, row: Judged, direction: Direction, excluded: Sequence[IPAddress]) -> bool:
        """Is this row, which a typed CIDR covers, in that CIDR's rule already?"""
        address = row.other(direction).address
        return address is not None and not _touches(network_of_end(address), excluded)

    def _unit(self, namespace: str, near: str, other: EndFacts, excluded: Sequence[IPAddress]) -> Unit:
        """What this end is in a rule of a policy in `namespace`; rows hold only ends that can be written."""
        if other.address is not None:
            return self._outside(namespace, other.address, excluded)
        found = other.units[near] = self._made(namespace, other)
        return found

    def _made(self, namespace: str, other: EndFacts) -> Unit:
        match other.end:
            case Workload() if not other.on_host:
                found = self._peers.pods(namespace, other.end)
            case ApiServer():
                found = self._peers.api_server
            case _:
                found = self._peers.nodes
        assert found is not None, f"{other.end} was judged writable"
        return found

    def _outside(self, namespace: str, end: Address, excluded: Sequence[IPAddress]) -> Unit:
        alias = self._decisions.alias_of(end.ip)
        network = network_of_end(end)
        if alias is None or not alias.allowed or _touches(network, excluded) or not alias_holds(alias, network):
            return self._peers.address(network)
        hosts = (*excluded, *self._host_addresses)
        key = (alias.name, hosts)
        found = self._aliases.get(key)
        if found is None:
            blocks = [self._block(part, hosts) for part in alias.networks]
            ordered = tuple(sorted(blocks, key=lambda block: peer_key(namespace, block)))
            unit_key = (*peer_key(namespace, ordered[0]), f"alias {alias.name}")
            found = self._aliases[key] = Unit(key=unit_key, peers=ordered)
        return found

    def _block(self, network: IPNetwork, excluded: Sequence[IPAddress], *, reaches_metadata: bool = False) -> IPBlock:
        return typed_block(
            network, excluded=excluded, cluster_cidrs=self._cluster_cidrs, reaches_metadata=reaches_metadata
        )

    def _excluded(self, rows: Iterable[Judged], direction: Direction) -> tuple[IPAddress, ...]:
        """Addresses that stay out of whatever broader block covers them."""
        return tuple(
            ip
            for row in rows
            if not row.included and row.reason in _NEVER
            for ip in self._peers.host_addresses(row.other(direction).end)
        )

    def _say_aliases(self, by_end: Iterable[EndFacts], direction: Direction, written: Written) -> None:
        """An allowed alias opens all of its addresses, not only those seen."""
        if not self._decisions.aliases:
            return
        seen: dict[str, Alias] = {}
        for other in by_end:
            alias = self._decisions.alias_of(other.address.ip) if other.address is not None else None
            if alias is not None and alias.allowed:
                seen[alias.name] = alias
        for name in sorted(seen):
            self._say(written, direction, Origin.ALIAS, f'a person allowed the alias "{name}"')
            written.widenings += [
                Widening(direction=direction, origin=Origin.ALIAS, network=network, extra=network.num_addresses)
                for network in seen[name].networks
            ]

    def _ports(self, link: Link, other: LinkEnd, direction: Direction) -> frozenset[int]:
        """The ports of one row: the API server's by its endpoints (C25), DNS by both protocols (C08)."""
        if isinstance(other, ApiServer) and direction is Direction.EGRESS:
            return codes((backend.protocol, backend.port) for backend in self._peers.api_backends)
        if is_dns_over(link, Protocol.UDP) and self._choices.get(replace(link, protocol=Protocol.TCP)) is not _EXCLUDE:
            return codes((both, link.port) for both in BOTH)
        return one(code(link.protocol, link.port))

    def _ranged(
        self, workload: Workload, direction: Direction, other: LinkEnd, keys: frozenset[int], written: Written
    ) -> frozenset[int]:
        """The ports seen, and whole ranges where a person consented; a finding where ports look dynamic."""
        src, dst = (workload, other) if direction is Direction.EGRESS else (other, workload)
        found = keys
        consented: list[PortRange] = []
        for consent in self._decisions.port_ranges:
            if (consent.src, consent.dst) == (src, dst):
                added = {
                    code(consent.protocol, port)
                    for port in range(consent.first, consent.last + 1)
                    if self._choices.get(Link(src=src, dst=dst, protocol=consent.protocol, port=port)) is not _EXCLUDE
                }
                written.widenings.append(
                    Widening(
                        direction=direction,
                        origin=Origin.PORT_RANGE,
                        src=src,
                        dst=dst,
                        protocol=consent.protocol,
                        first_port=consent.first,
                        last_port=consent.last,
                        extra=len(added - keys),
                    )
                )
                found |= added
                consented.append(PortRange(protocol=consent.protocol, first=consent.first, last=consent.last))
        for wide in dynamic_ranges(keys, self._declared(dst)):
            if not any(c.protocol is wide.protocol and c.first <= wide.first <= wide.last <= c.last for c in consented):
                written.findings.append(notes.dynamic_ports(src, dst, wide))
        return found

    def _declared(self, end: LinkEnd) -> set[PortKey]:
        if not isinstance(end, Workload):
            return set()
        pods = self._cluster.pods_by_workload.get(end, ())
        return {(port.protocol, port.port) for pod in pods for port in pod.ports}

    def _typed(self, typed: TypedCIDR, rows: Sequence[Judged], written: Written) -> None:
        excluded = [
            ip
            for row in rows
            if row.reason in _NEVER
            for ip in self._peers.host_addresses(row.other(typed.direction).end)
            if typed.covers(ip, row.observed.link.protocol, row.observed.link.port)
        ]
        reaches = any(
            row.included and (end := row.other(typed.direction).address) is not None and is_metadata(end.ip)
            for row in rows
        )
        block = self._block(typed.cidr, excluded, reaches_metadata=reaches)
        written.rules.append(Rule(peers=(block,), ports=typed_ports(typed)))
        self._say(written, typed.direction, Origin.TYPED_CIDR, f"a person typed {notes.words_of(typed)}")
        written.widenings.append(
            Widening(
                direction=typed.direction, origin=Origin.TYPED_CIDR, network=typed.cidr, extra=typed.cidr.num_addresses
            )
        )

    def _dns_units(
        self, workload: Workload, direction: Direction, rows: Sequence[Judged], written: Written, *, by_rows: bool
    ) -> Relation:
        """What DNS adds: to its servers, that every pod may ask; to everybody else, that they may ask."""
        served = self._dns.ports_of(workload)
        if direction is Direction.INGRESS:
            if not served or not by_rows:
                return {}
            asking = {Unit(key=(*peer_key("", every_pod()), "every pod"), peers=(every_pod(),)): codes(served)}
            nodes = self._peers.nodes if self._dns.caches else None
            if nodes is None:
                self._say(written, direction, Origin.DNS, "every pod may ask the cluster's DNS")
                return asking
            # A node-local cache is on its node's network, and asks here for what it has not: no pod to any selector.
            self._say(written, direction, Origin.DNS, "every pod and every node's cache may ask the cluster's DNS")
            return asking | {nodes: codes(served)}
        if served or not self._settings.synthesise_dns:
            return {}
        if any(row.reason is Reason.EXCLUDED and self._asks_dns(row) for row in rows):
            written.findings.append(notes.dns_excluded(workload))
            return {}
        relation = self._dns_servers(workload, written)
        if relation:
            self._say(written, direction, Origin.DNS, f"DNS, from {', '.join(self._dns.sources)}")
        else:
            written.findings.append(notes.dns_not_found(workload))
        return relation

    def _dns_servers(self, workload: Workload, written: Written) -> Relation:
        relation: Relation = {}
        for server, keys in self._dns.servers:
            unit = self._peers.pods(workload.namespace, server)
            if unit is None:
                written.findings.append(notes.dns_not_separable(server))
            else:
                relation[unit] = codes(keys)
        for ip, keys in self._dns.addresses:
            relation[self._peers.address(ip_network(ip))] = codes(keys)
        for ip in self._dns.caches:
            unit = self._peers.address(ip_network(ip))
            relation[unit] = relation.get(unit, frozenset()) | codes(self._dns.cache_ports)
        if self._dns.on_nodes and self._peers.nodes is not None:
            relation[self._peers.nodes] = codes(self._dns.on_nodes)
        return relation

    def _asks_dns(self, row: Judged) -> bool:
        link = row.observed.link
        match link.dst:
            case Workload():
                return (link.protocol, link.port) in self._dns.ports_of(link.dst)
            case Address(ip=ip):
                return link.port == DNS_PORT and (ip in self._dns.caches or ip in dict(self._dns.addresses))
            case _:
                return False


def _without(relation: Relation, numbers: frozenset[int]) -> Relation:
    """The relation without what every pod may do anyway; nodes and addresses are no pods."""
    rest = {unit: keys if isinstance(unit.peers[0], IPBlock) else keys - numbers for unit, keys in relation.items()}
    return {unit: keys for unit, keys in rest.items() if keys}


def _touches(network: IPNetwork, addresses: Iterable[IPAddress]) -> bool:
    return any(ip.version == network.version and ip in network for ip in addresses)


def alias_holds(alias: Alias, network: IPNetwork) -> bool:
    """Does the alias name all of this network?"""
    return alias.covers(network.network_address) and alias.covers(network.broadcast_address)
