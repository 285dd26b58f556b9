"""Tiers: AdminNetworkPolicy, BaselineAdminNetworkPolicy and ClusterNetworkPolicy around NetworkPolicy (NP-61).

Per direction: the admin tier by ascending priority, rules in order, the first match decides or passes on; then the
NetworkPolicies, final where one selects the pod; then the baseline tier; then allow. Being there never isolates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import assert_never

from aggregator.model.adminpolicy import (
    Action,
    AdminPeer,
    AdminPolicy,
    AdminPort,
    AdminRule,
    DomainNamesPeer,
    NetworksPeer,
    NodesPeer,
    PodsPeer,
)
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.endpoint import AddressEndpoint, NodeEndpoint, PodEndpoint, ServiceEndpoint
from aggregator.model.protocol import Direction
from aggregator.model.verdict import DirectionExplanation, DirectionOutcome, PolicyFinding, PolicyReason
from aggregator.policy.evaluation.matching import (
    Match,
    Unknown,
    View,
    acts_as_node,
    any_of,
    block_matches,
    both,
    labels_of_namespace,
    named_port_matches,
    unresolved,
)
from aggregator.policy.profiles.profile import Answer

_REASONS = {
    Action.ALLOW: PolicyReason.ALLOWED,
    Action.DENY: PolicyReason.DENIED,
    Action.PASS: PolicyReason.PASSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSay:
    """What one tier says. `possible` are actions that may hold instead, for the reason `cause`."""

    action: Action | None = None
    possible: frozenset[Action] = frozenset()
    cause: str = ""
    findings: tuple[PolicyFinding, ...] = ()


def asked(policies: Sequence[AdminPolicy], view: View) -> TierSay:
    """The first match among `policies` of one tier, by ascending priority."""
    if view.profile.admin_policies is Answer.NO:
        return TierSay()
    possible: set[Action] = set()
    findings: list[PolicyFinding] = []
    cause = ""
    concerned = [policy for policy in policies if subject_matches(policy.subject, view)]
    for _, equals in groupby(sorted(concerned, key=lambda p: (p.priority, p.name)), key=lambda p: p.priority):
        decided: dict[Action, None] = {}
        for policy in equals:
            finding, action, maybe, why = _first_match(policy, view)
            findings += finding
            possible |= maybe
            cause = cause or why
            if action is not None:
                decided[action] = None
        if len(decided) > 1:
            possible |= set(decided)
            cause = cause or "policies of equal priority disagree, and their order is not defined"
        if decided:
            action = next(iter(decided))
            if view.profile.admin_policies is Answer.UNDEFINED:
                possible |= {action, Action.PASS}
                cause = cause or "whether admin policies are enforced is not defined for this network plug-in"
            return TierSay(action=action, possible=frozenset(possible), cause=cause, findings=tuple(findings))
    if view.profile.admin_policies is Answer.UNDEFINED and possible:
        possible.add(Action.PASS)
    return TierSay(possible=frozenset(possible), cause=cause, findings=tuple(findings))


def _first_match(policy: AdminPolicy, view: View) -> tuple[list[PolicyFinding], Action | None, frozenset[Action], str]:
    """The finding, the first rule that certainly matches, and what may match before it."""
    maybe: dict[int, Action] = {}
    cause = ""
    for number, rule in enumerate(policy.rules(view.direction), start=1):
        match = admin_rule_matches(rule, view)
        if match is True:
            reason = PolicyReason.UNKNOWN if maybe else _REASONS[rule.action]
            found = PolicyFinding(policy=str(policy), reason=reason, rules=(*maybe, number))
            return [found], rule.action, frozenset(maybe.values()), cause
        if isinstance(match, Unknown):
            maybe[number] = rule.action
            cause = cause or match.cause
    if maybe:
        found = PolicyFinding(policy=str(policy), reason=PolicyReason.UNKNOWN, rules=tuple(maybe))
        return [found], None, frozenset(maybe.values()), cause
    return [], None, frozenset(), ""


def layered(say: TierSay, below: DirectionExplanation, direction: Direction) -> DirectionExplanation:
    """The tier's word where it has one, else what is below it; UNKNOWN where it might have another that differs."""
    said = _outcome(say.action, below)
    if any(_verdict_differs(_outcome(action, below), said, direction) for action in say.possible):
        return DirectionExplanation(
            direction=direction,
            outcome=DirectionOutcome.UNKNOWN,
            policies=(*say.findings, *below.policies),
            cause=say.cause,
        )
    passed_on = say.action in (None, Action.PASS)
    return DirectionExplanation(
        direction=direction,
        outcome=said,
        policies=(*say.findings, *below.policies) if passed_on else say.findings,
        cause=below.cause if passed_on else "",
    )


