"""NetworkPolicy v1 as values, exactly as the API has it: nothing defaulted away, nothing lost.

`policy.parse` makes these from objects, `policy.render` writes them back; `policy.evaluate` gives them their meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aggregator.model.address import IPNetwork
from aggregator.model.protocol import Direction, Protocol


class Operator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Requirement:
    """One matchExpressions entry."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """NP-16: `In` needs the key, `NotIn` matches when the key is absent."""
        match self.operator:
            case Operator.IN:
                return self.key in labels and labels[self.key] in self.values
            case Operator.NOT_IN:
                return self.key not in labels or labels[self.key] not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LabelSelector:
    """All of match_labels and all of match_expressions. Empty selects everything."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[Requirement, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: Mapping[str, str]) -> bool:
        for key, value in self.match_labels:  # loops: this is asked a hundred thousand times for one proof
            if labels.get(key) != value:
                return False
        return all(requirement.matches(labels) for requirement in self.match_expressions)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorPeer:
    """Pods by label. A bare pod selector means the policy's own namespace (NP-13); both together are ANDed (NP-12)."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IPBlock:
    """Addresses; `excepts` subtracts from this block alone (NP-19)."""

    cidr: IPNetwork
    excepts: tuple[IPNetwork, ...] = ()


PolicyPeer = SelectorPeer | IPBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPort:
    """Ports of a rule: None = every port of the protocol; a str is a container port's name (NP-26)."""

    protocol: Protocol = Protocol.TCP
    port: int | str | None = None
    end_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One ingress or egress rule: any peer and any port of it. Empty peers or ports mean all (NP-09)."""

    peers: tuple[PolicyPeer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """A NetworkPolicy v1. `policy_types` is what the object says; `directions` is what that means (NP-03)."""

    namespace: str
    name: str
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[Direction, ...] | None = None  # None = absent or empty in the object
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def directions(self) -> frozenset[Direction]:
        """The directions in which this policy isolates the pods that it selects."""
        if self.policy_types is not None:
            return frozenset(self.policy_types)
        return frozenset({Direction.INGRESS, Direction.EGRESS} if self.egress else {Direction.INGRESS})

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """The rules written for this direction, in force or not."""
        return self.ingress if direction is Direction.INGRESS else self.egress
