"""Which rows a proposal takes, and in words why it leaves the others out.

Enters: observed links and a person's decisions. Leaves: a Judged for each. Invariant: a row is taken only when both of
its ends take it, so that no proposal is half open (C01); what nobody could resolve, what failed and what is a guess is
left out until a person says otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from aggregator.model.address import AddressClass
from aggregator.model.decision import Alias, Choice, Decisions, GeneralRule
from aggregator.model.link import Confidence, Link, ObservedLink
from aggregator.model.proposal import Reason
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.addresses import Addresses, edges_of
from aggregator.policy.dns import DNS_PORT, ClusterDNS
from aggregator.policy.peers import Peers

TEXTS: Mapping[Reason, str] = {
    Reason.OBSERVED: "seen, and both ends are known",
    Reason.DECIDED: "a person included it",
    Reason.EXTERNAL_ACCEPTED: "a person accepted every outside address seen",
    Reason.ALIAS_ALLOWED: "its alias is allowed",
    Reason.TYPED_CIDR: "a CIDR that a person typed covers it",
    Reason.PORT_RANGE: "a person accepted a range of ports that it is in",
    Reason.GENERAL_RULE: "a general rule allows it",
    Reason.DNS: "the cluster's DNS",
    Reason.EXCLUDED: "a person excluded it",
    Reason.UNRESOLVED: "nobody owns this address and nobody has named it: include it, or give it an alias",
    Reason.INTERNAL_UNRESOLVED: "an address of the cluster itself never becomes an ipBlock",
    Reason.ALIAS_NOT_ALLOWED: "its alias is not allowed: allow the alias, or include the row",
    Reason.LOOPBACK: "loopback and multicast never leave the pod as a connection that a policy could judge",
    Reason.FAILED_ATTEMPTS: "only failed attempts were seen, never a connection",
    Reason.LOW_CONFIDENCE: "which side is the server is a guess: include the row if it is right",
    Reason.SAME_NODE_PROBE: "a pod's own node always reaches it, no rule is needed",
    Reason.BLOCKED_EGRESS: "the client's general rule for egress does not allow it",
    Reason.BLOCKED_INGRESS: "the server's general rule for ingress does not allow it",
    Reason.SELECTOR_NOT_SEPARABLE: "no selector is exactly the pods of the other end",
    Reason.PEER_UNKNOWN: "the cluster does not show the other end, so no rule can name it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A row with its judgement."""

    observed: ObservedLink
    included: bool
    reason: Reason
    detail: str = ""

    @property
    def text(self) -> str:
        return f"{TEXTS[self.reason]} ({self.detail})" if self.detail else TEXTS[self.reason]


class Say(Enum):
    """What one end says to a row, beside its two possible refusals."""

    BY_ROWS = "by-rows"  # its direction lists observed rows
    OPEN = "open"  # its direction allows the row by something broader
    NO_SUBJECT = "no-subject"  # no policy will act on it


