"""Proposal: the policies for one workload, what they rest on, and what they leave out and why.

Leaves policy.generate; certify adds the Certificate. Everything a person reads beside the YAML is here as a value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from aggregator.model.address import IPNetwork
from aggregator.model.certificate import Certificate
from aggregator.model.finding import Finding
from aggregator.model.link import Link, ObservedLink
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import LinkEnd, Workload


class Reason(StrEnum):
    """Why a row is in, or is not in, a proposal. Stable: shown, stored and filtered by."""

    OBSERVED = "observed"
    DECIDED = "decided"
    EXTERNAL_ACCEPTED = "external-accepted"
    ALIAS_ALLOWED = "alias-allowed"
    TYPED_CIDR = "typed-cidr"
    PORT_RANGE = "port-range"
    GENERAL_RULE = "general-rule"
    DNS = "dns"
    EXCLUDED = "excluded"
    UNRESOLVED = "unresolved"
    INTERNAL_UNRESOLVED = "internal-unresolved"
    ALIAS_NOT_ALLOWED = "alias-not-allowed"
    LOOPBACK = "loopback"
    FAILED_ATTEMPTS = "failed-attempts"
    LOW_CONFIDENCE = "low-confidence"
    SAME_NODE_PROBE = "same-node-probe"
    BLOCKED_EGRESS = "blocked-egress"
    BLOCKED_INGRESS = "blocked-ingress"
    SELECTOR_NOT_SEPARABLE = "selector-not-separable"
    PEER_UNKNOWN = "peer-unknown"
    NAMESPACE_NOT_NAMEABLE = "namespace-not-nameable"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncludedLink:
    """A row that the proposals allow, at both ends."""

    observed: ObservedLink
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutLink:
    """A row that no proposal has a rule for. `denied` = a proposal isolates one of its ends, so it will be cut."""

    observed: ObservedLink
    reason: Reason
    text: str
    denied: bool


class Origin(StrEnum):
    """Where a rule comes from that no observed row asked for."""

    DNS = "dns"
    TYPED_CIDR = "typed-cidr"
    GENERAL_RULE = "general-rule"
    ALIAS = "alias"
    PORT_RANGE = "port-range"
    CIDR_BUDGET = "cidr-budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesised:
    """Something allowed that is not an observed row: shown as such, in words."""

    direction: Direction
    origin: Origin
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """Addresses or ports that a rule covers although nobody was seen using them, because a person accepted it."""

    direction: Direction
    origin: Origin
    network: IPNetwork | None = None
    src: LinkEnd | None = None
    dst: LinkEnd | None = None
    protocol: Protocol | None = None
    first_port: int | None = None
    last_port: int | None = None
    extra: int = 0  # addresses or ports added


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One workload's policies; more than one only when a single object would be too large (they add up)."""

    workload: Workload
    policies: tuple[NetworkPolicy, ...]
    included: tuple[IncludedLink, ...] = ()
    left_out: tuple[LeftOutLink, ...] = ()
    synthesised: tuple[Synthesised, ...] = ()
    widenings: tuple[Widening, ...] = ()
    open_directions: frozenset[Direction] = frozenset()
    findings: tuple[Finding, ...] = ()
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredLink:
    """A caller that the cluster declares but nobody has seen yet: a row to decide."""

    link: Link
    source: str  # the object that declares it: "ValidatingWebhookConfiguration/policy.example.org"
    text: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """All proposals of one scope. `default_denies` are applied last."""

    proposals: tuple[Proposal, ...] = ()
    default_denies: tuple[NetworkPolicy, ...] = ()
    findings: tuple[Finding, ...] = ()
    left_out: tuple[LeftOutLink, ...] = ()
    declared: tuple[DeclaredLink, ...] = ()

    @cached_property
    def policies(self) -> tuple[NetworkPolicy, ...]:
        """Every policy in the order in which it may be applied."""
        return (*(policy for proposal in self.proposals for policy in proposal.policies), *self.default_denies)

    @cached_property
    def by_workload(self) -> Mapping[Workload, Proposal]:
        return {proposal.workload: proposal for proposal in self.proposals}
