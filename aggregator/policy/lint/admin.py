"""Lint of cluster-wide policies: whom they select, which of their rules are never asked, whose word they take.

Enters: a VerdictTable, whose cluster holds the AdminPolicies. Leaves: Findings. Invariant: a rule is called shadowed
only when one earlier rule of its policy matches at least as much: each action ends the tier, Pass, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from aggregator.model.address import IPNetwork
from aggregator.model.adminpolicy import (
    AdminPolicy,
    AdminPort,
    AdminRule,
    DomainNamesPeer,
    NetworksPeer,
    NodesPeer,
    PodsPeer,
    Tier,
)
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.finding import Finding, Severity
from aggregator.model.protocol import Direction
from aggregator.policy.lint.codes import Code
from aggregator.policy.lint.static import contains
from aggregator.policy.lint.table import VerdictTable
from aggregator.policy.lint.universe import subjects

# What is said of all NetworkPolicies together may be otherwise under cluster-wide ones.
_OF_THE_WHOLE = frozenset({Code.DNS_BLOCKED, Code.DNS_TCP_BLOCKED, Code.HALF_OPEN, Code.METADATA_REACHABLE})
_ALONE = "; said of NetworkPolicies alone, cluster-wide policies may decide otherwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """What the peers of one rule match now."""

    pods: frozenset[str]
    networks: tuple[IPNetwork, ...]
    others: frozenset[NodesPeer | DomainNamesPeer]

    @property
    def is_empty(self) -> bool:
        return not (self.pods or self.networks or self.others)

    def covers(self, other: "_Reach") -> bool:
        return (
            self.pods >= other.pods
            and self.others >= other.others
            and all(any(contains(wide, narrow) for wide in self.networks) for narrow in other.networks)
        )


def check_admin(table: VerdictTable) -> Iterator[Finding]:
    """Findings on the AdminPolicies of the table's cluster."""
    cluster = table.universe.cluster
    policies = [policy for policy in cluster.extra_policies if isinstance(policy, AdminPolicy)]
    selected = {str(policy): tuple(subjects(policy.subject, cluster)) for policy in policies}
    for policy in policies:
        pods = selected[str(policy)]
        if not pods:
            yield Finding(
                code=Code.UNUSED,
                severity=Severity.WARNING,
                subject=str(policy),
                message="selects no pod",
                way_out="correct the subject's selectors, or remove the policy",
            )
        for direction in (Direction.INGRESS, Direction.EGRESS):
            yield from _rules(policy, direction, cluster)
            if pods and policy.tier is Tier.BASELINE and policy.rules(direction):
                yield from _never_asked(policy, direction, pods, table)
    yield from _equal_priority(policies, selected)


def of_networkpolicies_alone(findings: Sequence[Finding], cluster: ClusterSnapshot) -> Iterator[Finding]:
    """The same findings; what cluster-wide policies may change says so."""
    layered = any(isinstance(policy, AdminPolicy) for policy in cluster.extra_policies)
    for finding in findings:
        if layered and finding.code in _OF_THE_WHOLE:
            yield replace(finding, message=finding.message + _ALONE)
        else:
            yield finding


def _rules(policy: AdminPolicy, direction: Direction, cluster: ClusterSnapshot) -> Iterator[Finding]:
    rules = policy.rules(direction)
    reaches = [_reach(rule, cluster) for rule in rules]
    for number, (rule, reach) in enumerate(zip(rules, reaches, strict=True)):
        subject = f"{policy}:{direction.value.lower()}:{number}"
        if reach.is_empty:
            yield Finding(
                code=Code.EMPTY_RULE,
                severity=Severity.INFO,
                subject=subject,
                message="no pod matches its peers, so it decides nothing now",
                way_out="correct the selectors, if pods should match",
            )
            continue
        for earlier in range(number):
            if reaches[earlier].covers(reach) and _ports_cover(rules[earlier].ports, rule.ports):
                yield Finding(
                    code=Code.SHADOWED_RULE,
                    severity=Severity.WARNING,
                    subject=subject,
                    message=f"is never asked: rule {earlier} matches at least as much, and the first match decides",
                    way_out="move it up, or remove it",
                )
                break


def _reach(rule: AdminRule, cluster: ClusterSnapshot) -> _Reach:
    pods = {str(pod) for peer in rule.peers if isinstance(peer, PodsPeer) for pod in subjects(peer, cluster)}
    return _Reach(
        pods=frozenset(pods),
        networks=tuple(cidr for peer in rule.peers if isinstance(peer, NetworksPeer) for cidr in peer.cidrs),
        others=frozenset(peer for peer in rule.peers if isinstance(peer, NodesPeer | DomainNamesPeer)),
    )


def _ports_cover(wide: Sequence[AdminPort], narrow: Sequence[AdminPort]) -> bool:
    if not wide:
        return True
    return bool(narrow) and all(any(_port_covers(one, other) for one in wide) for other in narrow)


def _port_covers(wide: AdminPort, narrow: AdminPort) -> bool:
    if wide.name or narrow.name:
        return wide == narrow
    if wide.protocol is not narrow.protocol:
        return False
    if wide.first is None or wide.last is None:
        return True
    if narrow.first is None or narrow.last is None:
        return False
    return wide.first <= narrow.first and narrow.last <= wide.last


def _never_asked(
    policy: AdminPolicy, direction: Direction, pods: Sequence[Pod], table: VerdictTable
) -> Iterator[Finding]:
    """A baseline is asked only about pods that no NetworkPolicy isolates."""
    names = {str(pod) for pod in pods}
    classes = [c for c in table.universe.classes if any(str(pod) in names for pod in c.pods)]
    if classes and all(table.isolating(direction, c.bit) for c in classes):
        yield Finding(
            code=Code.BASELINE_NEVER_ASKED,
            severity=Severity.INFO,
            subject=f"{policy}:{direction.value.lower()}",
            message=f"NetworkPolicies isolate the {direction.value.lower()} of every pod that it selects, so it has no "
            "say now",
            way_out="nothing: it stands ready for pods that no NetworkPolicy selects",
        )


def _equal_priority(policies: Sequence[AdminPolicy], selected: dict[str, tuple[Pod, ...]]) -> Iterator[Finding]:
    for one, other in combinations(sorted(policies, key=str), 2):
        if one.tier is not other.tier or one.priority != other.priority or one.kind != other.kind:
            continue
        shared = sorted({str(pod) for pod in selected[str(one)]} & {str(pod) for pod in selected[str(other)]})
        if shared:
            yield Finding(
                code=Code.EQUAL_PRIORITY,
                severity=Severity.WARNING,
                subject=f"{one} and {other}",
                message=f"have the same priority {one.priority} and both select {_some(shared)}: which is asked first "
                "is not defined",
                way_out="give each its own priority",
            )


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