def _outcome(action: Action | None, below: DirectionExplanation) -> DirectionOutcome:
    match action:
        case Action.ALLOW:
            return DirectionOutcome.ALLOWED
        case Action.DENY:
            return DirectionOutcome.DENIED
        case Action.PASS | None:
            return below.outcome
        case _:
            assert_never(action)


def _verdict_differs(one: DirectionOutcome, other: DirectionOutcome, direction: Direction) -> bool:
    verdicts = {DirectionExplanation(direction=direction, outcome=outcome).verdict for outcome in (one, other)}
    return len(verdicts) > 1


def subject_matches(subject: PodsPeer, view: View) -> bool:
    return _pod_matches(subject, view.subject, view.cluster)


def _pod_matches(peer: PodsPeer, pod: Pod, cluster: ClusterSnapshot) -> bool:
    return peer.namespace_selector.matches(labels_of_namespace(cluster, pod.namespace)) and (
        peer.pod_selector is None or peer.pod_selector.matches(dict(pod.labels))
    )


def admin_rule_matches(rule: AdminRule, view: View) -> Match:
    """No peers match nothing: the API wants at least one. No ports match all."""
    ports = not rule.ports or any_of(admin_port_matches(port, view) for port in rule.ports)
    return both(any_of(admin_peer_matches(peer, view) for peer in rule.peers), ports)


def admin_peer_matches(peer: AdminPeer, view: View) -> Match:
    match peer:
        case PodsPeer():
            return _pods_peer_matches(peer, view)
        case NodesPeer():
            return _node_matches(peer, view)
        case NetworksPeer():
            return any_of(block_matches(cidr, (), view) for cidr in peer.cidrs)
        case DomainNamesPeer():
            if isinstance(view.other, AddressEndpoint):
                return Unknown(f"which addresses {', '.join(peer.names)} have is known to the cluster's resolver alone")
            return False
        case _:
            assert_never(peer)


def _pods_peer_matches(peer: PodsPeer, view: View) -> Match:
    match view.other:
        case PodEndpoint(pod=pod):
            return not acts_as_node(pod) and not pod.ended and _pod_matches(peer, pod, view.cluster)
        case AddressEndpoint():
            return unresolved(view) or False
        case NodeEndpoint() | ServiceEndpoint():
            return False
        case _:
            assert_never(view.other)


def _node_matches(peer: NodesPeer, view: View) -> bool:
    match view.other:
        case NodeEndpoint(node=node):
            return peer.selector.matches(dict(node.labels))
        case PodEndpoint(pod=pod) if acts_as_node(pod) and pod.node_name in view.cluster.nodes_by_name:
            return peer.selector.matches(dict(view.cluster.nodes_by_name[pod.node_name].labels))
        case _:
            return False


def admin_port_matches(port: AdminPort, view: View) -> Match:
    if port.name:
        return named_port_matches(port.name, view)
    if port.protocol is not view.connection.protocol:
        return False
    if port.first is None or port.last is None:
        return True
    if isinstance(view.connection.dst, ServiceEndpoint):
        return Unknown("a Service's port is translated before policies see it")
    return port.first <= view.connection.port <= port.last
