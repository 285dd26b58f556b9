"""Namespace-wide NetworkPolicies as cluster-wide baselines: ClusterNetworkPolicy, or BaselineAdminNetworkPolicy.

Enters: NetworkPolicies that select whole namespaces. Leaves: an Export. Invariant: a baseline only speaks where no
NetworkPolicy does, and it allows nothing that the policy denied; sources outside the cluster cannot be named by it
(NP-61), so a closed ingress is a difference that the Export lists.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPort, Rule, SelectorPeer
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.export.proof import MAX_EVALUATED, Export, ExportedFile, compare, judge_by_evaluation
from aggregator.policy.export.text import read, write
from aggregator.policy.manifest.adminparse import parse_admin_policy

GROUP = "policy.networking.k8s.io"
CLUSTER_POLICY, BASELINE_POLICY = "ClusterNetworkPolicy", "BaselineAdminNetworkPolicy"
_EVERYWHERE = ["0.0.0.0/0", "::/0"]
_LAST_PORT = 65535
_MAX_PRIORITY = 1000


class _CannotSay(Exception):  # noqa: N818 - never leaves this module
    """The API of baselines has no word for this."""


def export_admin(policies: Iterable[NetworkPolicy], cluster: ClusterSnapshot, *, kind: str = CLUSTER_POLICY) -> Export:
    """Those that select whole namespaces; the others are refused by name, as are rules that a baseline cannot say."""
    given = tuple(policies)
    taken: list[NetworkPolicy] = []
    objects: list[dict[str, Any]] = []
    refused: list[str] = []
    for policy in given:
        try:
            objects.append(_object(policy, kind, len(objects)))
        except _CannotSay as exc:
            refused.append(f"{policy}: {exc}")
        else:
            taken.append(policy)
    text = write(objects)
    back = [parse_admin_policy(obj) for obj in read(text)]
    judge = judge_by_evaluation(back, cluster)
    checked, differences = compare(taken, cluster, judge, most=MAX_EVALUATED) if taken else (0, ())
    return Export(
        kind=kind,
        files=(ExportedFile(path="baseline-policies.yaml", text=text),),
        checked=checked,
        differences=differences,
        refused=tuple(refused),
        notes=("A baseline is asked only for pods that no NetworkPolicy selects: remove what it replaces.",),
    )


def _object(policy: NetworkPolicy, kind: str, number: int) -> dict[str, Any]:
    if not policy.pod_selector.is_empty:
        raise _CannotSay("does not select a whole namespace")
    if kind == BASELINE_POLICY and number:
        raise _CannotSay(f"a cluster has one {BASELINE_POLICY}, which is taken")
    if number > _MAX_PRIORITY:
        raise _CannotSay(f"there are only {_MAX_PRIORITY + 1} priorities")
    spec: dict[str, Any] = {}
    if kind == CLUSTER_POLICY:
        spec = {"tier": "Baseline", "priority": number}
    spec["subject"] = {"namespaces": {"matchLabels": {NAMESPACE_NAME_LABEL: policy.namespace}}}
    for direction, key in ((Direction.INGRESS, "ingress"), (Direction.EGRESS, "egress")):
        if direction in policy.directions:
            allowing = [r for rule in policy.rules(direction) for r in _rules(rule, direction, policy.namespace, kind)]
            spec[key] = [*allowing, _deny(direction)]
    version = "v1alpha2" if kind == CLUSTER_POLICY else "v1alpha1"
    name = f"{policy.namespace}-{policy.name}" if kind == CLUSTER_POLICY else "default"
    return {"apiVersion": f"{GROUP}/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _deny(direction: Direction) -> dict[str, Any]:
    """Everything that a baseline can name."""
    if direction is Direction.INGRESS:
        return {"name": "deny-the-rest", "action": "Deny", "from": [{"namespaces": {}}]}
    everyone = [{"namespaces": {}}, {"nodes": {}}, {"networks": _EVERYWHERE}]
    return {"name": "deny-the-rest", "action": "Deny", "to": everyone}


def _rules(rule: Rule, direction: Direction, namespace: str, kind: str) -> Iterator[dict[str, Any]]:
    word = "from" if direction is Direction.INGRESS else "to"
    peers = [found for peer in rule.peers for found in _peer(peer, direction, namespace)]
    if not rule.peers:
        peers = _deny(direction)[word]
    if not peers:
        return
    found: dict[str, Any] = {"action": "Accept" if kind == CLUSTER_POLICY else "Allow", word: peers}
    if rule.ports:
        key, write_port = ("protocols", _protocol) if kind == CLUSTER_POLICY else ("ports", _port)
        found[key] = [write_port(port) for port in rule.ports]
    yield found


def _peer(peer: SelectorPeer | IPBlock, direction: Direction, namespace: str) -> Iterator[dict[str, Any]]:
    if isinstance(peer, IPBlock):
        if direction is Direction.INGRESS:
            raise _CannotSay("an ipBlock cannot be a source of a baseline")
        if peer.excepts:
            raise _CannotSay("an ipBlock with exceptions has no word in a baseline")
        yield {"networks": [str(peer.cidr)]}
        return
    if peer.namespace_selector is None and peer.pod_selector is None:
        return  # matches nothing (NP-15)
    namespaces = (
        {"matchLabels": {NAMESPACE_NAME_LABEL: namespace}}
        if peer.namespace_selector is None
        else _selector(peer.namespace_selector)
    )
    if peer.pod_selector is None:
        yield {"namespaces": namespaces}
    else:
        yield {"pods": {"namespaceSelector": namespaces, "podSelector": _selector(peer.pod_selector)}}


def _selector(selector: LabelSelector) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if selector.match_labels:
        found["matchLabels"] = dict(selector.match_labels)
    if selector.match_expressions:
        found["matchExpressions"] = [
            {"key": r.key, "operator": r.operator.value} | ({"values": list(r.values)} if r.values else {})
            for r in selector.match_expressions
        ]
    return found


def _protocol(port: PolicyPort) -> dict[str, Any]:
    """v1alpha2. A named port there means any protocol, which is more than this one."""
    if isinstance(port.port, str):
        raise _CannotSay(f"the named port {port.port} would mean every protocol")
    entry: dict[str, Any] = {}
    if port.port is not None:
        wide = port.end_port is not None and port.end_port != port.port
        chosen = {"range": {"start": port.port, "end": port.end_port}} if wide else {"number": port.port}
        entry = {"destinationPort": chosen}
    return {port.protocol.value.lower(): entry}


def _port(port: PolicyPort) -> dict[str, Any]:
    """v1alpha1."""
    if isinstance(port.port, str):
        raise _CannotSay(f"the named port {port.port} would mean every protocol")
    first = 1 if port.port is None else port.port
    last = _LAST_PORT if port.port is None else (port.end_port or first)
    protocol = Protocol(port.protocol).value
    if first == last:
        return {"portNumber": {"protocol": protocol, "port": first}}
    return {"portRange": {"protocol": protocol, "start": first, "end": last}}
