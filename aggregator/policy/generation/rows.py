"""Which rows a proposal takes, and in words why it leaves the others out.

Enters: observed links and a person's decisions. Leaves: a Judged for each. Invariant: a row is taken only when both of
its ends take it, so that no proposal is half open (C01); what nobody could resolve, what failed and what is a guess is
left out until a person says otherwise.
"""

from collections.abc import Iterable
from enum import Enum
from typing import assert_never

from aggregator.model.address import AddressClass
from aggregator.model.decision import Alias, Choice, Decisions, GeneralRule
from aggregator.model.link import Confidence, Link, ObservedLink
from aggregator.model.proposal import Reason
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, ApiServer, Nodes, Workload
from aggregator.policy.generation.addresses import Addresses, edges_of
from aggregator.policy.generation.dns import DNS_PORT, ClusterDNS
from aggregator.policy.generation.facts import EndFacts, Facts, Judged
from aggregator.policy.generation.peers import Peers
from aggregator.policy.generation.ports import one

Row = tuple[ObservedLink, EndFacts, EndFacts, int]  # the last is the code of its protocol and port
Base = tuple[bool, Reason, str]  # taken?, why, and a detail in words


class Say(Enum):
    """What one end says to a row, beside its two possible refusals."""

    BY_ROWS = "by-rows"  # its direction lists observed rows
    OPEN = "open"  # its direction allows the row by something broader
    NO_SUBJECT = "no-subject"  # no policy will act on it


