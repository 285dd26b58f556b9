"""Admin and baseline policies as values: AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy.

`policy.adminparse` makes these from objects; both API generations mean the same here (Accept is ALLOW). ForeignPolicy
stands for a policy that the cluster has but whose meaning nobody here computes: it makes verdicts UNKNOWN, never false.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum

from aggregator.model.address import IPNetwork
from aggregator.model.networkpolicy import LabelSelector, NetworkPolicy
from aggregator.model.protocol import Direction, Protocol


class Tier(Enum):
    """NP-61: Admin is asked before NetworkPolicies, Baseline after them."""

    ADMIN = "Admin"
    BASELINE = "Baseline"


class Action(StrEnum):
    """What a matching rule does: ALLOW and DENY are final, PASS goes on behind the tier."""

    ALLOW = "Allow"
    DENY = "Deny"
    PASS = "Pass"  # noqa: S105 - the API's own word


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsPeer:
    """Pods of matching namespaces; without a pod selector all of them. Also a policy's subject."""

    namespace_selector: LabelSelector
    pod_selector: LabelSelector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesPeer:
    selector: LabelSelector


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworksPeer:
    cidrs: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainNamesPeer:
    """Names whose addresses only a resolver in the cluster knows."""

    names: tuple[str, ...]


AdminPeer = PodsPeer | NodesPeer | NetworksPeer | DomainNamesPeer


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPort:
    """A range of one protocol, or a container port's name in whatever protocol the container declares it."""

    protocol: Protocol | None = None
    first: int | None = None  # None = every port of the protocol, or a name
    last: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRule:
    """Any peer and any port. No peers match nothing (the API wants one), no ports match all."""

    action: Action
    peers: tuple[AdminPeer, ...]
    ports: tuple[AdminPort, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPolicy:
    """A cluster-wide policy: rules in order, policies of a tier by ascending priority, the first match decides."""

    kind: str
    name: str
    tier: Tier
    priority: int = 0
    subject: PodsPeer
    ingress: tuple[AdminRule, ...] = ()
    egress: tuple[AdminRule, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    def rules(self, direction: Direction) -> tuple[AdminRule, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPolicy:
    """A plug-in's own policy. `namespace` is "" for a cluster-wide one; `pod_selector` None may select any pod."""

    kind: str
    name: str
    namespace: str = ""
    pod_selector: LabelSelector | None = None
    directions: frozenset[Direction] = frozenset(Direction)

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


Policy = NetworkPolicy | AdminPolicy | ForeignPolicy
