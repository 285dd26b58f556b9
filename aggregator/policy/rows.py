"""Which rows a proposal takes, and in words why it leaves the others out.

Enters: observed links and a person's decisions. Leaves: a Judged for each. Invariant: a row is taken only when both of
its ends take it, so that no proposal is half open (C01); what nobody could resolve, what failed and what is a guess is
left out until a person says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from aggregator.model.address import AddressClass
from aggregator.model.decision import Choice, Decisions, GeneralRule
from aggregator.model.link import Confidence, Link, ObservedLink
from aggregator.model.proposal import Reason
from aggregator.model.protocol import Direction
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.addresses import Addresses
from aggregator.policy.dns import DNS_PORT, ClusterDNS
from aggregator.policy.peers import Peers

TEXTS: Mapping[Reason, str] = {
    Reason.OBSERVED: "seen, and both ends are known",
    Reason.DECIDED: "a person included it",
    Reason.EXTERNAL_ACCEPTED: "a person accepted every outside address seen",
    Reason.ALIAS_ALLOWED: "its alias is allowed",
    Reason.TYPED_CIDR: "a CIDR that a person typed covers it",
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
        self._dns_ports = dict(self._dns.servers)
        self._dns_addresses = dict(self._dns.addresses)

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
        if address is not None:
            if address.ip.is_loopback or address.ip.is_unspecified or address.ip.is_multicast:
                return False, Reason.LOOPBACK, ""
            if not self._addresses.writable(address.ip):
                return False, Reason.INTERNAL_UNRESOLVED, self._addresses.inside(address.ip)
        if choice is Choice.INCLUDE:
            return True, Reason.DECIDED, ""
        if not observed.established:
            return False, Reason.FAILED_ATTEMPTS, ""
        if evidence.confidence is Confidence.LOW:
            return False, Reason.LOW_CONFIDENCE, ""
        return self._address(link, address) if address is not None else (True, Reason.OBSERVED, "")

    def _address(self, link: Link, address: Address) -> tuple[bool, Reason, str]:
        if self._typed(link, Direction.EGRESS) or self._typed(link, Direction.INGRESS):
            return True, Reason.TYPED_CIDR, ""
        alias = self._decisions.alias_of(address.ip)
        if alias is not None:
            return alias.allowed, Reason.ALIAS_ALLOWED if alias.allowed else Reason.ALIAS_NOT_ALLOWED, alias.name
        found = self._addresses.classify(address.ip)
        if found.address_class is AddressClass.INTERNAL:
            return False, Reason.INTERNAL_UNRESOLVED, found.reason
        if self._settings.include_external:
            return True, Reason.EXTERNAL_ACCEPTED, ""
        return False, Reason.UNRESOLVED, found.reason

    def _typed(self, link: Link, direction: Direction) -> bool:
        own, other = ends(link, direction)
        if not isinstance(own, Workload) or not isinstance(other, Address):
            return False
        typed = self._decisions.typed_cidrs_of(own, direction)
        return any(cidr.covers(other.ip, link.protocol, link.port) for cidr in typed)

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


def ends(link: Link, direction: Direction) -> tuple[LinkEnd, LinkEnd]:
    """(own, other), seen from the end whose direction this is."""
    return (link.src, link.dst) if direction is Direction.EGRESS else (link.dst, link.src)