class Rows:
    """Judges rows one by one; what it needs to know is fixed when it is made."""

    def __init__(
        self,
        *,
        decisions: Decisions,
        settings: Settings,
        addresses: Addresses,
        peers: Peers,
        dns: ClusterDNS,
        facts: Facts,
    ) -> None:
        self._decisions = decisions
        self._settings = settings
        self._addresses = addresses
        self._peers = peers
        self._dns = dns
        self._facts = facts
        self._choices = decisions.choice_by_link
        self._ranged = frozenset(consent.src for consent in decisions.port_ranges)
        self._dns_addresses = dict(dns.addresses)

    def judge_all(self, rows: Iterable[Row]) -> list[Judged]:
        """Every row; TCP beside UDP on DNS's port goes with it (C08), unless a person excluded it."""
        judged = [self.judge(*row) for row in rows]
        asks = {
            (row.src, row.dst)
            for row in judged
            if row.ports is None
            and row.included
            and row.reason is not Reason.TYPED_CIDR
            and is_dns_over(row.observed.link, Protocol.UDP)
        }
        for row in judged if asks else ():
            left_out = not row.included and row.reason is not Reason.EXCLUDED
            if left_out and is_dns_over(row.observed.link, Protocol.TCP) and (row.src, row.dst) in asks:
                row.included, row.reason, row.detail = True, Reason.DNS, "TCP beside UDP"
        return judged

    def judge(self, observed: ObservedLink, src: EndFacts, dst: EndFacts, number: int) -> Judged:
        if src.by_rows and dst.by_rows and observed.established and not self._choices and not self._ranged:
            if observed.evidence.confidence is Confidence.HIGH:  # most links are like this one
                ports = one(number) if observed.link.port != DNS_PORT else None
                return Judged(observed, src, dst, included=True, reason=Reason.OBSERVED, ports=ports)
            return Judged(observed, src, dst, included=False, reason=Reason.LOW_CONFIDENCE)
        included, reason, detail = self._judged(observed, src, dst)
        return Judged(observed, src, dst, included=included, reason=reason, detail=detail)

    def _judged(self, observed: ObservedLink, src: EndFacts, dst: EndFacts) -> Base:
        link = observed.link
        taken, reason, detail = self._base(observed, src, dst)
        if reason is Reason.SAME_NODE_PROBE:
            return False, reason, ""
        egress = self._says(link, Direction.EGRESS, src, dst)
        ingress = self._says(link, Direction.INGRESS, dst, src)
        refusal = next((says for says in (egress, ingress) if isinstance(says, Reason)), None)
        if refusal is not None:
            return False, refusal, ""
        if not taken:
            if Say.OPEN in {egress, ingress} and Say.BY_ROWS not in {egress, ingress}:
                return True, Reason.GENERAL_RULE, ""
            return False, reason, detail
        asked = [(own, other) for says, own, other in ((egress, src, dst), (ingress, dst, src)) if says is Say.BY_ROWS]
        refused = [found for own, other in asked if (found := _unnamed(own, other, reason)) is not None]
        if refused:
            _, why, _ = refused[0]
            return False, why, " and ".join(sorted({name for _, known, name in refused if known is why and name}))
        return True, reason, detail

    def is_dns(self, link: Link) -> bool:
        """Does it end in the cluster's DNS?"""
        match link.dst:
            case Workload():
                return (link.protocol, link.port) in self._facts.of(link.dst).dns_ports
            case Address(ip=ip):
                return (link.protocol, link.port) in self._dns_addresses.get(ip, ()) or (
                    ip in self._dns.caches and link.port == DNS_PORT
                )
            case Nodes():
                return (link.protocol, link.port) in self._dns.on_nodes
            case ApiServer():
                return False
            case _:
                assert_never(link.dst)

    def _base(self, observed: ObservedLink, src: EndFacts, dst: EndFacts) -> Base:
        """What the row alone deserves, before the general rules of its ends."""
        link, evidence = observed.link, observed.evidence
        address = dst.address or src.address
        settled = self._settled(observed, address)
        if settled is not None:
            return settled
        broader = self._broader(link, src, dst)  # what is opened anyway is not left out for being a mere attempt
        if broader is not None:
            return True, broader, ""
        if not observed.established:
            return False, Reason.FAILED_ATTEMPTS, ""
        if evidence.confidence is Confidence.LOW:
            return False, Reason.LOW_CONFIDENCE, ""
        return self._outside(address) if address is not None else (True, Reason.OBSERVED, "")

    def _settled(self, observed: ObservedLink, address: Address | None) -> Base | None:
        """Rows about which the evidence has no say: probes, a person's choices, DNS, what no rule could name."""
        if observed.evidence.same_node_probe:
            return False, Reason.SAME_NODE_PROBE, ""
        choice = self._choices.get(observed.link)
        if choice is Choice.EXCLUDE:
            return False, Reason.EXCLUDED, ""
        if self.is_dns(observed.link):
            return True, Reason.DNS, ""
        impossible = self._impossible(address) if address is not None else None
        if impossible is not None:
            return False, *impossible
        return (True, Reason.DECIDED, "") if choice is Choice.INCLUDE else None

    def _impossible(self, address: Address) -> tuple[Reason, str] | None:
        """Why no ipBlock may name this address, whatever a person says."""
        if address.ip.is_loopback or address.ip.is_unspecified or address.ip.is_multicast:
            return Reason.LOOPBACK, ""
        if not self._addresses.writable_end(address):
            return Reason.INTERNAL_UNRESOLVED, self._addresses.inside(address.ip)
        return None

    def _broader(self, link: Link, src: EndFacts, dst: EndFacts) -> Reason | None:
        """A person's accepted range, typed CIDR or allowed alias that covers the row."""
        if link.src in self._ranged and any(
            (c.src, c.dst, c.protocol) == (link.src, link.dst, link.protocol) and c.first <= link.port <= c.last
            for c in self._decisions.port_ranges
        ):
            return Reason.PORT_RANGE
        if self._typed(link, Direction.EGRESS, src, dst) or self._typed(link, Direction.INGRESS, dst, src):
            return Reason.TYPED_CIDR
        address = dst.address or src.address
        alias = self._alias(address) if address is not None else None
        return Reason.ALIAS_ALLOWED if alias is not None and alias.allowed else None

    def _outside(self, address: Address) -> Base:
        alias = self._alias(address)
        if alias is not None:
            return False, Reason.ALIAS_NOT_ALLOWED, alias.name
        found = self._addresses.classify(address.ip)
        if found.address_class is AddressClass.INTERNAL:
            return False, Reason.INTERNAL_UNRESOLVED, found.reason
        if self._settings.include_external:
            return True, Reason.EXTERNAL_ACCEPTED, ""
        return False, Reason.UNRESOLVED, found.reason

    def _alias(self, address: Address) -> Alias | None:
        """The one alias that names all addresses of this end."""
        first, *rest = (self._decisions.alias_of(ip) for ip in edges_of(address))
        return first if all(other is first for other in rest) else None

    def _typed(self, link: Link, direction: Direction, own: EndFacts, other: EndFacts) -> bool:
        """Does a typed CIDR cover the other end? Nodes and the API server count when any address of theirs is in it."""
        typed = own.typed.get(direction)
        if not typed:
            return False
        ips = self._peers.host_addresses(other.end)
        covered = [any(cidr.covers(ip, link.protocol, link.port) for cidr in typed) for ip in ips]
        return all(covered) if other.address is not None else any(covered)

    def _says(self, link: Link, direction: Direction, own: EndFacts, other: EndFacts) -> Say | Reason:
        if direction not in own.rules:
            return Say.NO_SUBJECT
        rule = own.rules[direction]
        if rule is None or rule is GeneralRule.OBSERVED:
            return Say.BY_ROWS
        typed = self._choices.get(link) is not Choice.EXCLUDE and self._typed(link, direction, own, other)
        if typed or rule is GeneralRule.ALLOW_ALL:
            return Say.OPEN
        if rule is GeneralRule.ALLOW_NAMESPACE:
            dns = direction is Direction.EGRESS and self.is_dns(link)
            near = isinstance(other.end, Workload) and other.namespace == own.namespace and not other.on_host
            if dns or near:
                return Say.OPEN
        return Reason.BLOCKED_EGRESS if direction is Direction.EGRESS else Reason.BLOCKED_INGRESS


def _unnamed(own: EndFacts, other: EndFacts, reason: Reason) -> Base | None:
    """Why no rule of `own` can name the other end. DNS is synthesised, whatever the label lists say."""
    if other.unwritable is not None:
        return False, other.unwritable, ""
    if not other.nameable and own.namespace != other.namespace and reason is not Reason.DNS:
        return False, Reason.NAMESPACE_NOT_NAMEABLE, other.namespace
    return None


def is_dns_over(link: Link, protocol: Protocol) -> bool:
    """Is it on DNS's port, whoever serves it?"""
    return link.port == DNS_PORT and link.protocol is protocol
