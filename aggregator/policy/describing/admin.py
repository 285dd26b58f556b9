"""Cluster-wide policies in plain words: the order in which they are asked, what each rule decides, and what is left.

Enters: an AdminPolicy or a ForeignPolicy, and the cluster where there is one. Leaves: a Description. The order is that
of NP-61: the Admin tier by ascending priority, then NetworkPolicies, then the Baseline tier.
"""

from collections.abc import Iterator
from typing import assert_never

from aggregator.model.adminpolicy import (
    Action,
    AdminPeer,
    AdminPolicy,
    AdminPort,
    AdminRule,
    DomainNamesPeer,
    ForeignPolicy,
    NetworksPeer,
    NodesPeer,
    PodsPeer,
    Tier,
)
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.networkpolicy import LabelSelector
from aggregator.model.protocol import Direction
from aggregator.policy.describing.words import (
    DIRECTIONS,
    DescribedDirection,
    DescribedRule,
    Description,
    counted_workloads,
    listed,
    namespace_words,
    selector_words,
    terms,
)
from aggregator.policy.lint.universe import subjects

_DOES = {Action.ALLOW: "allow", Action.DENY: "deny", Action.PASS: "pass on"}
_NEXT = {
    Tier.ADMIN: "what no rule matches goes on to the next policy of the tier, then to the NetworkPolicies",
    Tier.BASELINE: "what no rule matches is allowed",
}


def describe_admin(policy: AdminPolicy, cluster: ClusterSnapshot | None = None) -> Description:
    """`cluster` tells which workloads it selects now."""
    return Description(
        kind=policy.kind,
        name=policy.name,
        namespace="",
        selects=_pods(policy.subject),
        workloads=() if cluster is None else counted_workloads(subjects(policy.subject, cluster)),
        directions=tuple(_direction(policy, direction) for direction in DIRECTIONS),
        does_not=tuple(_does_not(policy)),
    )


def describe_foreign(policy: ForeignPolicy) -> Description:
    """Of a plug-in's own policy only what Wattle knows: whom it may act on."""
    selector = "some pods" if policy.pod_selector is None else selector_words(policy.pod_selector)
    where = f"the namespace {policy.namespace}" if policy.namespace else "the cluster"
    says = "not computed here: a verdict that it could change is called unknown"
    return Description(
        kind=policy.kind,
        name=policy.name,
        namespace=policy.namespace,
        selects=f"{selector} of {where}",
        workloads=(),
        directions=tuple(
            DescribedDirection(direction=direction, isolated=False, says=says)
            for direction in DIRECTIONS
            if direction in policy.directions
        ),
        does_not=(f"get words here: {policy.kind} belongs to a network plug-in; ask its own tools",),
    )


def _pods(peer: PodsPeer) -> str:
    return f"{selector_words(peer.pod_selector or LabelSelector())} of {namespace_words(peer.namespace_selector)}"


def _direction(policy: AdminPolicy, direction: Direction) -> DescribedDirection:
    rules = policy.rules(direction)
    if not rules:
        return DescribedDirection(direction=direction, isolated=False, says="no rule: it has no say")
    asked = (
        f"asked before the NetworkPolicies (priority {policy.priority}, the lowest number first)"
        if policy.tier is Tier.ADMIN
        else "asked only about pods that no NetworkPolicy isolates"
    )
    return DescribedDirection(
        direction=direction,
        isolated=False,
        says=f"{asked}; the first rule that matches decides; {_NEXT[policy.tier]}",
        rules=tuple(map(_rule, rules)),
    )


def _rule(rule: AdminRule) -> DescribedRule:
    return DescribedRule(
        action=_DOES[rule.action],
        peers=tuple(map(admin_peer_words, rule.peers)) or ("nobody (a rule without peers)",),
        ports=tuple(map(admin_port_words, rule.ports)) or ("every port and protocol",),
    )


def admin_peer_words(peer: AdminPeer) -> str:
    """A peer of a cluster-wide policy as a noun."""
    match peer:
        case PodsPeer():
            return _pods(peer)
        case NodesPeer(selector=selector):
            return "every node" if selector.is_empty else f"nodes with {terms(selector)}"
        case NetworksPeer(cidrs=cidrs):
            return f"addresses in {listed(map(str, cidrs), ' or ')}"
        case DomainNamesPeer(names=names):
            return f"whatever addresses {listed(names, ' or ')} resolve to"
        case _:
            assert_never(peer)


def admin_port_words(port: AdminPort) -> str:
    """A port of a cluster-wide policy as a noun."""
    if port.name:
        return f"the container port named {port.name}"
    if port.first is None or port.last is None:
        return f"every {port.protocol} port"
    return f"{port.protocol} {port.first}" + (f" to {port.last}" if port.last != port.first else "")


def _does_not(policy: AdminPolicy) -> Iterator[str]:
    yield "isolate by being there: where no rule matches, it changes nothing"
    rules = (*policy.ingress, *policy.egress)
    actions = {rule.action for rule in rules}
    if policy.tier is Tier.ADMIN:
        if Action.ALLOW in actions:
            yield "leave a last word to NetworkPolicies on what it allows: they cannot deny it"
        if Action.DENY in actions:
            yield "leave a last word to NetworkPolicies on what it denies: they cannot allow it"
        if Action.PASS in actions:
            yield "decide what it passes on: that is up to the NetworkPolicies, then the Baseline tier"
    else:
        yield "act on a pod in a direction in which any NetworkPolicy isolates it"
    yield "stop replies: an allowed connection works both ways, but only the client may open it"
    yield "act on pods on the host's network, or match them as pods"
    if any(isinstance(peer, DomainNamesPeer) for rule in rules for peer in rule.peers):
        yield "say which addresses a domain name has: a verdict about an outside address may be unknown"
    yield "hold everywhere: many network plug-ins do not implement this kind"
