"""Whom policies and their peers select, and whom they should have selected.

Enters: the VerdictTable and the cluster. Leaves: unused (with the nearest label on a typo), dormant, empty rules and
peers, unresolved named ports, poorly scoped policies.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.finding import Finding, Severity
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, SelectorPeer
from aggregator.model.protocol import Direction
from aggregator.policy.lint.codes import Code
from aggregator.policy.lint.nearest import Wearers
from aggregator.policy.lint.table import VerdictTable
from aggregator.policy.lint.universe import Universe, all_rules, bits, namespace_labels

if TYPE_CHECKING:
    from aggregator.model.workload import Workload


def check_scope(table: VerdictTable) -> Iterator[Finding]:
    """Everything about selectors that match nothing, or more than their rules can serve."""
    universe = table.universe
    wearers = Wearers(universe.cluster)
    for number, policy in enumerate(universe.policies):
        if not table.subjects[number]:
            yield _unused(policy, wearers)
        for direction, index, peers, _ in all_rules(policy):
            subject = f"{policy}:{direction.value.lower()}:{index}"
            yield from _empty_peers(universe, wearers, policy, subject, peers)
            if table.subjects[number]:
                yield from _named_ports(table, number, direction, index, subject)
        yield from _poorly_scoped(table, number)


# ---- policies that select nothing


def _unused(policy: NetworkPolicy, wearers: Wearers) -> Finding:
    here = wearers.pods.get(policy.namespace, ())
    matched = [pod for pod in here if policy.pod_selector.matches(dict(pod.labels))]
    if any(pod.host_network and not pod.ended for pod in matched):
        return Finding(
            code=Code.UNUSED_HOST_NETWORK,
            severity=Severity.WARNING,
            subject=str(policy),
            message="selects only pods on the host's network, on which policies do not act",
            way_out="protect the node itself; no NetworkPolicy can do it",
        )
    asleep = wearers.dormant(policy.namespace, policy.pod_selector)
    if asleep or matched:
        who = ", ".join(map(str, asleep)) or "finished pods only"
        return Finding(
            code=Code.DORMANT,
            severity=Severity.INFO,
            subject=str(policy),
            message=f"selects no running pod now, but {who}",
            way_out="nothing to do: it acts as soon as a pod runs",
        )
    hint = wearers.nearest(policy.pod_selector, policy.namespace)
    if not here:
        hint = hint or f"the namespace {policy.namespace} has no pods"
    return Finding(
        code=Code.UNUSED,
        severity=Severity.WARNING,
        subject=str(policy),
        message="selects no pod" + (f": {hint}" if hint else ""),
        way_out="correct the podSelector or the namespace, or remove the policy",
    )


# ---- peers that match nothing


def _empty_peers(
    universe: Universe,
    wearers: Wearers,
    policy: NetworkPolicy,
    subject: str,
    peers: tuple[SelectorPeer | IPBlock, ...],
) -> Iterator[Finding]:
    empty: list[Finding] = []
    asleep = 0
    for index, peer in enumerate(peers):
        if isinstance(peer, IPBlock) or universe.peer(peer, policy.namespace):
            continue
        namespaces = _namespaces_of(peer, policy.namespace, universe.cluster)
        selector = peer.pod_selector or LabelSelector()
        if workloads := [w for n in namespaces for w in wearers.dormant(n, selector)]:
            asleep += 1
            yield Finding(
                code=Code.DORMANT_PEER,
                severity=Severity.INFO,
                subject=f"{subject}:{index}",
                message=f"matches no running pod now, but {', '.join(map(str, workloads))}",
                way_out="nothing to do: it acts as soon as a pod runs",
            )
            continue
        why = _why_empty(peer, selector, namespaces, policy.namespace, wearers)
        empty.append(
            Finding(
                code=Code.EMPTY_PEER,
                severity=Severity.WARNING,
                subject=f"{subject}:{index}",
                message=f"matches no pod{why}",
                way_out="correct the labels, or remove the peer",
            )
        )
    if empty and len(empty) == len(peers):
        yield Finding(
            code=Code.EMPTY_RULE,
            severity=Severity.WARNING,
            subject=subject,
            message="allows nothing: " + "; ".join(finding.message for finding in empty),
            way_out="correct the labels, or remove the rule",
        )
    else:
        yield from empty


def _namespaces_of(peer: SelectorPeer, namespace: str, cluster: ClusterSnapshot) -> list[str]:
    if peer.namespace_selector is None:
        return [namespace] if peer.pod_selector is not None else []
    names = {n.name for n in cluster.namespaces} | {pod.namespace for pod in cluster.pods}
    return sorted(n for n in names if peer.namespace_selector.matches(namespace_labels(cluster, n)))


def _why_empty(peer: SelectorPeer, selector: LabelSelector, namespaces: list[str], own: str, wearers: Wearers) -> str:
    on_host = (p for n in namespaces for p in wearers.pods.get(n, ()) if p.host_network)
    if any(selector.matches(dict(pod.labels)) for pod in on_host):
        return " but pods on the host's network, which match as node addresses only"
    if peer.namespace_selector is not None and not namespaces:
        return f": {wearers.nearest_namespace(peer.namespace_selector) or 'no namespace matches'}"
    hint = next((h for n in namespaces or [own] if (h := wearers.nearest(selector, n))), "")
    return f": {hint}" if hint else ""


# ---- ports


def _named_ports(table: VerdictTable, number: int, direction: Direction, index: int, subject: str) -> Iterator[Finding]:
    universe = table.universe
    policy = universe.policies[number]
    rule = policy.rules(direction)[index]
    servers = table.subjects[number]
    if direction is Direction.EGRESS:
        servers = 0 if rule.peers else universe.everyone
        for peer in rule.peers:
            servers |= universe.peer(peer, policy.namespace)
    for port in rule.ports:
        if isinstance(port.port, str) and not any(universe.named(port, universe.classes[bit]) for bit in bits(servers)):
            protocols = sorted(
                {
                    p.protocol
                    for bit in bits(servers)
                    for pod in universe.classes[bit].pods
                    for p in pod.ports
                    if p.name == port.port
                }
            )
            other = f"; it is declared for {', '.join(protocols)}" if protocols else ""
            yield Finding(
                code=Code.UNRESOLVED_NAMED_PORT,
                severity=Severity.ERROR,
                subject=f"{subject}:{port.port}",
                message=f"no pod on the serving side declares a port {port.port} for {port.protocol}{other}",
                way_out="use the number, or declare the port's name in the container",
            )


def _poorly_scoped(table: VerdictTable, number: int) -> Iterator[Finding]:
    """Selected pods of which no rule can serve a declared port: the podSelector is wider than the rules."""
    universe = table.universe
    policy = universe.policies[number]
    rules = policy.ingress if Direction.INGRESS in policy.directions else ()
    if not rules or any(not rule.ports for rule in rules):
        return
    served: list[Pod] = []
    idle: set[Workload] = set()
    for bit in bits(table.subjects[number]):
        pods = universe.classes[bit].pods
        declared = {(p.protocol, p.port) for p in pods[0].ports}
        if not declared:
            continue
        open_ports = 0
        for rule in rules:
            for port in rule.ports:
                named = isinstance(port.port, str)
                open_ports |= universe.named(port, universe.classes[bit]) if named else universe.numeric(port)
        if any(universe.number(protocol, n) & open_ports for protocol, n in declared):
            served.extend(pods[:1])
        else:
            idle.update(pod.workload for pod in pods)
    idle -= {pod.workload for pod in served}
    if served and idle:
        yield Finding(
            code=Code.POORLY_SCOPED,
            severity=Severity.WARNING,
            subject=f"{policy}:ingress",
            message=f"also selects {', '.join(sorted(map(str, idle)))}, which declare none of the ports of its rules "
            "and so are only cut off",
            way_out="narrow the podSelector to the pods that serve these ports",
        )
