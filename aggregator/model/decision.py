"""Decision: what a person says about a link, a direction, an address or the cluster; Decisions: all that holds now.

Enters one by one from review; `Decisions.of` folds them, the later one wins. Leaves to policy.generate. A Decision is
about what stays (workloads, links, CIDRs), never about a pod, so it survives a rollout. Who said it and when is a
DecisionRecord: nothing here reads a clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import assert_never

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.link import Link
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import LinkEnd, Workload


class Choice(Enum):
    INCLUDE = "include"
    EXCLUDE = "exclude"


class GeneralRule(Enum):
    """What holds for one direction of a workload; all but OBSERVED replace that direction's rows."""

    OBSERVED = "observed"
    BLOCK_ALL = "block-all"
    ALLOW_NAMESPACE = "allow-namespace"
    ALLOW_ALL = "allow-all"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDecision:
    """Include or exclude one row; `choice` None takes the decision back."""

    link: Link
    choice: Choice | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionDecision:
    """The general rule of one direction; None takes it back. OBSERVED isolates even where nothing was seen."""

    workload: Workload
    direction: Direction
    rule: GeneralRule | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCIDR:
    """A CIDR and port that a person typed. `port` None = every port of the protocol; `protocol` None = everything."""

    workload: Workload
    direction: Direction
    cidr: IPNetwork
    protocol: Protocol | None = Protocol.TCP
    port: int | None = None
    end_port: int | None = None

    def covers(self, ip: IPAddress, protocol: Protocol, port: int) -> bool:
        if ip.version != self.cidr.version or ip not in self.cidr or self.protocol not in {None, protocol}:
            return False
        return self.port is None or self.port <= port <= (self.end_port or self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCIDRDecision:
    cidr: TypedCIDR
    choice: Choice  # EXCLUDE takes it back


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name for addresses, CIDRs and domains. `allowed` includes every row that ends in it."""

    name: str
    networks: tuple[IPNetwork, ...] = ()
    domains: tuple[str, ...] = ()
    allowed: bool = False

    def covers(self, ip: IPAddress) -> bool:
        return any(ip.version == network.version and ip in network for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasDecision:
    """Sets the alias of this name; `alias` None removes it."""

    name: str
    alias: Alias | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLists:
    """Label keys that may or must not be used, exact or with a trailing `*`. An empty include list means every key."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def permits(self, key: str) -> bool:
        if any(_covers_key(pattern, key) for pattern in self.exclude):
            return False
        return not self.include or any(_covers_key(pattern, key) for pattern in self.include)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDecision:
    workload_labels: LabelLists = LabelLists()
    namespace_labels: LabelLists = LabelLists()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCIDRs:
    """CIDRs set by hand: they win over what was discovered."""

    pod_cidrs: tuple[IPNetwork, ...] = ()
    service_cidrs: tuple[IPNetwork, ...] = ()
    node_cidrs: tuple[IPNetwork, ...] = ()

    @property
    def all(self) -> tuple[IPNetwork, ...]:
        return (*self.pod_cidrs, *self.service_cidrs, *self.node_cidrs)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultDeny:
    """A default-deny for a namespace and direction, applied last."""

    namespace: str
    direction: Direction
    choice: Choice = Choice.INCLUDE


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRangeConsent:
    """A person accepts a whole range where only some of its ports were seen; it widens both ends alike."""

    src: LinkEnd
    dst: LinkEnd
    protocol: Protocol
    first: int
    last: int
    choice: Choice = Choice.INCLUDE


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRemoval:
    """A person will remove this applied policy, so the certificate need not hold together with it."""

    namespace: str
    name: str
    choice: Choice = Choice.INCLUDE


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineDecision:
    """Freezes the baseline of a workload at these links; None lets it go on learning."""

    workload: Workload
    links: tuple[Link, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessNames:
    """The control-plane processes whose arguments agents read CIDRs from; none = the usual ones."""

    names: tuple[str, ...] = ()


Decision = (
    LinkDecision
    | DirectionDecision
    | TypedCIDRDecision
    | AliasDecision
    | LabelDecision
    | ClusterCIDRs
    | DefaultDeny
    | PortRangeConsent
    | PolicyRemoval
    | BaselineDecision
    | ProcessNames
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """A Decision with its author and time; undo is a record of its own that says which one it takes back."""

    decision: Decision
    author: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Every decision in force. An empty value is what holds when nobody has said anything."""

    links: tuple[tuple[Link, Choice], ...] = ()
    directions: tuple[tuple[Workload, Direction, GeneralRule], ...] = ()
    typed_cidrs: tuple[TypedCIDR, ...] = ()
    aliases: tuple[Alias, ...] = ()
    labels: LabelDecision = field(default_factory=LabelDecision)
    cluster_cidrs: ClusterCIDRs | None = None
    default_denies: tuple[tuple[str, Direction], ...] = ()
    port_ranges: tuple[PortRangeConsent, ...] = ()
    removed_policies: tuple[tuple[str, str], ...] = ()
    frozen_baselines: tuple[tuple[Workload, tuple[Link, ...]], ...] = ()
    process_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, decisions: Iterable[Decision]) -> "Decisions":
        """All that holds after `decisions`, in the order in which they were made."""
        return _Folding().fold(decisions)

    @cached_property
    def choice_by_link(self) -> Mapping[Link, Choice]:
        return dict(self.links)

    @cached_property
    def rule_by_direction(self) -> Mapping[tuple[Workload, Direction], GeneralRule]:
        return {(workload, direction): rule for workload, direction, rule in self.directions}

    def typed_cidrs_of(self, workload: Workload, direction: Direction) -> tuple[TypedCIDR, ...]:
        return self._typed_by_direction.get((workload, direction), ())

    @cached_property
    def _typed_by_direction(self) -> Mapping[tuple[Workload, Direction], tuple[TypedCIDR, ...]]:
        found: dict[tuple[Workload, Direction], tuple[TypedCIDR, ...]] = {}
        for typed in self.typed_cidrs:
            key = (typed.workload, typed.direction)
            found[key] = (*found.get(key, ()), typed)
        return found

    def alias_of(self, ip: IPAddress) -> Alias | None:
        """The alias that names this address most narrowly."""
        best: tuple[int, str] | None = None
        found: Alias | None = None
        for alias in self.aliases:
            for network in alias.networks:
                if ip.version == network.version and ip in network:
                    rank = (-network.prefixlen, alias.name)
                    if best is None or rank < best:
                        best, found = rank, alias
        return found


class _Folding:
    """The state while decisions are folded: dictionaries, so that a later decision replaces an earlier one."""

    def __init__(self) -> None:
        self.links: dict[Link, Choice] = {}
        self.directions: dict[tuple[Workload, Direction], GeneralRule] = {}
        self.typed: dict[TypedCIDR, None] = {}
        self.aliases: dict[str, Alias] = {}
        self.labels = LabelDecision()
        self.cluster_cidrs: ClusterCIDRs | None = None
        self.denies: dict[tuple[str, Direction], None] = {}
        self.ranges: dict[PortRangeConsent, None] = {}
        self.removed: dict[tuple[str, str], None] = {}
        self.frozen: dict[Workload, tuple[Link, ...]] = {}
        self.process_names: tuple[str, ...] = ()

    def fold(self, decisions: Iterable[Decision]) -> Decisions:
        for decision in decisions:
            self._take(decision)
        return Decisions(
            links=tuple(self.links.items()),
            directions=tuple((workload, direction, rule) for (workload, direction), rule in self.directions.items()),
            typed_cidrs=tuple(self.typed),
            aliases=tuple(self.aliases.values()),
            labels=self.labels,
            cluster_cidrs=self.cluster_cidrs,
            default_denies=tuple(self.denies),
            port_ranges=tuple(self.ranges),
            removed_policies=tuple(self.removed),
            frozen_baselines=tuple(self.frozen.items()),
            process_names=self.process_names,
        )

    def _take(self, decision: Decision) -> None:  # noqa: C901  # one case for each kind
        match decision:
            case LinkDecision(link=link, choice=choice):
                _put(self.links, link, choice)
            case DirectionDecision(workload=workload, direction=direction, rule=rule):
                _put(self.directions, (workload, direction), rule)
            case TypedCIDRDecision(cidr=typed, choice=choice):
                _put(self.typed, typed, choice is Choice.INCLUDE or None)
            case AliasDecision(name=name, alias=alias):
                _put(self.aliases, name, alias)
            case LabelDecision():
                self.labels = decision
            case ClusterCIDRs():
                self.cluster_cidrs = decision if decision.all else None
            case DefaultDeny(namespace=namespace, direction=direction, choice=choice):
                _put(self.denies, (namespace, direction), choice is Choice.INCLUDE or None)
            case PortRangeConsent():
                included = PortRangeConsent(
                    src=decision.src,
                    dst=decision.dst,
                    protocol=decision.protocol,
                    first=decision.first,
                    last=decision.last,
                )
                _put(self.ranges, included, decision.choice is Choice.INCLUDE or None)
            case PolicyRemoval(namespace=namespace, name=name, choice=choice):
                _put(self.removed, (namespace, name), choice is Choice.INCLUDE or None)
            case BaselineDecision(workload=workload, links=links):
                _put(self.frozen, workload, links)
            case ProcessNames(names=names):
                self.process_names = names
            case _:
                assert_never(decision)


def _put(mapping: dict, key: object, value: object) -> None:  # type: ignore[type-arg]  # one body for many mappings
    """Set, or remove when there is no value; a changed decision moves to the end."""
    mapping.pop(key, None)
    if value is not None:
        mapping[key] = value


def _covers_key(pattern: str, key: str) -> bool:
    return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern
