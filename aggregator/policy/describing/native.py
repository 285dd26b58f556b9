"""A policy in plain words: whom it selects, what it isolates, what may come and go, and what it does not do.

Enters: a NetworkPolicy, and the cluster where there is one. Leaves: a Description. Every sentence is about this policy
alone: policies add up.
"""

from collections.abc import Iterable

from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, Rule
from aggregator.model.protocol import Direction
from aggregator.policy.describing.words import (
    DIRECTIONS,
    DescribedDirection,
    DescribedRule,
    Description,
    counted_workloads,
    listed,
    namespace_words,
    port_words,
    selector_words,
)
from aggregator.policy.lint.universe import is_subject

_COMES = {Direction.INGRESS: "may come in", Direction.EGRESS: "may go out"}


def describe(
    policy: NetworkPolicy, cluster: ClusterSnapshot | None = None, others: Iterable[NetworkPolicy] = ()
) -> Description:
    """`cluster` tells which workloads it selects now; `others` which policies add to it."""
    return Description(
        kind="NetworkPolicy",
        name=policy.name,
        namespace=policy.namespace,
        selects=f"{selector_words(policy.pod_selector)} of the namespace {policy.namespace}",
        workloads=() if cluster is None else counted_workloads(_selected(policy, cluster)),
        directions=tuple(_direction(policy, direction) for direction in DIRECTIONS),
        does_not=tuple(_does_not(policy, cluster, others)),
    )


def _selected(policy: NetworkPolicy, cluster: ClusterSnapshot) -> list[Pod]:
    return [
        pod
        for pod in cluster.pods
        if pod.namespace == policy.namespace and is_subject(pod) and policy.pod_selector.matches(dict(pod.labels))
    ]


# ---- what may come and go


def _direction(policy: NetworkPolicy, direction: Direction) -> DescribedDirection:
    rules = policy.rules(direction)
    if direction not in policy.directions:
        ignored = f"; its {len(rules)} {direction.value.lower()} rules are ignored" if rules else ""
        return DescribedDirection(
            direction=direction, isolated=False, says=f"not isolated by this policy: everything is allowed{ignored}"
        )
    if not rules:
        return DescribedDirection(direction=direction, isolated=True, says=f"isolated: nothing {_COMES[direction]}")
    described = tuple(_rule(rule, policy.namespace) for rule in rules)
    if any(not rule.peers and not rule.ports for rule in rules):
        says = f"isolated in name only: everything {_COMES[direction]}"
    else:
        says = f"isolated: only this {_COMES[direction]}"
    return DescribedDirection(direction=direction, isolated=True, says=says, rules=described)


def _rule(rule: Rule, namespace: str) -> DescribedRule:
    return DescribedRule(
        peers=tuple(peer_words(peer, namespace) for peer in rule.peers)
        or ("anyone, inside the cluster and outside of it",),
        ports=tuple(map(port_words, rule.ports)) or ("every port and protocol",),
    )


def peer_words(peer: PolicyPeer, namespace: str) -> str:
    """A peer of a policy in `namespace` as a noun."""
    if isinstance(peer, IPBlock):
        size = "the address" if peer.cidr.num_addresses == 1 else "addresses in"
        where = str(peer.cidr.network_address) if peer.cidr.num_addresses == 1 else str(peer.cidr)
        excepts = f" except {listed(list(map(str, peer.excepts)), ' and ')}" if peer.excepts else ""
        return f"{size} {where}{excepts}"
    if peer.namespace_selector is None:
        if peer.pod_selector is None:
            return "nobody (a peer without any field)"
        return f"{selector_words(peer.pod_selector)} of the namespace {namespace}"
    return f"{selector_words(peer.pod_selector or LabelSelector())} of {namespace_words(peer.namespace_selector)}"


# ---- what it does not do


def _does_not(policy: NetworkPolicy, cluster: ClusterSnapshot | None, others: Iterable[NetworkPolicy]) -> Iterable[str]:
    for direction in DIRECTIONS:
        if direction not in policy.directions:
            yield f"isolate {direction.value.lower()}: write {direction.value} into policyTypes for that"
    yield "deny what another policy allows: policies only add up" + _adding(policy, cluster, others)
    yield "stop replies: an allowed connection works both ways, but only the client may open it"
    yield "stop traffic between a pod and its own node (kubelet probes), or of a pod with itself"
    yield "act on pods on the host's network, or match them as pods"
    yield "promise to cut connections that are open already: that is up to the network plug-in"
    if Direction.EGRESS in policy.directions and not _asks_dns(policy):
        yield "allow DNS (UDP and TCP 53): names will not resolve unless another policy allows it"
    if any(isinstance(peer, IPBlock) for d in policy.directions for rule in policy.rules(d) for peer in rule.peers):
        yield "promise that an ipBlock matches pods or nodes: that differs between network plug-ins"
    open_rules = (rule for direction in policy.directions for rule in policy.rules(direction) if rule.ports)
    if any(open_rules):
        yield "speak of ICMP where ports are listed: that differs between network plug-ins"


def _asks_dns(policy: NetworkPolicy) -> bool:
    """Whether any egress rule takes UDP 53, or a name, which may be it."""
    return any(
        not rule.ports or any(port.protocol.value == "UDP" and _may_be_dns(port) for port in rule.ports)
        for rule in policy.egress
    )


def _may_be_dns(port: PolicyPort) -> bool:
    if not isinstance(port.port, int):
        return True
    return any(port.port <= number <= (port.end_port or port.port) for number in (53, 5353))


def _adding(policy: NetworkPolicy, cluster: ClusterSnapshot | None, others: Iterable[NetworkPolicy]) -> str:
    if cluster is None:
        return ""
    mine = [dict(pod.labels) for pod in _selected(policy, cluster)]
    names = sorted(
        other.name
        for other in others
        if other.namespace == policy.namespace
        and other.name != policy.name
        and any(other.pod_selector.matches(labels) for labels in mine)
    )
    return f" (here: {', '.join(names)})" if names else ""
