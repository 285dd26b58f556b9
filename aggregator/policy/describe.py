"""A policy in plain words: whom it selects, what it isolates, what may come and go, and what it does not do.

Enters: a NetworkPolicy, and the cluster where there is one. Leaves: a Description; `text` lays it out in the manner of
`kubectl describe networkpolicy`, but complete. Every sentence is about this policy alone: policies add up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.networkpolicy import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    PolicyPeer,
    PolicyPort,
    Requirement,
    Rule,
)
from aggregator.model.protocol import Direction
from aggregator.policy.lint.universe import is_subject

_ORDER = (Direction.INGRESS, Direction.EGRESS)
_COMES = {Direction.INGRESS: "may come in", Direction.EGRESS: "may go out"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedRule:
    """One rule: its peers and ports, each a phrase."""

    peers: tuple[str, ...]
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedDirection:
    direction: Direction
    isolated: bool
    says: str
    rules: tuple[DescribedRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    name: str
    namespace: str
    selects: str
    workloads: tuple[str, ...]
    directions: tuple[DescribedDirection, ...]
    does_not: tuple[str, ...]


def describe(
    policy: NetworkPolicy, cluster: ClusterSnapshot | None = None, others: Iterable[NetworkPolicy] = ()
) -> Description:
    """`cluster` tells which workloads it selects now; `others` which policies add to it."""
    return Description(
        name=policy.name,
        namespace=policy.namespace,
        selects=f"{selector_words(policy.pod_selector)} of the namespace {policy.namespace}",
        workloads=_workloads(policy, cluster),
        directions=tuple(_direction(policy, direction) for direction in _ORDER),
        does_not=tuple(_does_not(policy, cluster, others)),
    )


def text(description: Description) -> str:
    """Lines for a person."""
    lines = [
        f"Name:       {description.name}",
        f"Namespace:  {description.namespace}",
        f"Selects:    {description.selects}",
    ]
    for number, workload in enumerate(description.workloads):
        lines.append(f"{'  now:' if not number else '':<12}{workload}")
    for part in description.directions:
        lines.append(f"{part.direction.value}:".ljust(12) + part.says)
        for number, rule in enumerate(part.rules, start=1):
            word = "from" if part.direction is Direction.INGRESS else "to"
            lines.append(f"  {number}. {word} {_list(rule.peers, ' or ')}")
            lines.append(f"     on {_list(rule.ports, ' or ')}")
    lines.append("It does not:")
    lines += [f"  - {line}" for line in description.does_not]
    return "\n".join(lines) + "\n"


# ---- whom it selects


def selector_words(selector: LabelSelector) -> str:
    """A label selector as a noun."""
    if selector.is_empty:
        return "every pod"
    return f"pods with {_terms(selector)}"


def _terms(selector: LabelSelector) -> str:
    terms = [f"{key}={value}" if value else f"{key} empty" for key, value in selector.match_labels]
    return _list([*terms, *map(_requirement, selector.match_expressions)], " and ")


def _requirement(requirement: Requirement) -> str:
    match requirement.operator:
        case Operator.IN:
            return f"{requirement.key}={_list(requirement.values, ' or ')}"
        case Operator.NOT_IN:
            return f"{requirement.key} absent or not {_list(requirement.values, ' or ')}"
        case Operator.EXISTS:
            return f"any {requirement.key}"
        case Operator.DOES_NOT_EXIST:
            return f"no {requirement.key}"
        case _:
            assert_never(requirement.operator)


def _workloads(policy: NetworkPolicy, cluster: ClusterSnapshot | None) -> tuple[str, ...]:
    if cluster is None:
        return ()
    found: dict[str, int] = {}
    for pod in cluster.pods:
        if pod.namespace == policy.namespace and is_subject(pod) and policy.pod_selector.matches(dict(pod.labels)):
            name = f"{pod.workload.kind} {pod.workload.name}"
            found[name] = found.get(name, 0) + 1
    if not found:
        return ("no pod: it has no effect now",)
    return tuple(f"{name} ({count} pod{'s' if count > 1 else ''})" for name, count in sorted(found.items()))


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
        excepts = f" except {_list(list(map(str, peer.excepts)), ' and ')}" if peer.excepts else ""
        return f"{size} {where}{excepts}"
    if peer.namespace_selector is None:
        if peer.pod_selector is None:
            return "nobody (a peer without any field)"
        return f"{selector_words(peer.pod_selector)} of the namespace {namespace}"
    return f"{selector_words(peer.pod_selector or LabelSelector())} of {_namespaces(peer.namespace_selector)}"


def _namespaces(selector: LabelSelector) -> str:
    if selector.is_empty:
        return "every namespace"
    if not selector.match_expressions and len(selector.match_labels) == 1:
        key, value = selector.match_labels[0]
        if key == NAMESPACE_NAME_LABEL:
            return f"the namespace {value}"
    return f"namespaces with {_terms(selector)}"


def port_words(port: PolicyPort) -> str:
    """A port entry as a noun."""
    if port.port is None:
        return f"every {port.protocol} port"
    if isinstance(port.port, str):
        return f"{port.protocol} port named {port.port}"
    return f"{port.protocol} {port.port}" + (f" to {port.end_port}" if port.end_port else "")


# ---- what it does not do


def _does_not(policy: NetworkPolicy, cluster: ClusterSnapshot | None, others: Iterable[NetworkPolicy]) -> Iterable[str]:
    for direction in _ORDER:
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
    mine = [
        dict(pod.labels)
        for pod in cluster.pods
        if pod.namespace == policy.namespace and is_subject(pod) and policy.pod_selector.matches(dict(pod.labels))
    ]
    names = sorted(
        other.name
        for other in others
        if other.namespace == policy.namespace
        and other.name != policy.name
        and any(other.pod_selector.matches(labels) for labels in mine)
    )
    return f" (here: {', '.join(names)})" if names else ""


def _list(words: Iterable[str], last: str) -> str:
    """a, b or c."""
    *most, final = words
    return ", ".join(most) + last + final if most else final