class Rows:
    """Judges rows one by one; what it needs to know is fixed when it is made."""

    def __init__(
        self, *, decisions: Decisions, settings: Settings, addresses: Addresses, peers: Peers, dns: ClusterDNS
    ) -> None:
        self._decisions = decisions
        self._settings = settings
        self._addresses = addresses
        self._peers = peers
        self._dns = dns if settings.synthesise_dns else ClusterDNS()
        self._rules = decisions.rule_by_direction
        self._choices = decisions.choice_by_link
        self._ranged = frozenset(consent.src for consent in decisions.port_ranges)
        self._dns_ports = dict(self._dns.servers)
        self._dns_addresses = dict(self._dns.addresses)

    def judge_all(self, rows: Iterable[ObservedLink]) -> list[Judged]:
        """Every row; TCP beside UDP on DNS's port goes with it (C08), unless a person excluded it."""
        judged = [self.judge(row) for row in rows]
        asks = {
            (row.observed.link.src, row.observed.link.dst)
            for row in judged
            if row.included and row.reason is not Reason.TYPED_CIDR and is_dns_over(row.observed.link, Protocol.UDP)
        }
        if not asks:
            return judged
        return [
            Judged(observed=row.observed, included=True, reason=Reason.DNS, detail="TCP beside UDP")
            if not row.included
            and row.reason is not Reason.EXCLUDED
            and is_dns_over(row.observed.link, Protocol.TCP)
            and (row.observed.link.src, row.observed.link.dst) in asks
            else row
            for row in judged
        ]

    def judge(self, observed: ObservedLink) -> Judged:  # noqa: PLR0911  # one return for each way to be judged
        link = observed.link
        taken, reason, detail = self._base(observed)
        if reason is Reason.SAME_NODE_PROBE:
            return Judged(observed=observed, included=False, reason=reason)
        egress = self._says(link, Direction.EGRESS)
        ingress = self._says(link, Direction.INGRESS)
        for refusal in (egress, ingress):
            if isinstance(refusal, Reason):
                return Judged(observed=observed, included=False, reason=refusal)
        if not taken and Say.BY_ROWS in {egress, ingress}:
            return Judged(observed=observed, included=False, reason=reason, detail=detail)
        for direction, says in ((Direction.EGRESS, egress), (Direction.INGRESS, ingress)):
            unwritable = self._unwritable(link, direction) if says is Say.BY_ROWS else None
            if unwritable is not None:
                return Judged(observed=observed, included=False, reason=unwritable)
        if taken:
            return Judged(observed=observed, included=True, reason=reason, detail=detail)
        if Say.OPEN in {egress, ingress}:
            return Judged(observed=observed, included=True, reason=Reason.GENERAL_RULE)
        return Judged(observed=observed, included=False, reason=reason, detail=detail)

    def rule(self, workload: Workload, direction: Direction) -> GeneralRule | None:
        """What a person said about this direction; None = nothing, and then the observed rows count."""
        return self._rules.get((workload, direction))

    def is_dns(self, link: Link) -> bool:
        """Does it end in the cluster's DNS?"""
        match link.dst:
            case Workload():
                return (link.protocol, link.port) in self._dns_ports.get(link.dst, ())
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

    def _base(self, observed: ObservedLink) -> tuple[bool, Reason, str]:  # noqa: PLR0911  # one for each reason
        """What the row alone deserves, before the general rules of its ends."""
        link, evidence = observed.link, observed.evidence
        if evidence.same_node_probe:
            return False, Reason.SAME_NODE_PROBE, ""
        choice = self._choices.get(link)
        if choice is Choice.EXCLUDE:
            return False, Reason.EXCLUDED, ""
        if self.is_dns(link):
            return True, Reason.DNS, ""
        address = link.dst if isinstance(link.dst, Address) else link.src if isinstance(link.src, Address) else None
        impossible = self._impossible(address) if address is not None else None
        if impossible is not None:
            return False, *impossible
        if choice is Choice.INCLUDE:
            return True, Reason.DECIDED, ""
        broader = self._broader(link, address)  # what is opened anyway is not left out for being a mere attempt
        if broader is not None:
            return True, broader, ""
        if not observed.established:
            return False, Reason.FAILED_ATTEMPTS, ""
        if evidence.confidence is Confidence.LOW:
            return False, Reason.LOW_CONFIDENCE, ""
        return self._outside(address) if address is not None else (True, Reason.OBSERVED, "")

    def _impossible(self, address: Address) -> tuple[Reason, str] | None:
        """Why no ipBlock may name this address, whatever a person says."""
        if address.ip.is_loopback or address.ip.is_unspecified or address.ip.is_multicast:
            return Reason.LOOPBACK, ""
        if not self._addresses.writable_end(address):
            return Reason.INTERNAL_UNRESOLVED, self._addresses.inside(address.ip)
        return None

    def _broader(self, link: Link, address: Address | None) -> Reason | None:
        """A person's typed CIDR, allowed alias or accepted range that covers the row."""
        if link.src in self._ranged and any(
            (c.src, c.dst, c.protocol) == (link.src, link.dst, link.protocol) and c.first <= link.port <= c.last
            for c in self._decisions.port_ranges
        ):
            return Reason.PORT_RANGE
        if self._typed(link, Direction.EGRESS) or self._typed(link, Direction.INGRESS):
            return Reason.TYPED_CIDR
        alias = self._alias(address) if address is not None else None
        return Reason.ALIAS_ALLOWED if alias is not None and alias.allowed else None

    def _outside(self, address: Address) -> tuple[bool, Reason, str]:
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
        found = {alias.name: alias for ip in edges_of(address) if (alias := self._decisions.alias_of(ip))}
        named = all(self._decisions.alias_of(ip) is not None for ip in edges_of(address))
        return next(iter(found.values())) if named and len(found) == 1 else None

    def _typed(self, link: Link, direction: Direction) -> bool:
        """Does a typed CIDR cover the other end? Nodes and the API server count when any address of theirs is in it."""
        own, other = ends(link, direction)
        if not isinstance(own, Workload):
            return False
        typed = self._decisions.typed_cidrs_of(own, direction)
        if not typed:
            return False
        ips = self._peers.host_addresses(other)
        covered = [any(cidr.covers(ip, link.protocol, link.port) for cidr in typed) for ip in ips]
        return all(covered) and bool(covered) if isinstance(other, Address) else any(covered)

    def _says(self, link: Link, direction: Direction) -> Say | Reason:  # noqa: PLR0911  # one for each rule
        own, other = ends(link, direction)
        if not isinstance(own, Workload) or direction not in self._settings.directions:
            return Say.NO_SUBJECT
        if not self._peers.selectable(own):
            return Say.NO_SUBJECT
        rule = self._rules.get((own, direction))
        if rule is None or rule is GeneralRule.OBSERVED:
            return Say.BY_ROWS
        if self._choices.get(link) is not Choice.EXCLUDE and self._typed(link, direction):
            return Say.OPEN
        match rule:
            case GeneralRule.ALLOW_ALL:
                return Say.OPEN
            case GeneralRule.ALLOW_NAMESPACE:
                if direction is Direction.EGRESS and self.is_dns(link):
                    return Say.OPEN
                near = isinstance(other, Workload) and other.namespace == own.namespace
                if near and not self._peers.on_host_network(other):  # type: ignore[arg-type]  # near implies Workload
                    return Say.OPEN
                return self._blocked(direction)
            case GeneralRule.BLOCK_ALL:
                return self._blocked(direction)
            case _:
                assert_never(rule)

    def _blocked(self, direction: Direction) -> Reason:
        return Reason.BLOCKED_EGRESS if direction is Direction.EGRESS else Reason.BLOCKED_INGRESS

    def _unwritable(self, link: Link, direction: Direction) -> Reason | None:
        """Why the other end cannot stand in a rule, None when it can."""
        other = ends(link, direction)[1]
        match other:
            case Workload():
                if self._peers.on_host_network(other):
                    return None if self._peers.nodes is not None else Reason.PEER_UNKNOWN
                if self._peers.selectable(other):
                    return None
                return Reason.SELECTOR_NOT_SEPARABLE if self._peers.known(other) else Reason.PEER_UNKNOWN
            case Nodes():
                return None if self._peers.nodes is not None else Reason.PEER_UNKNOWN
            case ApiServer():
                return None if self._peers.api_server is not None else Reason.PEER_UNKNOWN
            case Address():
                return None
            case _:
                assert_never(other)


def is_dns_over(link: Link, protocol: Protocol) -> bool:
    """Is it on DNS's port, whoever serves it?"""
    return link.port == DNS_PORT and link.protocol is protocol


def ends(link: Link, direction: Direction) -> tuple[LinkEnd, LinkEnd]:
    """(own, other), seen from the end whose direction this is."""
    return (link.src, link.dst) if direction is Direction.EGRESS else (link.dst, link.src)
